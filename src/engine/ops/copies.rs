//! Copies of values that are elsewhere. A copy is stored only under a placeholder that was there
//! before the value was asked for, and that nobody has removed since: whoever changes the value
//! elsewhere removes copy and placeholder alike.
#![forbid(unsafe_code)]

use std::time::Duration;

#[cfg(any(feature = "cli", feature = "uwsgi"))]
use crate::engine::{Figure, Memory};
use crate::{
    engine::{
        Engine, Expires, FillToken, NearStats, generation,
        index::entry::LEASE,
        ops::{
            lease::{ABSENT, COPY, LeaseAttempt, bytes_of},
            set::New,
        },
        stats::Counter,
    },
    error::Result,
    os::clock,
    shm::{layout::header, order, sync::*},
};

/// Marks a region whose items are copies.
const COPIES: u64 = 0x9E37_79B9_7F4A_7C15;

/// What is known of a value that is elsewhere and has no copy.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nothing: to be asked for under this placeholder.
    Asked(FillToken),
    /// It is not there.
    Absent,
    /// Nothing, and no copy can be kept: there is no room, another caller is at it, or the cache is
    /// held exclusively.
    Unkept,
}

impl Engine {
    /// Places a placeholder for the copy of a value that is asked for next.
    pub(crate) fn begin_copy(&self, key: &[u8], lease: Duration) -> Begun {
        if !self.may_write() || self.check_limits(key, 1).is_err() {
            return Begun::Unkept;
        }
        match self.try_lease(key, lease, COPY) {
            Ok(LeaseAttempt::Mine(lease)) => Begun::Asked(FillToken::new(lease)),
            Ok(LeaseAttempt::Absent) => Begun::Absent,
            _ => Begun::Unkept,
        }
    }

    /// Stores the copy; `false` = it was not: the placeholder is gone, or the value has no place.
    pub(crate) fn end_copy(&self, key: &[u8], token: FillToken, value: &[u8], expires: Expires) -> bool {
        self.end_copy_with(key, token, &New { value, expires: self.expiry(expires), flags: 0 })
    }

    /// As [`Engine::end_copy`], of a value that is not there: later calls of [`Engine::begin_copy`]
    /// say so until the key is invalidated or this ends.
    pub(crate) fn end_absent(&self, key: &[u8], token: FillToken, expires: Expires) -> bool {
        let value = bytes_of([0, ABSENT, 0]);
        self.end_copy_with(key, token, &New { value: &value, expires: self.expiry(expires), flags: LEASE })
    }

    fn end_copy_with(&self, key: &[u8], token: FillToken, new: &New<'_>) -> bool {
        let stored = self.fill_placeholder(key, &token, new);
        let done = matches!(stored, Ok(true));
        if stored.is_err() {
            self.abandon_copy(key, token);
        }
        self.count(if done { Counter::Fills } else { Counter::FillsVoided }, 1);
        done
    }

    /// Removes the placeholder. One that cannot be removed now ends in time.
    pub(crate) fn abandon_copy(&self, key: &[u8], token: FillToken) {
        let _ = self.abandon_fill(key, token);
    }

    /// Removes a key's copy, or the placeholder for one: the value has changed elsewhere. Returns
    /// whether there was one. Does not wait for who holds the cache exclusively.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout): [`Engine::clear_copies`] does it, too.
    pub(crate) fn invalidate(&self, key: &[u8]) -> Result<bool> {
        let hashed = self.hash_key(key);
        let guard = self.lock_raw(hashed.shard)?;
        // After a clear nothing is there until a writer comes, who reaps the shard first.
        let is_reaped = guard.reaped() == generation::number(self.clear_gen());
        let found = if is_reaped { self.lookup(hashed.home, hashed.tag(), key) } else { None };
        if let Some(f) = &found {
            self.remove(&guard, hashed.home, f);
        }
        guard.release();
        if found.is_some_and(|f| f.header.flags & LEASE != 0) {
            self.wake_fillers();
        }
        Ok(found.is_some())
    }

    /// Removes all copies and placeholders, whoever holds the cache exclusively.
    ///
    /// # Errors
    /// As [`Engine::clear`].
    pub(crate) fn clear_copies(&self) -> Result<()> {
        self.advance_generation()?;
        self.wake_fillers();
        Ok(())
    }

