//! The first page of a store, mapped without becoming a user of it: locks and marks to be held and
//! changed by tests.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    fs::OpenOptions,
    num::NonZeroUsize,
    os::fd::AsRawFd,
    path::Path,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

// As in src/shm/layout.rs and layout/header.rs.
pub(crate) const FOREIGN: usize = 264;
pub(crate) const LEASE_SEQ: usize = 512;
pub(crate) const LEASE_WAITED: usize = 516;
pub(crate) const LOCK_FOREIGN: usize = 2048;
pub(crate) const LOCK_POOL: usize = 2112;
/// Of the first shard.
pub(crate) const LOCK_SHARD: usize = 4096;

/// The header and the first shard. Stays mapped.
#[derive(Debug)]
pub(crate) struct Header(NonNull<u8>);

impl Header {
    pub(crate) fn map(store: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(store).expect("the store");
        let (prot, len) =
            (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, NonZeroUsize::new(8192).expect("two pages"));
        // SAFETY: a mapping at an address that the kernel chooses touches no other memory.
        let at = unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, &file, 0) }.expect("mmap");
        Self(at.cast())
    }

    pub(crate) fn half(&self, at: usize) -> &AtomicU32 {
        // SAFETY: within the mapping, aligned, and accessed as an atomic only.
        unsafe { self.0.add(at).cast().as_ref() }
    }

    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.0.add(at).cast().as_ref() }
    }

    /// Takes one of the locks, which must be free, for the calling thread.
    pub(crate) fn lock(&self, at: usize) {
        // SAFETY: the store's creator initialised the mutex at this offset.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.0.add(at).cast().as_ptr()) }, 0);
    }
}

/// The lock that serialises openers of a store; released with the file.
pub(crate) fn opening_lock(store: &Path) -> std::fs::File {
    let file = OpenOptions::new().read(true).write(true).open(store).expect("the store");
    // SAFETY: all zeros is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    (lock.l_start, lock.l_len) = (i64::MAX - 2, 1);
    // SAFETY: a valid flock that outlives the call.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }, 0);
    file
}
