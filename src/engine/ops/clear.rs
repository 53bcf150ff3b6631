//! Clear: one store empties the cache; the memory is reclaimed shard by shard.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{Engine, generation, index::entry::GENERATIONS, stats::Counter},
    error::Result,
    os::clock,
    shm::{layout::header, order, sync::*},
};

impl Engine {
    /// Removes everything with one store: readers miss from then on.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), with nothing removed: while another thread holds
    /// the cache exclusively, or while the lock of a shard that was not reaped for some 3,000
    /// clears is not released.
    pub fn clear(&self) -> Result<()> {
        self.wait_exclusive()?;
        self.advance_generation()?;
        self.count(Counter::Cleared, 1);
        self.wake_fillers();
        if self.config.last_modified {
            self.region.word(header::LAST_MODIFIED).store(clock::coarse_unix_secs(), Relaxed);
        }
        Ok(())
    }

    /// The store that empties the cache.
    pub(in crate::engine) fn advance_generation(&self) -> Result<()> {
        let word = self.region.word(header::CLEAR_GEN);
        let mut seen = word.load(order::clear::READ);
        loop {
            let next = generation::after(seen);
            self.reap_laggards(generation::number(next))?;
            match word.compare_exchange(seen, next, order::clear::ADVANCE, order::clear::READ) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Before the clear with number `next`. Entries keep the low bits of their generation: no shard
    /// may still hold one of [`GENERATIONS`] clears ago, or it would be live again. Checked at each
    /// quarter of a turn, so that a shard that passes is not a whole turn behind before the next
    /// check.
    fn reap_laggards(&self, next: u32) -> Result<()> {
        const QUARTER: u32 = GENERATIONS as u32 / 4;
        if !next.is_multiple_of(QUARTER) {
            return Ok(());
        }
        let lag = |no: u64| next.wrapping_sub(self.region.shard(no).reaped());
        // Locking a shard reaps it.
        let missed = self.visit(0, Duration::ZERO, |no| lag(no) >= QUARTER, |_| true);
        if (0..self.geo.shards).all(|no| !missed.has(no) || lag(no) <= 3 * QUARTER) {
            return Ok(());
        }
        let missed = self.visit(0, self.config.lock_timeout, |no| lag(no) > 3 * QUARTER, |_| true);
        self.fail_for(missed)
    }
}