    /// A number that changes whenever all copies are removed. To be loaded after the beat.
    #[cfg(feature = "redis")]
    pub(crate) fn state_of_copies(&self) -> u64 {
        self.clear_gen()
    }

    /// Notes the number under which values are kept elsewhere. If this machine knew another one, all
    /// copies are removed, and [`Engine::state_of_copies`] changes, before this returns.
    ///
    /// # Errors
    /// As [`Engine::clear`].
    #[cfg(feature = "redis")]
    pub(crate) fn note_number(&self, number: u64) -> Result<()> {
        let word = self.region.word(header::NUMBER);
        let known = word.compare_exchange(0, number, order::beat::RAISE, order::beat::READ);
        if known.is_err_and(|known| known != number) {
            // In this order: if this process ends in between, the next one does it again.
            self.clear_copies()?;
            word.store(number, order::beat::RAISE_LAST);
        }
        Ok(())
    }

    /// What was done with copies, by all processes.
    pub(crate) fn copy_stats(&self) -> NearStats {
        let (beat, now) = (self.beat().time(), clock::coarse_millis());
        // A hit of a copy is counted as a hit, like any other: nothing more where it costs most.
        let (by_server, found) = (self.total(Counter::ServerHits), self.total(Counter::Hits));
        let (hits, bypassed) = (found.saturating_sub(by_server), self.total(Counter::Bypassed));
        let absent = self.total(Counter::Absent);
        let reads = found.wrapping_add(self.total(Counter::Misses));
        NearStats {
            hits,
            misses: reads.saturating_sub(hits).saturating_sub(bypassed).saturating_sub(absent),
            absent,
            bypassed,
            fills: self.total(Counter::Fills),
            fills_voided: self.total(Counter::FillsVoided),
            invalidated: self.total(Counter::Invalidated),
            invalidated_absent: self.total(Counter::InvalidatedAbsent),
            flushes: self.total(Counter::Flushes),
            stale_served: self.total(Counter::StaleServed),
            terms: self.terms(),
            beat_age_ms: beat.map(|beat| now.saturating_sub(beat)),
            silence_ms: now.saturating_sub(self.last_beat()),
            owner_pid: self.owner_process(),
            untracked: self.is_untracked(),
            requests: self.total(Counter::Requests),
            errors: self.total(Counter::RequestErrors),
            timeouts: self.total(Counter::RequestTimeouts),
            connects: self.total(Counter::Connects),
            elsewhere: self.total(Counter::Elsewhere),
            is_down: self.next_try().load(Relaxed) != 0 || self.is_place_down(),
        }
    }

    /// All statistics of a region with their names, and what `memory` says: those of copies, too, if
    /// it holds some.
    #[cfg(any(feature = "cli", feature = "uwsgi"))]
    pub(crate) fn figures(&self, memory: &Memory) -> Vec<Figure> {
        let near = self.has_copies().then(|| self.copy_stats());
        let own = self.stats().figures().into_iter().chain(memory.figures()).chain(self.reasons());
        own.chain(near.iter().flat_map(NearStats::figures)).collect()
    }

    /// Whether the items are copies of values that are elsewhere.
    pub(crate) fn has_copies(&self) -> bool {
        // A few flipped bits on disk make no copies of items, nor items of copies.
        (self.region.word(header::COPIES).load(Relaxed) ^ COPIES).count_ones() <= 8
    }

    /// Marks the items as copies.
    pub(crate) fn keep_copies(&self) {
        self.region.word(header::COPIES).store(COPIES, order::beat::RAISE_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Config, Fill, SetOptions, Touch};

    const LEASE: Duration = Duration::from_secs(5);

    fn cache(name: &str, items: u64) -> std::sync::Arc<Engine> {
        Engine::create(&Config::new(name, items)).expect("a cache")
    }

    fn begin(e: &Engine, key: &[u8]) -> Option<FillToken> {
        match e.begin_copy(key, LEASE) {
            Begun::Asked(token) => Some(token),
            Begun::Absent | Begun::Unkept => None,
        }
    }

    fn get(e: &Engine, key: &[u8]) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        e.get(key, Touch::Copy, &mut value).expect("get").map(|_| value)
    }

