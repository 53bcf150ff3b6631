//! Whether an entry is what it claims to be. The rebuild, a look inside and the search for lost items ask here.
#![forbid(unsafe_code)]

use super::{
    Engine,
    entry::{self, Header},
};
use crate::shm::{
    block::{self, Block},
    marks::Buffer,
    sync::*,
};

/// An entry that holds together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sound {
    pub(super) header: Header,
    pub(super) block: Block,
    /// Hash of its key.
    pub(super) hash: u64,
}

/// Why something is no entry, or not at its place: ends a sentence about a slot.
type Verdict = Result<Sound, &'static str>;

impl Engine {
    /// The entry at `off`: it starts a block of the shard whose lock the caller holds, its lengths fit, its number can be
    /// one and, where `sums` asks for it, its checksum holds. `key` has a copy of its key afterwards.
    pub(super) fn judge(&self, shard_no: u64, off: u64, sums: bool, key: &mut Buffer) -> Verdict {
        let block = block::locate(&self.region, shard_no, off).ok_or("leads to no block of its shard")?;
        if !block::owns_its_spans(&self.region, shard_no, &block) {
            return Err("leads to a block that is not all its shard's");
        }
        let header = self.header_at(off).ok_or("leads to an entry of impossible length")?;
        if header.key_len == 0 || header.value_len == 0 {
            return Err("leads to an entry without a key or a value");
        }
        if header.total(self.entry_head) > block.len {
            return Err("leads to an entry that is longer than its block");
        }
        if header.id == 0 || u64::from(header.id) > self.geo.capacity {
            return Err("leads to an entry with an impossible number");
        }
        let key = key.first(header.key_len as usize);
        self.region.source(off + self.entry_head, key.len()).copy_to_slice(key);
        let hash = self.secret.hash(key);
        let is_sound = !sums
            || !self.geo.checksums
            || entry::checksum_holds(&self.region, off, &self.secret, &header, hash);
        if !is_sound {
            return Err("leads to an entry whose checksum is wrong");
        }
        Ok(Sound { header, block, hash })
    }

    /// The entry that a slot of the chain of `head` leads to: [`Engine::judge`], and it belongs there, and its key is not
    /// at an earlier place of the chain.
    pub(super) fn judge_slot(
        &self,
        shard_no: u64,
        head: u64,
        at: (u64, u64),
        sums: bool,
        key: &mut Buffer,
    ) -> Verdict {
        let word = self.slot(at.0, at.1).load(Acquire);
        let off = entry::slot_off(word);
        let sound = self.judge(shard_no, off, sums, key)?;
        if self.head_of(sound.hash) != head || entry::tag_of(sound.hash) != entry::slot_tag(word) {
            return Err("leads to an entry whose key belongs elsewhere");
        }
        if self.key_before(head, at, off, &sound.header) {
            return Err("holds a key twice");
        }
        Ok(sound)
    }

    /// Whether a chain has the same key at an earlier place.
    fn key_before(&self, head: u64, at: (u64, u64), off: u64, h: &Header) -> bool {
        let tag = entry::slot_tag(self.slot(at.0, at.1).load(Relaxed));
        let mut before = false;
        self.each_slot(head, |bucket, slot, word| {
            if (bucket, slot) == at {
                return false;
            }
            let other = entry::slot_off(word);
            before = entry::slot_tag(word) == tag
                && self.header_at(other).is_some_and(|o| {
                    o.key_len == h.key_len
                        && self.region.same(other + self.entry_head, off + self.entry_head, h.key_len)
                });
            !before
        });
        before
    }
}
