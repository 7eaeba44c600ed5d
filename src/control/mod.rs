//! A Unix socket on a running mount: status, flush, unmount.
