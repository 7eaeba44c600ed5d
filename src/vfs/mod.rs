//! A POSIX filesystem with no FUSE in it.
