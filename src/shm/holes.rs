//! Parts of a store's index without blocks on disk: nobody may touch them, as on a full disk even a
//! read of a hole can be a bus error.
//!
//! ```text
//! index, stamps   home buckets       a page (a run) is there if its bit in `Layout::runs` is set
//!                 overflow buckets   the first OVERFLOW_READY of each shard are there
//! hits            all or nothing: HITS_USED
//! ghosts          the first GHOST_WORDS of each shard are there
//! ```
//! Blocks come first, then the bit or the number that says so. They stay.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    layout::{BUCKET, RUN, header, shard},
    region::Region,
    shard_cells::ShardCells,
};
use crate::{error::Result, os::sparse};

/// A line of the index or of the stamps that is no part of a region.
#[derive(Debug)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

/// In place of a home bucket without memory. Its link leads nowhere, so no fast path decides by it;
/// its slots are not empty, and lead to no entry.
static HOLE: Line = Line([const { AtomicU64::new(u64::MAX) }; 8]);
/// In place of stamps without memory: of no item.
static NO_STAMPS: Line = Line([const { AtomicU64::new(0) }; 8]);

impl Region {
    /// Whether a run of home buckets ever had an item; in a store, whether it has memory.
    #[inline(always)]
    pub(crate) fn has_run(&self, run: u64) -> bool {
        self.run_word(run).load(Ordering::Acquire) >> (run % 64) & 1 != 0
    }

