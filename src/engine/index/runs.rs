//! Which parts of the index are in use: walks pass over the others, and a store has no blocks on disk
//! for them.
#![forbid(unsafe_code)]

use crate::{
    engine::Engine,
    error::Result,
    shm::layout::{BUCKET, RUN},
};

/// Bytes of overflow buckets that a store allocates at least.
const OVERFLOW_STEP: u64 = 16 << 10;

impl Engine {
    /// The shard's home buckets that ever had an item; all of them if `all` says that the bits prove nothing.
    pub(in crate::engine) fn homes_of(&self, shard_no: u64, all: bool) -> impl Iterator<Item = u64> + '_ {
        let first = shard_no * self.homes_per_shard;
        self.homes_between(first, first + self.homes_per_shard, all)
    }

    /// The home buckets in `from..to` that ever had an item.
    pub(in crate::engine) fn used_homes(&self, from: u64, to: u64) -> impl Iterator<Item = u64> + '_ {
        self.homes_between(from, to, false)
    }

    pub(in crate::engine) fn homes_between(
        &self,
        from: u64,
        to: u64,
        all: bool,
    ) -> impl Iterator<Item = u64> + '_ {
        let runs = from / RUN..to.div_ceil(RUN);
        // Of a store, what has no bit has no memory.
        let all = all && self.region.file().is_none();
        let used = move |run: &u64| all || self.region.has_run(*run);
        runs.filter(used).flat_map(move |run| (run * RUN).max(from)..(run * RUN + RUN).min(to))
    }

    /// Notes, before the first item of a chain can be seen, that its run has one: walks pass over the
    /// others.
    #[inline]
    pub(in crate::engine) fn note_run(&self, home: u64) {
        self.region.note_run(home / RUN);
    }

    /// Gives the part of a store's index that a key of this home bucket needs blocks on disk; `false`
    /// = it has them: all overflow buckets of the shard are in use.
    ///
    /// # Errors
    /// Of the file: nothing has changed.
    #[cold]
    pub(in crate::engine) fn back_index(&self, home: u64) -> Result<bool> {
        if !self.region.has_bucket(home) {
            return self.region.back_run(home / RUN).map(|()| true);
        }
        let ready = self.region.overflow_ready();
        if ready == self.geo.overflow {
            return Ok(false);
        }
        let row = self.geo.shards * BUCKET;
        self.region.back_overflow(ready + (ready / 8).max(OVERFLOW_STEP.div_ceil(row))).map(|()| true)
    }
}
