//! Writes that depend on the old value: compare-and-swap, take, a new expiry; and the lease to
//! refresh a value that is still served.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{
        Engine, Expires, FillToken, Sink,
        index::{
            bucket::EntryRef,
            entry::{self, LEASE, UNGETTABLE},
            lookup::HashedKey,
        },
        ops::{
            lease::LeaseAttempt,
            set::{New, WriteAbort},
        },
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::{Error, Result},
    shm::sync::*,
};

/// How often a value is copied again, because others changed it, before it is copied under the
/// lock.
const TRIES: u32 = 64;

/// The replacement in [`Engine::swap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap<'v> {
    /// This value; without an expiry, the old one and the LRU place stay.
    Value(&'v [u8], Option<Expires>),
    /// Nothing: the key is removed.
    Nothing,
}

impl Engine {
    /// Replaces or removes `key` if its value equals `expected`; returns whether it did. One step
    /// for everybody else. Items that reads miss are left alone.
    ///
    /// # Errors
    /// As [`Engine::set`].
    pub fn swap(&self, key: &[u8], expected: &[u8], swap: &Swap<'_>) -> Result<bool> {
        if let Swap::Value(value, _) = swap {
            self.check_limits(key, value.len())?;
        }
        let hashed = self.hash_key(key);
        let done = self.write(&hashed, |guard, found| {
            let Some(f) = found.filter(is_readable) else { return Ok(false) };
            self.freeze(&f);
            if !self.value_is(&f, expected) {
                self.thaw(guard, &f);
                return Ok(false);
            }
            match *swap {
                Swap::Nothing => self.remove(guard, hashed.home, &f),
                Swap::Value(value, expires) => {
                    let kept = f.header.expires;
                    let until = expires.map_or(kept, |e| self.expiry(e));
                    self.replace(guard, &hashed, &f, &New { value, expires: until, flags: f.header.flags })?;
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

    /// Reads `key` into `sink` and removes it, in one step: of several callers one gets the value.
    /// Counts a hit or a miss. Items that reads miss are left alone.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] when the sink declines (the item stays), [`Error::Timeout`].
    pub fn take_out<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<bool> {
        let hashed = self.hash_key(key);
        let taken = self.with_copy(&hashed, sink, |guard, found, mut copy| {
            let Some(f) = found.filter(is_readable) else { return Ok(Some(false)) };
            match copy.of(&f) {
                None => return Ok(None),
                Some(false) => {
                    return Err(WriteAbort::TooSmall(f.header.value_len));
                }
                Some(true) => self.remove(guard, hashed.home, &f),
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

    /// Gives an item another expiry and makes it the most recently used; `false` = not stored.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Timeout`].
    pub fn expire(&self, key: &[u8], expires: Expires) -> Result<bool> {
        let hashed = self.hash_key(key);
        let until = self.expiry(expires);
        let mut value = Vec::new();
        let done = self.with_copy(&hashed, &mut value, |guard, found, mut copy| {
            let Some(f) = found.filter(|f| f.header.flags & LEASE == 0) else { return Ok(Some(false)) };
            if f.header.expires != until {
                match copy.of(&f) {
                    None => return Ok(None),
                    Some(false) => return Err(WriteAbort::NoSpace(f.header.value_len)),
                    Some(true) => {}
                }
                // Written as a new entry: a published entry never changes (I3).
                let new = New { value: copy.sink, expires: until, flags: f.header.flags };
                self.replace(guard, &hashed, &f, &new)?;
            }
            self.touch(f.bucket, f.slot);
            Ok(Some(true))
        })?;
        if done {
            self.note_change();
        }
        Ok(done)
    }

    /// A write that needs the old value: it is copied before the lock is taken, because the copy
    /// may allocate. `f` uses it under the lock, and returns `None` if it must be made again.
    pub(super) fn with_copy<S: Sink>(
        &self,
        hashed: &HashedKey<'_>,
        sink: &mut S,
        mut f: impl FnMut(&ShardGuard<'_>, Option<EntryRef>, Copied<'_, S>) -> Result<Option<bool>, WriteAbort>,
    ) -> Result<bool> {
        let mut tries = 0;
        loop {
            let last = tries == TRIES;
            let made = if last { None } else { self.copy_unlocked(hashed, sink) };
            tries += 1;
            let done = self.write(hashed, |guard, found| {
                f(guard, found, Copied { engine: self, home: hashed.home, made, last, sink: &mut *sink })
            })?;
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    /// Copies a key's value as a reader does; also returns which entry was copied.
    fn copy_unlocked<S: Sink>(&self, hashed: &HashedKey<'_>, sink: &mut S) -> Option<Made> {
        if !self.region.has_bucket(hashed.home) {
            return None;
        }
        let seq = self.seq(hashed.home).load(Acquire);
        let found = self.lookup(hashed.home, hashed.tag(), hashed.key);
        fence(Acquire);
        // Before any allocation, make sure that header and key belonged together.
        if self.seq(hashed.home).load(Relaxed) != seq {
            return None;
        }
        let f = found?;
        let taken = sink.take(&entry::value(&self.region, f.off, self.header_bytes, &f.header));
        Some(Made { off: f.off, seq, len: f.header.value_len, taken })
    }

    /// Makes the caller the only one to refresh a key's value while the old one is still served;
    /// `None` = another caller is refreshing it. Ends with [`Engine::end_refresh`], with the
    /// caller's process, or after `lease`. Never waits for the other caller.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn begin_refresh(&self, key: &[u8], lease: Duration) -> Result<Option<FillToken>> {
        let key = self.refresh_key(key);
        match self.try_lease(&key, lease, 0) {
            Ok(LeaseAttempt::Mine(lease)) => Ok(Some(FillToken::new(lease))),
            Ok(_) | Err(Error::Exists) => Ok(None),
            // Without memory for the mark, every caller may refresh.
            Err(Error::Full { .. } | Error::OutOfBlocks { .. } | Error::NoSpace { .. }) => {
                Ok(Some(FillToken::new(0)))
            }
            Err(e) => Err(e),
        }
    }

    /// Ends a lease from [`Engine::begin_refresh`].
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn end_refresh(&self, key: &[u8], token: FillToken) -> Result<()> {
        self.abandon_fill(&self.refresh_key(key), token)
    }

    /// Where the mark of a refresh lies: a placeholder, which no reader and no walk sees, under a
    /// short key.
    fn refresh_key(&self, key: &[u8]) -> [u8; 9] {
        let mut mark = [0; 9];
        mark[1..].copy_from_slice(&self.secret.hash(key).to_ne_bytes());
        mark
    }

    fn value_is(&self, f: &EntryRef, expected: &[u8]) -> bool {
        entry::value(&self.region, f.off, self.header_bytes, &f.header).is(expected)
    }
}

/// A copy made without the lock.
#[derive(Clone, Copy, Debug)]
struct Made {
    off: u64,
    /// The home bucket's sequence number before the copy.
    seq: u64,
    len: u64,
    /// Whether the sink took it.
    taken: bool,
}

/// A sink, and what it holds.
pub(super) struct Copied<'a, S> {
    engine: &'a Engine,
    home: u64,
    made: Option<Made>,
    /// Whether to copy under the lock, because this write lost against others too often.
    last: bool,
    pub(super) sink: &'a mut S,
}

impl<S: Sink> Copied<'_, S> {
    /// Under the lock: makes sure that the sink has the value of `f`; `Some(false)` = it declined,
    /// `None` = it would have to allocate now.
    pub(super) fn of(&mut self, f: &EntryRef) -> Option<bool> {
        let e = self.engine;
        let seq = e.seq(self.home).load(Relaxed);
        let made = self.made.filter(|made| made.len == f.header.value_len);
        // A number in anonymous memory changes in place, and must not from here on.
        e.freeze(f);
        let fixed = e.geo.checksums || f.header.value_len != 8;
        match made {
            Some(made) if fixed && (made.off, made.seq) == (f.off, seq) => Some(made.taken),
            // A value of the same length fits into the memory of the previous copy.
            made if made.is_some() || self.last => {
                Some(self.sink.take(&entry::value(&e.region, f.off, e.header_bytes, &f.header)))
            }
            _ => None,
        }
    }
}

fn is_readable(f: &EntryRef) -> bool {
    f.header.flags & (LEASE | UNGETTABLE) == 0
}
