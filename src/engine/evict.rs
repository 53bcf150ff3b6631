//! Eviction: LRU by stamps, one a slot in an array beside the index. Exact in caches of one shard, where stamps come
//! from a counter; sampled in larger ones, where they are times.
//!
//! ```text
//! sampled stamp   milliseconds since boot, at the kernel's tick 44 | order of new items within the tick 20
//!                 (all ones: used in it)                                 all ones = no item
//! ```
//! The victim comes from the writer's own shard, whose lock it holds, and leaves its number and its block to the new
//! item. Stamps alone are looked at; of the index and the entries, only the victim's.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{
    Engine, Eviction,
    entry::{self, LEASE},
    index::{Found, bump},
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::Result,
    os::clock,
    shm::{
        layout::{header, shard},
        marks::Buffer,
        sync::*,
    },
};

/// Low bits of a sampled stamp.
const ORDER: u32 = 20;
const USED_IN_TICK: u64 = (1 << ORDER) - 1;
/// No cache counts so far: a greater one is damaged.
const LAST_COUNT: u64 = 1 << 60;

/// What an evicted item leaves to the one that takes its place: its number, whose half word still says where it was, and its
/// block, out of reach.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) id: u32,
    pub(super) off: u64,
}

impl Engine {
    /// Evicts one item by the cache's policy, but never `keep`; `false` = there was none. `near` = the shard that is
    /// looked at first. Passes over shards whose locks are held.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) when nothing was found, and a shard could not be looked at.
    pub(super) fn evict(&self, near: Option<u64>, keep: Option<u32>) -> Result<bool> {
        if self.config.eviction == Eviction::None {
            return Ok(false);
        }
        let few = if self.geo.shards == 1 { 0 } else { 32 };
        // A bucket's shard, so that shards with more buckets in use are not spared.
        let random = std::iter::repeat_with(|| self.shard_of(self.random() % self.geo.heads));
        for no in near.into_iter().chain(random).take(few) {
            if self.lock_within(no, Duration::ZERO).is_ok_and(|guard| self.evict_from(&guard, keep, false)) {
                return Ok(true);
            }
        }
        let mut evicted = false;
        let missed = self.visit(
            near.unwrap_or(0),
            self.config.lock_timeout,
            |_| true,
            |guard| {
                evicted = self.evict_from(guard, keep, true);
                !evicted
            },
        );
        if !evicted {
            self.fail_for(missed)?;
        }
        Ok(evicted)
    }

    /// Evicts one item of a shard: of a sample, if the shard has its share of all; of the `whole` shard, if it has any.
    fn evict_from(&self, guard: &ShardGuard<'_>, keep: Option<u32>, whole: bool) -> bool {
        if !whole && !self.has_share(guard) {
            return false;
        }
        let keep = keep.and_then(|id| self.place_of(id));
        let Some(f) = self.victim(guard, keep, whole) else { return false };
        let head = self.leave(guard, &f);
        self.remove(guard, head, &f);
        true
    }

    /// Makes room for an item of the shard: evicts one of it, unless something expired is to go first or the shard has
    /// much less than its share. The caller must use or free what it gets.
    pub(super) fn displace(&self, guard: &ShardGuard<'_>) -> Option<Spare> {
        if self.config.eviction == Eviction::None || !self.has_share(guard) || !self.nothing_due() {
            return None;
        }
        if self.config.eviction == Eviction::Lru && !self.exact_lru() {
            // One that was used since, or the queue's start: another one, so that what is queued stays.
            if let Some(at) = self.next_queued(guard) {
                if let Some(spare) = self.displace_plain(guard, at) {
                    return Some(spare);
                }
                if let Some(f) = self.found_at(at) {
                    return self.displace_item(guard, &f);
                }
            }
        }
        self.displace_any(guard)
    }

    /// [`Engine::displace_item`] of one in the first bucket of its chain, in a cache that does not count blocks; `None` = it is
    /// not so, and nothing was done.
    #[inline(always)]
    fn displace_plain(&self, guard: &ShardGuard<'_>, (bucket, slot): (u64, u64)) -> Option<Spare> {
        if bucket >= self.geo.heads || self.config.blocks.is_some() {
            return None;
        }
        let line = self.region.bucket(bucket);
        let word = &line[slot as usize & 7];
        // Neither an empty slot nor a link leads to an entry.
        let off = entry::slot_off(word.load(Acquire));
        let (words, _) = self.entry_at(off).filter(|(words, _)| entry::key_len(words.0) != 0)?;
        let id = entry::id(words.1);
        if self.place_of(id) != Some((bucket, slot)) {
            return None;
        }
        self.count(Counter::Evicted, 1);
        guard.add_used(-1);
        word.store(0, Release);
        self.set_stamp(bucket, slot, u64::MAX);
        bump(line);
        Some(Spare { id, off })
    }

