//! Reclaiming: items that expired and items that a clear left behind.
#![forbid(unsafe_code)]

use std::{cell::Cell, time::Duration};

use super::{
    Engine,
    entry::{self, GENERATIONS},
    generation,
    index::Found,
    shard::ShardGuard,
    stats::Counter,
    visit::Missed,
};
use crate::{
    error::Result,
    os::clock,
    shm::{
        block,
        layout::{header, shard},
        order::{self, earliest},
        sync::*,
    },
};

/// How long a sweep waits, in all, for shards that are held.
const SWEEP_PATIENCE: Duration = Duration::from_millis(20);
/// In the header's earliest expiry: look at the shards. No item expires so early.
const LOOK_AGAIN: u64 = 1;
/// In the header's earliest expiry: it is being computed by the holder of the ticket in the other bits. Later than any expiry.
const COMPUTING: u64 = 1 << 63;

/// Whether the header's earliest expiry is not known at the moment.
pub(super) fn is_ticket(word: u64) -> bool {
    word & COMPUTING != 0 && word != u64::MAX
}

impl Engine {
    /// Removes everything: one store, readers miss from the next instruction on.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), with nothing removed: while another thread has the cache to itself, or while
    /// the lock of a shard that was not reaped for some 3,000 clears is not released.
    pub fn clear(&self) -> Result<()> {
        self.wait_exclusive()?;
        let word = self.region.word(header::CLEAR_GEN);
        let mut seen = word.load(order::clear::READ);
        loop {
            let next = generation::after(seen);
            self.reap_laggards(generation::number(next))?;
            match word.compare_exchange(seen, next, order::clear::ADVANCE, order::clear::READ) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        self.count(Counter::Cleared, 1);
        self.wake_fillers();
        if self.config.last_modified {
            self.region.word(header::LAST_MODIFIED).store(clock::unix_secs(), Relaxed);
        }
        Ok(())
    }

    /// Before the clear with number `next`. Entries keep the low bits of their generation: no shard may still hold one of
    /// [`GENERATIONS`] clears ago, or it would be live again. Checked at each quarter of a turn, so that a shard that passes
    /// is not a whole turn behind before the next check.
    fn reap_laggards(&self, next: u32) -> Result<()> {
        const QUARTER: u32 = GENERATIONS as u32 / 4;
        if !next.is_multiple_of(QUARTER) {
            return Ok(());
        }
        let lag = |no: u64| next.wrapping_sub(self.region.shard(no).reaped());
        // Whoever locks a shard reaps it.
        let missed = self.visit(0, Duration::ZERO, |no| lag(no) >= QUARTER, |_| true);
        if (0..self.geo.shards).all(|no| !missed.has(no) || lag(no) <= 3 * QUARTER) {
            return Ok(());
        }
        let missed = self.visit(0, self.config.lock_timeout, |no| lag(no) > 3 * QUARTER, |_| true);
        self.fail_for(missed)
    }

    /// Reclaims the memory of expired and cleared items; returns how many items expired. A shard whose lock is not released
    /// is left to the next sweep.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) when no shard's lock could be had.
    pub fn sweep(&self) -> Result<u64> {
        let now = (!self.config.no_expire).then(clock::unix_secs);
        let mut expired = 0;
        let missed = self.visit(
            0,
            SWEEP_PATIENCE.min(self.config.lock_timeout),
            |_| true,
            |guard| {
                if self.is_due(guard.no, now) {
                    expired += self.reap(guard, self.clear_gen(), now);
                }
                block::release_idle(&self.region, guard.home);
                true
            },
        );
        if missed.count() == self.geo.shards {
            self.fail_for(missed)?;
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
        fence(earliest::BETWEEN);
        let mut seen = all.load(earliest::ALL);
        loop {
            let lower = match seen {
                // It is being computed: as we may be too late for that, it must be again.
                _ if is_ticket(seen) => LOOK_AGAIN,
                known if expires < known => expires.max(LOOK_AGAIN),
                _ => return,
            };
            // A failed exchange says nothing about the new value: decide again.
            match all.compare_exchange_weak(seen, lower, earliest::ALL, earliest::ALL) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// After shards were reaped: from when on a sweep can find something, for all shards at once. Takes no lock, so that
    /// nobody waits for a sweeper that is stopped here. The ticket in the word says whose computation stands: another sweeper's
    /// replaces it, a writer's note ends it.
    pub(super) fn note_swept(&self) {
        let all = self.region.word(header::EARLIEST);
        let ticket = COMPUTING | self.next_ticket();
        all.swap(ticket, earliest::ALL);
        fence(earliest::BETWEEN);
        let generation = self.clear_gen();
        let (mut until, mut reaped) = (u64::MAX, true);
        for no in 0..self.geo.shards {
            let home = self.region.shard(no);
            until = until.min(home.word(shard::EARLIEST).load(earliest::SHARD));
            reaped &= home.reaped() == generation::number(generation);
        }
        // Fails where a writer or another sweeper came in between: what it stored stands.
        let _ = all.compare_exchange(ticket, until.max(LOOK_AGAIN), earliest::ALL, Relaxed);
        if reaped {
            self.region.word(header::REAPED).store(generation, Relaxed);
        }
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
        word(header::REAPED) == self.clear_gen()
            && (until == u64::MAX || (!is_ticket(until) && clock::unix_secs() < until))
    }

    /// Whether a sweep for room that is due then is due now: also if that is further away than the interval, as it is when the
    /// clock has been set back.
    pub(super) fn is_full_sweep_due(&self, due: u64, now: u64) -> bool {
        due <= now || due - now > u64::from(self.config.sweep_on_full)
    }

    /// Reaps all shards that are due and not held; returns how many items went, and which shards were missed.
    pub(super) fn reap_all(&self, now: Option<u64>) -> (u64, Missed) {
        let used = |no: u64| u64::from(self.region.shard(no).used().load(Relaxed));
        let (before, mut gone) = (Cell::new(0), 0);
        let due = |no: u64| {
            // Locking a shard reaps it after a clear.
            before.set(used(no));
            self.is_due(no, now)
        };
        let missed = self.visit(0, Duration::ZERO, due, |guard| {
            self.reap(guard, self.clear_gen(), now);
            gone += before.get().saturating_sub(used(guard.no));
            true
        });
        self.note_swept();
        (gone, missed)
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
