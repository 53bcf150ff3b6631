//! S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP
//! 2023), sampled.
//!
//! ```text
//! stamp    main queue 1 | uses since queued, at most 3: 2 | place in the queue 61        all ones = no item
//! ghost    mark of the key's hash 32 | how many its shard had evicted then, low half 32
//! ```
//! Each shard has both queues and a ghost list. There are no links: the first of a queue is found
//! among the items of a few random buckets of the shard, as LRU's victim is. A hit counts up to
//! three uses by CAS, so that a late one changes no other item; a rebuild corrects what a death
//! leaves wrong (the count of the small queue).
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        index::{
            bucket::EntryRef,
            entry::{Header, LEASE},
        },
        policy::{Hooks, LAST_COUNT},
        shard::guard::ShardGuard,
    },
    shm::{
        layout::{SLOTS, shard},
        sync::*,
    },
};

const MAIN: u64 = 1 << 63;
const USE: u64 = 1 << 61;
const USES: u64 = 3 * USE;
const POSITION: u64 = USE - 1;
const NO_ITEM: u64 = u64::MAX;
/// The small queue's share: one item in this many.
const SMALL_SHARE: u64 = 10;
/// Buckets whose items are compared: about seventeen items, one or two of them in the small queue.
const SAMPLES: usize = 4;
/// Items that may be requeued before one is evicted whatever its uses.
const ROUNDS: u32 = 16;

/// The sampled head of a queue: location within the shard, stamp.
type First = Option<(u64, u64)>;

/// S3-FIFO; see the module.
pub(super) struct S3Fifo;

impl Hooks for S3Fifo {
    /// Appends to the small queue, or to the main one if the ghost list has the key.
    fn insert(e: &Engine, guard: &ShardGuard<'_>, hash: u64, _at: (u64, u64)) -> u64 {
        let position = e.next_position(guard);
        if e.is_ghost(guard, hash) {
            return MAIN | position;
        }
        let small = guard.word(shard::SMALL);
        small.store(small.load(Relaxed) + 1, Relaxed);
        position
    }

    /// Counts a use, at most three per item and round; after that hits write nothing.
    #[inline(always)]
    fn hit(e: &Engine, bucket: u64, slot: u64) {
        let stamp = e.stamp(bucket, slot);
        if stamp & USES != USES {
            e.change_stamp(bucket, slot, stamp, stamp + USE);
        }
    }

    #[inline]
    fn remove(e: &Engine, guard: &ShardGuard<'_>, bucket: u64, slot: u64) {
        if e.in_small_queue(bucket, slot) {
            e.leave_small_queue(guard);
        }
    }

    fn is_remembered(e: &Engine, f: &EntryRef) -> bool {
        e.in_small_queue(f.bucket, f.slot)
    }

    /// Records an item that leaves the small queue in the ghost list.
    fn remember(e: &Engine, guard: &ShardGuard<'_>, hash: u64, header: &Header) {
        if header.flags & LEASE == 0 {
            let words = e.ghost_words(guard);
            if words == 0 {
                return;
            }
            let ghosted = guard.word(shard::GHOSTED);
            let now = (ghosted.load(Relaxed) + 1) & 0xFFFF_FFFF;
            ghosted.store(now, Relaxed);
            e.ghost(guard, words, hash).store(mark(hash) | now, Relaxed);
        }
    }

    fn victim(
        e: &Engine,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        _whole: bool,
    ) -> Option<EntryRef> {
        for round in 1..=ROUNDS {
            let [small, main] = e.firsts(guard, keep);
            let due = guard.word(shard::SMALL).load(Relaxed) * SMALL_SHARE > guard.used();
            let (number, stamp) = if due { small.or(main) } else { main.or(small) }?;
            let at = e.slot_at(guard, number);
            if stamp & USES == 0 || round == ROUNDS {
                let f = e.found_at(at)?;
                // A placeholder with an active filler: it is requeued as long as possible.
                if f.header.flags & LEASE == 0 || round == ROUNDS {
                    return Some(f);
                }
            }
            e.requeue(guard, at, stamp);
        }
        None
    }

    fn rebuild_item(e: &Engine, bucket: u64, slot: u64) -> u64 {
        e.in_small_queue(bucket, slot).into()
    }

    fn rebuilt(_e: &Engine, guard: &ShardGuard<'_>, small: u64) {
        guard.word(shard::SMALL).store(small, Relaxed);
    }

