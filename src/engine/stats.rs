//! Exact counters without shared lines: a slot of its own for each thread, plain increments, summed when read.
//!
//! A slot belongs to a thread until the thread ends; whoever needs one takes a free slot or adopts a dead thread's and
//! goes on counting in it. Who finds none counts in slot 0, which is shared, with atomic additions.
#![forbid(unsafe_code)]

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use super::{Engine, Stats, generation};
use crate::{
    os::{
        guard,
        process::{Owner, fork_count, fork_mark},
        thread::{self, First},
    },
    shm::{
        Region,
        layout::{STATS, STATS_SLOTS, header},
        span,
        sync::*,
    },
};

/// What is counted; the value is the word in the slot (word 0 is its owner).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Counter {
    Hits = 1,
    Misses,
    Stored,
    Deleted,
    Evicted,
    Expired,
    Full,
    RejectedLimit,
    RejectedFull,
    NoSpace,
    Timeouts,
    OwnerDead,
    Repaired,
    DroppedCorrupt,
    Cleared,
    RejectedBlocks,
    LockWaits,
    LockLost,
}

/// An engine's serial and place for a note, the slot there, the region.
type Slot = (u64, First, u64, Weak<Region>);

/// Slots of this thread, one a cache; freed when the thread ends.
#[derive(Debug, Default)]
struct Mine {
    forks: u32,
    slots: Vec<Slot>,
}

impl Drop for Mine {
    fn drop(&mut self) {
        if self.forks != fork_count() {
            return; // The slots are the parent's.
        }
        for (serial, first, slot, region) in &self.slots {
            // What the thread counts after this, in other destructors, is not for a slot that somebody else may have by then.
            thread::forget(note_name(*serial, self.forks));
            first.forget();
            if let (Some(region), true) = (region.upgrade(), *slot != 0) {
                region.word(region.layout().stats + slot * STATS).store(0, Release);
            }
        }
    }
}

thread_local! {
    static MINE: RefCell<Mine> = const { RefCell::new(Mine { forks: 0, slots: Vec::new() }) };
}

/// Under what a thread notes its slot of an engine: also how many forks ago, as a child has other slots than its parent. Nothing
/// is noted for 0 forks, which is who has not asked yet.
#[inline(always)]
fn note_name(serial: u64, forks: u32) -> u64 {
    u64::from(forks & 0xFF_FFFF) << 32 | serial & 0xFFFF_FFFF
}

const _: () = assert!(STATS_SLOTS == 1 << u8::BITS, "a note holds any slot's number");

impl Engine {
    /// Adds to a counter of this thread.
    #[inline(always)]
    pub(super) fn count(&self, counter: Counter, by: u64) {
        self.count_in(&self.region, counter, by);
    }

