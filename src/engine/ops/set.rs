//! Writes: the new entry is written into unreachable memory, one store of the slot publishes it
//! (I1), and only then is the old entry's block free (I2).
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, Expires, Mode, SetOptions, Stored,
        index::{
            bucket::EntryRef,
            entry::{self, Header, LEASE, UNGETTABLE},
            lookup::{FastLookup, HashedKey, access::WRITE},
        },
        ops::make_room::MakeRoom,
        quota::Shortage,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::{Error, Result},
    os::clock,
    shm::{layout::header, order::seqlock, slab, sync::*},
};

/// The expiry as a Unix time in milliseconds, 0 = never. A time that has passed is never 0.
#[inline(never)]
fn expiry_millis(e: Expires) -> u64 {
    let millis = match e {
        Expires::Never => return 0,
        Expires::In(secs) => entry::millis(clock::unix_secs().saturating_add(secs)),
        Expires::At(time) => entry::millis(time),
        Expires::InMillis(millis) => clock::unix_millis().saturating_add(millis),
        Expires::AtMillis(time) => time,
    };
    millis.clamp(1, entry::MAX_EXPIRES)
}

/// Why one attempt of a write ended. Kept small: copying a value just written field by field stalls
/// store-to-load forwarding.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum WriteAbort {
    /// Something ran out; the write is retried after room was made.
    Shortage(Shortage),
    /// Final: [`Error::Exists`].
    Exists,
    /// For good: [`Error::NotANumber`], with the value's length.
    NotANumber(u64),
    /// For good: [`Error::BufferTooSmall`], with the bytes needed.
    TooSmall(u64),
    /// For good: [`Error::NoSpace`], with the bytes needed.
    NoSpace(u64),
}

impl From<Shortage> for WriteAbort {
    fn from(s: Shortage) -> Self {
        Self::Shortage(s)
    }
}

/// The content of a new entry.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct New<'v> {
    pub(in crate::engine) value: &'v [u8],
    /// Unix time, milliseconds; 0 = never.
    pub(in crate::engine) expires: u64,
    pub(in crate::engine) flags: u64,
}

impl Engine {
    /// Stores `value` under `key`.
    ///
    /// # Errors
    /// A limit of the cache, [`Error::Full`] and similar, [`Error::Timeout`].
    pub fn set(&self, key: &[u8], value: &[u8], options: &SetOptions) -> Result<Stored> {
        self.check_limits(key, value.len())?;
        let hashed = self.hash_key(key);
        let guard = self.lock(hashed.shard)?;
        let wanted = slab::wanted_for(entry::size(self.header_bytes, key.len() as u64, value.len() as u64));
        // A cache that evicts for each new item reuses the victim's block.
        let leaves = self.geo.stamps && self.prefetch_eviction(&guard);
        let kept = slab::prefetch_next(&self.region, guard.cells, wanted, !leaves);
        // Fast paths, inlined: arguments stay in registers. Other functions get copies, which are
        // made only where they are called.
        let stored = match self.lookup_fast_for::<WRITE>(&hashed) {
            FastLookup::Found(m)
                if options.mode != Mode::Add
                    && self.is_readable(&m)
                    && self.update_fast(&guard, &hashed, &m, (value, wanted, kept), options) =>
            {
                Stored::Updated
            }
            FastLookup::Absent if options.mode != Mode::Replace => {
                let new = self.new_value(value, options);
                if let Err(abort) = self.insert_fast(&guard, &hashed, &new, (wanted, kept)) {
                    guard.release();
                    return self.set_retry(&{ hashed }, new, options, abort, None);
                }
                Stored::Inserted
            }
            _ => return self.set_slow(guard, hashed, value, options),
        };
        guard.release();
        Ok(self.has_stored(stored))
    }

    /// What follows a store, after the unlock.
    #[inline(always)]
    fn has_stored(&self, stored: Stored) -> Stored {
        self.release_pages_if_many();
        if stored != Stored::Kept {
            self.count(Counter::Stored, 1);
            self.note_change();
        }
        stored
    }

    /// [`Engine::set`] where the fast lookup did not decide.
    #[inline(never)]
    fn set_slow(
        &self,
        guard: ShardGuard<'_>,
        hashed: HashedKey<'_>,
        value: &[u8],
        options: &SetOptions,
    ) -> Result<Stored> {
        let new = self.new_value(value, options);
        let found = self.lookup(hashed.home, hashed.tag(), hashed.key);
        let live = found.and_then(|f| self.live_or_gone(&guard, &hashed, &f));
        let done = self.set_found(&guard, live, &hashed, new, options);
        guard.release();
        match done {
            Ok(stored) => Ok(self.has_stored(stored)),
            Err(abort) => self.set_retry(&hashed, new, options, abort, found.map(|f| f.id())),
        }
    }

    /// [`Engine::set`] for a key whose live entry, or none, was found under the lock.
    #[inline(never)]
    fn set_found(
        &self,
        guard: &ShardGuard<'_>,
        found: Option<EntryRef>,
        hashed: &HashedKey<'_>,
        new: New<'_>,
        options: &SetOptions,
    ) -> Result<Stored, WriteAbort> {
        // A placeholder is no value to keep or to replace.
        let value = found.filter(|f| f.header.flags & LEASE == 0);
        match (found, value) {
            (_, None) if options.mode == Mode::Replace => Ok(Stored::Kept),
            (None, _) => {
                self.insert(guard, hashed, &new)?;
                Ok(Stored::Inserted)
            }
            (Some(f), None) => {
                self.replace(guard, hashed, &f, &new)?;
                self.wake_fillers();
                Ok(Stored::Inserted)
            }
            (_, Some(_)) if options.mode == Mode::Add => Ok(Stored::Kept),
            (_, Some(f)) => {
                self.update(guard, hashed, &f, new, options.keep_ttl)?;
                Ok(Stored::Updated)
            }
        }
    }

