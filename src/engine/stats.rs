//! Exact counters without shared cache lines: each thread has a slot of its own, increments are
//! plain stores, and reads sum all slots.
//!
//! A slot belongs to a thread until the thread ends. A new thread takes a free slot, or adopts a
//! dead thread's and continues its counts. Without either it counts in slot 0, which is shared, by
//! atomic additions.
#![forbid(unsafe_code)]

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use crate::{
    engine::{Engine, generation},
    os::{
        process::{Owner, fork_count, fork_mark},
        sigbus,
        thread::{self, First},
    },
    shm::{
        Region,
        layout::{STATS, STATS_SLOTS, header},
        sync::*,
    },
};

/// The counters; the value is the index of the word in a slot (word 0 is its owner).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "pages are the plugin's"))]
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
    ServerHits,
    Bypassed,
    Fills,
    FillsVoided,
    Invalidated,
    InvalidatedAbsent,
    Flushes,
    StaleServed,
    Requests,
    RequestErrors,
    RequestTimeouts,
    Connects,
    Elsewhere,
    Absent,
    PageHits,
    PageStale,
    PageCoalesced,
    PageMisses,
    PageBypassed,
    PageRefused,
    PageBytes,
    PageMicros,
    Moved,
    CompactedBytes,
    PageRefreshed,
    PageQueued,
    PageUnqueued,
    PageBypassedMethod,
    PageBypassedBody,
    PageBypassedAuthorization,
    PageBypassedCondition,
    PageBypassedForm,
    PageBypassedRange,
    PageBypassedUri,
    PageBypassedHeader,
    PageBypassedCache,
    PageRefusedStatus,
    PageRefusedSetCookie,
    PageRefusedPrivate,
    PageRefusedNoCache,
    PageRefusedCookie,
    PageRefusedExpired,
    PageRefusedVary,
    PageRefusedVariants,
    PageRefusedSize,
    PageRefusedFailed,
    PageRefusedPartial,
    PageRefusedUnseen,
    PageRefusedForm,
    PageRefusedCondition,
    PageRefusedUses,
    PageRefusedLost,
}

const _: () = assert!((Counter::PageRefusedLost as u64) < STATS / 8, "a slot holds all counters");

/// An engine's serial and note cell, the slot there, the region.
type Slot = (u64, First, u64, Weak<Region>);

/// Slots of this thread, one per cache; freed when the thread ends.
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
            // What the thread counts after this, in other destructors, must not go to a slot that
            // may have another owner by then.
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

/// Under what a thread notes its slot of an engine: also how many forks ago, as a child has other
/// slots than its parent. Nothing is noted for 0 forks: the process has not registered yet.
#[inline(always)]
fn note_name(serial: u64, forks: u32) -> u64 {
    u64::from(forks & 0xFF_FFFF) << 32 | serial & 0xFFFF_FFFF
}

const _: () = assert!(STATS_SLOTS == 1 << u8::BITS, "a note holds any slot's number");

impl Engine {
    /// Adds to a counter of this thread.
    #[inline(always)]
    pub(crate) fn count(&self, counter: Counter, by: u64) {
        self.count_in(&self.region, counter, by);
    }

    /// [`Engine::count`] for a caller that has the region at hand.
    #[inline(always)]
    pub(in crate::engine) fn count_in(&self, region: &Region, counter: Counter, by: u64) {
        let Some(slot) = self.first.noted() else { return self.count_as_another(counter, by) };
        // No other thread writes here: no locked instruction.
        let word = region.stats(slot, counter as usize);
        word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// [`Engine::count`] for threads other than the first.
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

    /// For a thread that counts beside the program's own, before it counts: it leaves the quickest
    /// way to others.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only a backend has such a thread"))]
    pub(crate) fn count_in_background(&self) {
        let slot = self.find_slot() as u8;
        if slot != 0 {
            thread::note(note_name(self.serial, fork_count()), slot);
        }
    }

    /// This thread's slot; 0 = the shared one.
    fn find_slot(&self) -> u64 {
        let forks = fork_count();
        // In a destructor that runs after MINE is gone, the shared slot is used.
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
            // Without memory for a note no slot is taken: it would never be freed.
            if mine.slots.try_reserve(1).is_err() {
                return 0;
            }
            if self.config.store_guard {
                sigbus::admit();
            }
            let slot = self.claim_slot();
            mine.slots.push((self.serial, self.first, slot, Arc::downgrade(&self.region)));
            slot
        })
        .unwrap_or(0)
    }

    /// A free slot, else a dead thread's, else 0.
    fn claim_slot(&self) -> u64 {
        // In another namespace, other threads may have the ids by which slot owners are known.
        if !matches!(self.foreign_namespace(), Ok(None)) {
            return 0;
        }
        let me = Owner::me().to_word();
        let owner = |slot: u64| self.region.word(self.layout.stats + slot * STATS);
        for slot in 1..STATS_SLOTS {
            if owner(slot).load(Relaxed) != 0 {
                continue;
            }
            // Before it is taken: what a slot has counted is not missed after a death.
            self.region.word(header::STATS_USED).fetch_max(slot + 1, Relaxed);
            if owner(slot).compare_exchange(0, me, AcqRel, Relaxed).is_ok() {
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

    /// Goes on with the counts of the store that this one replaces.
    pub(in crate::engine) fn continue_counts(&self, old: &Self) {
        for counter in 1..STATS / 8 {
            let more = old.total_of(counter).wrapping_sub(self.total_of(counter));
            self.region.word(self.layout.stats + counter * 8).fetch_add(more, Relaxed);
        }
        let modified = old.region.word(header::LAST_MODIFIED).load(Relaxed);
        self.region.word(header::LAST_MODIFIED).store(modified, Relaxed);
    }

    pub(in crate::engine) fn total(&self, counter: Counter) -> u64 {
        self.total_of(counter as u64)
    }

    fn total_of(&self, counter: u64) -> u64 {
        let word = |slot: u64| self.region.word(self.layout.stats + slot * STATS + counter * 8).load(Relaxed);
        // Others have no page yet, and are not given one.
        let used = self.region.word(header::STATS_USED).load(Relaxed).clamp(1, STATS_SLOTS);
        (0..used).map(word).fold(0, u64::wrapping_add)
    }

    /// Items stored, without those of shards that are not reaped since the last clear.
    pub(in crate::engine) fn items(&self) -> u64 {
        let current = generation::number(self.clear_gen());
        let all = (0..self.geo.shards).map(|no| self.region.shard(no));
        all.filter(|cells| cells.reaped() == current).map(|cells| cells.used()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Config, Touch};

    #[test]
    fn a_thread_has_a_slot_in_each_of_many_caches() {
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
            // One slot owned by this thread, whatever it used in between.
            let owned = |slot: u64| cache.region.word(cache.layout.stats + slot * STATS).load(Relaxed) != 0;
            assert_eq!((1..STATS_SLOTS).filter(|&slot| owned(slot)).count(), 1);
        }
    }
}