    /// [`Engine::count`] for who has found the region already.
    #[inline(always)]
    pub(super) fn count_in(&self, region: &Region, counter: Counter, by: u64) {
        let Some(slot) = self.first.noted() else { return self.count_as_another(counter, by) };
        // Nobody else writes here: no locked instruction.
        let word = region.stats(slot, counter as usize);
        word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// [`Engine::count`] of other threads than the first.
    #[inline(never)]
    fn count_as_another(&self, counter: Counter, by: u64) {
        if let Some(slot) = thread::noted(note_name(self.serial, fork_mark())) {
            let word = self.region.stats(slot, counter as usize);
            word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
        } else {
            self.count_elsewhere(counter, by);
        }
    }

    #[cold]
    #[inline(never)]
    fn count_elsewhere(&self, counter: Counter, by: u64) {
        let slot = self.find_slot() as u8;
        let word = self.region.stats(slot, counter as usize);
        if slot == 0 {
            word.fetch_add(by, Relaxed);
        } else {
            self.first.note(slot);
            thread::note(note_name(self.serial, fork_count()), slot);
            word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
        }
    }

    /// This thread's slot; 0 = none of its own.
    fn find_slot(&self) -> u64 {
        let forks = fork_count();
        // In a destructor of the thread, after MINE is gone, the shared slot serves.
        MINE.try_with(|mine| {
            let Ok(mut mine) = mine.try_borrow_mut() else { return 0 };
            if mine.forks != forks {
                mine.slots.clear();
                mine.forks = forks;
            }
            if let Some(&(_, _, slot, _)) = mine.slots.iter().find(|(serial, ..)| *serial == self.serial) {
                return slot;
            }
            mine.slots.retain(|(.., region)| region.strong_count() > 0);
            // Where there is no memory for a note of it, no slot is taken: nobody would give it back.
            if mine.slots.try_reserve(1).is_err() {
                return 0;
            }
            if self.config.store_guard {
                guard::admit();
            }
            let slot = self.claim_slot();
            mine.slots.push((self.serial, self.first, slot, Arc::downgrade(&self.region)));
            slot
        })
        .unwrap_or(0)
    }

    /// A free slot, else a dead thread's, else 0.
    fn claim_slot(&self) -> u64 {
        // Elsewhere other threads have the ids that owners of slots are known by.
        if !matches!(self.foreign_namespace(), Ok(None)) {
            return 0;
        }
        let me = Owner::me().to_word();
        let owner = |slot: u64| self.region.word(self.layout.stats + slot * STATS);
        for slot in 1..STATS_SLOTS {
            if owner(slot).load(Relaxed) == 0 && owner(slot).compare_exchange(0, me, AcqRel, Relaxed).is_ok()
            {
                return slot;
            }
        }
        for slot in 1..STATS_SLOTS {
            let old = owner(slot).load(Relaxed);
            if Owner::from_word(old).is_dead()
                && owner(slot).compare_exchange(old, me, AcqRel, Relaxed).is_ok()
            {
                return slot;
            }
        }
        0
    }

    pub(super) fn total(&self, counter: Counter) -> u64 {
        let word =
            |slot: u64| self.region.word(self.layout.stats + slot * STATS + counter as u64 * 8).load(Relaxed);
        (0..STATS_SLOTS).map(word).fold(0, u64::wrapping_add)
    }

    /// Items stored, those of shards that a clear has emptied but nobody has reaped left out.
    pub(super) fn items(&self) -> u64 {
        let current = generation::number(self.clear_gen());
        let homes = (0..self.geo.shards).map(|no| self.region.shard(no));
        homes.filter(|home| home.reaped() == current).map(|home| u64::from(home.used().load(Relaxed))).sum()
    }

    /// Items by the shards' counts, whatever a clear has left to reap. Never more than item numbers in use: a count goes
    /// up after its item is there and down before it goes.
    pub(super) fn counted_items(&self) -> u64 {
        (0..self.geo.shards).map(|no| u64::from(self.region.shard(no).used().load(Relaxed))).sum()
    }

    /// One moment's figures.
    pub fn stats(&self) -> Stats {
        Stats {
            items: self.items(),
            capacity: self.geo.capacity,
            blocks_used: self.blocks_used(),
            bytes: span::in_use(&self.region) * crate::shm::layout::SPAN,
            hits: self.total(Counter::Hits),
            misses: self.total(Counter::Misses),
            stored: self.total(Counter::Stored),
            deleted: self.total(Counter::Deleted),
            evicted: self.total(Counter::Evicted),
            expired: self.total(Counter::Expired),
            full: self.total(Counter::Full),
            rejected_limit: self.total(Counter::RejectedLimit),
            rejected_full: self.total(Counter::RejectedFull),
            rejected_blocks: self.total(Counter::RejectedBlocks),
            no_space: self.total(Counter::NoSpace),
            lock_waits: self.total(Counter::LockWaits),
            timeouts: self.total(Counter::Timeouts),
            owner_dead: self.total(Counter::OwnerDead),
            lock_lost: self.total(Counter::LockLost),
            repaired: self.total(Counter::Repaired),
            dropped_corrupt: self.total(Counter::DroppedCorrupt),
            cleared: self.total(Counter::Cleared),
            last_modified: self.region.word(header::LAST_MODIFIED).load(Relaxed),
            last_unclean: self.region.word(header::UNCLEAN).load(Relaxed) == 2,
            shards: self.geo.shards,
            buckets: self.buckets,
            reserved: self.layout.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Config, Touch};

    #[test]
    fn a_thread_counts_in_each_of_many_caches() {
        let caches: Vec<_> = (0..24)
            .map(|n| Engine::create(&Config::new(&format!("many-{n}"), 10)).expect("a cache"))
            .collect();
        for _ in 0..3 {
            for cache in &caches {
                assert!(cache.get(b"none", Touch::Yes, &mut Vec::new()).expect("get").is_none());
            }
        }
        for cache in &caches {
            assert_eq!((cache.stats().misses, cache.total(Counter::Misses)), (3, 3));
            // One slot of this thread's own, whatever was in use in between.
            let owned = |slot: u64| cache.region.word(cache.layout.stats + slot * STATS).load(Relaxed) != 0;
            assert_eq!((1..STATS_SLOTS).filter(|&slot| owned(slot)).count(), 1);
        }
    }
}
