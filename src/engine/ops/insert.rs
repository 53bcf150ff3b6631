//! New keys: everything is reserved and written before the one store that makes the item visible.
//! In a full cache that evicts, the victim's right and block are what is reserved.
#![forbid(unsafe_code)]

use std::num::NonZeroU64;

use crate::{
    engine::{
        Engine,
        index::{bucket::FreeSlot, entry, lookup::HashedKey},
        ops::{
            evict::Evicted,
            set::{New, WriteAbort},
        },
        quota::Shortage,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::{
        Bucket, first_match,
        slab::{self, Wanted},
    },
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
    #[inline(never)]
    fn insert_into(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        wanted: Wanted,
    ) -> Result<(), WriteAbort> {
        if self.take_own_item(guard) {
            return self.insert_paid(guard, hashed, new, wanted);
        }
        self.insert_beyond(guard, hashed, new, wanted)
    }

    /// [`Engine::insert_into`] as the fast path: into the home bucket, in a cache without a block
    /// limit. `kept` is the block that the shard keeps, if it is of the size wanted.
    #[inline(always)]
    pub(in crate::engine) fn insert_fast(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        (wanted, kept): (Wanted, Option<NonZeroU64>),
    ) -> Result<(), WriteAbort> {
        let empty = self.region.match_tag(hashed.bucket, 0);
        if empty == 0 || self.config.blocks.is_some() {
            return self.insert_into(&guard.alias(), &{ *hashed }, &{ *new }, wanted);
        }
        if !self.take_own_item(guard) {
            return self.insert_beyond(&guard.alias(), &{ *hashed }, &{ *new }, wanted);
        }
        let off = match kept {
            Some(off) => {
                slab::take_kept(guard.cells);
                off.get()
            }
            None => match slab::alloc_uncached(&self.region, guard.no, wanted) {
                Ok(off) => off,
                Err(_) => {
                    self.give_item(guard);
                    return Err(Shortage::Space(wanted.bytes).into());
                }
            },
        };
        let at = FreeSlot::Slot { bucket: hashed.home, slot: first_match(empty) as u64 };
        self.insert_at(guard, hashed, new, (hashed.bucket, at, off));
        Ok(())
    }

    /// [`Engine::insert_into`] where the shard has reserved nothing more: with another shard's right,
    /// or a victim's.
    #[inline(never)]
    fn insert_beyond(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        wanted: Wanted,
    ) -> Result<(), WriteAbort> {
        if self.take_item_from_others(guard) {
            return self.insert_paid(guard, hashed, new, wanted);
        }
        // An item elsewhere would be evicted in vain.
        if !self.has_free_slot(hashed.home) {
            return Err(Shortage::Index(hashed.home).into());
        }
        let Some(Evicted { off, bytes }) = self.evict_for_insert(guard) else {
            return Err(Shortage::Items.into());
        };
        let reusable = slab::is_for(&self.region, guard.no, (off, bytes), wanted);
        let done = self.insert_with(guard, hashed, new, (wanted, reusable.then_some(off)));
        if done.is_err() {
            self.give_item(guard);
        } else {
            self.count(Counter::Full, 1);
        }
        if done.is_err() || !reusable {
            slab::free(&self.region, guard.cells, off, bytes);
        }
        done
    }

    /// [`Engine::insert_with`], after a right was taken.
    #[inline(never)]
    fn insert_paid(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        wanted: Wanted,
    ) -> Result<(), WriteAbort> {
        let done = self.insert_with(guard, hashed, new, (wanted, None));
        if done.is_err() {
            self.give_item(guard);
        }
        done
    }

    /// [`Engine::insert`] with the right to store an item, and with a block of the right size, if
    /// there is one already.
    #[inline(always)]
    fn insert_with(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        (wanted, block): (Wanted, Option<u64>),
    ) -> Result<(), WriteAbort> {
        let blocks = self.blocks_of(&self.header_for(hashed, new));
        let Some(free_slot) = self.free_slot(hashed.home) else {
            return Err(Shortage::Index(hashed.home).into());
        };
        if let Err(shortage) = self.take_blocks(guard, blocks, 0) {
            self.return_free_slot(guard, free_slot);
            return Err(shortage.into());
        }
        let Some(off) = block.or_else(|| slab::alloc(&self.region, guard.cells, wanted).ok()) else {
            self.give_blocks(guard, blocks);
            self.return_free_slot(guard, free_slot);
            return Err(Shortage::Space(wanted.bytes).into());
        };
        // That of a store may have no memory when its key is hashed.
        let line = self.region.bucket(hashed.home);
        self.insert_at(guard, hashed, new, (line, free_slot, off));
        Ok(())
    }

    /// Writes the entry at `off` and makes the slot lead there; `line` is the home bucket.
    #[inline(always)]
    fn insert_at(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        new: &New<'_>,
        (line, free_slot, off): (&Bucket, FreeSlot, u64),
    ) {
        self.fill(guard.no, off, self.header_for(hashed, new).words(), (hashed.key, new.value));
        let place = free_slot.place();
        self.reset_hits(place);
        self.note_expiry(guard, new.expires);
        let stamp = self.first_stamp(guard, hashed.hash, place);
        self.publish((hashed.home, line), free_slot, entry::slot(hashed.tag(), off), stamp);
    }
}
