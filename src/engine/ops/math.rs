//! Arithmetic on 8-byte values. In memory a number changes in place and without the lock, by one
//! exchange of value and life (I15). In a store, or with a new expiry: copy-on-write, as others.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, Expires, Math, Mode, SetOptions,
        index::{
            bucket::EntryRef,
            entry::{self, LEASE, is_number},
            lookup::{FastLookup, HashedKey, RawEntry, access::PEEK},
        },
        ops::set::{New, WriteAbort},
        policy::Policy,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::{number::Number, order::seqlock, sync::*},
};

impl Engine {
    /// Changes a number in one atomic step and returns it. [`Mode::Add`] refuses an existing key
    /// ([`Error::Exists`]); the other modes are alike here. A missing key starts from
    /// `math_initial`.
    ///
    /// # Errors
    /// As [`Engine::set`], and [`Error::NotANumber`].
    pub fn math(&self, key: &[u8], op: Math, operand: i64, options: &SetOptions) -> Result<i64> {
        self.check_limits(key, 8)?;
        let Some(n) = self.change_unlocked(key, op, operand, options) else {
            return self.math_slow(key, op, operand, options);
        };
        self.count(Counter::Stored, 1);
        self.note_change();
        Ok(n)
    }

    /// Changes a number of which only the value changes, without the shard's lock; `None` = it is
    /// no such number, or cannot be changed so now, and nothing was done.
    #[inline(always)]
    fn change_unlocked(&self, key: &[u8], op: Math, operand: i64, options: &SetOptions) -> Option<i64> {
        let (hash, region) = (self.hash(key), &*self.region);
        let (home, line) = region.home_bucket(hash);
        let v = line[0].load(seqlock::BEGIN);
        let FastLookup::Found(m) = self.lookup_fast::<PEEK>(region, (home, line), hash, key) else {
            return None;
        };
        if !self.changes_in_place(&m, options) {
            return None;
        }
        let number = self.number_at(m.off, key.len() as u64);
        let life = number.life();
        // The life is this entry's: it was reachable when both were read (I2).
        fence(seqlock::RECHECK);
        if life == 0 || line[0].load(Relaxed) != v {
            return None;
        }
        let n = number.change(life, |n| op.apply(n.cast_signed(), operand).cast_unsigned())?;
        if !options.keep_ttl && self.policy != Policy::None {
            self.touch(m.bucket, m.slot);
        }
        Some(n.cast_signed())
    }

    /// Whether the item is a number of which only the value changes.
    #[inline(always)]
    fn changes_in_place(&self, m: &RawEntry<'_>, options: &SetOptions) -> bool {
        is_number(self.header_bytes, entry::value_len(m.words.0).into())
            && options.mode == Mode::Set
            && (options.keep_ttl || (entry::expires(m.words.1) == 0 && options.expires == Expires::Never))
            && self.is_readable(m)
    }

    /// Changes a number in place, under the lock, and gives it a new life.
    fn change_in_place(
        &self,
        guard: &ShardGuard<'_>,
        (f, number): (&EntryRef, Number<'_>),
        op: Math,
        operand: i64,
        options: &SetOptions,
    ) -> i64 {
        number.freeze();
        let n = op.apply(number.value().cast_signed(), operand);
        number.restart(n.cast_unsigned(), self.new_life(guard.cells));
        if !options.keep_ttl && self.policy != Policy::None {
            self.touch(f.bucket, f.slot);
        }
        n
    }

    /// [`Engine::math`] when more than the value changes.
    #[inline(never)]
    fn math_slow(&self, key: &[u8], op: Math, operand: i64, options: &SetOptions) -> Result<i64> {
        let hashed = &self.hash_key(key);
        let result = self.write(hashed, |guard, found| match found {
            Some(f) if f.header.flags & LEASE == 0 => {
                if options.mode == Mode::Add {
                    return Err(WriteAbort::Exists);
                }
                self.change_number(guard, hashed, &f, op, operand, options)
            }
            found => {
                let n = op.apply(self.config.math_initial, operand);
                let bytes = n.to_ne_bytes();
                let new = self.new_value(&bytes, options);
                if let Some(f) = found {
                    self.replace(guard, hashed, &f, &new)?;
                    self.wake_fillers();
                } else {
                    self.insert(guard, hashed, &new)?;
                }
                Ok(n)
            }
        })?;
        self.count(Counter::Stored, 1);
        self.note_change();
        Ok(result)
    }

    /// Arithmetic on an existing entry.
    fn change_number(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        f: &EntryRef,
        op: Math,
        operand: i64,
        options: &SetOptions,
    ) -> Result<i64, WriteAbort> {
        let h = &f.header;
        if h.value_len != 8 {
            self.count(Counter::RejectedLimit, 1);
            return Err(WriteAbort::NotANumber(h.value_len));
        }
        let expires = if options.keep_ttl { h.expires } else { self.expiry(options.expires) };
        let number = self.number_of(f);
        if let Some(number) = number.filter(|_| expires == h.expires) {
            return Ok(self.change_in_place(guard, (f, number), op, operand, options));
        }
        self.freeze(f);
        let word = self.region.word(entry::value_off(f.off, self.header_bytes, h.key_len, h.value_len));
        let n = op.apply(word.load(Relaxed).cast_signed(), operand);
        let bytes = n.to_ne_bytes();
        let new = New { value: &bytes, expires, flags: h.flags };
        self.update(guard, hashed, f, new, options.keep_ttl)?;
        Ok(n)
    }
}
