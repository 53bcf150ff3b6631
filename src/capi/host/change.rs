//! Changes of a local cache on behalf of the C functions: flag words, log lines, and replication to
//! the UDP nodes.

use std::ops::ControlFlow;

use crate::{
    capi::{
        host::{cache::Cache, network, report},
        types::*,
    },
    engine::{Expires, Item, ItemId, Math, Mode, SetOptions, Stored},
    error::Error,
    near::Position,
    os::clock::coarse_unix_secs,
};

/// A change was not made; the reason has been logged where it is worth a line.
#[derive(Debug)]
pub(crate) struct Refused;

impl Cache {
    /// `uwsgi_cache_set2`: stores a value, or performs arithmetic with it as the operand
    /// (`FLAG_MATH`).
    #[inline(always)]
    pub(crate) fn store(&self, key: &[u8], value: &[u8], expires: u64, flags: u64) -> Result<(), Refused> {
        let options = SetOptions {
            mode: if flags & FLAG_UPDATE == 0 { Mode::Add } else { Mode::Set },
            expires: expiry(expires, flags),
            keep_ttl: flags & FLAG_FIXEXPIRE != 0,
            ungettable: flags & FLAG_UNGETTABLE != 0,
        };
        if flags & FLAG_MATH != 0 {
            return self.calculate(key, value, &options, flags);
        }
        match self.tier.put(key, value, &options) {
            Ok(Stored::Inserted | Stored::Updated) => {
                self.replicate_set(key, value, &options, flags);
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
        match self.tier.math(key, operation(flags), operand, options) {
            Ok(result) => {
                self.replicate_set(key, &result.to_ne_bytes(), options, flags);
                Ok(())
            }
            Err(e) => self.refuse(key, &e),
        }
    }

    /// `uwsgi_cache_del2` with a key.
    #[inline(always)]
    pub(crate) fn remove(&self, key: &[u8], flags: u64) -> Result<(), Refused> {
        match self.tier.delete(key) {
            Ok(true) => {
                if self.replicates(flags) {
                    network::replicate_del(self, key);
                }
                Ok(())
            }
            Ok(false) => Err(Refused),
            Err(e) => self.refuse(key, &e),
        }
    }

    /// `uwsgi_cache_del2` with an item id. As in native, an id without an item is a success.
    pub(crate) fn remove_item(&self, index: u64, flags: u64) -> Result<(), Refused> {
        let id = u32::try_from(index).ok().filter(|id| *id <= self.tier.max_id());
        let Some(id) = id.and_then(std::num::NonZeroU32::new).map(ItemId) else { return Err(Refused) };
        // The engine removes by item id; nodes need the key.
        let key = if self.replicates(flags) { self.key_of(id) } else { None };
        match self.tier.delete_id(id) {
            Ok(removed) => {
                if let (true, Some(key)) = (removed, key) {
                    network::replicate_del(self, &key);
                }
                Ok(())
            }
            Err(e) => self.refuse(b"", &e),
        }
    }

    /// `uwsgi_cache_magic_clear`
    pub(crate) fn empty(&self) -> Result<(), Refused> {
        match self.tier.clear() {
            Ok(()) => {
                if self.replicates(0) {
                    network::replicate_clear(self);
                }
                Ok(())
            }
            Err(e) => self.refuse(b"", &e),
        }
    }

    /// Walks all items until `visit` breaks.
    pub(crate) fn each<T>(&self, mut visit: impl FnMut(Item) -> ControlFlow<T>) -> Option<T> {
        let mut cursor = Position::default();
        while let Some(item) = self.tier.walk(&mut cursor) {
            if let ControlFlow::Break(found) = visit(item) {
                return Some(found);
            }
        }
        None
    }

    fn key_of(&self, id: ItemId) -> Option<Vec<u8>> {
        self.each(|item| if item.id == id { ControlFlow::Break(item.key) } else { ControlFlow::Continue(()) })
    }

    /// Whether a change with these flags is sent to nodes.
    #[inline]
    pub(crate) fn replicates(&self, flags: u64) -> bool {
        flags & FLAG_LOCAL == 0 && !self.settings.nodes.is_empty()
    }

    #[inline(always)]
    fn replicate_set(&self, key: &[u8], value: &[u8], options: &SetOptions, flags: u64) {
        if self.replicates(flags) {
            self.replicate_stored(key, value, (!options.keep_ttl).then_some(options.expires));
        }
    }

    /// Sends a stored value to the nodes, of which there are some; `None` = it kept its expiry.
    #[inline(never)]
    pub(crate) fn replicate_stored(&self, key: &[u8], value: &[u8], expires: Option<Expires>) {
        match expires {
            Some(expires) => network::replicate_set(self, key, value, expires),
            None => network::replicate_kept(self, key),
        }
    }

    #[cold]
    fn refuse(&self, key: &[u8], error: &Error) -> Result<(), Refused> {
        report::refused(self, key, error);
        Err(Refused)
    }
}

/// 0 = never. A relative time that overflows 64 bits, like `(uint64_t) -1`, means at once: in
/// native the sum is a time that has passed, and programs rely on it.
fn expiry(expires: u64, flags: u64) -> Expires {
    if expires == 0 {
        Expires::Never
    } else if flags & FLAG_ABSEXPIRE != 0 {
        Expires::At(expires)
    } else if expires > u64::MAX / 2 && coarse_unix_secs().checked_add(expires).is_none() {
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