    /// A damaged position becomes the front of its queue.
    fn rebase(_e: &Engine, stamp: u64, newest: &mut u64) -> u64 {
        let position = stamp & POSITION;
        if position > LAST_COUNT {
            return stamp & !POSITION;
        }
        *newest = position.max(*newest);
        stamp
    }

    fn resume(_e: &Engine, guard: &ShardGuard<'_>, newest: u64) {
        guard.word(shard::QUEUED).store(newest, Relaxed);
    }
}

impl Engine {
    #[inline]
    fn in_small_queue(&self, bucket: u64, slot: u64) -> bool {
        self.stamp(bucket, slot) & MAIN == 0
    }

    fn leave_small_queue(&self, guard: &ShardGuard<'_>) {
        let small = guard.word(shard::SMALL);
        small.store(small.load(Relaxed).saturating_sub(1), Relaxed);
    }

    fn next_position(&self, guard: &ShardGuard<'_>) -> u64 {
        let queued = guard.word(shard::QUEUED);
        let position = (queued.load(Relaxed) + 1) & POSITION;
        queued.store(position, Relaxed);
        position
    }

    /// Another round, in the main queue: from the small one without its uses, from the main one
    /// with one less.
    fn requeue(&self, guard: &ShardGuard<'_>, (bucket, slot): (u64, u64), stamp: u64) {
        let uses = if stamp & MAIN == 0 { 0 } else { (stamp & USES).saturating_sub(USE) };
        if self.change_stamp(bucket, slot, stamp, MAIN | uses | self.next_position(guard))
            && stamp & MAIN == 0
        {
            self.leave_small_queue(guard);
        }
    }

    /// The first of the small and of the main queue among the items of a few buckets of a shard; of
    /// all its buckets when these are empty.
    fn firsts(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>) -> [First; 2] {
        let kept = keep.map_or(0, |at| self.number_of_slot(guard, at));
        for whole in [false, true] {
            let mut firsts: [First; 2] = [None, None];
            self.each_sampled::<SAMPLES>(guard, whole, |n, line| {
                for slot in 1..=SLOTS {
                    let (number, stamp) = (n * 8 + slot, !line[slot as usize].load(Relaxed));
                    let first = &mut firsts[usize::from(stamp & MAIN != 0)];
                    let earlier = first.is_none_or(|(_, s)| stamp & POSITION < s & POSITION);
                    if stamp != NO_ITEM && earlier && number != kept {
                        *first = Some((number, stamp));
                    }
                }
            });
            if firsts != [None, None] {
                return firsts;
            }
        }
        [None, None]
    }

    /// Words of the ghost list of a shard that evicts: two for each item, so that they lie in few pages
    /// where the limit is far; all of them where it is not. There may be fewer than that, as a disk can be full.
    #[inline]
    fn ghost_words(&self, guard: &ShardGuard<'_>) -> u64 {
        let (words, all) = (self.region.ghost_words(guard.cells), self.geo.ghost_words());
        if words < all { self.grow_ghosts(guard, words, all) } else { words }
    }

    #[cold]
    #[inline(never)]
    fn grow_ghosts(&self, guard: &ShardGuard<'_>, words: u64, all: u64) -> u64 {
        let near_limit = guard.used() * 4 * self.geo.shards >= self.geo.capacity;
        let wanted = if near_limit { all } else { (guard.used() * 2).next_power_of_two().clamp(8, all) };
        if wanted <= words || self.region.back_ghosts(wanted).is_err() {
            return words;
        }
        guard.word(shard::GHOST_WORDS).store(wanted, Relaxed);
        wanted
    }

    fn ghost(&self, guard: &ShardGuard<'_>, words: u64, hash: u64) -> &AtomicU64 {
        // Bits that choose neither the shard nor the bucket.
        self.region.word(self.layout.ghost(guard.no, hash & (words - 1)))
    }

    /// Whether the key left the small queue at most as many evictions ago as the shard holds items.
    pub(in crate::engine) fn is_ghost(&self, guard: &ShardGuard<'_>, hash: u64) -> bool {
        let words = self.region.ghost_words(guard.cells);
        if words == 0 {
            return false;
        }
        let ghost = self.ghost(guard, words, hash).load(Relaxed);
        let ago = (guard.word(shard::GHOSTED).load(Relaxed) as u32).wrapping_sub(ghost as u32);
        ghost & !0xFFFF_FFFF == mark(hash) && u64::from(ago) <= self.geo.capacity / self.geo.shards
    }
}

/// The hash's high half, never 0.
fn mark(hash: u64) -> u64 {
    (hash | 1 << 32) & !0xFFFF_FFFF
}
