//! Rebuilding a shard after a death, a panic or an unclean open. Everything but the index is
//! rebuilt from the index (I5); each step may be interrupted and repeated. No malloc (I12).
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        config::MAX_KEY,
        index::entry::{self, Header},
        recover::validate::ValidEntry,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::{
        layout::{SLOTS, shard},
        scratch::{Bitmap, BlockBitmap, Buffer},
        slab,
        sync::*,
    },
};

/// The state of one rebuild pass over a shard's index.
pub(in crate::engine) struct Rebuild {
    /// Whether to search for orphans.
    verify: bool,
    /// Whether to verify checksums.
    sums: bool,
    /// Two entries claim the same bytes: which of them is whole, checksums tell.
    overlaps: bool,
    pub(in crate::engine) blocks: BlockBitmap,
    overflow: Bitmap,
    /// The key read last.
    pub(in crate::engine) key: Buffer,
    used: u64,
    earliest: u64,
    blocks_used: u64,
    /// The policy's sum over all items.
    policy_sum: u64,
    dropped: u64,
    /// Orphans restored.
    pub(in crate::engine) adopted: u64,
    /// The latest stamp that is a plausible count.
    newest: u64,
}

impl Engine {
    /// Rebuilds a shard whose lock the caller holds.
    ///
    /// # Errors
    /// As [`Engine::rebuild`]: the shard is as it was, and still dirty (I6). The next thread that
    /// locks it tries again.
    #[cold]
    pub(in crate::engine) fn recover(&self, guard: &ShardGuard<'_>) -> Result<()> {
        self.rebuild(guard, false)?;
        self.recovered(guard);
        Ok(())
    }

    /// Repairs a damaged shard: every entry is validated. Returns the items dropped.
    ///
    /// # Errors
    /// As [`Engine::rebuild`].
    pub(in crate::engine) fn repair(&self, guard: &ShardGuard<'_>) -> Result<u64> {
        let dropped = self.rebuild(guard, true)?;
        self.recovered(guard);
        Ok(dropped)
    }

    fn recovered(&self, guard: &ShardGuard<'_>) {
        self.count(Counter::Repaired, 1);
        guard.set_dirty(false);
        self.settle_quotas();
    }

    /// Rebuilds everything, counts and returns the items that it drops. With
    /// `verify` entries prove themselves by their checksums, and those that no slot leads to are
    /// looked for.
    ///
    /// # Errors
    /// No scratch memory; nothing was changed.
    pub(in crate::engine) fn rebuild(&self, guard: &ShardGuard<'_>, verify: bool) -> Result<u64> {
        // All that can fail comes first: half a rebuild would be worse than what the dead writer
        // left.
        let mut state = self.rebuild_state(verify, verify)?;
        guard.set_dirty(true);
        // Readers must discard what they are copying: how far the dead writer came is unknown.
        for home in self.homes_of(guard.no, verify) {
            self.bump_seq(home);
        }
        fence(SeqCst);
        self.recover_chains(guard, &mut state);
        if state.overlaps {
            state = self.rebuild_state(verify, true)?;
            self.recover_chains(guard, &mut state);
        }
        self.recover_overflow(guard, &state);
        if verify {
            self.adopt_orphans(guard, &mut state);
            self.resume_clock(guard, state.newest);
        }
        slab::rebuild(&self.region, guard.cells, &state.blocks);
        // An emptied slot whose item was found again is no loss.
        let dropped = state.dropped.saturating_sub(state.adopted);
        self.count(Counter::DroppedCorrupt, dropped);
        self.recount(guard, state.used, state.earliest, state.blocks_used);
        self.policy_rebuilt(guard, state.policy_sum);
        Ok(dropped)
    }

    fn rebuild_state(&self, verify: bool, sums: bool) -> Result<Rebuild> {
        Ok(Rebuild {
            verify,
            sums,
            overlaps: false,
            blocks: BlockBitmap::new(&self.region)?,
            overflow: Bitmap::new(self.geo.overflow)?,
            key: Buffer::new(MAX_KEY as usize)?,
            used: 0,
            earliest: u64::MAX,
            blocks_used: 0,
            policy_sum: 0,
            dropped: 0,
            adopted: 0,
            newest: 0,
        })
    }

    fn recover_chains(&self, guard: &ShardGuard<'_>, state: &mut Rebuild) {
        for home in self.homes_of(guard.no, state.verify) {
            self.recover_chain(guard, home, state);
        }
    }

