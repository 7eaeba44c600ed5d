//! What `docs/SEMANTICS.md` promises, on real mounts: each test quotes the sentences that it holds.

// Helpers outside `#[test]` functions fail a test by panicking too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/mod.rs"]
mod support;

// Also of the tests in `mounted`, which use more of it.
#[allow(dead_code)]
mod mapping;
#[allow(dead_code)]
mod place;

#[path = "semantics/commits.rs"]
mod commits;

#[path = "semantics/damage.rs"]
mod damage;

#[path = "semantics/follower.rs"]
mod follower;

#[path = "semantics/large.rs"]
mod large;

#[path = "semantics/locks.rs"]
mod locks;

#[path = "semantics/opened.rs"]
mod opened;

#[path = "semantics/pages.rs"]
mod pages;

#[path = "semantics/privileges.rs"]
mod privileges;

#[path = "semantics/saving.rs"]
mod saving;

#[path = "semantics/space.rs"]
mod space;

#[path = "semantics/times.rs"]
mod times;

#[path = "semantics/users.rs"]
mod users;

#[path = "semantics/xattrs.rs"]
mod xattrs;
