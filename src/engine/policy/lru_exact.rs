//! Exact LRU, in caches of one shard: stamps come from one counter, and the victim has the
//! smallest.
//!
//! Victims are found many at a time. Whatever is stored or used later gets a greater stamp than all
//! of these, so the first in the list that still has its stamp is the oldest of all.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        index::{bucket::EntryRef, entry::LEASE},
        policy::{Hooks, LAST_COUNT, victims::MIN_VICTIMS},
        shard::guard::ShardGuard,
    },
    shm::{layout::header, sync::*},
};

/// Placeholders that one eviction spares: an item must go in the end, and each costs a look at its
/// filler.
const MOST_SPARED: u32 = 64;

/// Exact LRU; see the module.
pub(super) struct LruExact;

impl Hooks for LruExact {
    fn insert(e: &Engine, _guard: &ShardGuard<'_>, _hash: u64, _at: (u64, u64)) -> u64 {
        e.next_count()
    }

    #[inline(always)]
    fn hit(e: &Engine, bucket: u64, slot: u64) {
        if e.stamp(bucket, slot) != e.region.word(header::LRU_CLOCK).load(Relaxed) {
            e.set_stamp(bucket, slot, e.next_count());
        }
    }

    fn victim(
        e: &Engine,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        _whole: bool,
    ) -> Option<EntryRef> {
        let mut spared = 0;
        // An item that gets a second chance returns as the newest.
        for _ in 0..e.geo.capacity * 2 + MIN_VICTIMS {
            let Some((stamp, id)) = e.victims.first() else {
                if e.find_victims(guard, |stamp| stamp) == 0 {
                    return e.oldest_by_scan(guard, keep);
                }
                continue;
            };
            let at = e.slot_of(id).filter(|&(bucket, slot)| e.stamp(bucket, slot) == stamp);
            if at.is_some() && at == keep {
                // It stays in the list: it may be the oldest still when it need not be kept any
                // more.
                return e.oldest_by_scan(guard, keep);
            }
            e.victims.drop_first();
            let found = at.and_then(|at| e.found_at(at)).filter(|f| !e.gets_second_chance(f, &mut spared));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn rebase(_e: &Engine, stamp: u64, newest: &mut u64) -> u64 {
        if stamp > LAST_COUNT {
            return 0;
        }
        *newest = stamp.max(*newest);
        stamp
    }

    fn resume(e: &Engine, _guard: &ShardGuard<'_>, newest: u64) {
        e.region.word(header::LRU_CLOCK).store(newest, Relaxed);
    }
}

impl Engine {
    fn next_count(&self) -> u64 {
        self.region.word(header::LRU_CLOCK).fetch_add(1, Relaxed) + 1
    }

    /// Whether a victim is spared: a placeholder with an active filler, if not too many were. It
    /// becomes the newest.
    fn gets_second_chance(&self, f: &EntryRef, spared: &mut u32) -> bool {
        let waits =
            f.header.flags & LEASE != 0 && *spared < MOST_SPARED && self.items() > 1 && self.is_pending(f);
        if waits {
            *spared += 1;
            LruExact::hit(self, f.bucket, f.slot);
        }
        waits
    }

    /// The least recently used item, without the list.
    fn oldest_by_scan(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>) -> Option<EntryRef> {
        let mut spared = 0;
        for _ in 0..self.geo.capacity.clamp(8, 4096) {
            if let Some((number, _)) = self.oldest_sampled(guard, keep, true)
                && let Some(f) = self.found_at(self.slot_at(guard, number))
                && !self.gets_second_chance(&f, &mut spared)
            {
                return Some(f);
            }
        }
        None
    }
}
