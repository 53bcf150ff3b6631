//! Get-or-set with a lease, against cache stampedes: a placeholder names the one filler of a key.
//! Others sleep until the value is there, or until the filler dies or its lease ends.
//!
//! The placeholder's value is three words: owner (a thread), lease number, deadline (milliseconds
//! since boot). The lease of a copy has a number of its own kind: whoever is to compute the value
//! takes its place.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::{
    engine::{
        Engine, Expires, Fill, FillToken, SetOptions, Sink, Stored, Touch,
        index::{
            bucket::EntryRef,
            entry::{self, LEASE},
        },
        ops::set::{New, WriteAbort},
        stats::Counter,
    },
    error::{Error, Result},
    os::{clock, futex, process::Owner},
    shm::{layout::header, order::fillers, sync::*},
};

/// How often a waiter checks whether the filler is alive.
const LOOK: Duration = Duration::from_millis(20);

/// Set in the number of a lease that is for a copy of a value that is elsewhere.
pub(in crate::engine) const COPY: u64 = 1 << 63;

/// The number of a placeholder that says that there is no value elsewhere. It has no owner, and whoever
/// is to compute the value takes its place.
pub(in crate::engine) const ABSENT: u64 = u64::MAX;

/// The result of an attempt to become the filler.
pub(in crate::engine) enum LeaseAttempt {
    Mine(u64),
    Theirs,
    /// The calling thread is the filler already.
    Own,
    Value,
    /// There is no value elsewhere: of an attempt to copy one.
    Absent,
}

impl Engine {
    /// Reads `key`, or makes the caller its only filler, or waits (up to `patience`) for another's
    /// filling. A filler that dies, or takes longer than `lease`, is replaced by a waiter. When the
    /// cache has no room for a placeholder the caller fills without coordination.
    ///
    /// # Errors
    /// As [`Engine::get`] and [`Engine::set`]; [`Error::WouldDeadlock`] when the thread is this
    /// key's filler already.
    pub fn begin_fill<S: Sink>(
        &self,
        key: &[u8],
        lease: Duration,
        patience: Duration,
        sink: &mut S,
    ) -> Result<Fill> {
        self.fill_or_wait(key, (lease, patience), sink, false)
    }

    /// [`Engine::begin_fill`] of a caller whose miss has been counted.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "redis")]
    pub(crate) fn begin_fill_again<S: Sink>(
        &self,
        key: &[u8],
        lease: Duration,
        patience: Duration,
        sink: &mut S,
    ) -> Result<Fill> {
        self.fill_or_wait(key, (lease, patience), sink, true)
    }

