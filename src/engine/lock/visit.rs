//! Work on many shards, one after another. A holder that does not release its shard (stopped, or
//! being debugged) delays that shard only: the others are visited first, and the caller learns
//! which are left.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::{
    engine::{Engine, geometry::MAX_SHARDS, shard::guard::ShardGuard, stats::Counter},
    error::{Error, Result},
};

/// How long a visit waits for one held lock before it tries the next one.
const SLICE: Duration = Duration::from_millis(1);
const WORDS: usize = MAX_SHARDS as usize / 64;

/// Shards that a walk could not visit, and the reason.
#[derive(Debug)]
pub(in crate::engine) struct Missed {
    shards: [u64; WORDS],
    why: Option<Error>,
    /// How long they were waited for.
    waited: Duration,
}

impl Default for Missed {
    fn default() -> Self {
        Self { shards: [0; WORDS], why: None, waited: Duration::ZERO }
    }
}

impl Missed {
    pub(in crate::engine) fn has(&self, no: u64) -> bool {
        self.shards[no as usize / 64] >> (no % 64) & 1 != 0
    }

    fn set(&mut self, no: u64, why: Error) {
        self.shards[no as usize / 64] |= 1 << (no % 64);
        self.why = Some(why);
    }

    fn unset(&mut self, no: u64) {
        self.shards[no as usize / 64] &= !(1 << (no % 64));
        if self.count() == 0 {
            self.why = None;
        }
    }

    /// Whether no shard was missed.
    #[inline]
    pub(in crate::engine) fn has_none(&self) -> bool {
        self.why.is_none()
    }

    pub(in crate::engine) fn count(&self) -> u64 {
        self.shards.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// Adds the shards missed by another walk.
    pub(in crate::engine) fn add(&mut self, other: Self) {
        self.shards.iter_mut().zip(other.shards).for_each(|(all, more)| *all |= more);
        self.why = other.why.or(self.why.take());
        self.waited = self.waited.max(other.waited);
    }
}

impl Engine {
    /// Calls `f` with each of the `wanted` shards, locked, until it returns `false`: beginning with
    /// `first`, those whose locks are free; then the others, for `patience` in all.
    pub(in crate::engine) fn visit(
        &self,
        first: u64,
        patience: Duration,
        wanted: impl Fn(u64) -> bool,
        mut f: impl FnMut(&ShardGuard<'_>) -> bool,
    ) -> Missed {
        let mut missed = Missed::default();
        for no in (first..self.geo.shards).chain(0..first).filter(|&no| wanted(no)) {
            match self.lock_within(no, Duration::ZERO) {
                Ok(guard) if f(&guard) => {}
                Ok(_) => return missed,
                Err(why) => missed.set(no, why),
            }
        }
        if patience.is_zero() || missed.has_none() {
            return missed;
        }
        self.visit_missed(patience, missed, f)
    }

    /// Visits the shards that another walk missed, waiting for `patience` in total.
    #[cold]
    pub(in crate::engine) fn visit_missed(
        &self,
        patience: Duration,
        mut missed: Missed,
        mut f: impl FnMut(&ShardGuard<'_>) -> bool,
    ) -> Missed {
        let start = Instant::now();
        missed.waited = missed.waited.max(patience);
        loop {
            for no in 0..self.geo.shards {
                if !missed.has(no) {
                    continue;
                }
                let left = patience.saturating_sub(start.elapsed());
                match self.lock_within(no, left.min(SLICE)) {
                    Ok(guard) => {
                        missed.unset(no);
                        if !f(&guard) {
                            return missed;
                        }
                    }
                    Err(why) => missed.set(no, why),
                }
            }
            if missed.has_none() || start.elapsed() >= patience {
                return missed;
            }
        }
    }

    /// The error of an operation that cannot go on without the shards it missed; `Ok` if it missed
    /// none.
    #[cold]
    pub(in crate::engine) fn fail_for(&self, missed: Missed) -> Result<()> {
        match missed.why {
            None => Ok(()),
            Some(Error::Timeout { .. }) => {
                self.count(Counter::Timeouts, 1);
                Err(Error::Timeout { waited: missed.waited })
            }
            Some(why) => Err(why),
        }
    }
}
