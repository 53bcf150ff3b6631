//! New keys: everything is reserved and written before the one store that makes the item visible.
//! In a full cache that evicts, the victim's right and block are what is reserved.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        geometry::id_of,
        index::{entry, lookup::HashedKey},
        ops::{
            evict::Evicted,
            set::{New, WriteAbort},
        },
        quota::Shortage,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::slab::{self, Wanted},
};

impl Engine {
    /// Inserts a new key.
    pub(in crate::engine) fn insert(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
    ) -> Result<(), WriteAbort> {
        if !self.region.has_bucket(hashed.home) {
            return Err(Shortage::Index(hashed.home).into());
        }
        let bytes = entry::size(self.header_bytes, hashed.key.len() as u64, new.value.len() as u64);
        self.insert_into(guard, hashed, new, slab::wanted(bytes))
    }

    /// [`Engine::insert`] with the block's size precomputed, where the home bucket has memory.
    pub(in crate::engine) fn insert_into(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        wanted: Wanted,
    ) -> Result<(), WriteAbort> {
        if !self.take_item(guard) {
            return self.insert_evicting(guard, hashed, new, wanted);
        }
        let done = self.insert_with(guard, hashed, new, (wanted, &mut None));
        if done.is_err() {
            self.give_item(guard);
        }
        done
    }

    /// [`Engine::insert`] into a full cache: the victim's right is taken, and its block if it has
    /// the right size.
    #[inline(never)]
    fn insert_evicting(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        wanted: Wanted,
    ) -> Result<(), WriteAbort> {
        // An item elsewhere would be evicted in vain.
        if !self.has_free_slot(hashed.home) {
            return Err(Shortage::Index(hashed.home).into());
        }
        let Some(Evicted { off }) = self.evict_for_insert(guard) else {
            return Err(Shortage::Items.into());
        };
        let mut block = Some(off);
        let done = self.insert_with(guard, hashed, new, (wanted, &mut block));
        if done.is_err() {
            self.give_item(guard);
        } else {
            self.count(Counter::Full, 1);
        }
        if let Some(off) = block {
            let bytes = self.header_at(off).map_or(0, |h| h.total(self.header_bytes));
            slab::free(&self.region, guard.cells, off, bytes);
        }
        done
    }

    /// [`Engine::insert`] with the right to store an item.
    #[inline(always)]
    fn insert_with(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        (wanted, reusable): (Wanted, &mut Option<u64>),
    ) -> Result<(), WriteAbort> {
        let header = self.header_for(hashed, new);
        let blocks = self.blocks_of(&header);
        let Some(free_slot) = self.free_slot(hashed.home) else {
            return Err(Shortage::Index(hashed.home).into());
        };
        if let Err(shortage) = self.take_blocks(guard, blocks, 0) {
            self.return_free_slot(guard, free_slot);
            return Err(shortage.into());
        }
        let Some(off) = self.block_for(guard, wanted, reusable) else {
            self.give_blocks(guard, blocks);
            self.return_free_slot(guard, free_slot);
            return Err(Shortage::Space(wanted.bytes).into());
        };
        self.fill(guard, off, header.words(), (hashed.key, new.value));
        let (bucket, slot) = free_slot.place();
        self.reset_hits(id_of(bucket, slot));
        self.note_expiry(guard, new.expires);
        let stamp = self.first_stamp(guard, hashed.hash, (bucket, slot));
        self.publish(hashed.home, free_slot, entry::slot(hashed.tag, off), stamp);
        Ok(())
    }

    /// A block: the reusable one if it has the right size.
    #[inline(always)]
    fn block_for(&self, guard: &ShardGuard<'_>, wanted: Wanted, reusable: &mut Option<u64>) -> Option<u64> {
        if let Some(off) = *reusable
            && self.header_at(off).is_some_and(|h| {
                slab::is_for(&self.region, guard.no, (off, h.total(self.header_bytes)), wanted)
            })
        {
            return reusable.take();
        }
        slab::alloc(&self.region, guard.cells, wanted).ok()
    }
}
