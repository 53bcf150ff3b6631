//! What the memory of a cache is used for, as a struct that may grow.

use std::ffi::c_int;

use super::{call::with_cache, open::ucache, stats::give, status::Status};
use crate::engine::Memory;

macro_rules! figures {
    ($($name:ident: $doc:literal;)+) => {
        /// What the memory is used for. Fields are only ever added, at the end.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[allow(non_camel_case_types, reason = "the name of the header")]
        pub struct ucache_memory {
            $(#[doc = $doc] pub $name: u64,)+
        }
    };
}

figures! {
    payload: "Keys and values of items, bytes; all that follow likewise.";
    resident: "Pages in memory, index and tables included; 0 = unknown.";
    overhead: "Resident without the payload.";
    fragmentation: "Of extents and large blocks, what no entry uses.";
    disk: "Blocks on disk; 0 = no store.";
    reserved: "Address space.";
    entries: "Entries with header and padding.";
    extents: "Extents that give blocks.";
    large_blocks: "Large blocks.";
    leaving: "Extents that are being emptied, or wait for a sync.";
    idle: "Free spans that may have pages.";
    holes: "Free spans of a store without blocks on disk.";
    sampled: "1 = an estimate from a sample.";
}

impl From<&Memory> for ucache_memory {
    fn from(m: &Memory) -> Self {
        Self {
            payload: m.payload,
            resident: m.resident,
            overhead: m.overhead,
            fragmentation: m.fragmentation,
            disk: m.disk,
            reserved: m.reserved,
            entries: m.entries,
            extents: m.extents,
            large_blocks: m.large_blocks,
            leaving: m.leaving,
            idle: m.idle,
            holes: m.holes,
            sampled: m.sampled.into(),
        }
    }
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
            give(out, size, || ucache_memory::from(&tier.engine().memory_sample()))?;
            Ok(Status::Ok)
        })
    }
}