    #[inline(never)]
    fn displace_any(&self, guard: &ShardGuard<'_>) -> Option<Spare> {
        self.displace_item(guard, &self.victim(guard, None, false)?)
    }

    /// Takes an item out of the index, but keeps its number and block.
    #[inline(never)]
    fn displace_item(&self, guard: &ShardGuard<'_>, f: &Found) -> Option<Spare> {
        // The number is this item's also by the table, or it is left to `remove`.
        if self.place_of(f.header.id) != Some((f.bucket, f.slot)) {
            return None;
        }
        let head = self.leave(guard, f);
        self.detach(guard, head, f);
        self.give_blocks(guard, self.blocks_of(&f.header));
        Some(Spare { id: f.header.id, off: f.off })
    }

    /// Whether the shard has at least half as many items as shards have on average.
    #[inline]
    fn has_share(&self, guard: &ShardGuard<'_>) -> bool {
        u64::from(guard.used().load(Relaxed)) * self.geo.shards * 2 >= self.geo.capacity
    }

    fn victim(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>, whole: bool) -> Option<Found> {
        match self.config.eviction {
            Eviction::None => None,
            Eviction::Lru if self.exact_lru() => self.oldest_of_all(guard, keep),
            Eviction::Lru => self.oldest_of_some(guard, keep, whole),
            Eviction::S3Fifo => self.first_out(guard, keep),
        }
    }

    /// What is noted of a victim before it goes; returns its chain.
    fn leave(&self, guard: &ShardGuard<'_>, f: &Found) -> u64 {
        self.count(Counter::Evicted, 1);
        let small = self.in_small_queue(f.bucket, f.slot);
        if f.bucket < self.geo.heads && !small {
            return f.bucket;
        }
        let hash = self.hash_of(f);
        if small {
            self.remember(guard, hash, &f.header);
        }
        self.head_of(hash)
    }

    /// The hash of an entry's key, under its shard's lock: without malloc.
    pub(super) fn hash_of(&self, f: &Found) -> u64 {
        let len = f.header.key_len as usize;
        let source = self.region.source(f.off + self.entry_head, len);
        let mut short = [0; 256];
        if let Some(key) = short.get_mut(..len) {
            source.copy_to_slice(key);
            return self.secret.hash(key);
        }
        let Ok(mut buffer) = Buffer::new(len) else {
            return self.secret.hash(&entry::key(&self.region, f.off, self.entry_head, &f.header));
        };
        let key = buffer.first(len);
        source.copy_to_slice(key);
        self.secret.hash(key)
    }

    /// Buckets of the shard that can have items.
    pub(super) fn buckets_of(&self, guard: &ShardGuard<'_>) -> u64 {
        self.heads_per_shard + guard.word(shard::OVERFLOW_BUMP).load(Relaxed).min(self.geo.overflow)
    }

    /// Bucket and slot of a place within the shard.
    #[inline]
    pub(super) fn place_in(&self, guard: &ShardGuard<'_>, place: u64) -> (u64, u64) {
        (self.nth_bucket(guard, place / 8), place % 8)
    }

    /// The other way round; 0 = not of this shard.
    pub(super) fn place_within(&self, guard: &ShardGuard<'_>, (bucket, slot): (u64, u64)) -> u64 {
        if self.shard_of(bucket) != guard.no {
            return 0;
        }
        let n = match bucket.checked_sub(self.geo.heads) {
            None => bucket - guard.no * self.heads_per_shard,
            Some(n) => self.heads_per_shard + n - guard.no * self.geo.overflow,
        };
        n * 8 + slot
    }

    /// The shard's bucket of this number, heads first.
    #[inline]
    pub(super) fn nth_bucket(&self, guard: &ShardGuard<'_>, n: u64) -> u64 {
        match n.checked_sub(self.heads_per_shard) {
            None => guard.no * self.heads_per_shard + n,
            Some(n) => self.geo.heads + guard.no * self.geo.overflow + n,
        }
    }

