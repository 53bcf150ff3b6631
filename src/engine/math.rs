//! Arithmetic on 8-byte values. Without checksums a number changes in place, in one store; else copy-on-write, as others.
#![forbid(unsafe_code)]

use super::{
    Engine, Eviction, Expires, Math, Mode, SetOptions,
    entry::{self, LEASE},
    find::{Glance, Match, purpose::LOOK},
    index::Found,
    shard::ShardGuard,
    stats::Counter,
    write::{New, Place, Stop},
};
use crate::{error::Result, shm::sync::*};

impl Engine {
    /// Changes a number in one atomic step and returns it. [`Mode::Add`] refuses an existing key ([`Error::Exists`]).
    /// A missing key starts from `math_initial`.
    ///
    /// # Errors
    /// As [`Engine::set`], and [`Error::NotANumber`].
    pub fn math(&self, key: &[u8], op: Math, operand: i64, options: &SetOptions) -> Result<i64> {
        self.check_limits(key, 8)?;
        let place = self.place_for(key);
        let guard = self.lock(place.shard)?;
        let n = match self.glance_at::<LOOK>(&place) {
            Glance::Entry(m) if self.changes_in_place(&m, options) => {
                self.change_in_place(&m.found(), op, operand, options)
            }
            _ => {
                guard.release();
                return self.math_anew(&place, op, operand, options);
            }
        };
        guard.release();
        self.count(Counter::Stored, 1);
        self.note_change();
        Ok(n)
    }

    /// Whether a number is there of which nothing but the value changes.
    #[inline(always)]
    fn changes_in_place(&self, m: &Match<'_>, options: &SetOptions) -> bool {
        !self.geo.checksums
            && entry::value_len(m.words.0) == 8
            && options.mode == Mode::Update
            && (options.keep_ttl || (entry::expires(m.words.1) == 0 && options.expires == Expires::Never))
            && self.is_readable(m)
    }

    #[inline(always)]
    fn change_in_place(&self, f: &Found, op: Math, operand: i64, options: &SetOptions) -> i64 {
        let word = self.region.word(entry::value_off(f.off, self.entry_head, f.header.key_len));
        let n = op.apply(word.load(Relaxed).cast_signed(), operand);
        // One aligned store: a reader sees the old number or the new one.
        word.store(n.cast_unsigned(), Release);
        if !options.keep_ttl && self.config.eviction != Eviction::None {
            self.touch(f.bucket, f.slot);
        }
        n
    }

    /// [`Engine::math`] where something else changes, or everything.
    #[inline(never)]
    fn math_anew(&self, place: &Place<'_>, op: Math, operand: i64, options: &SetOptions) -> Result<i64> {
        let result = self.write(place, |guard, found| match found {
            Some(f) if f.header.flags & LEASE == 0 => {
                if options.mode == Mode::Add {
                    return Err(Stop::Exists);
                }
                self.change_number(guard, place, &f, op, operand, options)
            }
            found => {
                let n = op.apply(self.config.math_initial, operand);
                let bytes = n.to_ne_bytes();
                let new = self.new_value(&bytes, options);
                if let Some(f) = found {
                    self.replace(guard, place, &f, &new)?;
                    self.wake_fillers();
                } else {
                    self.insert(guard, place, &new)?;
                }
                Ok(n)
            }
        })?;
        self.count(Counter::Stored, 1);
        self.note_change();
        Ok(result)
    }

    /// Arithmetic on an entry that exists.
    fn change_number(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        f: &Found,
        op: Math,
        operand: i64,
        options: &SetOptions,
    ) -> Result<i64, Stop> {
        let h = &f.header;
        if h.value_len != 8 {
            self.count(Counter::RejectedLimit, 1);
            return Err(Stop::NotANumber(h.value_len));
        }
        let expires = if options.keep_ttl { h.expires } else { self.expiry(options.expires) };
        if !self.geo.checksums && expires == h.expires {
            return Ok(self.change_in_place(f, op, operand, options));
        }
        let word = self.region.word(entry::value_off(f.off, self.entry_head, h.key_len));
        let n = op.apply(word.load(Relaxed).cast_signed(), operand);
        let bytes = n.to_ne_bytes();
        let new = New { value: &bytes, expires, flags: h.flags };
        self.update(guard, place, f, new, options.keep_ttl)?;
        Ok(n)
    }
}
