//! Validation of entries: for the rebuild, for inspection and for the search for orphans.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        index::entry::{self, Header},
    },
    error::Result,
    shm::{scratch::Buffer, slab, sync::*},
};

/// An entry that passed validation.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct ValidEntry {
    pub(in crate::engine) header: Header,
    /// Hash of its key.
    pub(in crate::engine) hash: u64,
}

/// A valid entry, or the reason why it is not valid or not in its slot: the end of a sentence about
/// a slot.
type Validated = Result<ValidEntry, &'static str>;

impl Engine {
    /// The entry at `off`: it lies in memory of the shard whose lock the caller holds, its lengths
    /// fit, its unused bits are 0 and, with `sums`, its checksum holds. `key` has a copy of its key
    /// afterwards.
    pub(in crate::engine) fn validate(
        &self,
        shard_no: u64,
        off: u64,
        sums: bool,
        key: &mut Buffer,
    ) -> Validated {
        let header = self.header_at(off).ok_or("leads to an entry of impossible length")?;
        if header.key_len == 0 || header.value_len == 0 {
            return Err("leads to an entry without a key or a value");
        }
        if !slab::holds(&self.region, shard_no, off, header.total(self.header_bytes)) {
            return Err("leads to no block of its shard");
        }
        if header.expires > entry::MAX_EXPIRES {
            return Err("leads to an entry with an impossible expiry");
        }
        let key = key.first(header.key_len as usize);
        self.region.source(off + self.header_bytes, key.len()).copy_to_slice(key);
        let hash = self.secret.hash(key);
        let holds = !sums
            || !self.geo.checksums
            || entry::checksum_holds(&self.region, off, &self.secret, &header, hash);
        if !holds {
            return Err("leads to an entry whose checksum is wrong");
        }
        Ok(ValidEntry { header, hash })
    }

    /// The entry that a slot of the chain of `home` leads to: [`Engine::validate`], and it belongs
    /// there, and its key is not at an earlier place of the chain.
    pub(in crate::engine) fn validate_slot(
        &self,
        shard_no: u64,
        home: u64,
        at: (u64, u64),
        sums: bool,
        key: &mut Buffer,
    ) -> Validated {
        let word = self.slot(at.0, at.1).load(Acquire);
        let off = entry::slot_off(word);
        let valid = self.validate(shard_no, off, sums, key)?;
        if self.home_of(valid.hash) != home || entry::tag_of(valid.hash) != entry::slot_tag(word) {
            return Err("leads to an entry whose key belongs to another chain");
        }
        if self.key_before(home, at, off, &valid.header) {
            return Err("has the same key twice");
        }
        Ok(valid)
    }

    /// Whether an earlier slot of the chain has the same key.
    fn key_before(&self, home: u64, at: (u64, u64), off: u64, h: &Header) -> bool {
        let tag = entry::slot_tag(self.slot(at.0, at.1).load(Relaxed));
        let mut before = false;
        self.each_slot(home, |bucket, slot, word| {
            if (bucket, slot) == at {
                return false;
            }
            let other = entry::slot_off(word);
            before = entry::slot_tag(word) == tag
                && self.header_at(other).is_some_and(|o| {
                    o.key_len == h.key_len
                        && self.region.same(other + self.header_bytes, off + self.header_bytes, h.key_len)
                });
            !before
        });
        before
    }
}
