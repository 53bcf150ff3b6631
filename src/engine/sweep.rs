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
        if before.is_ok_and(|w| (u64::from(generation::number(w)) + 1).is_multiple_of(GENERATIONS / 2)) {
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
            block::release_idle(&self.region, guard.home);
        }
        self.note_swept();
        self.trim();
        Ok(expired)
    }

    /// Notes that an item of the shard expires at `expires`, before anybody can see it.
    #[inline]
    pub(super) fn note_expiry(&self, guard: &ShardGuard<'_>, expires: u64) {
        if guard.note_expiry(expires) {
            self.note_earliest(expires);
        }
    }

    /// Notes in the header that a shard's earliest expiry, already in its word, fell to `expires`.
    #[cold]
    pub(super) fn note_earliest(&self, expires: u64) {
        let all = self.region.word(header::EARLIEST);
        // The shard's word before the header's: `note_swept` has them the other way round, so one of us sees the other.
        fence(SeqCst);
        match all.load(SeqCst) {
            // It is being computed: as we may be too late for that, it must be again.
            0 => _ = all.compare_exchange(0, 1, SeqCst, Relaxed),
            known if expires < known => _ = all.fetch_min(expires.max(1), SeqCst),
            _ => {}
        }
    }

    /// After shards were reaped: from when on a sweep can find something, for all shards at once.
    fn note_swept(&self) {
        // Without the lock two of them could take each other's unfinished work for their own. A death leaves 0.
        let compute = || {
            let all = self.region.word(header::EARLIEST);
            all.store(0, SeqCst);
            fence(SeqCst);
            let generation = self.clear_gen();
            let (mut earliest, mut reaped) = (u64::MAX, true);
            for no in 0..self.geo.shards {
                let home = self.region.shard(no);
                earliest = earliest.min(home.word(shard::EARLIEST).load(Relaxed));
                reaped &= home.reaped() == generation::number(generation);
            }
            let _ = all.compare_exchange(0, earliest.max(1), SeqCst, Relaxed);
            if reaped {
                self.region.word(header::REAPED).store(generation, Relaxed);
            }
        };
        // Too late a lock costs a walk: the next one who finds the cache full looks again.
        let _ = self.under(header::LOCK_CAPACITY, || {}, compute);
    }

    /// The first opener of a store: what it says about all shards proves nothing.
    pub(super) fn forget_swept(&self) {
        self.region.word(header::EARLIEST).store(0, Relaxed);
        self.region.word(header::REAPED).store(!self.clear_gen(), Relaxed);
    }

    /// Whether a sweep for room would find nothing: two words that hold for all shards tell.
    pub(super) fn nothing_due(&self) -> bool {
        let word = |at: u64| self.region.word(at).load(Relaxed);
        let until = match (self.config.no_expire, self.config.sweep_on_full) {
            (true, 0) => u64::MAX,
            (true, _) if self.is_full_sweep_due(word(header::NEXT_FULL_SWEEP), clock::unix_secs()) => 0,
            (true, _) => u64::MAX,
            (false, _) => word(header::EARLIEST),
        };
        word(header::REAPED) == self.clear_gen() && (until == u64::MAX || clock::unix_secs() < until)
    }

    /// Whether a sweep for room that is due then is due now: also if that is further away than the interval, as it is when the
    /// clock has been set back.
    pub(super) fn is_full_sweep_due(&self, due: u64, now: u64) -> bool {
        due <= now || due - now > u64::from(self.config.sweep_on_full)
    }

    /// Reaps all shards that are due; returns how many items went.
    pub(super) fn reap_all(&self, now: Option<u64>) -> Result<u64> {
        let used = |no: u64| u64::from(self.region.shard(no).used().load(Relaxed));
        let mut gone = 0;
        for no in 0..self.geo.shards {
            if self.is_due(no, now) {
                let before = used(no);
                let guard = self.lock(no)?;
                self.reap(&guard, self.clear_gen(), now);
                gone += before.saturating_sub(used(no));
            }
        }
        self.note_swept();
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
        guard.set_reaped(generation::number(generation));
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
            let found = Found { bucket, slot, off, header };
            if !current || expired && !self.is_awaited(&found) {
                dead = Some((found, current));
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