    /// The item of a slot, under its shard's lock. A late reader's stamp on a slot that became empty is taken away.
    #[inline(always)]
    pub(super) fn found_at(&self, (bucket, slot): (u64, u64)) -> Option<Found> {
        let word = self.slot(bucket, slot).load(Acquire);
        if word == 0 || entry::slot_tag(word) == entry::LINK {
            self.set_stamp(bucket, slot, u64::MAX);
            return None;
        }
        let off = entry::slot_off(word);
        let header = self.header_at(off).filter(|h| h.key_len > 0)?;
        Some(Found { bucket, slot, off, header })
    }

    /// Whether a victim must wait: in small caches a placeholder, whose filler is at work. It becomes the youngest.
    pub(super) fn is_spared(&self, f: &Found) -> bool {
        let spared = f.header.flags & LEASE != 0 && self.exact_lru() && self.items() > 1;
        if spared {
            self.touch(f.bucket, f.slot);
        }
        spared
    }

    /// Whether the LRU order is exact: one shard, stamps from a counter.
    #[inline]
    pub(super) fn exact_lru(&self) -> bool {
        self.geo.shards == 1
    }

    /// The stamp of a new item.
    #[inline]
    pub(super) fn first_stamp(&self, guard: &ShardGuard<'_>, hash: u64) -> u64 {
        match self.config.eviction {
            Eviction::None => u64::MAX,
            Eviction::Lru if self.exact_lru() => self.count_up(),
            Eviction::Lru => self.next_stamp(guard),
            Eviction::S3Fifo => self.enqueue(guard, hash),
        }
    }

    /// The stamp of an item whose store is put in order; notes in `newest` the latest of the counts that go on.
    pub(super) fn kept_stamp(&self, stamp: u64, newest: &mut u64) -> u64 {
        match self.config.eviction {
            // Not known, or damaged: the first to go.
            _ if stamp == u64::MAX => 0,
            Eviction::None => stamp,
            // The clock started again: older than all that is to come, in the old order.
            Eviction::Lru if !self.exact_lru() && self.restarted => stamp >> ORDER,
            // Later than now it is damaged.
            Eviction::Lru if !self.exact_lru() => stamp.min(clock::coarse_millis() << ORDER | USED_IN_TICK),
            Eviction::Lru if stamp > LAST_COUNT => 0,
            Eviction::Lru => {
                *newest = stamp.max(*newest);
                stamp
            }
            Eviction::S3Fifo => self.kept_place(stamp, LAST_COUNT, newest),
        }
    }

    /// Counts of a shard go on after `newest`: the word on disk may be older than the stamps.
    pub(super) fn go_on_after(&self, guard: &ShardGuard<'_>, newest: u64) {
        match self.config.eviction {
            Eviction::Lru if self.exact_lru() => {
                self.region.word(header::LRU_CLOCK).store(newest, Relaxed);
            }
            Eviction::S3Fifo => guard.word(shard::QUEUED).store(newest, Relaxed),
            _ => {}
        }
    }

    fn count_up(&self) -> u64 {
        self.region.word(header::LRU_CLOCK).fetch_add(1, Relaxed) + 1
    }

    /// The time, with the order of this tick's new items.
    fn next_stamp(&self, guard: &ShardGuard<'_>) -> u64 {
        let (word, tick) = (guard.word(shard::STAMP), clock::coarse_millis());
        let last = word.load(Relaxed);
        let same = last >> ORDER == tick && last & USED_IN_TICK < USED_IN_TICK - 1;
        let stamp = if same { last + 1 } else { tick << ORDER };
        word.store(stamp, Relaxed);
        stamp
    }

    /// Marks a slot's item as used now. The only store of readers: to the stamps, which are never anything else.
    #[inline(never)]
    pub(super) fn touch(&self, bucket: u64, slot: u64) {
        match self.config.eviction {
            Eviction::None => return,
            Eviction::Lru => {}
            Eviction::S3Fifo => return self.count_use(bucket, slot),
        }
        let old = self.stamp(bucket, slot);
        if !self.exact_lru() {
            // At most one store a tick and item.
            let now = clock::coarse_millis() << ORDER | USED_IN_TICK;
            if now != old {
                self.set_stamp(bucket, slot, now);
            }
        } else if old != self.region.word(header::LRU_CLOCK).load(Relaxed) {
            self.set_stamp(bucket, slot, self.count_up());
        }
    }
}
