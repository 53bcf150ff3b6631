//! Relocation: entries of sparse extents are copied elsewhere, so that their memory can be released.
//! And eviction by place.
//!
//! It is the copy-on-write of an update that changes nothing but the block: copy, publish, advance
//! the sequence number, retire. A death between any two of these leaves the key with one of two
//! equal entries, and the rebuild frees the other.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        geometry::id_of,
        index::{bucket::EntryRef, entry},
        shard::guard::ShardGuard,
        stats::Counter,
    },
    shm::{layout::round8, number::Number, order::seqlock, slab, sync::*},
};

/// Bytes that one visit of a shard moves at most.
pub(in crate::engine) const MOST: u64 = 256 << 10;

/// What one visit of a shard did.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Compacted {
    /// Bytes of the entries moved.
    pub(in crate::engine) bytes: u64,
    /// There was no memory to move another one to.
    pub(in crate::engine) short: bool,
}

impl Engine {
    /// Empties sparse extents of a shard. In memory they are released at once, in a store after a
    /// sync that begins afterwards. `short`: a writer needs the memory.
    pub(in crate::engine) fn compact(&self, guard: &ShardGuard<'_>, short: bool) -> Compacted {
        if !slab::begin_emptying(&self.region, guard.cells, MOST, short) {
            return Compacted::default();
        }
        let done = self.move_leaving(guard);
        if self.region.file().is_none() && !guard.is_dirty() {
            slab::release_emptied(&self.region, guard.cells, None);
        }
        done
    }

    /// Moves the entries of the extents that are being emptied, until there is no memory for one.
    pub(in crate::engine) fn move_leaving(&self, guard: &ShardGuard<'_>) -> Compacted {
        let (mut done, mut moved) = (Compacted::default(), 0);
        slab::empty(&self.region, guard.cells, |off| {
            let Some((f, home)) = self.entry_of_block(guard, off) else { return true };
            let len = self.relocate(guard, &f, home);
            moved += u64::from(len.is_some());
            done.bytes += len.unwrap_or(0);
            done.short |= len.is_none();
            len.is_some()
        });
        self.count(Counter::Moved, moved);
        self.count(Counter::CompactedBytes, done.bytes);
        done
    }

    /// Moves an entry to another block; `None` = there is no block.
    pub(in crate::engine) fn relocate(&self, guard: &ShardGuard<'_>, f: &EntryRef, home: u64) -> Option<u64> {
        let bytes = f.header.total(self.header_bytes);
        let slot = self.slot(f.bucket, f.slot);
        let to = slab::alloc(&self.region, guard.cells, slab::wanted(bytes)).ok()?;
        fence(seqlock::RETIRE);
        match self.number_of(f) {
            None => slab::copy(&self.region, f.off, to, bytes),
            Some(number) => self.copy_number(guard, f, to, number),
        }
        slot.store(entry::slot(entry::slot_tag(slot.load(Relaxed)), to), seqlock::PUBLISH);
        self.bump_seq(home);
        if self.region.file().is_none() {
            slab::discard(&self.region, guard.cells, f.off, bytes);
        }
        Some(bytes)
    }

    /// Copies an entry whose value is a number, to where it may be aligned otherwise.
    fn copy_number(&self, guard: &ShardGuard<'_>, f: &EntryRef, to: u64, number: Number<'_>) {
        number.freeze();
        let header_and_key = self.header_bytes + round8(f.header.key_len);
        slab::copy(&self.region, f.off, to, header_and_key);
        let copy = self.number_at(to, f.header.key_len);
        copy.restart(number.value(), self.new_life(guard.cells));
    }

    /// Whether a slot of the shard leads to a block.
    pub(in crate::engine) fn is_reached(&self, guard: &ShardGuard<'_>, off: u64) -> bool {
        self.entry_of_block(guard, off).is_some()
    }

    /// The entry in a block of the shard, and its home bucket; `None` = no slot of the shard leads
    /// there.
    pub(in crate::engine) fn entry_of_block(
        &self,
        guard: &ShardGuard<'_>,
        off: u64,
    ) -> Option<(EntryRef, u64)> {
        self.indexed_entry(off).filter(|&(_, home)| self.shard_of(home) == guard.no)
    }

    /// The entry at an offset, and its home bucket, if a slot leads there. Without the shard's lock
    /// the answer may be old when it arrives.
    pub(in crate::engine) fn indexed_entry(&self, off: u64) -> Option<(EntryRef, u64)> {
        let header = self.header_of_block(off)?;
        let home = self.home_of(self.hash_of(&EntryRef { bucket: 0, slot: 0, off, header }));
        let mut found = None;
        self.each_slot(home, |bucket, slot, word| {
            if entry::slot_off(word) == off {
                found = Some((EntryRef { bucket, slot, off, header }, home));
            }
            found.is_none()
        });
        found
    }

    /// Evicts the entry in a block of the shard; `false` = its id is `keep`.
    pub(in crate::engine) fn evict_block(&self, guard: &ShardGuard<'_>, off: u64, keep: Option<u32>) -> bool {
        let Some((f, home)) = self.entry_of_block(guard, off) else { return true };
        if keep == Some(id_of(f.bucket, f.slot)) {
            return false;
        }
        self.on_evict(guard, &f);
        self.remove(guard, home, &f);
        true
    }
}
