//! Sampled LRU, in caches of more than one shard: the victim is the oldest item of a few random
//! buckets. A queue holds the two victims to come, so that their lines are prefetched.
//!
//! ```text
//! stamp    milliseconds since boot, at the kernel's tick 44 | order of new items within the tick 20
//!          (all ones: used in it)                                 all ones = no item
//! ```
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        index::{bucket::EntryRef, entry, places::OwnBuckets},
        policy::Hooks,
        shard::guard::ShardGuard,
    },
    os::clock,
    shm::{
        layout::{SLOTS, shard},
        sync::*,
    },
};

/// Low bits of a stamp.
const ORDER: u32 = 20;
const USED_IN_TICK: u64 = (1 << ORDER) - 1;
/// Buckets whose items are compared for a victim: about thirteen items in total.
const SAMPLES: usize = 3;
/// Attempts to find a victim before another shard is tried: a slot that a late reader stamped may
/// be empty.
const LOOKS: u64 = 8;

/// Sampled LRU; see the module.
pub(super) struct LruSampled;

impl Hooks for LruSampled {
    fn insert(e: &Engine, guard: &ShardGuard<'_>, _hash: u64, _at: (u64, u64)) -> u64 {
        e.next_stamp(guard)
    }

    #[inline(always)]
    fn hit(e: &Engine, bucket: u64, slot: u64) {
        // At most one store per tick and item.
        let now = clock::coarse_millis() << ORDER | USED_IN_TICK;
        if now != e.stamp(bucket, slot) {
            e.set_stamp(bucket, slot, now);
        }
    }

    fn victim(e: &Engine, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>, whole: bool) -> Option<EntryRef> {
        (0..LOOKS).find_map(|_| {
            let (number, _) = e.oldest_sampled(guard, keep, whole)?;
            e.found_at(e.slot_at(guard, number))
        })
    }

    #[inline(always)]
    fn chosen(e: &Engine, guard: &ShardGuard<'_>) -> Option<(u64, u64)> {
        e.next_queued(guard)
    }

    #[inline(always)]
    fn prefetch(e: &Engine, guard: &ShardGuard<'_>) -> bool {
        let queued = guard.word(shard::NEXT).load(Relaxed);
        if queued != 0 {
            e.prefetch_victim(&guard.alias(), queued);
        }
        queued != 0
    }

    fn rebase(e: &Engine, stamp: u64, _newest: &mut u64) -> u64 {
        if e.restarted {
            // The clock restarted: older than everything to come, in the old order.
            stamp >> ORDER
        } else {
            // A stamp later than now is damaged.
            stamp.min(clock::coarse_millis() << ORDER | USED_IN_TICK)
        }
    }
}

impl Engine {
    /// The time, with the order of this tick's new items in the low bits.
    fn next_stamp(&self, guard: &ShardGuard<'_>) -> u64 {
        let (word, tick) = (guard.word(shard::STAMP), clock::coarse_millis());
        let last = word.load(Relaxed);
        let same = last >> ORDER == tick && last & USED_IN_TICK < USED_IN_TICK - 1;
        let stamp = if same { last + 1 } else { tick << ORDER };
        word.store(stamp, Relaxed);
        stamp
    }

    /// Where the item is that makes room in a large cache with LRU, if it was not used since it was
    /// chosen. Its lines were prefetched during the shard's last two evictions: the victim chosen
    /// now is evicted after the next one.
    #[inline(always)]
    fn next_queued(&self, guard: &ShardGuard<'_>) -> Option<(u64, u64)> {
        let (next, last) = (guard.word(shard::NEXT), guard.word(shard::NEXT + 8));
        let queued = [next.load(Relaxed), last.load(Relaxed)];
        let own = self.own_buckets(guard);
        let fresh = self.oldest_of_others(guard, &own, queued)?;
        last.store(fresh.1 << 32 | fresh.0, Relaxed);
        next.store(queued[1], Relaxed);
        self.region.prefetch(self.layout.bucket(own.nth(&self.geo, fresh.0 / 8)));
        if let Some((bucket, slot)) = self.still_queued(&own, queued[1]) {
            let off = entry::slot_off(self.slot(bucket, slot).load(Relaxed));
            [0, 64, 128].iter().for_each(|line| self.region.prefetch(off + line));
        }
        self.still_queued(&own, queued[0])
    }

