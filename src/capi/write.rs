//! Changes of a local cache as the C functions ask for them: flag words, log lines, and word to the UDP nodes.

use std::ops::ControlFlow;

use super::{cache::Cache, peer, report, types::*};
use crate::{
    engine::{Cursor, Expires, Item, ItemId, Math, Mode, SetOptions, Stored},
    error::Error,
    os::clock::unix_secs,
};

/// Why a change was not made: it has been logged where that is called for.
#[derive(Debug)]
pub(super) struct Refused;

impl Cache {
    /// `uwsgi_cache_set2`: stores a value, or calculates with the operand that it is (`FLAG_MATH`).
    #[inline(always)]
    pub(super) fn store(&self, key: &[u8], value: &[u8], expires: u64, flags: u64) -> Result<(), Refused> {
        let options = SetOptions {
            mode: if flags & FLAG_UPDATE == 0 { Mode::Add } else { Mode::Update },
            expires: expiry(expires, flags),
            keep_ttl: flags & FLAG_FIXEXPIRE != 0,
            ungettable: flags & FLAG_UNGETTABLE != 0,
        };
        if flags & FLAG_MATH != 0 {
            return self.calculate(key, value, &options, flags);
        }
        match self.engine.set(key, value, &options) {
            Ok(Stored::Inserted | Stored::Updated) => {
                self.tell_set(key, value, &options, flags);
                Ok(())
            }
            Ok(Stored::Kept) => Err(Refused),
            Err(e) => self.refuse(key, &e),
        }
    }

    #[inline(never)]
    fn calculate(&self, key: &[u8], value: &[u8], options: &SetOptions, flags: u64) -> Result<(), Refused> {
        let Ok(operand) = value.try_into().map(i64::from_ne_bytes) else {
            return self.refuse(key, &Error::NotANumber { len: value.len() as u64 });
        };
        match self.engine.math(key, operation(flags), operand, options) {
            Ok(result) => {
                self.tell_set(key, &result.to_ne_bytes(), options, flags);
                Ok(())
            }
            Err(e) => self.refuse(key, &e),
        }
    }

    /// `uwsgi_cache_del2` with a key.
    #[inline(always)]
    pub(super) fn remove(&self, key: &[u8], flags: u64) -> Result<(), Refused> {
        match self.engine.delete(key) {
            Ok(true) => {
                if self.tells(flags) {
                    peer::tell_del(self, key);
                }
                Ok(())
            }
            Ok(false) => Err(Refused),
            Err(e) => self.refuse(key, &e),
        }
    }

    /// `uwsgi_cache_del2` with an item's number. As in native, a number without an item is a success.
    pub(super) fn remove_item(&self, index: u64, flags: u64) -> Result<(), Refused> {
        if index > self.settings.config.capacity {
            return Err(Refused);
        }
        let Some(id) = u32::try_from(index).ok().and_then(std::num::NonZeroU32::new).map(ItemId) else {
            return Err(Refused);
        };
        // The engine removes by number; peers are told keys.
        let key = if self.tells(flags) { self.key_of(id) } else { None };
        match self.engine.delete_id(id) {
            Ok(removed) => {
                if let (true, Some(key)) = (removed, key) {
                    peer::tell_del(self, &key);
                }
                Ok(())
            }
            Err(e) => self.refuse(b"", &e),
        }
    }

    /// `uwsgi_cache_magic_clear`
    pub(super) fn empty(&self) -> Result<(), Refused> {
        match self.engine.clear() {
            Ok(()) => {
                if self.tells(0) {
                    peer::tell_clear(self);
                }
                Ok(())
            }
            Err(e) => self.refuse(b"", &e),
        }
    }

    /// Walks all items until `visit` breaks.
    pub(super) fn each<T>(&self, mut visit: impl FnMut(Item) -> ControlFlow<T>) -> Option<T> {
        let mut cursor = Cursor::default();
        while let Some(item) = self.engine.walk(&mut cursor) {
            if let ControlFlow::Break(found) = visit(item) {
                return Some(found);
            }
        }
        None
    }

    fn key_of(&self, id: ItemId) -> Option<Vec<u8>> {
        self.each(|item| if item.id == id { ControlFlow::Break(item.key) } else { ControlFlow::Continue(()) })
    }

    /// Whether there are nodes to tell of a change with these flags.
    #[inline]
    pub(super) fn tells(&self, flags: u64) -> bool {
        flags & FLAG_LOCAL == 0 && !self.settings.nodes.is_empty()
    }

    #[inline(always)]
    fn tell_set(&self, key: &[u8], value: &[u8], options: &SetOptions, flags: u64) {
        if self.tells(flags) {
            self.tell_peers(key, value, (!options.keep_ttl).then_some(options.expires));
        }
    }

    /// Tells the nodes, of which there are some, of a stored value and when it expires; `None` = when it would have.
    #[inline(never)]
    pub(super) fn tell_peers(&self, key: &[u8], value: &[u8], expires: Option<Expires>) {
        match expires {
            Some(expires) => peer::tell_set(self, key, value, expires),
            None => peer::tell_kept(self, key),
        }
    }

    #[cold]
    fn refuse(&self, key: &[u8], error: &Error) -> Result<(), Refused> {
        report::refused(self, key, error);
        Err(Refused)
    }
}

/// 0 = never. A relative time that runs over the end of 64 bits, as `(uint64_t) -1` does, is at once: in native
/// the sum is a time that has passed, and programs rely on it.
fn expiry(expires: u64, flags: u64) -> Expires {
    if expires == 0 {
        Expires::Never
    } else if flags & FLAG_ABSEXPIRE != 0 {
        Expires::At(expires)
    } else if unix_secs().checked_add(expires).is_none() {
        Expires::In(0)
    } else {
        Expires::In(expires)
    }
}

fn operation(flags: u64) -> Math {
    match flags {
        _ if flags & FLAG_INC != 0 => Math::Inc,
        _ if flags & FLAG_DEC != 0 => Math::Dec,
        _ if flags & FLAG_MUL != 0 => Math::Mul,
        _ if flags & FLAG_DIV != 0 => Math::Div,
        _ => Math::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_wraps_to_at_once() {
        assert_eq!(expiry(0, 0), Expires::Never);
        assert_eq!(expiry(0, FLAG_ABSEXPIRE), Expires::Never);
        assert_eq!(expiry(5, 0), Expires::In(5));
        assert_eq!(expiry(5, FLAG_ABSEXPIRE), Expires::At(5));
        assert_eq!(expiry(u64::MAX, 0), Expires::In(0));
        assert_eq!(expiry(u64::MAX, FLAG_ABSEXPIRE), Expires::At(u64::MAX));
    }

    #[test]
    fn the_first_operation_named_wins() {
        assert_eq!(operation(FLAG_MATH), Math::Keep);
        assert_eq!(operation(FLAG_MATH | FLAG_INC | FLAG_DEC), Math::Inc);
        assert_eq!(operation(FLAG_DEC | FLAG_DIV), Math::Dec);
        assert_eq!(operation(FLAG_MUL), Math::Mul);
        assert_eq!(operation(FLAG_DIV), Math::Div);
    }
}
