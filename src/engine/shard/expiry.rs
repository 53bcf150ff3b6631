//! The next expiry of a shard, and of all shards: hints that save sweeps.
#![forbid(unsafe_code)]

use crate::{
    engine::{Engine, generation, shard::guard::ShardGuard},
    os::clock,
    shm::{layout::header, order::earliest, sync::*},
};

/// Value of the header's earliest expiry: check the shards' words. No item expires that early.
const LOOK_AGAIN: u64 = 1;

/// In the header's earliest expiry: it is being computed by the holder of the ticket in the other
/// bits. Later than any expiry.
const COMPUTING: u64 = 1 << 63;

/// How long one sweep relies on what another one has found out about placeholders, milliseconds.
const LEASES_AGAIN: u64 = 60_000;

/// Whether the header's earliest expiry is not known at the moment.
pub(in crate::engine) fn is_ticket(word: u64) -> bool {
    word & COMPUTING != 0 && word != u64::MAX
}

impl Engine {
    /// Notes that an item of the shard expires at `expires`, before the item becomes visible.
    #[inline]
    pub(in crate::engine) fn note_expiry(&self, guard: &ShardGuard<'_>, expires: u64) {
        if guard.note_expiry(expires) {
            self.note_earliest(expires);
        }
    }

    /// Lowers the header's earliest expiry to `expires`, which is already in the shard's word.
    #[cold]
    pub(in crate::engine) fn note_earliest(&self, expires: u64) {
        let all = self.region.word(header::EARLIEST);
        // The shard's word before the header's; `note_swept` does it the other way round, so one of
        // the two sees the other.
        fence(earliest::BETWEEN);
        let _ = all.fetch_update(earliest::ALL, earliest::ALL, |seen| match seen {
            // It is being computed, possibly without our expiry: force another computation.
            _ if is_ticket(seen) => Some(LOOK_AGAIN),
            known => (expires < known).then_some(expires.max(LOOK_AGAIN)),
        });
    }

    /// After shards were reaped: from when on a sweep can find something, for all shards at once.
    /// Takes no lock, so that a sweeper that is stopped here blocks nobody. The ticket in the word
    /// names the computation in progress: another sweeper's ticket replaces it, a writer's expiry
    /// ends it.
    pub(in crate::engine) fn note_swept(&self) {
        let all = self.region.word(header::EARLIEST);
        let ticket = COMPUTING | self.next_ticket();
        all.swap(ticket, earliest::ALL);
        fence(earliest::BETWEEN);
        let generation = self.clear_gen();
        let (mut until, mut reaped) = (u64::MAX, true);
        for no in 0..self.geo.shards {
            let cells = self.region.shard(no);
            // The right to store an item is used before its expiry is noted. Of a shard that was
            // never used no other page is touched.
            if cells.used() != 0 {
                until = until.min(cells.earliest());
            }
            reaped &= cells.reaped() == generation::number(generation);
        }
        // Fails if a writer or another sweeper came in between: then its value stands.
        let _ = all.compare_exchange(ticket, until.max(LOOK_AGAIN), earliest::ALL, Relaxed);
        if reaped {
            self.region.word(header::REAPED).store(generation, Relaxed);
        }
    }

    /// For the first opener of a store: what the header says about all shards is not trusted.
    pub(in crate::engine) fn forget_swept(&self) {
        self.region.word(header::EARLIEST).store(0, Relaxed);
        self.region.word(header::REAPED).store(!self.clear_gen(), Relaxed);
    }

    /// Whether a sweep for space would find nothing, according to two words for all shards.
    pub(in crate::engine) fn nothing_due(&self) -> bool {
        let due = self.region.header_word::<{ header::NEXT_FULL_SWEEP }>();
        let until = match (self.config.no_expire, self.config.sweep_on_full) {
            (false, _) => self.region.header_word::<{ header::EARLIEST }>().load(Relaxed),
            (true, 0) => u64::MAX,
            (true, _) if self.is_full_sweep_due(due.load(Relaxed), clock::coarse_unix_secs()) => 0,
            (true, _) => u64::MAX,
        };
        self.region.header_word::<{ header::REAPED }>().load(Relaxed) == self.clear_gen()
            && !self.is_lease_due()
            && (until == u64::MAX || (!is_ticket(until) && clock::is_ahead(until)))
    }

    /// Notes, under its shard's lock, a placeholder that is stored and ends at `expires`. Where items
    /// expire this is noted with theirs.
    pub(in crate::engine) fn note_lease(&self, expires: u64) {
        if self.config.no_expire {
            self.region.word(header::LEASES_UNTIL).fetch_min(expires.max(LOOK_AGAIN), Relaxed);
        }
    }

    /// Whether placeholders may have ended though items do not expire by themselves (`no_expire`).
    fn is_lease_due(&self) -> bool {
        self.config.no_expire
            && !clock::is_ahead(self.region.header_word::<{ header::LEASES_UNTIL }>().load(Relaxed))
    }

    /// The same, for a sweep that is about to look for them in all shards: it notes those that stay
    /// again, and calls [`Engine::note_lease`] for shards that it missed. If it dies, the next one
    /// looks after [`LEASES_AGAIN`].
    pub(in crate::engine) fn take_due_leases(&self) -> bool {
        let due = self.is_lease_due();
        if due {
            let until = clock::unix_millis() + LEASES_AGAIN;
            self.region.word(header::LEASES_UNTIL).store(until, Relaxed);
        }
        due
    }

    /// Whether a sweep for room that is due then is due now: also if that is further away than the
    /// interval, as it is when the clock has been set back.
    pub(in crate::engine) fn is_full_sweep_due(&self, due: u64, now: u64) -> bool {
        due <= now || due - now > u64::from(self.config.sweep_on_full)
    }

    /// Whether a shard has anything to reap; `now` in milliseconds.
    pub(in crate::engine) fn is_due(&self, no: u64, now: Option<u64>) -> bool {
        let cells = self.region.shard(no);
        cells.reaped() != generation::number(self.clear_gen())
            || now.is_some_and(|now| cells.used() != 0 && cells.earliest() <= now)
    }

    /// A number unique in this region: of a lease or a sweep.
    pub(in crate::engine) fn next_ticket(&self) -> u64 {
        self.region.word(header::TICKETS).fetch_add(1, Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::{COMPUTING, LOOK_AGAIN};
    use crate::{
        engine::{Config, Engine},
        shm::{layout::header, sync::*},
    };

    /// A sweeper that was stopped within its computation may have read the shard's word already.
    #[test]
    fn an_expiry_noted_during_a_computation_forces_another_one() {
        let e = Engine::create(&Config::new("expiry", 10)).unwrap();
        let all = e.region.word(header::EARLIEST);
        let ticket = COMPUTING | e.next_ticket();
        all.store(ticket, SeqCst);
        e.note_earliest(5000);
        assert_eq!(all.load(SeqCst), LOOK_AGAIN);
        // Of what is known the earlier one stands.
        for (known, expires, then) in
            [(u64::MAX, 5000, 5000), (5000, 6000, 5000), (5000, 4000, 4000), (5000, 0, LOOK_AGAIN)]
        {
            all.store(known, SeqCst);
            e.note_earliest(expires);
            assert_eq!(all.load(SeqCst), then, "{expires} after {known}");
        }
    }
}
