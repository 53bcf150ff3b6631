//! Sweeps: reclaim expired items and those left behind by a clear.
#![forbid(unsafe_code)]

use std::{cell::Cell, time::Duration};

use crate::{
    engine::{
        Engine,
        lock::visit::Missed,
        ops::make_room::MIN_GROWTH,
        reclaim::compact::{Compacted, MOST},
    },
    error::Result,
    os::clock,
    shm::{
        layout::{header, shard},
        slab, span,
        sync::*,
    },
};

/// How often one sweep empties extents of a shard at most: 16 MiB in all.
const MAX_VISITS: usize = 64;
/// Total time for which a sweep waits for held shards.
const SWEEP_PATIENCE: Duration = Duration::from_millis(20);

impl Engine {
    /// Reclaims the memory of expired and cleared items; returns how many items expired. Moves what
    /// is left of sparse memory together. A shard whose lock is not released is left to the next
    /// sweep.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) if no shard's lock was free.
    pub fn sweep(&self) -> Result<u64> {
        let expired = self.sweep_shards()?;
        let is_emptied = self.region.word(header::EMPTIED).load(Relaxed) != 0;
        // If the disk fails, the next sweep tries again: nothing is lost.
        let _ = self.release_emptied();
        if is_emptied {
            // The store may have grown for the copies.
            span::release_unused(&self.region, MIN_GROWTH);
        }
        self.release_pages();
        Ok(expired)
    }

    /// [`Engine::sweep`] without the sync of a store.
    pub(in crate::engine) fn sweep_shards(&self) -> Result<u64> {
        let now = (!self.config.no_expire).then(clock::unix_millis);
        let leases = self.take_due_leases();
        let mut expired = 0;
        let missed = self.visit(
            0,
            SWEEP_PATIENCE.min(self.config.lock_timeout),
            |_| true,
            |guard| {
                if leases || self.is_due(guard.no, now) {
                    expired += self.reap(guard, self.clear_gen(), now);
                }
                if guard.used() == 0 {
                    slab::release_idle(&self.region, guard.cells);
                }
                true
            },
        );
        self.return_due_leases(leases, &missed);
        if missed.count() == self.geo.shards {
            self.fail_for(missed)?;
        }
        self.note_swept();
        self.settle_quotas();
        self.compact_all();
        Ok(expired)
    }

    /// After a sweep that took the due leases: the next one looks at the shards that it missed.
    fn return_due_leases(&self, taken: bool, missed: &Missed) {
        if taken && !missed.has_none() {
            self.note_lease(0);
        }
    }

    /// For a writer of a store that finds no room: empties some sparse extents of each shard, syncs,
    /// and releases them. Those that could not be emptied give blocks again. Tells whether there were
    /// any.
    #[cold]
    pub(in crate::engine) fn compact_for_room(&self) -> bool {
        self.visit(
            0,
            Duration::ZERO,
            |no| self.may_compact(no),
            |guard| {
                self.compact(guard, true);
                true
            },
        );
        if self.region.word(header::EMPTIED).load(Relaxed) == 0 || self.release_emptied().is_err() {
            return false;
        }
        self.visit(
            0,
            Duration::ZERO,
            |no| self.is_leaving(no),
            |guard| {
                slab::stay(&self.region, guard.cells, |off| self.is_reached(guard, off));
                true
            },
        );
        true
    }

    fn may_compact(&self, no: u64) -> bool {
        let cells = self.region.shard(no);
        slab::may_be_sparse(&self.region, cells) || slab::is_leaving(&self.region, cells)
    }

    /// Empties the sparse extents of all shards, a bounded part in each visit.
    fn compact_all(&self) {
        let sparse = |no: u64| self.may_compact(no);
        // What others free meanwhile is for the next sweep.
        let mut first = 0;
        for _ in 0..MAX_VISITS {
            let mut all = Compacted::default();
            self.visit(first, Duration::ZERO, sparse, |guard| {
                let done = self.compact(guard, false);
                all.bytes += done.bytes;
                all.short = done.short;
                first = if done.short { guard.no } else { 0 };
                !done.short
            });
            // A store holds both copies until its sync: it may have to grow for that.
            let goes_on = if all.short { self.grow(MOST).unwrap_or(false) } else { all.bytes != 0 };
            if !goes_on {
                return;
            }
        }
    }

    /// After a sync, releases the extents of a store that were empty before it.
    ///
    /// # Errors
    /// Of the sync: they stay.
    fn release_emptied(&self) -> Result<()> {
        let emptied = self.region.word(header::EMPTIED);
        if emptied.load(Relaxed) == 0 {
            return Ok(());
        }
        let sync = slab::begin_sync(&self.region);
        self.write_out()?;
        // Whoever finds one that stays sets it again.
        emptied.store(0, Relaxed);
        let (mut more, mut missed) = (true, Missed::default());
        while std::mem::take(&mut more) {
            let patience = SWEEP_PATIENCE.min(self.config.lock_timeout);
            missed = self.visit(
                0,
                patience,
                |no| self.is_leaving(no),
                |guard| {
                    more |= slab::release_emptied(&self.region, guard.cells, Some(sync));
                    let is_moved = |off| !self.is_reached(guard, off);
                    slab::discard_moved(&self.region, guard.cells, sync, is_moved);
                    true
                },
            );
        }
        if !missed.has_none() {
            emptied.store(1, Relaxed);
        }
        Ok(())
    }

    fn is_leaving(&self, shard_no: u64) -> bool {
        self.region.shard(shard_no).word(shard::LEAVING).load(Relaxed) != 0
    }

    /// Writes the store to disk (MS_SYNC + fsync); does nothing for anonymous memory.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os): unwritten changes may be lost at a power failure.
    /// [`Error::Timeout`](crate::Error::Timeout): everything was written, but a shard that is held
    /// has memory from which entries were moved: what was deleted there may be back after a power
    /// failure.
    pub fn sync(&self) -> Result<()> {
        if self.region.word(header::EMPTIED).load(Relaxed) == 0 {
            return self.write_out();
        }
        let missed = self.visit(
            0,
            self.config.lock_timeout,
            |no| self.is_leaving(no),
            |guard| {
                self.move_leaving(guard);
                true
            },
        );
        // The copies first, then that the old entries are gone.
        self.release_emptied()?;
        self.write_out()?;
        self.fail_for(missed)
    }

    fn write_out(&self) -> Result<()> {
        self.region.sync(self.region.word(header::COMMITTED).load(Acquire).min(self.layout.end))
    }

    /// Reaps all shards that are due (`now` in milliseconds) and not held; returns how many items went, and which shards
    /// were missed.
    pub(in crate::engine) fn reap_all(&self, now: Option<u64>) -> (u64, Missed) {
        let used = |no: u64| self.region.shard(no).used();
        let (before, mut gone) = (Cell::new(0), 0);
        let leases = self.take_due_leases();
        let due = |no: u64| {
            // After a clear, locking a shard reaps it.
            before.set(used(no));
            leases || self.is_due(no, now)
        };
        let missed = self.visit(0, Duration::ZERO, due, |guard| {
            self.reap(guard, self.clear_gen(), now);
            gone += before.get().saturating_sub(used(guard.no));
            true
        });
        self.return_due_leases(leases, &missed);
        self.note_swept();
        (gone, missed)
    }
}
