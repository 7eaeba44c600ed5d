//! A file mapped into memory and shared with whoever else uses it.

// Mapping a file is what the test is about, and there is no safe call for it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::ptr::null_mut;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A shared, writable mapping of the first `len` bytes of a file.
pub(crate) struct Mapping {
    start: *mut c_void,
    len: usize,
}

impl Mapping {
    pub(crate) fn of(file: &File, len: usize) -> rustix::io::Result<Mapping> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(null_mut(), len, access, MapFlags::SHARED, file, 0) }?;
        Ok(Mapping { start, len })
    }

    /// Copies `bytes` into the mapping.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        // SAFETY: the range was just checked to lie within the mapping, which lives as long as `self`.
        unsafe { self.start.cast::<u8>().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Copies `len` bytes out of the mapping.
    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.len);
        let mut bytes = vec![0; len];
        // SAFETY: as in `write`, in the other direction.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(self.start.cast::<u8>().add(at), len) };
        bytes
    }

    /// Waits until what was written is in the file.
    pub(crate) fn sync(&self) {
        // SAFETY: exactly the range that was mapped.
        unsafe { msync(self.start, self.len, MsyncFlags::SYNC) }.expect("msync");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped; nothing borrowed from it can be left.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}
