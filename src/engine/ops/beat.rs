//! Copies of values that are elsewhere: how new they are, and who keeps them so.
//!
//! One thread of the machine, the owner, applies the changes that it is told of. The *beat* is a
//! time up to which every change is known to have been applied. A reader loads it, and then looks
//! for a copy: what it finds is as new as the beat, at least, whatever happens to the owner. An
//! owner begins a new *term* and takes the beat away. What an owner of an earlier term still does
//! is harmless: it can remove copies, but not raise the beat.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{Engine, generation},
    error::{Error, Result},
    os::{
        mutex::{Locked, RobustMutex},
        process::first_thread_id,
    },
    shm::{layout::header, order::beat, sync::*},
};

/// Bits of the mark and of the time, milliseconds since boot. The term is above them.
const TIME_BITS: u32 = 48;
/// Set in every word that has a time: one without is older than any limit.
const MARK: u64 = 1 << (TIME_BITS - 1);

/// A term and a time in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat(u64);

impl Beat {
    /// Without a time copies must not be used.
    pub(crate) fn new(term: u16, millis: Option<u64>) -> Self {
        let time = millis.map_or(0, |millis| MARK | millis & (MARK - 1));
        Self(u64::from(term) << TIME_BITS | time)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The owner's term, 16 bits that wrap.
    pub(crate) fn term(self) -> u16 {
        (self.0 >> TIME_BITS) as u16
    }

    /// The time, milliseconds since boot; `None` = copies must not be used.
    pub(crate) fn time(self) -> Option<u64> {
        (self.0 & MARK != 0).then_some(self.0 & (MARK - 1))
    }

    /// Whether copies are less than `limit` milliseconds old at the time `now`: of a limit of 0 none
    /// is, of `u64::MAX` all are. A time to come, of another boot, is none.
    #[inline]
    pub(crate) fn is_within(self, limit: u64, now: u64) -> bool {
        (now | MARK).wrapping_sub(self.0 & (MARK | (MARK - 1))) < limit
    }
}

/// The right of one thread to be the owner; ends with it, or with its thread.
#[derive(Debug)]
pub(crate) struct OwnerLock {
    mutex: RobustMutex,
    has_died: bool,
}

impl OwnerLock {
    /// Whether the one that had it before died with it.
    pub(crate) fn has_died(&self) -> bool {
        self.has_died
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}

impl Engine {
    /// The beat. To be loaded before a copy is looked for.
    #[inline]
    pub(crate) fn beat(&self) -> Beat {
        Beat(self.region.header_word::<{ header::BEAT }>().load(beat::READ))
    }

    /// The time of the last beat, which may be over; 0 = there was none. As [`Engine::beat`].
    pub(crate) fn last_beat(&self) -> u64 {
        self.region.word(header::LAST_BEAT).load(beat::READ)
    }

    /// Begins a term: from here on copies must not be used. With `seen`, only if the beat is still
    /// that one. Returns the term; `None` = it was not.
    pub(crate) fn begin_term(&self, seen: Option<Beat>) -> Option<u16> {
        let word = self.region.word(header::BEAT);
        let next = |now: Beat| Beat::new(now.term().wrapping_add(1), None);
        let begin = |now| seen.is_none_or(|seen| seen.0 == now).then(|| next(Beat(now)).0);
        let before = word.fetch_update(beat::RAISE, beat::READ, begin).ok()?;
        self.region.word(header::TERMS).fetch_add(1, Relaxed);
        self.region.word(header::OWNER_PROCESS).store(first_thread_id().into(), Relaxed);
        Some(next(Beat(before)).term())
    }

    /// Raises the beat of a term: every change up to `millis` has been applied. `false` = another
    /// term has begun.
    pub(crate) fn raise_beat(&self, term: u16, millis: u64) -> bool {
        let raised = |now: u64| (Beat(now).term() == term).then_some(Beat::new(term, Some(millis)).0);
        let word = self.region.word(header::BEAT);
        let done = word.fetch_update(beat::RAISE, beat::READ, raised).is_ok();
        if done {
            self.region.word(header::LAST_BEAT).store(millis, beat::RAISE_LAST);
        }
        done
    }

    /// A store that was opened again has no beat, as its times may be those of another boot, and no
    /// copies.
    pub(in crate::engine) fn forget_beat(&self) {
        if self.has_copies() {
            let clears = self.region.word(header::CLEAR_GEN);
            clears.store(generation::after(clears.load(Relaxed)), Relaxed);
        }
        for word in [
            header::BEAT,
            header::LAST_BEAT,
            header::OWNER_SEEN,
            header::NEXT_TRY,
            header::SOURCE,
            header::NUMBER,
            header::UNTRACKED,
        ] {
            self.region.word(word).store(0, Relaxed);
        }
        self.forget_nodes();
    }

