//! Zeroed memory that outlives a fork: mappings that are never unmapped, because C keeps pointers to them.

use std::{ptr, ptr::NonNull};

use crate::error::{Error, Result};

/// `len` zero bytes, page-aligned, seen and written by every process forked later.
pub(super) fn shared(len: usize) -> Result<NonNull<u8>> {
    map(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS)
}

/// `len` zero bytes, page-aligned, read-only and without memory of their own.
pub(super) fn zeroes(len: usize) -> Result<NonNull<u8>> {
    map(len, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
}

fn map(len: usize, protection: i32, flags: i32) -> Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(Error::last_os("mmap"));
    }
    NonNull::new(at.cast()).ok_or(Error::Damaged("mmap gave address 0"))
}
