//! From limits to a layout: how many shards, buckets and spans.
#![forbid(unsafe_code)]

use super::{Config, Eviction, entry};
use crate::{
    error::{Error, Result},
    shm::{
        block,
        layout::{Geometry, Layout, SPAN},
    },
};

/// Up to so many items a cache with LRU has one shard, so that its order is exact.
pub(super) const EXACT_LRU: u64 = 4096;
/// Most shards that a cache has.
pub(super) const MAX_SHARDS: u64 = 4096;
/// Most address space that a region reserves.
const MAX_RESERVE: u64 = 1 << 45;
/// Tenths of items a head bucket is made for: 4.5 of 7 slots, about 15 bytes of index an item with what overflows. One
/// item in twenty is then in an overflow bucket, a line further; with 5.5, and a byte and a half less, it is one in ten.
const LOAD_TENTHS: u64 = 45;
/// Values of so many bytes take as long to copy as everything else of a write, or longer.
const LONG: u64 = 4096;
/// Writers of large values that find room beside all items at the same time, at least.
const WRITERS: u128 = 4;
/// Least shards of a cache that accepts such values and has items enough.
const LONG_SHARDS: u64 = 16;

/// The layout for `config`, with at most `max_spans` spans.
pub(super) fn layout(config: &Config, max_spans: u64) -> Result<Layout> {
    let geo = geometry(config, max_spans);
    Layout::new(geo).ok_or_else(|| Error::InvalidOption {
        option: "items",
        value: config.capacity.to_string(),
        reason: "the cache would need more address space than there is".to_owned(),
    })
}

fn geometry(c: &Config, max_spans: u64) -> Geometry {
    let shards = if c.eviction == Eviction::Lru && c.capacity <= EXACT_LRU { 1 } else { shards(c) };
    let heads = (c.capacity * 10).div_ceil(LOAD_TENTHS).div_ceil(shards) * shards;
    Geometry {
        capacity: c.capacity,
        shards,
        heads,
        // One in eleven heads overflows on average; a shard's luck has room for many times its spread.
        overflow: heads / shards / 2 + 64,
        spans: spans(c, shards).min(max_spans),
        stamps: c.eviction != Eviction::None,
        ghosts: c.eviction == Eviction::S3Fifo,
        checksums: c.store.is_some(),
    }
}

/// About 512 items a shard, at most 256 shards; very large caches get more, to keep a rebuild short, and small ones of
/// long values, which are copied under the lock, too.
fn shards(c: &Config) -> u64 {
    let wanted = (c.capacity / 512).clamp(1, 256).max(c.capacity / 16_384);
    // Where items are counted alone and nothing is evicted: S3-FIFO's queues are those of a shard, and a clear leaves
    // each shard its blocks until it is locked. For the same reason a shard is for items enough.
    let many = c.max_value >= LONG && c.eviction == Eviction::None && c.blocks.is_none();
    let long = if many { (c.capacity / 16).clamp(1, LONG_SHARDS) } else { 1 };
    wanted.max(long).next_power_of_two().min(MAX_SHARDS)
}

/// Spans that all items at their limits need, with room for what classes and fragmentation waste.
fn spans(c: &Config, shards: u64) -> u64 {
    let head = entry::header_len(c.store.is_some()) as u64;
    let items = |value: u64| {
        u128::from(c.capacity) * u128::from(block::wanted(entry::size(head, c.max_key, value)).len())
    };
    let bytes = match c.blocks {
        // All blocks as values, each with a key, rounded up: a value of a block or less at worst doubles.
        Some(b) => u128::from(b.size) * u128::from(b.count) * 2 + items(0) + u128::from(SPAN) * 2,
        None => items(c.max_value),
    };
    let largest = entry::size(head, c.max_key, c.max_value);
    // Of large ones half as much again, because what is free lies apart; and a new value is written beside its old one, by
    // some writers at the same time.
    let beside = u128::from(block::wanted(largest).len()) * WRITERS;
    let ample = if largest > 32 << 10 { bytes + (bytes / 2).max(beside) } else { bytes + bytes / 8 };
    // A partly used span for each class that an entry can have, of each shard; one without an item is given up when
    // memory is short, so there are no more than items.
    let classes = block::classes(entry::size(head, c.max_key, c.max_value));
    let slack = u128::from((shards * classes).min(c.capacity + classes) * SPAN);
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
                assert_eq!(l.geo.heads % l.geo.shards, 0);
                assert!(l.geo.shards.is_power_of_two());
                assert!(l.geo.heads * 7 > capacity, "{capacity}");
                assert_eq!(lru && capacity <= EXACT_LRU, lru && l.geo.shards == 1);
                assert_eq!(l.data % SPAN, 0);
            }
        }
    }
}