    /// Notes that a run has items, or is about to.
    #[inline]
    pub(crate) fn note_run(&self, run: u64) {
        let (word, bit) = (self.run_word(run), 1 << (run % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            // Runs of other shards share the word.
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// # Panics
    /// If there is no such run.
    #[inline(always)]
    fn run_word(&self, run: u64) -> &AtomicU64 {
        assert!(run * RUN < self.homes, "there is no home bucket with this number");
        // SAFETY: `Layout::new` gave the area a bit for each `RUN` home buckets, in words from a
        // multiple of 64 on, before the layout's end, which the mapping reaches to (`Region::new`);
        // all access to them is atomic.
        unsafe { AtomicU64::from_ptr(self.areas.runs.cast::<u64>().add((run / 64) as usize)) }
    }

    /// Whether a bucket, home or overflow, has memory.
    #[inline(always)]
    pub(crate) fn has_bucket(&self, number: u64) -> bool {
        !self.sparse || self.has_bucket_of_store(number)
    }

    // Cold: what a cache in memory never does must cost it no register.
    #[cold]
    #[inline(never)]
    fn has_bucket_of_store(&self, number: u64) -> bool {
        if number < self.homes {
            self.has_run(number / RUN)
        } else {
            self.layout().geo.overflow_number(number) < self.overflow_ready()
        }
    }

    /// A home bucket of a store, or [`HOLE`], and its number.
    #[cold]
    #[inline(never)]
    pub(super) fn home_of_store(&self, number: u64) -> (u64, &[AtomicU64; 8]) {
        (number, if self.has_bucket_of_store(number) { self.bucket(number) } else { &HOLE.0 })
    }

    /// The stamps of a bucket that has memory, each at its slot's number.
    ///
    /// # Panics
    /// If there are none.
    #[inline(always)]
    pub(crate) fn stamps(&self, bucket: u64) -> &[AtomicU64; 8] {
        assert!(bucket < self.stamped, "there are no stamps of this bucket");
        // SAFETY: `Region::new` checked that the area, 64-aligned, has `stamped` lines in the mapping,
        // which lives as long as `self`; all access to it is atomic, and an array of atomics has the
        // layout of the words.
        unsafe { &*self.areas.stamps.add((bucket * BUCKET) as usize).cast::<[AtomicU64; 8]>() }
    }

    /// [`Region::stamps`] of any bucket.
    #[inline(always)]
    pub(crate) fn stamps_of(&self, bucket: u64) -> &[AtomicU64; 8] {
        if self.sparse && !self.has_bucket_of_store(bucket) { &NO_STAMPS.0 } else { self.stamps(bucket) }
    }

    /// Overflow buckets of each shard that have memory.
    #[inline(always)]
    pub(crate) fn overflow_ready(&self) -> u64 {
        if self.sparse { self.overflow_of_store() } else { self.layout().geo.overflow }
    }

    #[cold]
    #[inline(never)]
    fn overflow_of_store(&self) -> u64 {
        self.header_word::<{ header::OVERFLOW_READY }>()
            .load(Ordering::Acquire)
            .min(self.layout().geo.overflow)
    }

    /// Gives a run of home buckets, and their stamps, blocks on disk.
    ///
    /// # Errors
    /// Of the file, a full disk among them: nothing has changed.
    pub(crate) fn back_run(&self, run: u64) -> Result<()> {
        self.back_buckets(run * RUN, (run * RUN + RUN).min(self.homes))?;
        self.note_run(run);
        Ok(())
    }

    /// Gives more overflow buckets of all shards, and their stamps, blocks on disk, up to `ready` of
    /// each shard.
    ///
    /// # Errors
    /// As [`Region::back_run`].
    pub(crate) fn back_overflow(&self, ready: u64) -> Result<()> {
        let geo = &self.layout().geo;
        let ready = ready.min(geo.overflow);
        let bucket = |n: u64| geo.overflow_bucket(0, n);
        self.back_buckets(bucket(self.overflow_ready()), bucket(ready))?;
        self.header_word::<{ header::OVERFLOW_READY }>().fetch_max(ready, Ordering::AcqRel);
        Ok(())
    }

    /// Gives the hits of all slots blocks on disk.
    ///
    /// # Errors
    /// As [`Region::back_run`].
    pub(crate) fn back_hits(&self) -> Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        file.reserve(self.layout().hits, self.layout().index)
    }

    /// Gives the first so many words, a multiple of 8, of all shards' ghost lists blocks on disk.
    ///
    /// # Errors
    /// As [`Region::back_run`].
    pub(crate) fn back_ghosts(&self, words: u64) -> Result<()> {
        let (Some(file), layout) = (self.file(), self.layout()) else { return Ok(()) };
        file.reserve(layout.ghosts, layout.ghost(0, words))
    }

    /// Words of a shard's ghost list that are in use; 0 = none, also where the number is damaged.
    #[inline]
    pub(crate) fn ghost_words(&self, cells: ShardCells<'_>) -> u64 {
        let words = cells.word(shard::GHOST_WORDS).load(Ordering::Relaxed);
        if words.is_power_of_two() && (8..=self.layout().geo.ghost_words()).contains(&words) {
            words
        } else {
            0
        }
    }

    fn back_buckets(&self, from: u64, to: u64) -> Result<()> {
        let (Some(file), layout) = (self.file(), self.layout()) else { return Ok(()) };
        file.reserve(layout.bucket(from), layout.bucket(to))?;
        if layout.geo.stamps {
            file.reserve(layout.stamps + from * BUCKET, layout.stamps + to * BUCKET)?;
        }
        Ok(())
    }

    /// The first opener of a store, before anything is read there: whatever has been used of the
    /// index has blocks on disk, and is known to have. After a failure of the power, what was used
    /// last may be known by its data only.
    ///
    /// # Errors
    /// As [`Region::back_run`].
    pub(crate) fn back_used(&self) -> Result<()> {
        let (Some(file), layout) = (self.file(), self.layout()) else { return Ok(()) };
        if self.header_word::<{ header::HITS_USED }>().load(Ordering::Relaxed) != 0 {
            self.back_hits()?;
        }
        let (homes, end) = (layout.bucket(self.homes), layout.bucket(self.buckets));
        let mut used = 0;
        sparse::each_data(file, layout.index, end, |from, to| {
            used = used.max(to);
            let runs = (from - layout.index) / (RUN * BUCKET)
                ..(to.min(homes).saturating_sub(layout.index)).div_ceil(RUN * BUCKET);
            runs.filter(|&run| !self.has_run(run) && self.has_content(run))
                .for_each(|run| self.note_run(run));
        })?;
        // As many at a time as lie together.
        let runs = self.homes.div_ceil(RUN);
        let mut from = 0;
        for run in 0..=runs {
            if run == runs || !self.has_run(run) {
                self.back_buckets(from * RUN, (run * RUN).min(self.homes))?;
                from = run + 1;
            }
        }
        if layout.geo.ghosts {
            let words = (0..layout.geo.shards).map(|no| self.ghost_words(self.shard(no)));
            self.back_ghosts(words.max().unwrap_or(0))?;
        }
        let (geo, ready) = (&layout.geo, self.header_word::<{ header::OVERFLOW_READY }>());
        let told = self.overflow_ready();
        ready.store(0, Ordering::Relaxed);
        let seen = used.saturating_sub(homes).div_ceil(geo.shards * BUCKET);
        self.back_overflow(told.max(seen))
    }

    /// Whether a run that has data in the file has anything else than zeros there.
    fn has_content(&self, run: u64) -> bool {
        (run * RUN..(run * RUN + RUN).min(self.homes))
            .any(|home| self.bucket(home).iter().any(|word| word.load(Ordering::Relaxed) != 0))
    }
}