    fn fill_or_wait<S: Sink>(
        &self,
        key: &[u8],
        (lease, patience): (Duration, Duration),
        sink: &mut S,
        mut looked: bool,
    ) -> Result<Fill> {
        let start = Instant::now();
        loop {
            let seen = self.lease_seq().load(Acquire);
            // `exists` counts nothing: a caller counts one miss, however often it wakes.
            if (!std::mem::replace(&mut looked, true) || self.exists(key).is_some())
                && let Some(meta) = self.get(key, Touch::Yes, sink)?
            {
                return Ok(Fill::Hit(meta));
            }
            self.check_limits(key, 1)?;
            match self.try_lease(key, lease, 0) {
                Ok(LeaseAttempt::Mine(lease)) => return Ok(Fill::Filler(FillToken::new(lease))),
                Ok(LeaseAttempt::Value) => continue,
                Ok(LeaseAttempt::Theirs | LeaseAttempt::Absent) => {}
                // A thread that waits for itself would wait until the deadline.
                Ok(LeaseAttempt::Own) => return Err(Error::WouldDeadlock),
                Err(Error::Full { .. } | Error::OutOfBlocks { .. } | Error::NoSpace { .. }) => {
                    return Ok(Fill::Filler(FillToken::new(0)));
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

    /// Stores the value of a fill and wakes the waiters. When the lease was lost (another filler, a
    /// delete or clear meanwhile) nothing is stored ([`Stored::Kept`]).
    ///
    /// # Errors
    /// As [`Engine::set`]; the placeholder is removed in any case.
    pub fn end_fill(&self, key: &[u8], token: FillToken, value: &[u8], expires: Expires) -> Result<Stored> {
        let options = SetOptions::add(expires);
        if !token.has_lease() {
            return self.set(key, value, &options);
        }
        let new = New { value, expires: self.expiry(expires), flags: 0 };
        let stored = self.fill_placeholder(key, &token, &new);
        match stored {
            Ok(true) => {
                self.count(Counter::Stored, 1);
                self.note_change();
            }
            Ok(false) => {}
            Err(_) => self.abandon_fill(key, token)?,
        }
        self.wake_fillers();
        Ok(if stored? { Stored::Inserted } else { Stored::Kept })
    }

    /// Replaces the placeholder of a lease; `false` = it is gone.
    pub(in crate::engine) fn fill_placeholder(
        &self,
        key: &[u8],
        token: &FillToken,
        new: &New<'_>,
    ) -> Result<bool> {
        self.check_limits(key, new.value.len())?;
        let hashed = self.hash_key(key);
        self.write(&hashed, |guard, found| match found {
            Some(f) if self.lease_of(&f) == Some(token.lease) => {
                self.replace(guard, &hashed, &f, new)?;
                Ok(true)
            }
            _ => Ok(false),
        })
    }

    /// Whether a fill's lease is still its own: no other filler, delete or clear came meanwhile. A
    /// fill without a lease has none to lose.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    #[cfg(feature = "redis")]
    pub(crate) fn holds_lease(&self, key: &[u8], token: &FillToken) -> Result<bool> {
        if !token.has_lease() {
            return Ok(true);
        }
        let hashed = self.hash_key(key);
        let guard = self.lock(hashed.shard)?;
        let found = self.lookup(hashed.home, hashed.tag(), key);
        let held = found.is_some_and(|f| self.lease_of(&f) == Some(token.lease));
        guard.release();
        Ok(held)
    }

    /// Waits until a fill's placeholder is gone; `false` = it is still there after `patience`.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    #[cfg(feature = "redis")]
    pub(crate) fn await_void(&self, key: &[u8], token: &FillToken, patience: Duration) -> Result<bool> {
        let start = Instant::now();
        loop {
            let seen = self.lease_seq().load(Acquire);
            if !self.holds_lease(key, token)? {
                return Ok(true);
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            self.note_waiter(seen);
            futex::wait(self.lease_seq(), seen, left);
        }
    }

    /// A name that no other lease has, of any region: the region's, the owner's, the number.
    #[cfg(feature = "redis")]
    pub(crate) fn lease_name(&self, token: &FillToken) -> [u8; 24] {
        bytes_of([self.lease_region(), Owner::me().to_word(), token.lease])
    }

    /// Whether a name is of a lease of this region whose owner has ended.
    #[cfg(feature = "redis")]
    pub(crate) fn is_lease_of_the_dead(&self, name: &[u8]) -> bool {
        let (&[region, owner, _], []) = name.as_chunks() else { return false };
        u64::from_ne_bytes(region) == self.lease_region()
            && Owner::from_word(u64::from_ne_bytes(owner)).is_dead()
    }

    /// A number of this region. It tells nothing of the secret that makes it.
    #[cfg(feature = "redis")]
    fn lease_region(&self) -> u64 {
        self.secret.hash(b"the region of a lease")
    }

    /// Gives up a fill: a waiter takes over.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    #[expect(clippy::needless_pass_by_value, reason = "the right to fill ends here")]
    pub fn abandon_fill(&self, key: &[u8], token: FillToken) -> Result<()> {
        let hashed = self.hash_key(key);
        let guard = self.lock(hashed.shard)?;
        if let Some(f) = self.lookup(hashed.home, hashed.tag(), key)
            && self.lease_of(&f) == Some(token.lease)
        {
            self.remove(&guard, hashed.home, &f);
        }
        guard.release();
        self.wake_fillers();
        Ok(())
    }

    /// Stores a placeholder of the caller's if there is none, or if its filler is dead or late.
    /// `kind`: 0 or [`COPY`]. The caller checks the limits of a key that is not the engine's own.
    pub(in crate::engine) fn try_lease(
        &self,
        key: &[u8],
        lease: Duration,
        kind: u64,
    ) -> Result<LeaseAttempt> {
        let hashed = self.hash_key(key);
        let number = self.next_ticket() | kind;
        let deadline =
            clock::coarse_millis().saturating_add(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        let value = bytes_of([Owner::me().to_word(), number, deadline]);
        // The sweeper removes an abandoned placeholder some time after its deadline.
        let expires = self.expiry(Expires::In(lease.as_secs().saturating_add(2)));
        let new = New { value: &value, expires, flags: LEASE };
        self.write(&hashed, |guard, found| match found {
            Some(f) if f.header.flags & LEASE == 0 && f.header.flags & entry::UNGETTABLE != 0 => {
                Err(WriteAbort::Exists)
            }
            Some(f) if f.header.flags & LEASE == 0 => Ok(LeaseAttempt::Value),
            Some(f) if kind == COPY && self.lease_of(&f) == Some(ABSENT) && self.is_live(&f.header) => {
                Ok(LeaseAttempt::Absent)
            }
            Some(f) if self.is_pending(&f) && (kind == COPY || self.lease_of(&f) < Some(COPY)) => {
                let own = self.lease_words(&f).is_some_and(|[owner, ..]| owner == Owner::me().to_word());
                Ok(if own { LeaseAttempt::Own } else { LeaseAttempt::Theirs })
            }
            found => {
                match found {
                    Some(f) => self.replace(guard, &hashed, &f, &new)?,
                    None => self.insert(guard, &hashed, &new)?,
                }
                self.note_lease(expires);
                Ok(LeaseAttempt::Mine(number))
            }
        })
    }

    pub(in crate::engine) fn lease_of(&self, f: &EntryRef) -> Option<u64> {
        self.lease_words(f).map(|[_, number, _]| number)
    }

    fn lease_seq(&self) -> &AtomicU32 {
        self.region.half(header::LEASE_SEQ)
    }

    /// Notes that a waiter is about to sleep on this value of the word. The latest value counts:
    /// waiters of earlier values were woken when those ended. So a waiter that is killed in its
    /// sleep leaves nothing to be taken back.
    fn note_waiter(&self, seen: u32) {
        let next = seen.wrapping_add(1);
        let later = |noted: u32| (next.wrapping_sub(noted).cast_signed() > 0).then_some(next);
        let _ = self.region.half(header::LEASE_WAITED).fetch_update(fillers::WAIT, fillers::WAIT, later);
        fence(fillers::BETWEEN);
    }

    /// Wakes all waiters.
    pub(in crate::engine) fn wake_fillers(&self) {
        let ended = self.lease_seq().fetch_add(1, fillers::SIGNAL);
        fence(fillers::BETWEEN);
        if self.region.half(header::LEASE_WAITED).load(fillers::CHECK) == ended.wrapping_add(1) {
            futex::wake_all(self.lease_seq());
        }
    }
}

/// Three words as the value of a placeholder, or as the name of a lease.
pub(in crate::engine) fn bytes_of(words: [u64; 3]) -> [u8; 24] {
    std::array::from_fn(|at| words[at / 8].to_ne_bytes()[at % 8])
}