    fn recount(&self, guard: &ShardGuard<'_>, used: u64, earliest: u64, blocks_used: u64) {
        self.items.recover(guard.cells, used);
        guard.set_earliest(earliest);
        self.note_earliest(earliest);
        // A filler may have died before its placeholder was noted.
        self.note_lease(0);
        self.blocks.recover(guard.cells, blocks_used);
        self.note_lost();
    }

    /// Walks one chain with bounds; what does not belong there is removed.
    fn recover_chain(&self, guard: &ShardGuard<'_>, home: u64, state: &mut Rebuild) {
        let mut bucket = home;
        loop {
            for slot in 1..=SLOTS {
                let word = self.slot(bucket, slot).load(Acquire);
                if word == 0 {
                    self.set_stamp(bucket, slot, u64::MAX);
                    continue;
                }
                match self.recover_item(guard, home, (bucket, slot), state) {
                    Some(h) => {
                        self.note_run(home);
                        self.keep_item(&h, (bucket, slot), state);
                    }
                    // Nothing is dropped by a pass that will be repeated.
                    None if state.overlaps => {}
                    None => {
                        self.slot(bucket, slot).store(0, Release);
                        self.set_stamp(bucket, slot, u64::MAX);
                        state.dropped += 1;
                    }
                }
            }
            // A bucket that another chain has as well is the first one's.
            match self.next(home, bucket).filter(|&next| state.overflow.set(self.geo.overflow_number(next))) {
                Some(next) => bucket = next,
                None => return self.set_link(bucket, None),
            }
        }
    }

    pub(in crate::engine) fn keep_item(&self, h: &Header, at: (u64, u64), state: &mut Rebuild) {
        state.used += 1;
        state.blocks_used += self.blocks_of(h);
        if h.expires != 0 {
            state.earliest = state.earliest.min(h.expires);
        }
        let stamp = self.stamp(at.0, at.1);
        if self.geo.stamps && (state.verify || stamp == u64::MAX) {
            self.set_stamp(at.0, at.1, self.rebase_stamp(stamp, &mut state.newest));
        }
        state.policy_sum += self.policy_rebuild_item(at.0, at.1);
    }

    /// The entry of a slot, if it is valid, and no other slot leads to its block.
    fn recover_item(
        &self,
        guard: &ShardGuard<'_>,
        home: u64,
        at: (u64, u64),
        state: &mut Rebuild,
    ) -> Option<Header> {
        let off = entry::slot_off(self.slot(at.0, at.1).load(Acquire));
        let ValidEntry { header, .. } =
            self.validate_slot(guard.no, home, at, state.sums, &mut state.key).ok()?;
        if !self.take_bytes(off, &header, state) {
            state.overlaps |= self.geo.checksums && !state.sums;
            return None;
        }
        Some(header)
    }

    /// Takes the bytes of an entry; `false` = another entry has some of them.
    pub(in crate::engine) fn take_bytes(&self, off: u64, h: &Header, state: &mut Rebuild) -> bool {
        let len = h.total(self.header_bytes);
        // Nothing else can begin in a large block.
        state.blocks.take(off, if slab::is_large(len) { 8 } else { len })
    }

    /// Rebuilds the list of unused overflow buckets.
    fn recover_overflow(&self, guard: &ShardGuard<'_>, state: &Rebuild) {
        let reached = &state.overflow;
        // Never below a bucket that a chain reaches, whatever a damaged store says: it would be
        // handed out twice.
        let last = (0..self.geo.overflow).rev().find(|&n| reached.get(n)).map_or(0, |n| n + 1);
        let ready = self.region.overflow_ready();
        let bump = guard.word(shard::OVERFLOW_BUMP).load(Relaxed).min(ready).max(last);
        guard.word(shard::OVERFLOW_BUMP).store(bump, Relaxed);
        guard.word(shard::OVERFLOW_FREE).store(0, Relaxed);
        // After a crash of the machine a bucket can be on disk, but not that it was handed out:
        // fresh ones must be empty.
        let end = if state.verify { ready } else { bump };
        let is_empty = |bucket: u64| self.region.bucket(bucket).iter().all(|word| word.load(Relaxed) == 0);
        for n in (0..end).filter(|&n| !reached.get(n)) {
            let bucket = self.geo.overflow_bucket(guard.no, n);
            if n >= bump && is_empty(bucket) {
                continue;
            }
            self.seq(bucket).store(0, Relaxed);
            for slot in 1..=SLOTS {
                self.slot(bucket, slot).store(0, Relaxed);
                self.set_stamp(bucket, slot, u64::MAX);
            }
            if n < bump {
                self.give_overflow(guard.no, bucket);
            }
        }
    }
}
