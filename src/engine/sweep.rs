//! Reclaiming: items that expired and items that a clear left behind.
#![forbid(unsafe_code)]

use super::{
    Engine,
    entry::{self, GENERATIONS},
    generation,
    index::Found,
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::Result,
    os::clock,
    shm::{
        block,
        layout::{header, shard},
        sync::*,
    },
};

impl Engine {
    /// Removes everything: one store, readers miss from the next instruction on.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) while another thread has the cache to itself.
    pub fn clear(&self) -> Result<()> {
        self.wait_exclusive()?;
        let word = self.region.word(header::CLEAR_GEN);
        let before = word.fetch_update(AcqRel, Relaxed, |w| Some(generation::after(w)));
        self.count(Counter::Cleared, 1);
        self.wake_fillers();
        if self.config.last_modified {
            self.region.word(header::LAST_MODIFIED).store(clock::unix_secs(), Relaxed);
        }
        // Entries keep the generation's low bits: none may live through half a turn of them.
        if before.is_ok_and(|w| (generation::number(w) + 1).is_multiple_of(GENERATIONS / 2)) {
            self.reap_all(None)?;
        }
        Ok(())
    }

    /// Reclaims the memory of expired and cleared items; returns how many items expired.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) when a live process holds a lock.
    pub fn sweep(&self) -> Result<u64> {
        let now = (!self.config.no_expire).then(clock::unix_secs);
        let mut expired = 0;
        for no in 0..self.geo.shards {
            let guard = self.lock(no)?;
            if self.is_due(no, now) {
                expired += self.reap(&guard, self.clear_gen(), now);
            }
            block::release_idle(&self.region, guard.off);
        }
        self.trim();
        Ok(expired)
    }

    /// Reaps all shards that are due; returns how many items went.
    pub(super) fn reap_all(&self, now: Option<u64>) -> Result<u64> {
        let used = |no: u64| self.region.word(self.shard_off(no) + shard::USED).load(Relaxed);
        let mut gone = 0;
        for no in 0..self.geo.shards {
            if self.is_due(no, now) {
                let before = used(no);
                let guard = self.lock(no)?;
                self.reap(&guard, self.clear_gen(), now);
                gone += before.saturating_sub(used(no));
            }
        }
        Ok(gone)
    }

    /// Removes a shard's items of older clear generations and, given the time, its expired ones. Returns how many of
    /// the latter.
    pub(super) fn reap(&self, guard: &ShardGuard<'_>, generation: u64, now: Option<u64>) -> u64 {
        let mut expired = 0;
        let mut earliest = u64::MAX;
        let first = guard.no * self.heads_per_shard;
        for head in first..first + self.heads_per_shard {
            // Removing may drop a bucket of the chain: start it again after each.
            while let Some((dead, was_current)) = self.first_dead(head, generation, now, &mut earliest) {
                self.remove(guard, head, &dead);
                expired += u64::from(was_current);
            }
        }
        guard.word(shard::EARLIEST).store(earliest, Relaxed);
        guard.word(shard::REAPED).store(generation, Relaxed);
        self.count(Counter::Expired, expired);
        expired
    }

    /// The chain's first item to remove, and whether it is of the current generation (so it has expired). Notes the
    /// earliest expiry of those that stay.
    fn first_dead(
        &self,
        head: u64,
        generation: u64,
        now: Option<u64>,
        earliest: &mut u64,
    ) -> Option<(Found, bool)> {
        let mut dead = None;
        self.each_slot(head, |bucket, slot, word| {
            let off = entry::slot_off(word);
            let Some(header) = self.header_at(off).filter(|h| h.key_len > 0) else { return true };
            let current = header.generation == generation % GENERATIONS;
            let expired = header.expires != 0 && now.is_some_and(|now| header.expires <= now);
            if !current || expired {
                dead = Some((Found { bucket, slot, off, header }, current));
                return false;
            }
            if header.expires != 0 {
                *earliest = header.expires.min(*earliest);
            }
            true
        });
        dead
    }
}
