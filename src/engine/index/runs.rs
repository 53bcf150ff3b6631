//! Which parts of the index are in use: walks pass over the others, and a store has no blocks on disk
//! for them.
#![forbid(unsafe_code)]

use crate::{
    engine::{Engine, quota::Shortage},
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

    /// What keeps a key of this home bucket from getting a slot: the disk has to be asked for a part
    /// of the index first, or all overflow buckets of the shard are in use.
    #[cold]
    pub(in crate::engine) fn slot_shortage(&self, home: u64) -> Shortage {
        let is_whole = self.region.has_bucket(home) && self.region.overflow_ready() == self.geo.overflow;
        if is_whole { Shortage::Space(0) } else { Shortage::Index(home) }
    }

    /// Gives the part of the index that a key of this home bucket needs blocks on disk.
    ///
    /// # Errors
    /// Of the file: nothing has changed.
    #[cold]
    pub(in crate::engine) fn back_index(&self, home: u64) -> Result<()> {
        if !self.region.has_bucket(home) {
            return self.region.back_run(home / RUN);
        }
        let ready = self.region.overflow_ready();
        let row = self.geo.shards * BUCKET;
        self.region.back_overflow(ready + (ready / 8).max(OVERFLOW_STEP.div_ceil(row)))
    }
}
