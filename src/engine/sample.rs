//! The oldest of a sample, in caches with LRU of more than one shard; and the queue of the victims to come, whose lines are
//! asked for ahead.
#![forbid(unsafe_code)]

use super::{Engine, entry, index::Found, next_random, shard::ShardGuard};
use crate::shm::{
    Line,
    layout::{BUCKET, SLOTS, shard},
    sync::*,
};

/// Buckets whose items are compared for a sampled victim: about thirteen items.
const SAMPLES: usize = 3;
/// Looks for a victim before another shard's turn: what a late reader marked may be gone.
const LOOKS: u64 = 8;

impl Engine {
    /// The least recently used of a few buckets of the shard, or of all.
    pub(super) fn oldest_of_some(
        &self,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        whole: bool,
    ) -> Option<Found> {
        let looks = if self.exact_lru() { self.geo.capacity.clamp(8, 4096) } else { LOOKS };
        for _ in 0..looks {
            if let Some((place, _)) = self.oldest_sampled(guard, keep, whole)
                && let Some(f) = self.found_at(self.place_in(guard, place))
                && !self.is_spared(&f)
            {
                return Some(f);
            }
        }
        None
    }

    /// Where the item is that makes room in a large cache with LRU, if it was not used since it was chosen. Its lines were
    /// asked for while the shard's last two victims went: what is chosen now goes after the next one.
    #[inline(always)]
    pub(super) fn next_queued(&self, guard: &ShardGuard<'_>) -> Option<(u64, u64)> {
        let (next, last) = (guard.word(shard::NEXT), guard.word(shard::NEXT + 8));
        let queued = [next.load(Relaxed), last.load(Relaxed)];
        let fresh = self.oldest_of_others(guard, queued)?;
        last.store(fresh.1 << 32 | fresh.0, Relaxed);
        next.store(queued[1], Relaxed);
        let (bucket, _) = self.place_in(guard, fresh.0);
        self.region.prefetch(self.layout.bucket(bucket));
        if let Some((bucket, slot)) = self.still_queued(guard, queued[1]) {
            let off = entry::slot_off(self.slot(bucket, slot).load(Relaxed));
            [0, 64, 128].iter().for_each(|line| self.region.prefetch(off + line));
        }
        self.still_queued(guard, queued[0])
    }

    /// Asks for the lines that the shard's next eviction will need, if there was one before: while the key's own bucket,
    /// which nobody could ask for earlier, is waited for. Tells whether there was one.
    #[inline(always)]
    pub(super) fn foresee(&self, guard: &ShardGuard<'_>) -> bool {
        let queued = guard.word(shard::NEXT).load(Relaxed);
        if queued != 0 {
            self.foresee_victim(guard, queued);
        }
        queued != 0
    }

    #[inline(never)]
    fn foresee_victim(&self, guard: &ShardGuard<'_>, queued: u64) {
        if let Some((bucket, _)) = self.place_queued(guard, guard.word(shard::NEXT + 8).load(Relaxed)) {
            self.region.prefetch(self.layout.bucket(bucket));
        }
        self.ask_for_drawn::<SAMPLES>(guard);
        if let Some((bucket, slot)) = self.place_queued(guard, queued) {
            self.region.prefetch(self.layout.stamp(bucket, 0));
            if let Some(h) = self.header_at(entry::slot_off(self.slot(bucket, slot).load(Relaxed))) {
                self.region.prefetch(self.layout.ids + u64::from(h.id) * 4);
            }
        }
    }

    #[inline(always)]
    fn place_queued(&self, guard: &ShardGuard<'_>, queued: u64) -> Option<(u64, u64)> {
        let place = queued & 0xFFFF_FFFF;
        if place & 7 == 0 || place / 8 >= self.buckets_of(guard) {
            return None;
        }
        Some(self.place_in(guard, place))
    }

    /// Where an item of the queue is, if it was not used since.
    #[inline(always)]
    fn still_queued(&self, guard: &ShardGuard<'_>, queued: u64) -> Option<(u64, u64)> {
        let (bucket, slot) = self.place_queued(guard, queued)?;
        (self.stamp(bucket, slot) << 32 == queued & !0xFFFF_FFFF).then_some((bucket, slot))
    }

