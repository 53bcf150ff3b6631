//! What the memory of a cache is used for, as a struct that may grow.

use std::ffi::c_int;

use super::{
    call::with_cache,
    figures::{figures, give},
    open::ucache,
    status::Status,
};
use crate::engine::Memory;

figures! {
    /// What the memory is used for. Fields are only ever added, at the end.
    ucache_memory: |m: &Memory|
    payload = m.payload, "Keys and values of items, bytes; all that follow likewise.";
    resident = m.resident, "Pages in memory, index and tables included; 0 = unknown.";
    overhead = m.overhead, "Resident without the payload.";
    fragmentation = m.fragmentation, "Of extents and large blocks, what no entry uses.";
    disk = m.disk, "Blocks on disk; 0 = no store.";
    reserved = m.reserved, "Address space.";
    entries = m.entries, "Entries with header and padding.";
    extents = m.extents, "Extents that give blocks.";
    large_blocks = m.large_blocks, "Large blocks.";
    leaving = m.leaving, "Extents that are being emptied, or wait for a sync.";
    idle = m.idle, "Free spans that may have pages.";
    holes = m.holes, "Free spans of a store without blocks on disk.";
    sampled = m.sampled.into(), "1 = an estimate from a sample.";
}

/// What the memory is used for; `size` is the caller's `sizeof (struct ucache_memory)`.
///
/// # Safety
/// See [`super`]: handle; `out` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_memory(cache: *mut ucache, out: *mut ucache_memory, size: usize) -> c_int {
    // SAFETY: the caller vouches for the handle, and for `size` bytes.
    unsafe {
        with_cache(cache, |tier| {
            give(out, size, || ucache_memory::of(&tier.engine().memory_sample()))?;
            Ok(Status::Ok)
        })
    }
}