    #[inline(never)]
    fn prefetch_victim(&self, guard: &ShardGuard<'_>, queued: u64) {
        let own = self.own_buckets(guard);
        if let Some((bucket, _)) = self.queued_slot(&own, guard.word(shard::NEXT + 8).load(Relaxed)) {
            self.region.prefetch(self.layout.bucket(bucket));
        }
        self.prefetch_samples::<SAMPLES>(guard, &own);
        if let Some((bucket, slot)) = self.queued_slot(&own, queued) {
            self.region.prefetch(self.layout.stamp(bucket, slot - 1));
        }
    }

    #[inline(always)]
    fn queued_slot(&self, own: &OwnBuckets, queued: u64) -> Option<(u64, u64)> {
        let number = queued & 0xFFFF_FFFF;
        if number & 7 == 0 || number / 8 >= own.all {
            return None;
        }
        Some((own.nth(&self.geo, number / 8), number % 8)).filter(|at| self.region.has_bucket(at.0))
    }

    /// The location of a queued item, unless it was used since.
    #[inline(always)]
    fn still_queued(&self, own: &OwnBuckets, queued: u64) -> Option<(u64, u64)> {
        let (bucket, slot) = self.queued_slot(own, queued)?;
        (self.stamp(bucket, slot) << 32 == queued & !0xFFFF_FFFF).then_some((bucket, slot))
    }

    /// The least recently used of a few buckets of the shard, or of all: place within the shard,
    /// stamp.
    pub(super) fn oldest_sampled(
        &self,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        whole: bool,
    ) -> Option<(u64, u64)> {
        let kept = keep.map_or(0, |at| self.number_of_slot(guard, at));
        // Stamps are kept inverted: the oldest is the greatest word, and 0 is no item. Without
        // branches: no guess of the processor would be better than chance.
        let (mut oldest, mut greatest) = (0, 0);
        self.each_sampled::<SAMPLES>(guard, whole, |n, line| {
            for slot in 1..=SLOTS {
                let (word, number) = (line[slot as usize].load(Relaxed), n * 8 + slot);
                let word = if number == kept { 0 } else { word };
                oldest = if word > greatest { number } else { oldest };
                greatest = greatest.max(word);
            }
        });
        (greatest != 0).then_some((oldest, !greatest))
    }

    /// [`Engine::oldest_sampled`] of a few buckets, none of whose items is kept, and in which
    /// nothing is queued (the oldest would often be the same again): the slot is looked for where
    /// the oldest is.
    #[inline(always)]
    fn oldest_of_others(
        &self,
        guard: &ShardGuard<'_>,
        own: &OwnBuckets,
        queued: [u64; 2],
    ) -> Option<(u64, u64)> {
        let queued = queued.map(|at| (at & 0xFFFF_FFFF) / 8);
        let (mut oldest, mut line, mut greatest) = (0, None, 0);
        for n in self.sample::<SAMPLES>(guard, own.all) {
            let after = if n + 1 < own.all { n + 1 } else { 0 };
            let n = if (n == queued[0]) | (n == queued[1]) { after } else { n };
            let stamps = self.stamps_of(own.nth(&self.geo, n));
            let most = stamps[1..].iter().fold(0, |most, word| word.load(Relaxed).max(most));
            oldest = if most > greatest { n } else { oldest };
            line = if most > greatest { Some(stamps) } else { line };
            greatest = greatest.max(most);
        }
        let line = line?;
        // All slots instead of a search, whose end could not be predicted.
        let is_it = |slot: u64| line[slot as usize].load(Relaxed) == greatest;
        // An exclusive range: an inclusive one is no straight line.
        let slot = (1..SLOTS + 1).fold(0, |found, slot| if is_it(slot) { slot } else { found });
        // If a reader has used it meanwhile, it is no longer the oldest.
        (slot != 0).then_some((oldest * 8 + slot, !greatest))
    }
}
