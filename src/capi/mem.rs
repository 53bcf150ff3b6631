//! Zeroed memory that C keeps pointers to: mappings that are never unmapped.

use std::{mem::ManuallyDrop, ptr::NonNull};

use crate::{error::Result, os::map::Mapping};

/// `len` zero bytes, page-aligned, seen and written by every process forked later.
pub(super) fn shared(len: usize) -> Result<NonNull<u8>> {
    Mapping::anonymous(len).map(leak)
}

/// `len` zero bytes, page-aligned, of this process alone; they take no memory until written.
pub(super) fn zeroes(len: usize) -> Result<NonNull<u8>> {
    Mapping::scratch(len).map(leak)
}

fn leak(mapping: Mapping) -> NonNull<u8> {
    ManuallyDrop::new(mapping).start()
}
