//! Writes that depend on what is there: compare-and-swap, take, a new expiry; and the right to refresh a value that
//! is still served.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{
    Engine, Expires, FillToken, Sink,
    entry::{self, LEASE, UNGETTABLE},
    index::Found,
    lease::Attempt,
    shard::ShardGuard,
    stats::Counter,
    write::{New, Place, Stop},
};
use crate::{
    error::{Error, Result},
    shm::sync::*,
};

/// How often a value is copied again, because others changed it, before it is copied under the lock.
const TRIES: u32 = 64;

/// What [`Engine::swap`] puts in the place of the value that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap<'v> {
    /// This value; without an expiry the old one stays, and the LRU place too.
    Value(&'v [u8], Option<Expires>),
    /// Nothing: the key is removed.
    Nothing,
}

impl Engine {
    /// Replaces or removes `key` if its value equals `expected`; returns whether it did. One step for everybody else.
    /// Items that reads miss are left alone.
    ///
    /// # Errors
    /// As [`Engine::set`].
    pub fn swap(&self, key: &[u8], expected: &[u8], swap: &Swap<'_>) -> Result<bool> {
        if let Swap::Value(value, _) = swap {
            self.check_limits(key, value.len())?;
        }
        let place = self.place_for(key);
        let done = self.write(&place, |guard, found| {
            let Some(f) = found.filter(|f| is_readable(f) && self.value_is(f, expected)) else {
                return Ok(false);
            };
            match *swap {
                Swap::Nothing => self.remove(guard, place.head, &f),
                Swap::Value(value, expires) => {
                    let kept = f.header.expires;
                    let until = expires.map_or(kept, |e| self.expiry(e));
                    self.replace(guard, &place, &f, &New { value, expires: until, flags: f.header.flags })?;
                    if expires.is_some() {
                        self.touch(f.bucket, f.slot);
                    }
                }
            }
            Ok(true)
        })?;
        if done {
            self.count(if *swap == Swap::Nothing { Counter::Deleted } else { Counter::Stored }, 1);
            self.note_change();
        }
        Ok(done)
    }

    /// Reads `key` into `sink` and removes it, in one step: of several callers one gets the value. Counts a hit or a
    /// miss. Items that reads miss are left alone.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] when the sink declines (the item stays), [`Error::Timeout`].
    pub fn take_out<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<bool> {
        let place = self.place_for(key);
        let taken = self.with_copy(&place, sink, |guard, found, mut copy| {
            let Some(f) = found.filter(is_readable) else { return Ok(Some(false)) };
            match copy.of(&f) {
                None => return Ok(None),
                Some(false) => {
                    return Err(Stop::TooSmall(f.header.value_len));
                }
                Some(true) => self.remove(guard, place.head, &f),
            }
            Ok(Some(true))
        })?;
        self.count(if taken { Counter::Hits } else { Counter::Misses }, 1);
        if taken {
            self.count(Counter::Deleted, 1);
            self.note_change();
        }
        Ok(taken)
    }

    /// Gives an item another expiry and makes it the most recently used; `false` = it is not there.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Timeout`].
    pub fn expire(&self, key: &[u8], expires: Expires) -> Result<bool> {
        let place = self.place_for(key);
        let until = self.expiry(expires);
        let mut value = Vec::new();
        let done = self.with_copy(&place, &mut value, |guard, found, mut copy| {
            let Some(f) = found.filter(|f| f.header.flags & LEASE == 0) else { return Ok(Some(false)) };
            if f.header.expires != until {
                match copy.of(&f) {
                    None => return Ok(None),
                    Some(false) => return Err(Stop::NoSpace(f.header.value_len)),
                    Some(true) => {}
                }
                // Written anew: an entry that readers may be copying never changes.
                let new = New { value: copy.sink, expires: until, flags: f.header.flags };
                self.replace(guard, &place, &f, &new)?;
            }
            self.touch(f.bucket, f.slot);
            Ok(Some(true))
        })?;
        if done {
            self.note_change();
        }
        Ok(done)
    }

