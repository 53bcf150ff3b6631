//! Arithmetic on 8-byte values. Without checksums a number changes in place, in one store; else
//! copy-on-write, as others.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, Expires, Math, Mode, SetOptions,
        index::{
            bucket::EntryRef,
            entry::{self, LEASE},
            lookup::{FastLookup, HashedKey, RawEntry, access::PEEK},
        },
        ops::set::{New, WriteAbort},
        policy::Policy,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::sync::*,
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
        let hashed = self.hash_key(key);
        let guard = self.lock(hashed.shard)?;
        let n = match self.lookup_fast_for::<PEEK>(&hashed) {
            FastLookup::Found(m) if self.changes_in_place(&m, options) => {
                self.change_in_place(&m.decode(), op, operand, options)
            }
            _ => {
                guard.release();
                return self.math_slow(&hashed, op, operand, options);
            }
        };
        guard.release();
        self.count(Counter::Stored, 1);
        self.note_change();
        Ok(n)
    }

    /// Whether the item is a number of which only the value changes.
    #[inline(always)]
    fn changes_in_place(&self, m: &RawEntry<'_>, options: &SetOptions) -> bool {
        !self.geo.checksums
            && entry::value_len(m.words.0) == 8
            && options.mode == Mode::Set
            && (options.keep_ttl || (entry::expires(m.words.1) == 0 && options.expires == Expires::Never))
            && self.is_readable(m)
    }

    #[inline(always)]
    fn change_in_place(&self, f: &EntryRef, op: Math, operand: i64, options: &SetOptions) -> i64 {
        let word = self.region.word(entry::value_off(f.off, self.header_bytes, f.header.key_len));
        let n = op.apply(word.load(Relaxed).cast_signed(), operand);
        // One aligned store: a reader sees the old number or the new one.
        word.store(n.cast_unsigned(), Release);
        if !options.keep_ttl && self.policy != Policy::None {
            self.touch(f.bucket, f.slot);
        }
        n
    }

    /// [`Engine::math`] when more than the value changes.
    #[inline(never)]
    fn math_slow(&self, hashed: &HashedKey<'_>, op: Math, operand: i64, options: &SetOptions) -> Result<i64> {
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
        if !self.geo.checksums && expires == h.expires {
            return Ok(self.change_in_place(f, op, operand, options));
        }
        let word = self.region.word(entry::value_off(f.off, self.header_bytes, h.key_len));
        let n = op.apply(word.load(Relaxed).cast_signed(), operand);
        let bytes = n.to_ne_bytes();
        let new = New { value: &bytes, expires, flags: h.flags };
        self.update(guard, hashed, f, new, options.keep_ttl)?;
        Ok(n)
    }
}
