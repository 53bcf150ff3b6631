//! Get-or-set: a placeholder in the cache says who computes the value; the others sleep until it is there, or the
//! filler dies or is late.
//!
//! The placeholder's value is three words: owner (a thread), lease number, deadline (milliseconds since boot).
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::{
    Engine, Expires, Fill, FillToken, Mode, SetOptions, Sink, Stored, Touch,
    entry::{self, LEASE},
    index::Found,
    stats::Counter,
    write::{New, Stop},
};
use crate::{
    error::{Error, Result},
    os::{clock, futex, process::Owner},
    shm::{layout::header, order::fillers, sync::*},
};

/// How often a waiter looks whether the filler is alive.
const LOOK: Duration = Duration::from_millis(20);

/// What an attempt to become the filler found.
pub(super) enum Attempt {
    Mine(u64),
    Theirs,
    /// The calling thread is the filler already.
    Own,
    Value,
}

impl Engine {
    /// Reads `key`, or makes the caller its only filler, or waits (up to `patience`) for another's filling.
    /// A filler that dies, or takes longer than `lease`, is replaced by a waiter. When the cache has no room for a
    /// placeholder the caller fills without coordination.
    ///
    /// # Errors
    /// As [`Engine::get`] and [`Engine::set`]; [`Error::WouldDeadlock`] when the thread is this key's filler already.
    pub fn begin_fill<S: Sink>(
        &self,
        key: &[u8],
        lease: Duration,
        patience: Duration,
        sink: &mut S,
    ) -> Result<Fill> {
        let start = Instant::now();
        let mut looked = false;
        loop {
            let seen = self.lease_seq().load(Acquire);
            // `exists` counts nothing: a caller is one miss, however often it wakes.
            if (!std::mem::replace(&mut looked, true) || self.exists(key).is_some())
                && let Some(meta) = self.get(key, Touch::Yes, sink)?
            {
                return Ok(Fill::Hit(meta));
            }
            match self.try_lease(key, lease) {
                Ok(Attempt::Mine(lease)) => return Ok(Fill::Filler(FillToken { lease })),
                Ok(Attempt::Value) => continue,
                Ok(Attempt::Theirs) => {}
                // Waiting for oneself would take until the deadline.
                Ok(Attempt::Own) => return Err(Error::WouldDeadlock),
                Err(Error::Full { .. } | Error::OutOfBlocks { .. } | Error::NoSpace { .. }) => {
                    return Ok(Fill::Filler(FillToken { lease: 0 }));
                }
                Err(e) => return Err(e),
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(Fill::TimedOut);
            }
            self.note_waiter(seen);
            futex::wait(self.lease_seq(), seen, left.min(LOOK));
        }
    }

    /// Stores the value of a fill and wakes the waiters. When the lease was lost (another filler, a delete or clear
    /// meanwhile) nothing is stored ([`Stored::Kept`]).
    ///
    /// # Errors
    /// As [`Engine::set`]; the placeholder is gone then.
    pub fn end_fill(&self, key: &[u8], token: FillToken, value: &[u8], expires: Expires) -> Result<Stored> {
        let options = SetOptions { mode: Mode::Add, expires, keep_ttl: false, ungettable: false };
        if token.lease == 0 {
            return self.set(key, value, &options);
        }
        let place = self.place_for(key);
        let new = New { value, expires: self.expiry(expires), flags: 0 };
        let stored = self.check_limits(key, value.len()).and_then(|()| {
            self.write(&place, |guard, found| match found {
                Some(f) if self.lease_of(&f) == Some(token.lease) => {
                    self.replace(guard, &place, &f, &new)?;
                    Ok(Stored::Inserted)
                }
                _ => Ok(Stored::Kept),
            })
        });
        match stored {
            Ok(Stored::Inserted) => {
                self.count(Counter::Stored, 1);
                self.note_change();
            }
            Ok(_) => {}
            Err(_) => self.abandon_fill(key, token)?,
        }
        self.wake_fillers();
        stored
    }

