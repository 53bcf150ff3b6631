//! SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is Simpler than LRU: an Efficient Turn-Key
//! Eviction Algorithm for Web Caches", NSDI 2024).
//!
//! ```text
//! stamp    visited 1 | sweep 23 | position in the queue 40        all ones = no item
//! ```
//! Each shard has a queue in the order of insertion. A hit sets the visited bit. The hand goes from
//! the oldest item to the newest and starts again: it evicts the first item that was not visited,
//! and clears the bit of those that it passes. There are no links: an item that the hand passes
//! gets the number of the next sweep, so the hand is at the smallest sweep and position. In caches
//! of one shard that is exact; in larger ones it is the smallest among a few random buckets, until
//! few items of a sweep are left.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        geometry::id_of,
        index::{bucket::EntryRef, entry::LEASE},
        policy::{Hooks, victims::MIN_VICTIMS},
        shard::guard::ShardGuard,
    },
    shm::{
        layout::{SLOTS, shard},
        sync::*,
    },
};

const VISITED: u64 = 1 << 63;
const SWEEP_AT: u32 = 40;
const POSITION: u64 = (1 << SWEEP_AT) - 1;
/// Sweep numbers wrap around at twice this value.
const HALF: u64 = 1 << 22;
const SWEEPS: u64 = 2 * HALF - 1;
const NO_ITEM: u64 = u64::MAX;
/// Words of a shard. Of this sweep's items that are left, none has a position up to the first
/// word's; 0 = unknown.
const PASSED: u64 = shard::NEXT;
/// The id of the item stored last.
const NEWEST: u64 = shard::NEXT + 8;
/// Buckets whose items are compared: about seventeen items.
const SAMPLES: usize = 4;
/// Items that the hand of a large cache passes before it evicts one even if it was visited.
const ROUNDS: u32 = 64;

fn sweep(stamp: u64) -> u64 {
    stamp >> SWEEP_AT & SWEEPS
}

/// The distance of a sweep from the hand's, plus `HALF`.
fn distance(sweep: u64, hand: u64) -> u64 {
    sweep.wrapping_sub(hand).wrapping_add(HALF) & SWEEPS
}

/// The order in which the hand reaches stamps.
fn order(stamp: u64, hand: u64) -> u64 {
    distance(sweep(stamp), hand) << SWEEP_AT | stamp & POSITION
}

/// SIEVE; see the module.
pub(super) struct Sieve;

impl Hooks for Sieve {
    /// Appends to the queue: the hand reaches it in the same sweep.
    fn insert(e: &Engine, guard: &ShardGuard<'_>, _hash: u64, (bucket, slot): (u64, u64)) -> u64 {
        guard.word(NEWEST).store(id_of(bucket, slot).into(), Relaxed);
        let last = guard.word(shard::QUEUED);
        let position = (last.load(Relaxed) + 1) & POSITION;
        last.store(position, Relaxed);
        e.hand(guard) << SWEEP_AT | position
    }

    /// At most one store per item and sweep; a late one changes no other item.
    #[inline(always)]
    fn hit(e: &Engine, bucket: u64, slot: u64) {
        let stamp = e.stamp(bucket, slot);
        if stamp & VISITED == 0 {
            e.change_stamp(bucket, slot, stamp, stamp | VISITED);
        }
    }

    fn victim(
        e: &Engine,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        _whole: bool,
    ) -> Option<EntryRef> {
        if e.geo.shards == 1 { e.next_by_list(guard, keep) } else { e.next_by_sample(guard, keep, false) }
    }

    /// Sweep and position resume after the greatest of each.
    fn rebase(_e: &Engine, stamp: u64, newest: &mut u64) -> u64 {
        let (sweep, position) = (sweep(stamp).max(*newest >> SWEEP_AT), stamp & POSITION);
        *newest = sweep << SWEEP_AT | position.max(*newest & POSITION);
        stamp
    }

    fn resume(_e: &Engine, guard: &ShardGuard<'_>, newest: u64) {
        guard.word(shard::HAND).store(newest >> SWEEP_AT, Relaxed);
        guard.word(shard::QUEUED).store(newest & POSITION, Relaxed);
    }
}

impl Engine {
    /// The current sweep of the shard's hand.
    fn hand(&self, guard: &ShardGuard<'_>) -> u64 {
        guard.word(shard::HAND).load(Relaxed) & SWEEPS
    }

    /// The hand comes to an item: the victim, if it was not visited; else, unless it `must` go, it
    /// waits for the next sweep.
    fn examine(
        &self,
        guard: &ShardGuard<'_>,
        (bucket, slot): (u64, u64),
        stamp: u64,
        must: bool,
    ) -> Option<EntryRef> {
        let mut hand = self.hand(guard);
        if distance(sweep(stamp), hand) > HALF {
            hand = sweep(stamp);
            guard.word(shard::HAND).store(hand, Relaxed);
            guard.word(PASSED).store(0, Relaxed);
        }
        if stamp & VISITED == 0 || must {
            let f = self.found_at((bucket, slot))?;
            // A placeholder with an active filler.
            if f.header.flags & LEASE == 0 || must {
                return Some(f);
            }
        }
        let next = ((hand + 1) & SWEEPS) << SWEEP_AT | stamp & POSITION;
        self.change_stamp(bucket, slot, stamp, next);
        None
    }