    /// A write that needs the old value: it is copied before the lock is taken, because the copy may allocate. `f` asks
    /// for it under the lock, and returns `None` if it has to be made again.
    fn with_copy<S: Sink>(
        &self,
        place: &Place<'_>,
        sink: &mut S,
        mut f: impl FnMut(&ShardGuard<'_>, Option<Found>, Copied<'_, S>) -> Result<Option<bool>, Stop>,
    ) -> Result<bool> {
        let mut tries = 0;
        loop {
            let last = tries == TRIES;
            let made = if last { None } else { self.copy_unlocked(place, sink) };
            tries += 1;
            let done = self.write(place, |guard, found| {
                f(guard, found, Copied { engine: self, head: place.head, made, last, sink: &mut *sink })
            })?;
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    /// Copies a key's value as a reader does, and notes of what.
    fn copy_unlocked<S: Sink>(&self, place: &Place<'_>, sink: &mut S) -> Option<Made> {
        let version = self.version(place.head).load(Acquire);
        let found = self.probe(place.head, place.tag, place.key);
        fence(Acquire);
        // Before any allocation: header and key belonged together.
        if self.version(place.head).load(Relaxed) != version {
            return None;
        }
        let f = found?;
        let taken = sink.take(&entry::value(&self.region, f.off, self.entry_head, &f.header));
        Some(Made { off: f.off, version, len: f.header.value_len, taken })
    }

    /// Makes the caller the only one to compute a key's value anew while the old one is still served; `None` = somebody
    /// else is at it. Ends with [`Engine::end_refresh`], with the caller's process, or after `lease`. Never waits for
    /// the other one.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn begin_refresh(&self, key: &[u8], lease: Duration) -> Result<Option<FillToken>> {
        let key = self.refresh_key(key);
        if key.len() as u64 > self.config.max_key {
            return Ok(Some(FillToken { lease: 0 }));
        }
        match self.try_lease(&key, lease) {
            Ok(Attempt::Mine(lease)) => Ok(Some(FillToken { lease })),
            Ok(Attempt::Theirs | Attempt::Own | Attempt::Value) | Err(Error::Exists) => Ok(None),
            // Without room for the mark, everybody may.
            Err(Error::Full { .. } | Error::OutOfBlocks { .. } | Error::NoSpace { .. }) => {
                Ok(Some(FillToken { lease: 0 }))
            }
            Err(e) => Err(e),
        }
    }

    /// Ends what [`Engine::begin_refresh`] began.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn end_refresh(&self, key: &[u8], token: FillToken) -> Result<()> {
        self.abandon_fill(&self.refresh_key(key), token)
    }

    /// Where the mark of a refresh lies: a placeholder, which no reader and no walk sees, under a short key.
    fn refresh_key(&self, key: &[u8]) -> [u8; 9] {
        let mut mark = [0; 9];
        mark[1..].copy_from_slice(&self.secret.hash(key).to_ne_bytes());
        mark
    }

    fn value_is(&self, f: &Found, expected: &[u8]) -> bool {
        entry::value(&self.region, f.off, self.entry_head, &f.header).is(expected)
    }
}

/// A copy that was made without the lock.
#[derive(Clone, Copy, Debug)]
struct Made {
    off: u64,
    /// The head's version before it was made.
    version: u64,
    len: u64,
    /// Whether the sink took it.
    taken: bool,
}

/// A sink, and what it holds.
struct Copied<'a, S> {
    engine: &'a Engine,
    head: u64,
    made: Option<Made>,
    /// Whether to copy at all costs: this write lost the race against others too often.
    last: bool,
    sink: &'a mut S,
}

impl<S: Sink> Copied<'_, S> {
    /// Under the lock: makes sure that the sink has the value of `f`; `Some(false)` = it declined, `None` = it would have
    /// to allocate now.
    fn of(&mut self, f: &Found) -> Option<bool> {
        let e = self.engine;
        let version = e.version(self.head).load(Relaxed);
        let made = self.made.filter(|made| made.len == f.header.value_len);
        // A number in memory changes in place.
        let fixed = e.geo.checksums || f.header.value_len != 8;
        match made {
            Some(made) if fixed && (made.off, made.version) == (f.off, version) => Some(made.taken),
            // Of the same length, it lies in the memory that the copy before had.
            made if made.is_some() || self.last => {
                Some(self.sink.take(&entry::value(&e.region, f.off, e.entry_head, &f.header)))
            }
            _ => None,
        }
    }
}

fn is_readable(f: &Found) -> bool {
    f.header.flags & (LEASE | UNGETTABLE) == 0
}