    /// [`Engine::set`] after a failed first attempt.
    #[cold]
    #[inline(never)]
    fn set_retry(
        &self,
        hashed: &HashedKey<'_>,
        new: New<'_>,
        options: &SetOptions,
        abort: WriteAbort,
        keep: Option<u32>,
    ) -> Result<Stored> {
        let mut room = MakeRoom::default();
        self.make_room(&mut room, hashed, abort, keep)?;
        let done = self
            .write_on(&mut room, hashed, |guard, found| self.set_found(guard, found, hashed, new, options))?;
        Ok(self.has_stored(done))
    }

    /// Runs one write under the shard's lock, again after room was made, until it ends. The closure
    /// gets the key's live entry (placeholders included).
    pub(in crate::engine) fn write<T>(
        &self,
        hashed: &HashedKey<'_>,
        f: impl FnMut(&ShardGuard<'_>, Option<EntryRef>) -> Result<T, WriteAbort>,
    ) -> Result<T> {
        let done = self.write_on(&mut MakeRoom::default(), hashed, f)?;
        self.release_pages_if_many();
        Ok(done)
    }

    /// [`Engine::write`] with the room made so far.
    fn write_on<T>(
        &self,
        room: &mut MakeRoom,
        hashed: &HashedKey<'_>,
        mut f: impl FnMut(&ShardGuard<'_>, Option<EntryRef>) -> Result<T, WriteAbort>,
    ) -> Result<T> {
        loop {
            let guard = self.lock(hashed.shard)?;
            let found = self.lookup(hashed.home, hashed.tag(), hashed.key);
            let found = found.and_then(|f| self.live_or_gone(&guard, hashed, &f));
            let end = f(&guard, found);
            guard.release();
            match end {
                Ok(v) => return Ok(v),
                Err(abort) => self.make_room(room, hashed, abort, found.map(|f| f.id()))?,
            }
        }
    }

    /// After an attempt that ended without success: makes room for the next one, or says why there
    /// is none.
    #[cold]
    #[inline(never)]
    fn make_room(
        &self,
        room: &mut MakeRoom,
        hashed: &HashedKey<'_>,
        abort: WriteAbort,
        keep: Option<u32>,
    ) -> Result<()> {
        match abort {
            WriteAbort::Shortage(Shortage::Index(home)) => room.make_index(self, home, keep),
            WriteAbort::Shortage(shortage) => room.make(self, hashed.shard, shortage, keep),
            WriteAbort::Exists => Err(Error::Exists),
            WriteAbort::NotANumber(len) => Err(Error::NotANumber { len }),
            WriteAbort::TooSmall(len) => Err(Error::BufferTooSmall { needed: len as usize, len: 0 }),
            WriteAbort::NoSpace(len) => Err(Error::NoSpace { len }),
        }
    }

    /// An entry that was found under the lock (a placeholder, too), if it is live; one that is not
    /// goes.
    fn live_or_gone(&self, guard: &ShardGuard<'_>, hashed: &HashedKey<'_>, f: &EntryRef) -> Option<EntryRef> {
        if self.is_live(&f.header) || self.is_awaited(f) {
            return Some(*f);
        }
        self.remove(guard, hashed.home, f);
        self.count(Counter::Expired, 1);
        None
    }

    /// Writes an entry, whose header is packed, into a block that the index does not reach.
    #[inline(always)]
    pub(in crate::engine) fn fill(
        &self,
        shard_no: u64,
        off: u64,
        words: (u64, u64),
        (key, value): (&[u8], &[u8]),
    ) {
        // The sequence number that retired this block's last entry is visible before any byte of
        // the new one (I2).
        fence(seqlock::RETIRE);
        if let Ok(number) = value.try_into()
            && !self.geo.checksums
        {
            return self.fill_number(shard_no, off, words, (key, u64::from_ne_bytes(number)));
        }
        entry::write(&self.region, off, self.geo.checksums.then_some(&self.secret), words, key, value);
    }

    #[inline(never)]
    fn fill_number(&self, shard_no: u64, off: u64, words: (u64, u64), (key, value): (&[u8], u64)) {
        entry::write_number(&self.region, off, words, key, value, self.new_life(self.region.shard(shard_no)));
    }

    #[inline(always)]
    pub(in crate::engine) fn header_for(&self, hashed: &HashedKey<'_>, new: &New<'_>) -> Header {
        Header {
            value_len: new.value.len() as u64,
            key_len: hashed.key.len() as u64,
            flags: new.flags,
            generation: self.clear_gen() % entry::GENERATIONS,
            expires: new.expires,
        }
    }

    #[inline(always)]
    pub(in crate::engine) fn new_value<'v>(&self, value: &'v [u8], options: &SetOptions) -> New<'v> {
        let flags = if options.ungettable { UNGETTABLE } else { 0 };
        New { value, expires: self.expiry(options.expires), flags }
    }

    /// Converts an expiry for the entry.
    #[inline(always)]
    pub(in crate::engine) fn expiry(&self, e: Expires) -> u64 {
        if e == Expires::Never { 0 } else { expiry_millis(e) }
    }

    #[inline(always)]
    pub(crate) fn note_change(&self) {
        if self.config.last_modified {
            self.note_change_now();
        }
    }

    #[inline(never)]
    fn note_change_now(&self) {
        let (word, now) = (self.region.word(header::LAST_MODIFIED), clock::coarse_unix_secs());
        // All writers share the line: it is written once a second, and otherwise only read.
        if word.load(Relaxed) != now {
            word.store(now, Relaxed);
        }
    }
}
