//! Writes: a new entry is written where nobody looks, one store of the slot makes it the key's, and only then the old
//! entry's memory is used again.
#![forbid(unsafe_code)]

use super::{
    Engine, Expires, Mode, SetOptions, Stored,
    entry::{self, Header, LEASE, UNGETTABLE},
    find::{Glance, purpose::WRITE},
    index::Found,
    room::{Room, Short},
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::{Error, Result},
    os::clock,
    shm::{
        Line, ask_for, block,
        layout::{header, shard},
        order::chain,
        sync::*,
    },
};

/// A key and where it belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'k> {
    pub(super) key: &'k [u8],
    pub(super) hash: u64,
    pub(super) head: u64,
    /// The head bucket.
    pub(super) line: &'k Line,
    pub(super) tag: u64,
    pub(super) shard: u64,
}

/// When it expires, at once at the earliest.
#[inline(never)]
fn second_of(e: Expires) -> u64 {
    let second = match e {
        Expires::Never => return 0,
        Expires::In(secs) => clock::unix_secs().saturating_add(secs),
        Expires::At(time) => time,
    };
    second.clamp(1, entry::MAX_EXPIRES)
}

/// Why one attempt of a write ended. As small as it can be: what is copied on the way to the caller right after it was
/// written in pieces keeps the processor waiting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Something ran out; after room was made the write is tried again.
    Short(Short),
    /// For good: [`Error::Exists`].
    Exists,
    /// For good: [`Error::NotANumber`], of so many bytes.
    NotANumber(u64),
    /// For good: [`Error::BufferTooSmall`] for so many bytes.
    TooSmall(u64),
    /// For good: [`Error::NoSpace`] for so many bytes.
    NoSpace(u64),
}

impl From<Short> for Stop {
    fn from(s: Short) -> Self {
        Self::Short(s)
    }
}

/// What a new entry is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'v> {
    pub(super) value: &'v [u8],
    pub(super) expires: u64,
    pub(super) flags: u64,
}

impl Engine {
    /// Stores `value` under `key`.
    ///
    /// # Errors
    /// A limit of the cache, [`Error::Full`] and its kin, [`Error::Timeout`].
    pub fn set(&self, key: &[u8], value: &[u8], options: &SetOptions) -> Result<Stored> {
        self.check_limits(key, value.len())?;
        let place = self.place_for(key);
        let guard = self.lock(place.shard)?;
        let wanted = block::wanted(entry::size(self.entry_head, key.len() as u64, value.len() as u64));
        // Where something goes for each new item, that leaves its block.
        let leaves = self.geo.stamps && self.foresee(&guard);
        block::expect(&self.region, guard.home, wanted, !leaves);
        // The usual cases, without what is stored and loaded on the way to a function.
        let stored = match self.glance_at::<WRITE>(&place) {
            Glance::Entry(m)
                if options.mode == Mode::Update
                    && self.is_readable(&m)
                    && self.update_plain(&guard, &place, &m, (value, wanted), options) =>
            {
                Stored::Updated
            }
            Glance::Nothing => {
                let new = self.new_value(value, options);
                if let Err(stop) = self.insert_into(&guard, &place, &new, wanted) {
                    guard.release();
                    return self.set_again(&place, new, options, stop, None);
                }
                Stored::Inserted
            }
            _ => return self.set_unusual(guard, &place, value, options),
        };
        guard.release();
        Ok(self.has_stored(stored))
    }

    /// What follows a store, its lock given back.
    #[inline(always)]
    fn has_stored(&self, stored: Stored) -> Stored {
        self.trim_if_much();
        if stored != Stored::Kept {
            self.count(Counter::Stored, 1);
            self.note_change();
        }
        stored
    }

    /// [`Engine::set`] where its first look did not tell enough.
    #[inline(never)]
    fn set_unusual(
        &self,
        guard: ShardGuard<'_>,
        place: &Place<'_>,
        value: &[u8],
        options: &SetOptions,
    ) -> Result<Stored> {
        let new = self.new_value(value, options);
        let found = self.probe(place.head, place.tag, place.key);
        let live = found.and_then(|f| self.live_or_gone(&guard, place, &f));
        let done = self.set_found(&guard, live, place, new, options);
        guard.release();
        match done {
            Ok(stored) => Ok(self.has_stored(stored)),
            Err(stop) => self.set_again(place, new, options, stop, found.map(|f| f.header.id)),
        }
    }

    /// [`Engine::set`] of a key whose live entry, or none, was found under the lock.
    #[inline(never)]
    fn set_found(
        &self,
        guard: &ShardGuard<'_>,
        found: Option<Found>,
        place: &Place<'_>,
        new: New<'_>,
        options: &SetOptions,
    ) -> Result<Stored, Stop> {
        match found {
            Some(f) if f.header.flags & LEASE != 0 => {
                self.replace(guard, place, &f, &new)?;
                self.wake_fillers();
                Ok(Stored::Inserted)
            }
            Some(_) if options.mode == Mode::Add => Ok(Stored::Kept),
            Some(f) => {
                self.update(guard, place, &f, new, options.keep_ttl)?;
                Ok(Stored::Updated)
            }
            None => {
                self.insert(guard, place, &new)?;
                Ok(Stored::Inserted)
            }
        }
    }

