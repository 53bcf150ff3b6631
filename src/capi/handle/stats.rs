//! The statistics of a cache as a struct that may grow.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use super::{call::with_cache, error::CallError, open::ucache, status::Status};
use crate::{
    engine::{NearStats, Stats},
    near::Tier,
};

macro_rules! figures {
    ($($name:ident: $doc:literal;)+) => {
        /// A snapshot of the statistics. Fields are only ever added, at the end.
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
    bytes: "Bytes of the spans that entries occupy.";
    reserved_bytes: "Bytes of address space.";
    blocks_used: "Blocks in use, if blocks are counted.";
    max_key: "Longest key, bytes.";
    max_value: "Longest value, bytes.";
    shards: "Shards, each with its own writer lock.";
    last_modified: "Unix time of the last change, seconds; 0 = none or not kept.";
    hits: "Reads that found their key.";
    misses: "Reads that missed.";
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
    lock_lost: "Operations given up because the kernel did not release a dead owner's lock.";
    moved: "Entries moved to release sparse memory.";
    compacted_bytes: "Bytes of these.";
    near_up: "Whether the copies are kept up to date; 0 = every read asks the server.";
    near_beat_age_ms: "Milliseconds since the time up to which all changes are known.";
    near_owner_pid: "The process that keeps the copies up to date.";
    near_hits: "Reads that a copy answered.";
    near_misses: "Reads that asked the server because there was no copy.";
    near_bypassed: "Reads that asked the server because copies were not known to be new enough.";
    near_fills: "Copies stored.";
    near_fills_voided: "Copies not stored: changed meanwhile, or no place.";
    near_invalidated: "Messages that removed a copy.";
    near_invalidated_absent: "Messages about keys without a copy.";
    near_flushes: "Messages that removed all copies.";
    near_stale_served: "Reads that an old copy answered because the server was down.";
    near_terms: "How often the copies were begun anew.";
    backend_up: "Whether the last call reached the server; 0 = calls fail at once.";
    backend_requests: "Round trips to the server that were tried.";
    backend_errors: "Calls that failed at the server.";
    backend_timeouts: "Of these: waited for the whole `backend_timeout`.";
    backend_connects: "Connections to the server made.";
    backend_elsewhere: "Of these: to a server with which the owner has none.";
    near_absent: "Reads of keys that were known not to be there.";
}

fn stats(cache: &Tier) -> ucache_stats {
    let (config, s): (_, Stats) = (cache.engine().config(), cache.stats());
    let copies = cache.copy_stats();
    let near = |figure: fn(&NearStats) -> u64| copies.as_ref().map_or(0, figure);
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
        moved: s.moved,
        compacted_bytes: s.compacted_bytes,
        near_up: near(|n| n.beat_age_ms.is_some().into()),
        near_beat_age_ms: near(|n| n.silence_ms),
        near_owner_pid: near(|n| n.owner_pid.into()),
        near_hits: near(|n| n.hits),
        near_misses: near(|n| n.misses),
        near_bypassed: near(|n| n.bypassed),
        near_fills: near(|n| n.fills),
        near_fills_voided: near(|n| n.fills_voided),
        near_invalidated: near(|n| n.invalidated),
        near_invalidated_absent: near(|n| n.invalidated_absent),
        near_flushes: near(|n| n.flushes),
        near_stale_served: near(|n| n.stale_served),
        near_terms: near(|n| n.terms),
        backend_up: near(|n| (!n.is_down).into()),
        backend_requests: near(|n| n.requests),
        backend_errors: near(|n| n.errors),
        backend_timeouts: near(|n| n.timeouts),
        backend_connects: near(|n| n.connects),
        backend_elsewhere: near(|n| n.elsewhere),
        near_absent: near(|n| n.absent),
    }
}

/// Larger than the structs will ever be.
const LARGEST: usize = 1 << 16;

/// Writes a struct that may grow, as far as the caller knows it; a newer caller's fields are 0.
///
/// # Safety
/// `out` is NULL or has `size` writable bytes.
pub(super) unsafe fn give<T>(out: *mut T, size: usize, figures: impl FnOnce() -> T) -> Result<(), CallError> {
    if out.is_null() || size == 0 || size > LARGEST || !size.is_multiple_of(size_of::<u64>()) {
        return Err(CallError::Argument("the struct is NULL, or its size is not that of any version of it"));
    }
    let figures = figures();
    let known = size.min(size_of::<T>());
    // SAFETY: the caller vouches for `size` bytes.
    unsafe {
        ptr::write_bytes(out.cast::<u8>().add(known), 0, size - known);
        ptr::copy_nonoverlapping((&raw const figures).cast::<c_void>().cast::<u8>(), out.cast(), known);
    }
    Ok(())
}

/// The statistics; `size` is the caller's `sizeof (struct ucache_stats)`.
///
/// # Safety
/// See [`super`]: handle; `out` is NULL or has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_stat(cache: *mut ucache, out: *mut ucache_stats, size: usize) -> c_int {
    // SAFETY: the caller vouches for the handle, and for `size` bytes.
    unsafe {
        with_cache(cache, |engine| {
            give(out, size, || stats(engine))?;
            Ok(Status::Ok)
        })
    }
}
