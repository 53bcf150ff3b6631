//! Eviction: one item is replaced by another. The policy chooses the victim.
//!
//! The victim comes from the writer's own shard, whose lock it holds, and leaves its right to be
//! stored and its block to the new item.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{
        Engine,
        geometry::id_of,
        index::{
            bucket::{EntryRef, bump_seq},
            entry,
        },
        policy::Policy,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::sync::*,
};

/// The unreachable block that an evicted item leaves to the one that replaces it. The shard's quota
/// counts it as stored.
#[derive(Debug)]
pub(in crate::engine) struct Evicted {
    pub(in crate::engine) off: u64,
    /// Bytes of its entry.
    pub(in crate::engine) bytes: u64,
}

impl Engine {
    /// Evicts one item by the cache's policy, but never `keep`; `false` = there was none. `near` =
    /// the shard that is looked at first. Passes over shards whose locks are held.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) when nothing was found, and a shard could not be
    /// looked at.
    pub(in crate::engine) fn evict(&self, near: Option<u64>, keep: Option<u32>) -> Result<bool> {
        if self.policy == Policy::None {
            return Ok(false);
        }
        let few = if self.geo.shards == 1 { 0 } else { 32 };
        // The shard of a random bucket: shards are chosen by their share of the index.
        let random = std::iter::repeat_with(|| self.shard_of(self.random() % self.geo.homes));
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

    /// Evicts one item of a shard: of a sample, if the shard has its share of all; of the `whole`
    /// shard, if it has any.
    fn evict_from(&self, guard: &ShardGuard<'_>, keep: Option<u32>, whole: bool) -> bool {
        if !whole && !self.has_fair_share(guard) {
            return false;
        }
        let keep = keep.and_then(|id| self.slot_of(id));
        let Some(f) = self.victim(guard, keep, whole) else { return false };
        let home = self.on_evict(guard, &f);
        self.remove(guard, home, &f);
        true
    }

    /// Evicts an item of the shard to make room for a new one, unless expired items are to go first
    /// or the shard holds much less than its share. The caller must use or free right and block.
    #[inline(always)]
    pub(in crate::engine) fn evict_for_insert(&self, guard: &ShardGuard<'_>) -> Option<Evicted> {
        if self.policy == Policy::None || !self.has_fair_share(guard) || !self.nothing_due() {
            return None;
        }
        if let Some(at) = self.chosen_victim(guard) {
            if let Some(evicted) = self.evict_fast(at) {
                return Some(evicted);
            }
            if let Some(f) = self.found_at(at) {
                return Some(self.evict_item(guard, &f));
            }
        }
        // None was queued, or it was used since: choose another one and keep the queue.
        self.evict_any(guard)
    }

    /// [`Engine::evict_item`] of one in the first bucket of its chain, in a cache that does not
    /// count blocks; `None` = it is not so, and nothing was done.
    #[inline(always)]
    fn evict_fast(&self, (bucket, slot): (u64, u64)) -> Option<Evicted> {
        if bucket >= self.geo.homes || self.config.blocks.is_some() {
            return None;
        }
        let line = self.region.bucket(bucket);
        let word = &line[slot as usize & 7];
        // An empty slot leads to no entry.
        let off = entry::slot_off(word.load(Acquire));
        let (words, _) = self.entry_at(off).filter(|(words, _)| entry::key_len(words.0) != 0)?;
        self.count(Counter::Evicted, 1);
        self.end_life(off, words.0);
        word.store(0, Release);
        self.set_stamp(bucket, slot, u64::MAX);
        bump_seq(line);
        Some(Evicted { off, bytes: entry::packed_size(self.header_bytes, words.0) })
    }

    /// Evicts an item of a chain, the one that the policy's stamps put first, but never `keep`;
    /// `false` = there is none.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout).
    #[cold]
    pub(in crate::engine) fn evict_from_chain(&self, home: u64, keep: Option<u32>) -> Result<bool> {
        if self.policy == Policy::None {
            return Ok(false);
        }
        let guard = self.lock(self.shard_of(home))?;
        let (mut first, mut least) = (None, u64::MAX);
        self.each_slot(home, |bucket, slot, _| {
            let stamp = self.stamp(bucket, slot);
            if stamp < least && keep != Some(id_of(bucket, slot)) {
                (first, least) = (Some((bucket, slot)), stamp);
            }
            true
        });
        let Some(f) = first.and_then(|at| self.found_at(at)) else { return Ok(false) };
        self.on_evict(&guard, &f);
        self.remove(&guard, home, &f);
        Ok(true)
    }

    #[inline(never)]
    fn evict_any(&self, guard: &ShardGuard<'_>) -> Option<Evicted> {
        Some(self.evict_item(guard, &self.victim(guard, None, false)?))
    }

    /// Takes an item out of the index, but keeps its right and block.
    #[inline(never)]
    fn evict_item(&self, guard: &ShardGuard<'_>, f: &EntryRef) -> Evicted {
        let home = self.on_evict(guard, f);
        self.detach(guard, home, f);
        self.give_blocks(guard, self.blocks_of(&f.header));
        Evicted { off: f.off, bytes: f.header.total(self.header_bytes) }
    }

    /// Whether the shard has at least half of the average number of items.
    #[inline]
    fn has_fair_share(&self, guard: &ShardGuard<'_>) -> bool {
        guard.used() * self.geo.shards * 2 >= self.geo.capacity
    }
}