    /// [`Engine::set`] after its first attempt ended without success.
    #[cold]
    #[inline(never)]
    fn set_again(
        &self,
        place: &Place<'_>,
        new: New<'_>,
        options: &SetOptions,
        stop: Stop,
        keep: Option<u32>,
    ) -> Result<Stored> {
        let mut room = Room::default();
        self.make_room(&mut room, place, stop, keep)?;
        let done = self
            .write_on(&mut room, place, |guard, found| self.set_found(guard, found, place, new, options))?;
        Ok(self.has_stored(done))
    }

    /// Runs one write under the shard's lock, again after room was made, until it ends. The closure gets the key's live
    /// entry (placeholders included).
    pub(super) fn write<T>(
        &self,
        place: &Place<'_>,
        f: impl FnMut(&ShardGuard<'_>, Option<Found>) -> Result<T, Stop>,
    ) -> Result<T> {
        let done = self.write_on(&mut Room::default(), place, f)?;
        self.trim_if_much();
        Ok(done)
    }

    /// [`Engine::write`], with what was done for room already.
    fn write_on<T>(
        &self,
        room: &mut Room,
        place: &Place<'_>,
        mut f: impl FnMut(&ShardGuard<'_>, Option<Found>) -> Result<T, Stop>,
    ) -> Result<T> {
        loop {
            let guard = self.lock(place.shard)?;
            let found = self.probe(place.head, place.tag, place.key);
            let found = found.and_then(|f| self.live_or_gone(&guard, place, &f));
            let end = f(&guard, found);
            guard.release();
            match end {
                Ok(v) => return Ok(v),
                Err(stop) => self.make_room(room, place, stop, found.map(|f| f.header.id))?,
            }
        }
    }

    /// After an attempt that ended without success: makes room for the next one, or says why there is none.
    #[cold]
    #[inline(never)]
    fn make_room(&self, room: &mut Room, place: &Place<'_>, stop: Stop, keep: Option<u32>) -> Result<()> {
        match stop {
            Stop::Short(short) => room.make(self, place.shard, short, keep),
            Stop::Exists => Err(Error::Exists),
            Stop::NotANumber(len) => Err(Error::NotANumber { len }),
            Stop::TooSmall(len) => Err(Error::BufferTooSmall { needed: len as usize, len: 0 }),
            Stop::NoSpace(len) => Err(Error::NoSpace { len }),
        }
    }

    /// An entry that was found under the lock (a placeholder, too), if it is live; one that is not goes.
    fn live_or_gone(&self, guard: &ShardGuard<'_>, place: &Place<'_>, f: &Found) -> Option<Found> {
        if self.is_live(&f.header) || self.is_awaited(f) {
            return Some(*f);
        }
        self.remove(guard, place.head, f);
        self.count(Counter::Expired, 1);
        None
    }

    /// Writes an entry into a block that the index does not reach.
    #[inline(always)]
    pub(super) fn fill(&self, off: u64, header: &Header, key: &[u8], value: &[u8]) {
        self.fill_words(off, header.words(), key, value);
    }

    /// [`Engine::fill`] with a header that is packed already.
    #[inline(always)]
    pub(super) fn fill_words(&self, off: u64, words: (u64, u64), key: &[u8], value: &[u8]) {
        // The version that retired this block's last entry is visible before any byte of the new one.
        fence(chain::RETIRE);
        entry::write(&self.region, off, self.geo.checksums.then_some(&self.secret), words, key, value);
    }

    #[inline(always)]
    pub(super) fn header_for(&self, place: &Place<'_>, new: &New<'_>, id: u32) -> Header {
        Header {
            value_len: new.value.len() as u64,
            key_len: place.key.len() as u64,
            flags: new.flags,
            generation: self.clear_gen() % entry::GENERATIONS,
            id,
            expires: new.expires,
        }
    }

    pub(super) fn new_value<'v>(&self, value: &'v [u8], options: &SetOptions) -> New<'v> {
        let flags = if options.ungettable { UNGETTABLE } else { 0 };
        New { value, expires: self.expiry(options.expires), flags }
    }

    /// An expiry as the entry keeps it.
    #[inline(always)]
    pub(super) fn expiry(&self, e: Expires) -> u64 {
        if e == Expires::Never { 0 } else { second_of(e) }
    }

    #[inline(always)]
    pub(super) fn place_for<'k>(&'k self, key: &'k [u8]) -> Place<'k> {
        let hash = self.hash(key);
        let (head, line) = self.region.head(hash);
        // While the lock is taken, which is on another line.
        ask_for(line);
        let shard = self.shard_of_hash(hash);
        if self.geo.stamps {
            self.region.prefetch(self.layout.stamp(head, 0));
            self.region.prefetch(self.shard_off(shard) + shard::DRAWN);
        }
        Place { key, hash, head, line, tag: entry::tag_of(hash), shard }
    }

    #[inline]
    pub(super) fn note_change(&self) {
        if self.config.last_modified {
            let (word, now) = (self.region.word(header::LAST_MODIFIED), clock::unix_secs());
            // All writers share the line: it is written once a second, and else only read.
            if word.load(Relaxed) != now {
                word.store(now, Relaxed);
            }
        }
    }
}
