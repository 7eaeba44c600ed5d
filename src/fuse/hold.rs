//! Keeps a mount busy while it has changes that are not in the bucket, so that an unmount that succeeds is a promise.
//!
//! The kernel tells a FUSE daemon of an unmount only when it is done. What can be had is that it refuses: a descriptor of
//! the mount's own root makes umount2(2) fail with `EBUSY`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Device, kernel, mountinfo};

/// By what one mount is kept busy, or a copy of it if it is not at its place any more. Does nothing once none can be
/// reached, as when it is covered by another mount.
#[derive(Debug)]
pub(super) struct Hold {
    /// The directory that the mount point is in: looking up one name in it asks no other filesystem.
    parent: OwnedFd,
    name: OsString,
    device: Device,
    state: Mutex<State>,
    /// Descriptors that are being closed.
    closing: watch::Sender<usize>,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct State {
    is_unsafe: bool,
    /// Whether an orderly unmount is under way, which brings everything into the bucket itself.
    is_waived: bool,
    root: Option<OwnedFd>,
}

impl Hold {
    /// For the mount of `device` at `point`; `None` where there is no such place.
    pub(super) fn new(point: &Path, device: Device, runtime: Handle) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(point.parent()?, flags, Mode::empty()).ok()?;
        let name = point.file_name()?.to_owned();
        Some(Self { parent, name, device, state: Mutex::default(), closing: watch::Sender::new(0), runtime })
    }

    /// Takes note of whether everything is in the bucket. Cheap, and sends no request to the mount.
    pub(super) fn tell(&self, is_safe: bool) {
        let mut state = self.state.lock();
        state.is_unsafe = !is_safe;
        self.adjust(&mut state);
    }

    /// Lets go for an unmount that will wait for the bucket, or takes hold again after one that failed.
    pub(super) fn waive(&self, is_waived: bool) {
        let mut state = self.state.lock();
        state.is_waived = is_waived;
        self.adjust(&mut state);
    }

    /// Returns when nothing is open any more that was let go.
    pub(super) async fn closed(&self) {
        // Fails only when the sender is gone, which `self` owns.
        let _ = self.closing.subscribe().wait_for(|count| *count == 0).await;
    }

    /// If the mount has been detached, this ends it, and its end may wait for requests to this very process.
    fn close(&self, root: Option<OwnedFd>) {
        let Some(root) = root else { return };
        self.closing.send_modify(|count| *count += 1);
        let closing = self.closing.clone();
        self.runtime.spawn_blocking(move || {
            drop(root);
            closing.send_modify(|count| *count -= 1);
        });
    }

    fn adjust(&self, state: &mut State) {
        if state.is_waived || !state.is_unsafe {
            self.close(state.root.take());
        } else if state.root.is_none() {
            state.root = self.open_root();
        }
    }

    /// Opens no file and reads no attribute that the kernel would have to ask this process for.
    fn open_root(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at_its_place = rustix::fs::openat(&self.parent, &self.name, flags, Mode::empty()).ok();
        let is_it = |root: &OwnedFd| kernel::device_of_root(root) == Some(self.device);
        at_its_place.filter(is_it).or_else(|| {
            let places = mountinfo::places_of(self.device).unwrap_or_default();
            let open = |place| rustix::fs::open(place, flags, Mode::empty()).ok();
            places.iter().filter_map(open).find(is_it)
        })
    }
}