    /// Gives a fill up: a waiter takes over.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    #[expect(clippy::needless_pass_by_value, reason = "the right to fill ends here")]
    pub fn abandon_fill(&self, key: &[u8], token: FillToken) -> Result<()> {
        let place = self.place_for(key);
        let guard = self.lock(place.shard)?;
        if let Some(f) = self.probe(place.head, place.tag, key)
            && self.lease_of(&f) == Some(token.lease)
        {
            self.remove(&guard, place.head, &f);
        }
        guard.release();
        self.wake_fillers();
        Ok(())
    }

    /// Puts a placeholder of ours where there is none, or where its filler is dead or late.
    pub(super) fn try_lease(&self, key: &[u8], lease: Duration) -> Result<Attempt> {
        self.check_limits(key, 1)?;
        let place = self.place_for(key);
        let number = self.next_ticket();
        let deadline =
            clock::coarse_millis().saturating_add(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        let mut value = [0u8; 24];
        for (to, word) in value.chunks_exact_mut(8).zip([Owner::me().to_word(), number, deadline]) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        // The sweeper takes an orphan away some time after its deadline.
        let expires = self.expiry(Expires::In(lease.as_secs().saturating_add(2)));
        let new = New { value: &value, expires, flags: LEASE };
        self.write(&place, |guard, found| match found {
            Some(f) if f.header.flags & LEASE == 0 && f.header.flags & entry::UNGETTABLE != 0 => {
                Err(Stop::Exists)
            }
            Some(f) if f.header.flags & LEASE == 0 => Ok(Attempt::Value),
            Some(f) if self.is_pending(&f) => {
                let own = self.lease_words(&f).is_some_and(|[owner, ..]| owner == Owner::me().to_word());
                Ok(if own { Attempt::Own } else { Attempt::Theirs })
            }
            Some(f) => {
                self.replace(guard, &place, &f, &new)?;
                Ok(Attempt::Mine(number))
            }
            None => {
                self.insert(guard, &place, &new)?;
                Ok(Attempt::Mine(number))
            }
        })
    }

    fn lease_words(&self, f: &Found) -> Option<[u64; 3]> {
        if f.header.flags & LEASE == 0 || f.header.value_len != 24 {
            return None;
        }
        let at = entry::value_off(f.off, self.entry_head, f.header.key_len);
        Some([0, 8, 16].map(|i| self.region.word(at + i).load(Relaxed)))
    }

    fn lease_of(&self, f: &Found) -> Option<u64> {
        self.lease_words(f).map(|[_, number, _]| number)
    }

    /// Whether an entry is the placeholder of a filler that is alive and in time, whatever its expiry says: that is by the wall
    /// clock, for the sweeper, and somebody may have set it forward.
    #[cold]
    pub(super) fn is_awaited(&self, f: &Found) -> bool {
        f.header.flags & LEASE != 0
            && f.header.generation == self.clear_gen() % entry::GENERATIONS
            && self.is_pending(f)
    }

    /// Whether the filler is alive and in time.
    fn is_pending(&self, f: &Found) -> bool {
        self.lease_words(f).is_some_and(|[owner, _, deadline]| {
            clock::coarse_millis() < deadline && !Owner::from_word(owner).is_dead()
        })
    }

    /// A number that nobody else was given in this region: of a lease, of a sweep.
    pub(super) fn next_ticket(&self) -> u64 {
        self.region.word(header::TICKETS).fetch_add(1, Relaxed) + 1
    }

    fn lease_seq(&self) -> &AtomicU32 {
        self.region.half(header::LEASE_SEQ)
    }

    /// Notes that somebody is about to sleep on this value of the word. The latest one counts: those who slept on an earlier
    /// value were woken when it ended. So a waiter that is killed in its sleep leaves nothing to be taken back.
    fn note_waiter(&self, seen: u32) {
        let next = seen.wrapping_add(1);
        let later = |noted: u32| (next.wrapping_sub(noted).cast_signed() > 0).then_some(next);
        let _ = self.region.half(header::LEASE_WAITED).fetch_update(fillers::WAIT, fillers::WAIT, later);
        fence(fillers::BETWEEN);
    }

    /// Wakes everybody who waits for a value.
    pub(super) fn wake_fillers(&self) {
        let ended = self.lease_seq().fetch_add(1, fillers::SIGNAL);
        fence(fillers::BETWEEN);
        if self.region.half(header::LEASE_WAITED).load(fillers::CHECK) == ended.wrapping_add(1) {
            futex::wake_all(self.lease_seq());
        }
    }
}
