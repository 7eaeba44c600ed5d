//! Translates kernel requests to `vfs` calls and back; knows kernel flags and nothing else.
//!
//! Every operation is polled once on the thread that read its request. What is ready then is answered there,
//! without waking anybody; what must wait for the bucket is handed to the runtime together with its reply,
//! so that no FUSE thread ever blocks (`serve`). Mounting and unmounting are done here and not by `fuser`
//! (`mount`, `kernel`), because a mount must never be undone twice: the second time may hit a stranger's.

mod acl;
mod births;
mod bridge;
mod convert;
mod core;
mod counted;
mod dirs;
mod error;
mod filesystem;
mod giving;
mod hold;
mod kernel;
mod killed;
mod listing;
mod mount;
mod mountinfo;
mod opens;
mod options;
mod pages;
mod permission;
mod serve;
mod xattrs;

#[doc(hidden)]
pub use core::negotiate;
pub use counted::Operations;
pub use error::MountError;
#[doc(hidden)]
pub use mount::mount_for_comparison;
pub use mount::{KernelCache, Mounted, Unmount, check_mount_point, is_dead, mount};
pub use mountinfo::{Device, device_of, listed_options, mount_point_of, other_places, owner_of};
pub use options::MountOptions;