    /// Takes the owner's lock if it is free, or its holder is dead.
    ///
    /// # Errors
    /// Those of a process that may not lock.
    pub(crate) fn try_own(&self) -> Result<Option<OwnerLock>> {
        self.admit()?;
        let mutex = self.region.mutex(header::LOCK_OWNER);
        let locked = mutex.try_lock().or_else(|taken| {
            if taken.is_busy() { Err(Error::Exists) } else { mutex.wait(taken, Duration::ZERO) }
        });
        match locked {
            Ok(locked) => {
                let has_died = locked == Locked::OwnerDied;
                if has_died {
                    mutex.consistent();
                }
                Ok(Some(OwnerLock { mutex, has_died }))
            }
            Err(Error::Exists | Error::Timeout { .. } | Error::WouldDeadlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// When an owner was last at work, milliseconds since boot; 0 = none is.
    pub(crate) fn owner_seen(&self) -> u64 {
        self.region.word(header::OWNER_SEEN).load(Relaxed)
    }

    /// Notes that the owner is at work; 0 = it is no more.
    pub(crate) fn note_owner(&self, now: u64) {
        self.region.word(header::OWNER_SEEN).store(now, Relaxed);
    }

    /// The process of the last owner; 0 = there was none.
    pub(crate) fn owner_process(&self) -> u32 {
        self.region.word(header::OWNER_PROCESS).load(Relaxed) as u32
    }

    /// Terms so far.
    pub(crate) fn terms(&self) -> u64 {
        self.region.word(header::TERMS).load(Relaxed)
    }

    /// Two words by which the owner's connection can be found.
    pub(crate) fn owner_link(&self) -> [u64; 2] {
        [0, 8].map(|at| self.region.word(header::OWNER_LINK + at).load(Relaxed))
    }

    /// Keeps them, for the next owner.
    pub(crate) fn note_link(&self, words: [u64; 2]) {
        for (at, word) in [0, 8].into_iter().zip(words) {
            self.region.word(header::OWNER_LINK + at).store(word, Relaxed);
        }
    }

    /// Whether the place of the values refused to tell the owner of changes when it was asked last.
    pub(crate) fn is_untracked(&self) -> bool {
        self.region.word(header::UNTRACKED).load(Relaxed) != 0
    }

    /// Notes it.
    pub(crate) fn note_untracked(&self, refused: bool) {
        self.region.word(header::UNTRACKED).store(refused.into(), Relaxed);
    }

    /// The number of the server whose changes are applied. To be loaded after a placeholder was
    /// made: a copy of what another server said must not be kept.
    pub(crate) fn source(&self) -> u64 {
        self.region.word(header::SOURCE).load(beat::READ)
    }

    /// Notes it, in a term that has no beat yet and before copies and placeholders are removed.
    pub(crate) fn note_source(&self, number: u64) {
        self.region.word(header::SOURCE).store(number, beat::RAISE_LAST);
    }

    /// When the place of the values may be asked again, for all processes.
    pub(crate) fn next_try(&self) -> &AtomicU64 {
        self.region.word(header::NEXT_TRY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Config;

    #[test]
    fn a_beat_is_a_term_and_a_time() {
        let beat = Beat::new(7, Some(1000));
        assert_eq!((beat.term(), beat.time()), (7, Some(1000)));
        assert!(beat.is_within(501, 1500) && !beat.is_within(501, 1501));
        assert!(!beat.is_within(0, 1000), "no copy is new enough");
        assert!(!beat.is_within(u64::MAX - 1, 999), "of another boot");
        for none in [Beat::new(7, None), Beat(0)] {
            assert!(none.time().is_none() && !none.is_within(1 << 40, 5), "copies must not be used");
        }
        assert!(Beat(0).is_within(u64::MAX, 5), "any copy is new enough");
        assert_eq!(Beat::new(1, Some(0)).time(), Some(0));
    }

    #[test]
    fn only_the_term_s_owner_raises_the_beat() {
        let e = Engine::create(&Config::new("terms", 10)).expect("a cache");
        let first = e.begin_term(None).expect("a term");
        assert!(e.beat().time().is_none());
        assert!(e.raise_beat(first, 5) && e.raise_beat(first, 9));
        assert_eq!((e.beat().time(), e.last_beat()), (Some(9), 9));
        let seen = e.beat();
        let second = e.begin_term(Some(seen)).expect("nobody came before");
        assert_eq!(e.begin_term(Some(seen)), None, "one of several thieves");
        assert!(e.beat().time().is_none() && e.last_beat() == 9);
        assert!(!e.raise_beat(first, 20), "its term is over, though there is no beat yet");
        assert!(e.raise_beat(second, 30) && !e.raise_beat(first, 40));
        assert_eq!((e.beat().time(), e.terms()), (Some(30), 2));
        assert_eq!(e.owner_process(), std::process::id());
    }

    #[test]
    fn one_owner_until_it_ends_or_dies() {
        let e = Engine::create(&Config::new("owners", 10)).expect("a cache");
        let own = || e.try_own().expect("it may lock");
        let lock = own().expect("free");
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(own().is_none()));
        });
        drop(lock);
        std::thread::scope(|scope| {
            // Its thread ends with the lock.
            let dies = scope.spawn(|| _ = std::mem::ManuallyDrop::new(own().expect("free")));
            dies.join().expect("no panic");
        });
        assert!(own().expect("its owner is dead").has_died());
        assert!(!own().expect("what the dead left is in order").has_died());
    }
}
