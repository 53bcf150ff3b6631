//! S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023), sampled.
//!
//! ```text
//! stamp    main queue 1 | uses since queued, at most 3: 2 | place in the queue 61        all ones = no item
//! ghost    mark of the key's hash 32 | how many its shard had evicted then, low half 32
//! ```
//! Each shard has both queues and a ghost list. There are no links: who is first is found among the items of a few
//! random buckets of the shard, as LRU's victim is. A hit counts up to three uses by CAS, so that a late one changes no
//! other item; what a death leaves wrong (the count of the small queue) recovery puts right.
#![forbid(unsafe_code)]

use super::{
    Engine, Eviction,
    entry::{Header, LEASE},
    index::Found,
    shard::ShardGuard,
};
use crate::shm::{
    layout::{SLOTS, shard},
    sync::*,
};

const MAIN: u64 = 1 << 63;
const USE: u64 = 1 << 61;
const USES: u64 = 3 * USE;
const PLACE: u64 = USE - 1;
const NO_ITEM: u64 = u64::MAX;
/// The small queue's share: one item in so many.
const SMALL_SHARE: u64 = 10;
/// Buckets whose items are compared: about seventeen items, one or two of them of the small queue.
const SAMPLES: usize = 4;
/// Items that may get another round before one goes whatever its uses.
const ROUNDS: u32 = 16;

/// First of a queue among the sampled: place within the shard, stamp.
type First = Option<(u64, u64)>;

impl Engine {
    /// The stamp of a new item of the shard: behind the small queue, or behind the main one if the ghost list knows it.
    pub(super) fn enqueue(&self, guard: &ShardGuard<'_>, hash: u64) -> u64 {
        let place = self.last_place(guard);
        if self.is_ghost(guard, hash) {
            return MAIN | place;
        }
        let small = guard.word(shard::SMALL);
        small.store(small.load(Relaxed) + 1, Relaxed);
        place
    }

    /// An item of the shard goes, for whatever reason.
    #[inline]
    pub(super) fn dequeue(&self, guard: &ShardGuard<'_>, bucket: u64, slot: u64) {
        if self.in_small_queue(bucket, slot) {
            self.leave_small_queue(guard);
        }
    }

    #[inline]
    pub(super) fn in_small_queue(&self, bucket: u64, slot: u64) -> bool {
        self.config.eviction == Eviction::S3Fifo && self.stamp(bucket, slot) & MAIN == 0
    }

    fn leave_small_queue(&self, guard: &ShardGuard<'_>) {
        let small = guard.word(shard::SMALL);
        small.store(small.load(Relaxed).saturating_sub(1), Relaxed);
    }

    fn last_place(&self, guard: &ShardGuard<'_>) -> u64 {
        let queued = guard.word(shard::QUEUED);
        let place = (queued.load(Relaxed) + 1) & PLACE;
        queued.store(place, Relaxed);
        place
    }

    /// The stamp of an item of a store from another boot: at the front of its queue if its place is beyond `last`.
    pub(super) fn kept_place(&self, stamp: u64, last: u64, newest: &mut u64) -> u64 {
        let place = stamp & PLACE;
        if place > last {
            return stamp & !PLACE;
        }
        *newest = place.max(*newest);
        stamp
    }

    /// Counts a use of a slot's item. Three times an item and round at most; then hits write nothing.
    #[inline]
    pub(super) fn count_use(&self, bucket: u64, slot: u64) {
        let stamp = self.stamp(bucket, slot);
        if stamp & USES != USES {
            self.change_stamp(bucket, slot, stamp, stamp + USE);
        }
    }

    /// The item of the shard that goes, but never the one at `keep`.
    pub(super) fn first_out(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>) -> Option<Found> {
        for round in 1..=ROUNDS {
            let [small, main] = self.firsts(guard, keep);
            let due =
                guard.word(shard::SMALL).load(Relaxed) * SMALL_SHARE > guard.used().load(Relaxed).into();
            let (place, stamp) = if due { small.or(main) } else { main.or(small) }?;
            let at = self.place_in(guard, place);
            if stamp & USES == 0 || round == ROUNDS {
                let f = self.found_at(at)?;
                // A placeholder's filler is at work: it gets every other round.
                if f.header.flags & LEASE == 0 || round == ROUNDS {
                    return Some(f);
                }
            }
            self.requeue(guard, at, stamp);
        }
        None
    }

    /// Another round, in the main queue: from the small one without its uses, from the main one with one less.
    fn requeue(&self, guard: &ShardGuard<'_>, (bucket, slot): (u64, u64), stamp: u64) {
        let uses = if stamp & MAIN == 0 { 0 } else { (stamp & USES).saturating_sub(USE) };
        if self.change_stamp(bucket, slot, stamp, MAIN | uses | self.last_place(guard)) && stamp & MAIN == 0 {
            self.leave_small_queue(guard);
        }
    }

    /// The first of the small and of the main queue among the items of a few buckets of a shard; of all its buckets
    /// when these are empty.
    fn firsts(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>) -> [First; 2] {
        let kept = keep.map_or(0, |at| self.place_within(guard, at));
        for whole in [false, true] {
            let mut firsts: [First; 2] = [None, None];
            self.each_sampled::<SAMPLES>(guard, whole, |n, line| {
                for slot in 1..=SLOTS {
                    let (place, stamp) = (n * 8 + slot, !line[slot as usize].load(Relaxed));
                    let first = &mut firsts[usize::from(stamp & MAIN != 0)];
                    let earlier = first.is_none_or(|(_, s)| stamp & PLACE < s & PLACE);
                    if stamp != NO_ITEM && earlier && place != kept {
                        *first = Some((place, stamp));
                    }
                }
            });
            if firsts != [None, None] {
                return firsts;
            }
        }
        [None, None]
    }

    fn ghost(&self, guard: &ShardGuard<'_>, hash: u64) -> &AtomicU64 {
        let words = self.geo.ghost_words();
        // Bits that do not choose the shard or the bucket.
        let at = guard.no * words + (hash & (words - 1));
        self.region.word(self.layout.ghosts + at * 8)
    }

    /// Notes what leaves the small queue.
    pub(super) fn remember(&self, guard: &ShardGuard<'_>, hash: u64, header: &Header) {
        if header.flags & LEASE == 0 {
            let ghosted = guard.word(shard::GHOSTED);
            let now = (ghosted.load(Relaxed) + 1) & 0xFFFF_FFFF;
            ghosted.store(now, Relaxed);
            self.ghost(guard, hash).store(mark(hash) | now, Relaxed);
        }
    }

    /// Whether the key left the small queue not longer ago than the shard holds items.
    fn is_ghost(&self, guard: &ShardGuard<'_>, hash: u64) -> bool {
        let ghost = self.ghost(guard, hash).load(Relaxed);
        let ago = (guard.word(shard::GHOSTED).load(Relaxed) as u32).wrapping_sub(ghost as u32);
        ghost & !0xFFFF_FFFF == mark(hash) && u64::from(ago) <= self.geo.capacity / self.geo.shards
    }
}

/// The hash's high half, never 0.
fn mark(hash: u64) -> u64 {
    (hash | 1 << 32) & !0xFFFF_FFFF
}