    #[test]
    fn a_copy_is_stored_under_its_placeholder_only() {
        let e = cache("copies", 10);
        let fill = |then: &dyn Fn()| {
            let token = begin(&e, b"k").expect("a placeholder");
            assert_eq!(get(&e, b"k"), None);
            then();
            e.end_copy(b"k", token, b"v", Expires::Never)
        };
        assert!(fill(&|| {}));
        assert_eq!(get(&e, b"k").as_deref(), Some(&b"v"[..]));
        assert!(e.invalidate(b"k").expect("invalidate") && !e.invalidate(b"k").expect("invalidate"));
        assert!(!fill(&|| assert!(e.invalidate(b"k").expect("the placeholder"))));
        assert!(!fill(&|| e.clear_copies().expect("clear")));
        assert!(
            !fill(&|| assert!(begin(&e, b"k").is_none(), "another is at it")) || {
                e.invalidate(b"k").expect("invalidate")
            }
        );
        assert_eq!(get(&e, b"k"), None);
        let stats = e.stats();
        assert_eq!((stats.stored, stats.misses), (0, 0), "only who asks elsewhere knows");
    }

    #[test]
    fn without_room_there_is_no_copy() {
        let e = cache("no room for copies", 1);
        e.set(b"a", b"1", &SetOptions::set(Expires::Never)).expect("set");
        assert!(begin(&e, b"b").is_none());
        let long = vec![0; 1 << 20];
        let e =
            Engine::create(&Config { max_value: 100, ..Config::new("short copies", 10) }).expect("a cache");
        let token = begin(&e, b"k").expect("a placeholder");
        assert!(!e.end_copy(b"k", token, &long, Expires::Never), "longer than the limit");
        assert!(begin(&e, b"k").is_some(), "nothing was left behind");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn who_computes_the_value_takes_the_place_of_who_copies_it() {
        let e = cache("copies and fills", 10);
        let copy = begin(&e, b"k").expect("a placeholder");
        let fill = e.begin_fill(b"k", LEASE, Duration::ZERO, &mut Vec::new()).expect("begin_fill");
        let Fill::Filler(token) = fill else { panic!("{fill:?}") };
        assert!(!e.end_copy(b"k", copy, b"old", Expires::Never));
        assert!(begin(&e, b"k").is_none(), "the value is being computed");
        assert!(e.holds_lease(b"k", &token).expect("holds_lease"));
        assert!(e.invalidate(b"k").expect("invalidate"));
        assert!(!e.holds_lease(b"k", &token).expect("holds_lease"));
        e.abandon_fill(b"k", token).expect("abandon_fill");
    }

    #[test]
    fn a_value_that_is_not_there_is_a_miss_until_it_may_be() {
        let e = cache("absent copies", 10);
        let absent = || {
            let token = begin(&e, b"k").expect("a placeholder");
            assert!(e.end_absent(b"k", token, Expires::Never));
            assert!(matches!(e.begin_copy(b"k", LEASE), Begun::Absent));
            assert!(get(&e, b"k").is_none() && e.exists(b"k").is_none());
            assert!(e.walk(&mut crate::engine::Cursor::default()).is_none(), "no item");
        };
        absent();
        assert!(e.invalidate(b"k").expect("invalidate"));
        absent();
        e.clear_copies().expect("clear");
        let token = begin(&e, b"k").expect("a placeholder");
        assert!(e.end_absent(b"k", token, Expires::At(1)));
        let token = begin(&e, b"k").expect("its time is over");
        assert!(e.end_absent(b"k", token, Expires::Never));
        // Who computes the value takes its place.
        let fill = e.begin_fill(b"k", LEASE, Duration::ZERO, &mut Vec::new()).expect("begin_fill");
        let Fill::Filler(token) = fill else { panic!("{fill:?}") };
        assert!(e.end_fill(b"k", token, b"v", Expires::Never).is_ok() && get(&e, b"k").is_some());
        // A change meanwhile.
        e.invalidate(b"k").expect("invalidate");
        let token = begin(&e, b"k").expect("a placeholder");
        e.invalidate(b"k").expect("invalidate");
        assert!(!e.end_absent(b"k", token, Expires::Never) && begin(&e, b"k").is_some());
    }

    #[test]
    fn exclusive_mode_stops_no_invalidation() {
        let e = cache("copies and wlock", 10);
        let token = begin(&e, b"k").expect("a placeholder");
        assert!(e.end_copy(b"k", token, b"v", Expires::Never));
        e.exclusive_begin().expect("exclusive");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(begin(&e, b"l").is_none());
                assert!(e.invalidate(b"k").expect("invalidate"));
                e.clear_copies().expect("clear");
            });
        });
        e.exclusive_end();
    }
}