    /// [`Engine::examine`] of exactly the item that the hand reaches first.
    fn examine_first(
        &self,
        guard: &ShardGuard<'_>,
        at: (u64, u64),
        stamp: u64,
        must: bool,
    ) -> Option<EntryRef> {
        let found = self.examine(guard, at, stamp, must);
        guard.word(PASSED).store(stamp & POSITION, Relaxed);
        found
    }

    /// The newest item, where it is the only one left of this sweep: SIEVE then evicts the new
    /// items one after another, until one of them is visited.
    fn newest(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>) -> Option<((u64, u64), u64)> {
        let last = guard.word(shard::QUEUED).load(Relaxed);
        if last != (guard.word(PASSED).load(Relaxed) + 1) & POSITION {
            return None;
        }
        let at = self.slot_of(guard.word(NEWEST).load(Relaxed) as u32).filter(|&at| Some(at) != keep)?;
        let stamp = self.stamp(at.0, at.1);
        (self.shard_of(at.0) == guard.no && stamp & !VISITED == self.hand(guard) << SWEEP_AT | last)
            .then_some((at, stamp))
    }

    /// The victim of a cache of one shard, by the list.
    fn next_by_list(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>) -> Option<EntryRef> {
        for _ in 0..self.geo.capacity * 2 + MIN_VICTIMS {
            let hand = self.hand(guard);
            // The list is good for one sweep: in the next one, new items come before those that
            // were passed.
            let listed = self.victims.first().filter(|(stamp, _)| distance(sweep(*stamp), hand) <= HALF);
            if listed.is_none()
                && let Some((at, stamp)) = self.newest(guard, keep)
            {
                match self.examine_first(guard, at, stamp, false) {
                    None => continue,
                    found => return found,
                }
            }
            let Some((stamp, id)) = listed.or_else(|| {
                self.find_victims(guard, |stamp| order(stamp, hand));
                self.victims.first()
            }) else {
                break;
            };
            let same = |now: u64| now != NO_ITEM && (now ^ stamp) & !VISITED == 0;
            let at = self.slot_of(id).filter(|&(bucket, slot)| same(self.stamp(bucket, slot)));
            if at.is_some() && at == keep {
                break;
            }
            self.victims.drop_first();
            let Some(at) = at else { continue };
            let found = self.examine_first(guard, at, self.stamp(at.0, at.1), false);
            if found.is_some() {
                return found;
            }
        }
        self.next_by_sample(guard, keep, true)
    }

    /// The victim among the items of a few random buckets, or of the `whole` shard.
    fn next_by_sample(
        &self,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        whole: bool,
    ) -> Option<EntryRef> {
        (1..=ROUNDS).find_map(|round| {
            let (must, hand) = (round == ROUNDS, self.hand(guard));
            let sampled = if whole { None } else { self.first_by_hand(guard, keep, false) };
            if let Some((number, stamp)) = sampled
                && distance(sweep(stamp), hand) <= HALF
            {
                return self.examine(guard, self.slot_at(guard, number), stamp, must);
            }
            // Few items are left of this sweep, and it ends with the last of them: search all.
            let (at, stamp) = self.newest(guard, keep).or_else(|| {
                let (number, stamp) = self.first_by_hand(guard, keep, true)?;
                Some((self.slot_at(guard, number), stamp))
            })?;
            self.examine_first(guard, at, stamp, must)
        })
    }

    /// Number of the slot, and stamp, of the item that the hand reaches first.
    fn first_by_hand(
        &self,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        whole: bool,
    ) -> Option<(u64, u64)> {
        let kept = keep.map_or(0, |at| self.number_of_slot(guard, at));
        let (hand, mut first) = (self.hand(guard), None);
        self.each_sampled::<SAMPLES>(guard, whole, |n, line| {
            for slot in 1..=SLOTS {
                let (number, stamp) = (n * 8 + slot, !line[slot as usize].load(Relaxed));
                let earlier = first.is_none_or(|(_, other)| order(stamp, hand) < order(other, hand));
                if stamp != NO_ITEM && earlier && number != kept {
                    first = Some((number, stamp));
                }
            }
        });
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hand_comes_to_older_sweeps_first() {
        let stamp = |sweep: u64, position| (sweep & SWEEPS) << SWEEP_AT | position;
        for hand in [0, 5, HALF, SWEEPS] {
            let stamps = [
                stamp(hand.wrapping_sub(1), 9),
                stamp(hand, 1),
                stamp(hand, 7),
                stamp(hand + 1, 0),
                stamp(hand + 1, 3),
            ];
            assert!(stamps.is_sorted_by_key(|&stamp| order(stamp, hand)), "{hand}");
            assert!(
                stamps.map(|stamp| order(stamp | VISITED, hand)) == stamps.map(|stamp| order(stamp, hand))
            );
        }
    }

    #[test]
    fn a_store_resumes_after_its_newest() {
        let mut newest = 0;
        let e = Engine::create(&crate::engine::Config::new("sieve", 1)).expect("a cache");
        for (sweep, position) in [(3, 70), (4, 20), (2, 90)] {
            let stamp = sweep << SWEEP_AT | position;
            assert_eq!(Sieve::rebase(&e, stamp | VISITED, &mut newest), stamp | VISITED);
        }
        assert_eq!((newest >> SWEEP_AT, newest & POSITION), (4, 90));
    }
}
