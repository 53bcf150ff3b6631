//! Eviction by place: what lies where a value will lie that finds no room, and little more.
#![forbid(unsafe_code)]

use std::{ops::Range, time::Duration};

use crate::{
    engine::{Engine, index::entry, shard::guard::ShardGuard},
    error::Result,
    shm::{kept_run, layout::SPAN, slab, span_claim, sync::*},
};

/// Bytes beyond the value's own that are evicted for it at most, or as many as it has: an extent at either end.
const BESIDE: u64 = 128 << 10;
/// How long a write waits for the lock of a shard that has something in its way.
const PATIENCE: Duration = Duration::from_millis(20);

impl Engine {
    /// Makes room for `bytes` in one piece: evicts the next victim of the shard with its neighbours, or what lies in a run of
    /// spans, and little more than what is needed. Never the item with the number `keep`. `false` = there is no such place.
    ///
    /// # Errors
    /// As [`Engine::lock`].
    pub(in crate::engine) fn evict_for_space(&self, no: u64, bytes: u64, keep: Option<u32>) -> Result<bool> {
        let len = slab::wanted(bytes).len();
        if !slab::is_large(len) && self.evict_neighbours(&self.lock(no)?, len, keep) {
            return Ok(true);
        }
        let n = len.div_ceil(SPAN);
        let from = self.random();
        let kept = self.spans_of(keep);
        let Some(at) = span_claim::cheapest_run(&self.region, n, from, kept) else { return Ok(false) };
        let (first, end) = slab::whole_owners(&self.region, at, at + n);
        if (end - first - n) * SPAN > len.max(BESIDE) {
            return Ok(false);
        }
        let mut next = first;
        while next < end {
            let Some((owner, spans)) = slab::owner_of(&self.region, next) else {
                next += 1;
                continue;
            };
            next = spans.first + spans.n;
            if owner >= self.geo.shards {
                return Ok(false);
            }
            let Ok(guard) = self.lock_within(owner, PATIENCE.min(self.config.lock_timeout)) else {
                return Ok(false);
            };
            if slab::owner_of(&self.region, spans.first) == Some((owner, spans)) {
                let mut all = true;
                slab::each_entry(&self.region, guard.cells, &spans, |off| {
                    all = all && self.evict_block(&guard, off, keep);
                    all
                });
                slab::coalesce(&self.region, guard.cells);
                kept_run::free_kept(&self.region, guard.no);
                if !all {
                    return Ok(false);
                }
            }
            guard.release();
        }
        // The writer looks there first.
        kept_run::look_first_at(&self.region, at);
        Ok(true)
    }

    /// The spans of the block of the item with this number.
    fn spans_of(&self, id: Option<u32>) -> Range<u64> {
        let slot = id.and_then(|id| self.slot_of(id));
        let off = slot.map(|(bucket, slot)| entry::slot_off(self.slot(bucket, slot).load(Relaxed)));
        let span = off.and_then(|off| Some(off.checked_sub(self.layout.data)? / SPAN));
        let span = span.filter(|&span| span < self.geo.spans);
        let owner = span.and_then(|span| slab::owner_of(&self.region, span));
        owner.map_or(0..0, |(_, spans)| spans.first..spans.first + spans.n)
    }

    /// The next victim of the shard, and those beside it in its extent, until there is room.
    fn evict_neighbours(&self, guard: &ShardGuard<'_>, len: u64, keep: Option<u32>) -> bool {
        let kept = keep.and_then(|id| self.slot_of(id));
        let Some(victim) = self.victim(guard, kept, true) else { return false };
        let found = slab::around(&self.region, guard.cells, victim.off, len);
        let Some((spans, from, to)) = found else { return false };
        let mut all = true;
        slab::each_entry_between(&self.region, guard.cells, &spans, (from, to), |off| {
            all &= self.evict_block(guard, off, keep);
            true
        });
        slab::coalesce(&self.region, guard.cells);
        all
    }
}