    /// The least recently used of a few buckets of the shard, or of all: place within the shard, stamp.
    fn oldest_sampled(
        &self,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        whole: bool,
    ) -> Option<(u64, u64)> {
        let kept = keep.map_or(0, |at| self.place_within(guard, at));
        // Stamps are kept inverted: the oldest is the greatest word, and 0 is no item. Without branches: no guess of
        // the processor would be better than chance.
        let (mut oldest, mut greatest) = (0, 0);
        self.each_sampled::<SAMPLES>(guard, whole, |n, line| {
            for slot in 1..=SLOTS {
                let (word, place) = (line[slot as usize].load(Relaxed), n * 8 + slot);
                let word = if place == kept { 0 } else { word };
                oldest = if word > greatest { place } else { oldest };
                greatest = greatest.max(word);
            }
        });
        (greatest != 0).then_some((oldest, !greatest))
    }

    /// [`Engine::oldest_sampled`] of a few buckets, none of whose items is kept, and in which nothing is queued (the oldest would
    /// often be the same again): the slot is looked for where the oldest is.
    #[inline(always)]
    fn oldest_of_others(&self, guard: &ShardGuard<'_>, queued: [u64; 2]) -> Option<(u64, u64)> {
        let all = self.buckets_of(guard);
        let queued = queued.map(|at| (at & 0xFFFF_FFFF) / 8);
        let (mut oldest, mut greatest) = (0, 0);
        for n in self.draw::<SAMPLES>(guard, all) {
            let after = if n + 1 < all { n + 1 } else { 0 };
            let n = if (n == queued[0]) | (n == queued[1]) { after } else { n };
            let line = self.stamps_of(self.nth_bucket(guard, n));
            let most = line[1..].iter().fold(0, |most, word| word.load(Relaxed).max(most));
            oldest = if most > greatest { n } else { oldest };
            greatest = greatest.max(most);
        }
        let line = self.stamps_of(self.nth_bucket(guard, oldest));
        // A bit for each slot instead of a search: it would end at any of them.
        let same = (1..=SLOTS)
            .fold(0u32, |same, slot| same | u32::from(line[slot as usize].load(Relaxed) == greatest) << slot);
        // A reader may have used it meanwhile: it is not the oldest any more.
        (same != 0 && greatest != 0).then(|| (oldest * 8 + u64::from(same.trailing_zeros()), !greatest))
    }

    /// Calls `f` with number and stamps of `N` random buckets of the shard (of all, for the `whole` one).
    #[inline]
    pub(super) fn each_sampled<const N: usize>(
        &self,
        guard: &ShardGuard<'_>,
        whole: bool,
        mut f: impl FnMut(u64, &[AtomicU64; 8]),
    ) {
        let all = self.buckets_of(guard);
        let look = |n: u64| f(n, self.stamps_of(self.nth_bucket(guard, n)));
        if whole {
            return (0..all).for_each(look);
        }
        self.draw::<N>(guard, all).into_iter().for_each(look);
        // Until the shard's next turn these lines have come.
        self.ask_for_drawn::<N>(guard);
    }

    /// The stamps of a bucket, at the places of its slots.
    #[inline(always)]
    pub(super) fn stamps_of(&self, bucket: u64) -> &Line {
        self.region.line(self.layout.stamps + bucket * BUCKET)
    }

    /// Numbers below `all` by the shard's own random bits, which [`Engine::ask_for_drawn`] knows before.
    #[inline(always)]
    fn draw<const N: usize>(&self, guard: &ShardGuard<'_>, all: u64) -> [u64; N] {
        let word = guard.word(shard::DRAWN);
        let before = word.load(Relaxed);
        let now = if before == 0 { self.random() } else { before };
        word.store(next_random(now), Relaxed);
        drawn(now, all)
    }

    #[inline(always)]
    fn ask_for_drawn<const N: usize>(&self, guard: &ShardGuard<'_>) {
        let random = guard.word(shard::DRAWN).load(Relaxed);
        for n in drawn::<N>(random, self.buckets_of(guard)) {
            self.region.prefetch(self.layout.stamp(self.nth_bucket(guard, n), 0));
        }
    }
}

/// Numbers below `all` that random bits choose.
#[inline(always)]
fn drawn<const N: usize>(random: u64, all: u64) -> [u64; N] {
    let mut numbers = [0; N];
    for (i, number) in numbers.iter_mut().enumerate() {
        *number = ((random >> (i * 16) & 0xFFFF) * all) >> 16;
    }
    numbers
}
