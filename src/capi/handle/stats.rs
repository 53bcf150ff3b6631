//! The statistics of a cache as a struct that may grow.

use std::ffi::c_int;

use super::{
    call::with_cache,
    figures::{figures, give},
    open::ucache,
    status::Status,
};
use crate::{
    engine::{Config, NearStats, Stats},
    near::Tier,
};

figures! {
    /// A snapshot of the statistics. Fields are only ever added, at the end.
    ucache_stats: |config: &Config, s: &Stats, near: &dyn Fn(fn(&NearStats) -> u64) -> u64|
    items = s.items, "Items stored.";
    capacity = s.capacity, "Items that fit.";
    bytes = s.bytes, "Bytes of the spans that entries occupy.";
    reserved_bytes = s.reserved, "Bytes of address space.";
    blocks_used = s.blocks_used, "Blocks in use, if blocks are counted.";
    max_key = config.max_key, "Longest key, bytes.";
    max_value = config.max_value, "Longest value, bytes.";
    shards = s.shards, "Shards, each with its own writer lock.";
    last_modified = s.last_modified, "Unix time of the last change, seconds; 0 = none or not kept.";
    hits = s.hits, "Reads that found their key.";
    misses = s.misses, "Reads that missed.";
    stored = s.stored, "Values stored.";
    deleted = s.deleted, "Items deleted by a caller.";
    evicted = s.evicted, "Items evicted to make room.";
    expired = s.expired, "Expired items reclaimed.";
    cleared = s.cleared, "Clears.";
    full = s.full, "How often a store found the cache full.";
    rejected_limit = s.rejected_limit, "Stores refused: over a limit, empty, or not a number.";
    rejected_full = s.rejected_full, "Stores refused: no room.";
    rejected_blocks = s.rejected_blocks, "Of these: not enough blocks.";
    no_space = s.no_space, "Of these: no memory or disk.";
    lock_waits = s.lock_waits, "How often a writer found a lock taken.";
    timeouts = s.timeouts, "Operations given up after `lock_timeout`.";
    owner_dead = s.owner_dead, "Locks found with a dead owner.";
    repaired = s.repaired, "Shards rebuilt.";
    dropped_corrupt = s.dropped_corrupt, "Items dropped because they were damaged.";
    lock_lost = s.lock_lost, "Operations given up because the kernel did not release a dead owner's lock.";
    moved = s.moved, "Entries moved to release sparse memory.";
    compacted_bytes = s.compacted_bytes, "Bytes of these.";
    near_up = near(|n| n.beat_age_ms.is_some().into()), "Whether the copies are kept up to date; 0 = every read asks the server.";
    near_beat_age_ms = near(|n| n.silence_ms), "Milliseconds since the time up to which all changes are known.";
    near_owner_pid = near(|n| n.owner_pid.into()), "The process that keeps the copies up to date.";
    near_hits = near(|n| n.hits), "Reads that a copy answered.";
    near_misses = near(|n| n.misses), "Reads that asked the server because there was no copy.";
    near_bypassed = near(|n| n.bypassed), "Reads that asked the server because copies were not known to be new enough.";
    near_fills = near(|n| n.fills), "Copies stored.";
    near_fills_voided = near(|n| n.fills_voided), "Copies not stored: changed meanwhile, or no place.";
    near_invalidated = near(|n| n.invalidated), "Messages that removed a copy.";
    near_invalidated_absent = near(|n| n.invalidated_absent), "Messages about keys without a copy.";
    near_flushes = near(|n| n.flushes), "Times that the owner removed all copies.";
    near_stale_served = near(|n| n.stale_served), "Reads that an old copy answered because the server was down.";
    near_terms = near(|n| n.terms), "How often the copies were begun anew.";
    backend_up = near(|n| (!n.is_down).into()), "Whether the last call reached the server (all primaries of a cluster); 0 = calls fail at once.";
    backend_requests = near(|n| n.requests), "Round trips to the server that were tried.";
    backend_errors = near(|n| n.errors), "Calls that failed at the server.";
    backend_timeouts = near(|n| n.timeouts), "Of these: waited for the whole `backend_timeout`.";
    backend_connects = near(|n| n.connects), "Connections to the server made.";
    backend_elsewhere = near(|n| n.elsewhere), "Of these: to a server with which the owner has none.";
    near_absent = near(|n| n.absent), "Reads of keys that were known not to be there.";
}

fn stats(cache: &Tier) -> ucache_stats {
    let copies = cache.copy_stats();
    let near = |figure: fn(&NearStats) -> u64| copies.as_ref().map_or(0, figure);
    ucache_stats::of(cache.engine().config(), &cache.stats(), &near)
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
