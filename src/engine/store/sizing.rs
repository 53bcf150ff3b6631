//! Sizing: from limits to a layout, with its shards, buckets and spans.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Config, Eviction,
        geometry::MAX_SHARDS,
        index::{bucket::MAX_OVERFLOW, entry},
    },
    error::{Error, Result},
    shm::{
        HeaderLen,
        layout::{Geometry, Layout, SPAN},
        slab,
    },
};

/// Up to this many items a cache with LRU or SIEVE has one shard, so that its order is exact.
pub(in crate::engine) const MAX_EXACT: u64 = 4096;
/// Bytes of the largest extent.
const EXTENT: u64 = 64 << 10;
/// Maximum address space of a region.
const MAX_RESERVE: u64 = 1 << 41;
/// Tenths of items a home bucket is made for: 5.5 of 7 slots, in a full cache 13.8 bytes of index an
/// item with what overflows. One item in fourteen is then in an overflow bucket, one more cache line
/// away, and a read of one takes 4 % more instructions on average than with 4.5, which takes 15.5
/// bytes.
const LOAD_TENTHS: u64 = 55;
/// Values of this size take at least as long to copy as everything else of a write.
const LARGE_VALUE: u64 = 4096;
/// Minimum number of concurrent writers of large values that find space beside all items.
const MIN_WRITERS: u128 = 4;
/// Minimum number of shards of a cache that accepts such values and has enough items.
const MIN_LARGE_SHARDS: u64 = 16;

/// The layout for `config`, with at most `max_spans` spans.
pub(in crate::engine) fn layout(config: &Config, max_spans: u64) -> Result<Layout> {
    let geo = geometry(config, max_spans);
    Layout::new(geo).ok_or_else(|| Error::InvalidOption {
        option: "items",
        value: config.capacity.to_string(),
        reason: "the cache would need more address space than available".to_owned(),
    })
}

fn geometry(c: &Config, max_spans: u64) -> Geometry {
    let shards = if matches!(c.eviction, Eviction::Lru | Eviction::Sieve) && c.capacity <= MAX_EXACT {
        1
    } else {
        shards(c)
    };
    let homes = (c.capacity * 10).div_ceil(LOAD_TENTHS).div_ceil(shards) * shards;
    Geometry {
        capacity: c.capacity,
        shards,
        homes,
        // One in five home buckets overflows at first; after many deletes and new keys, there are
        // 45 overflow buckets for 100 home buckets.
        overflow: (homes / shards * 3 / 4 + 64).min(MAX_OVERFLOW),
        spans: spans(c, shards).min(max_spans),
        stamps: c.eviction != Eviction::None,
        ghosts: c.eviction == Eviction::S3Fifo,
        sieve: c.eviction == Eviction::Sieve,
        checksums: c.store.is_some(),
    }
}

/// About 512 items a shard, at most 256 shards; very large caches get more, to keep a rebuild
/// short, and small ones of long values, which are copied under the lock, too.
fn shards(c: &Config) -> u64 {
    let wanted = (c.capacity / 512).clamp(1, 256).max(c.capacity / 16_384);
    // Where items are counted alone and nothing is evicted: S3-FIFO's queues are those of a shard,
    // and a clear leaves each shard its blocks until it is locked. For the same reason a shard is
    // for items enough.
    let many = c.max_value >= LARGE_VALUE && c.eviction == Eviction::None && c.blocks.is_none();
    let long = if many { (c.capacity / 16).clamp(1, MIN_LARGE_SHARDS) } else { 1 };
    wanted.max(long).next_power_of_two().min(MAX_SHARDS)
}

/// Spans that all items at their limits need, with room for what fragmentation wastes.
fn spans(c: &Config, shards: u64) -> u64 {
    let header_bytes = HeaderLen::of(c.store.is_some()) as u64;
    let longest = |value: u64| {
        let longest = entry::size(header_bytes, c.max_key, value);
        // A number takes more than some longer values.
        if value < 8 { longest } else { longest.max(entry::size(header_bytes, c.max_key, 8)) }
    };
    let items = |value: u64| u128::from(c.capacity) * u128::from(slab::wanted(longest(value)).len());
    let bytes = match c.blocks {
        // All blocks as values, each with a key, rounded up: a value of a block or less at worst doubles,
        // or is a number.
        Some(b) => {
            let beside = if b.size < 16 { items(8) } else { items(0) };
            u128::from(b.size) * u128::from(b.count) * 2 + beside + u128::from(EXTENT) * 2
        }
        None => items(c.max_value),
    };
    let largest = longest(c.max_value);
    // Of large ones half as much again, because what is free lies apart; and a new value is written
    // beside its old one, by some writers at the same time.
    let beside = u128::from(slab::wanted(largest).len()) * MIN_WRITERS;
    // In a store, what was freed is not joined by moving entries until a sync.
    let scattered = largest > 32 << 10 || c.store.is_some();
    let ample = if scattered { bytes + (bytes / 2).max(beside) } else { bytes + bytes / 4 };
    // A partly used extent for each shard, and one to move entries to.
    let slack = u128::from(shards * 2 * EXTENT);
    let total = (ample + slack).min(u128::from(MAX_RESERVE)) as u64;
    total.div_ceil(SPAN).max(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_hold_what_they_promise() {
        for capacity in [1, 2, 99, 511, 4096, 4097, 100_000, 1_000_000, 50_000_000] {
            for lru in [false, true] {
                let mut c = Config::new("c", capacity);
                c.eviction = if lru { Eviction::Lru } else { Eviction::None };
                let l = layout(&c, u64::MAX).unwrap();
                assert_eq!(l.geo.homes % l.geo.shards, 0);
                assert!(l.geo.shards.is_power_of_two());
                assert!(l.geo.homes * 7 > capacity, "{capacity}");
                assert_eq!(lru && capacity <= MAX_EXACT, lru && l.geo.shards == 1);
                assert_eq!(l.data % SPAN, 0);
            }
        }
    }
}
