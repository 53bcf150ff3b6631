//! Orphans: items that are intact in the data area, but that no slot leads to.
//!
//! After a power failure the disk may hold an item's slot without its new entry, and still its old
//! entry; and a slot or a link may be damaged. The data area decides then: what was freed before
//! the last sync is poisoned there (I8), so an entry with a valid checksum is from that sync or
//! later.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        index::{
            bucket::FreeSlot,
            entry::{self, GENERATIONS, LEASE},
        },
        recover::rebuild::Rebuild,
        shard::guard::ShardGuard,
    },
    shm::slab,
};

impl Engine {
    /// Puts the lost items of a shard back into its index. Its chains were walked, its unused
    /// buckets are known; what is not marked afterwards is free memory.
    pub(in crate::engine) fn adopt_orphans(&self, guard: &ShardGuard<'_>, state: &mut Rebuild) {
        slab::each_spans(&self.region, guard.no, |from, end, emptied| {
            // What was moved away is only looked for where the index may be older.
            if emptied && !self.restarted {
                return;
            }
            let mut gap = state.blocks.gap(from, end);
            while let Some((off, to)) = gap {
                let found = self.adopt(guard, off, state);
                state.adopted += u64::from(found.is_some());
                let next = off + found.unwrap_or(8);
                gap = if next < to { Some((next, to)) } else { state.blocks.gap(next, end) };
            }
        });
    }

    /// Puts the entry at `off` back, if there is one; returns its bytes.
    fn adopt(&self, guard: &ShardGuard<'_>, off: u64, state: &mut Rebuild) -> Option<u64> {
        let valid = self.validate(guard.no, off, true, &mut state.key).ok()?;
        let (h, home, tag) = (valid.header, self.home_of(valid.hash), entry::tag_of(valid.hash));
        let wanted = h.flags & LEASE == 0
            && h.generation == self.clear_gen() % GENERATIONS
            && self.shard_of(home) == guard.no;
        // A key already in the index is not replaced: any version since the last sync is valid.
        if !wanted || self.lookup(home, tag, state.key.first(h.key_len as usize)).is_some() {
            return None;
        }
        if !self.take_bytes(off, &h, state) {
            return None;
        }
        let free_slot = self.slot_for_orphan(home)?;
        let at = free_slot.place();
        // Its last use is unknown: it is evicted first.
        self.publish((home, self.region.bucket(home)), free_slot, entry::slot(tag, off), 0);
        self.keep_item(&h, at, state);
        Some(h.total(self.header_bytes))
    }

    /// An empty slot; the item may be on disk, and not the part of the index where it was.
    fn slot_for_orphan(&self, home: u64) -> Option<FreeSlot> {
        if !self.region.has_bucket(home) {
            self.back_index(home).ok()?;
        }
        self.free_slot(home).or_else(|| {
            self.back_index(home).ok()?;
            self.free_slot(home)
        })
    }
}
