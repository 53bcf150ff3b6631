//! The figures of a cache as a struct that may grow.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use super::{
    detail::{Fault, on},
    handle::ucache,
    status::Status,
};
use crate::engine::{Engine, Stats};

macro_rules! figures {
    ($($name:ident: $doc:literal;)+) => {
        /// One moment's figures. Fields are only ever added, at the end.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[allow(non_camel_case_types, reason = "the name of the header")]
        pub struct ucache_stats {
            $(#[doc = $doc] pub $name: u64,)+
        }
    };
}

figures! {
    items: "Items stored.";
    capacity: "Items that fit.";
    bytes: "Bytes of the 64 KiB spans that entries occupy.";
    reserved_bytes: "Bytes of address space.";
    blocks_used: "Blocks in use, where blocks are counted.";
    max_key: "Longest key, bytes.";
    max_value: "Longest value, bytes.";
    shards: "Independent writers' locks.";
    last_modified: "Unix time of the last change, seconds; 0 = none or not kept.";
    hits: "Reads that found their key.";
    misses: "Reads that did not.";
    stored: "Values stored.";
    deleted: "Items deleted by a caller.";
    evicted: "Items evicted to make room.";
    expired: "Expired items reclaimed.";
    cleared: "Clears.";
    full: "How often a store found the cache full.";
    rejected_limit: "Stores refused: over a limit, empty, or not a number.";
    rejected_full: "Stores refused: no room.";
    rejected_blocks: "Of these: not enough blocks.";
    no_space: "Of these: no memory or disk.";
    lock_waits: "How often a writer found a lock taken.";
    timeouts: "Operations given up after `lock_timeout`.";
    owner_dead: "Locks found with a dead owner.";
    repaired: "Shards rebuilt.";
    dropped_corrupt: "Items dropped because they were damaged.";
    lock_lost: "Operations given up because the kernel did not pass on a dead owner's lock.";
}

fn stats(engine: &Engine) -> ucache_stats {
    let (config, s): (_, Stats) = (engine.config(), engine.stats());
    ucache_stats {
        items: s.items,
        capacity: s.capacity,
        bytes: s.bytes,
        reserved_bytes: s.reserved,
        blocks_used: s.blocks_used,
        max_key: config.max_key,
        max_value: config.max_value,
        shards: s.shards,
        last_modified: s.last_modified,
        hits: s.hits,
        misses: s.misses,
        stored: s.stored,
        deleted: s.deleted,
        evicted: s.evicted,
        expired: s.expired,
        cleared: s.cleared,
        full: s.full,
        rejected_limit: s.rejected_limit,
        rejected_full: s.rejected_full,
        rejected_blocks: s.rejected_blocks,
        no_space: s.no_space,
        lock_waits: s.lock_waits,
        timeouts: s.timeouts,
        owner_dead: s.owner_dead,
        repaired: s.repaired,
        dropped_corrupt: s.dropped_corrupt,
        lock_lost: s.lock_lost,
    }
}

/// More bytes than the struct will ever have.
const LARGEST: usize = 1 << 16;

/// The figures; `size` is the caller's `sizeof (struct ucache_stats)`.
///
/// # Safety
/// See [`super`]: handle; `out` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_stat(cache: *mut ucache, out: *mut ucache_stats, size: usize) -> c_int {
    // SAFETY: the caller vouches for the handle.
    unsafe {
        on(cache, |engine| {
            if out.is_null() || size == 0 || size > LARGEST || !size.is_multiple_of(size_of::<u64>()) {
                return Err(Fault::Argument("the struct is NULL, or its size is none that it ever had"));
            }
            let figures = stats(engine);
            let known = size.min(size_of::<ucache_stats>());
            // SAFETY: the caller vouches for `size` bytes; a newer caller's fields are 0.
            ptr::write_bytes(out.cast::<u8>().add(known), 0, size - known);
            ptr::copy_nonoverlapping((&raw const figures).cast::<c_void>().cast::<u8>(), out.cast(), known);
            Ok(Status::Ok)
        })
    }
}
