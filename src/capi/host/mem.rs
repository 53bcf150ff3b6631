//! Zeroed memory for C: mappings that are never unmapped.

use std::{mem::ManuallyDrop, ptr::NonNull};

use crate::{error::Result, os::map::Mapping};

/// `len` zero bytes, page-aligned, shared with every process forked later.
pub(crate) fn shared(len: usize) -> Result<NonNull<u8>> {
    Mapping::anonymous(len).map(leak)
}

/// `len` zero bytes, page-aligned, private to this process; memory is only used once written.
pub(crate) fn zeroes(len: usize) -> Result<NonNull<u8>> {
    Mapping::scratch(len).map(leak)
}

fn leak(mapping: Mapping) -> NonNull<u8> {
    ManuallyDrop::new(mapping).start()
}
