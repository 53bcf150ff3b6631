//! Deletes: the entry is taken out of the index, and only then is its block free.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, ItemId,
        geometry::id_of,
        index::{
            bucket::{EntryRef, bump_seq},
            entry::{self, LEASE},
            lookup::{FastLookup, RawEntry, access::WRITE},
        },
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::{Bucket, slab, sync::*},
};

impl Engine {
    /// Removes `key`; `false` = it was not stored.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        let hashed = self.hash_key(key);
        let guard = self.lock(hashed.shard)?;
        let f = match self.lookup_fast_for::<WRITE>(&hashed) {
            FastLookup::Found(m)
                if self.is_readable(&m) && !self.geo.stamps && self.config.blocks.is_none() =>
            {
                self.delete_fast(&guard, hashed.bucket, &m);
                guard.release();
                self.count(Counter::Deleted, 1);
                self.note_change();
                return Ok(true);
            }
            FastLookup::Found(m) => m.decode(),
            FastLookup::Absent => return Ok(false),
            FastLookup::Retry => match self.lookup(hashed.home, hashed.tag(), key) {
                Some(f) => f,
                None => return Ok(false),
            },
        };
        Ok(self.delete_found(&guard.alias(), hashed.home, &f))
    }

    /// Deletes an item without flags from its home bucket, in a cache that neither evicts nor
    /// counts blocks.
    #[inline(always)]
    fn delete_fast(&self, guard: &ShardGuard<'_>, line: &Bucket, m: &RawEntry<'_>) {
        self.end_life(m.off, m.words.0);
        line[m.slot as usize & 7].store(0, Release);
        bump_seq(line);
        let old = entry::packed_size(self.header_bytes, m.words.0);
        slab::free(&self.region, guard.cells, m.off, old);
        self.give_item(guard);
    }

    /// The greatest id that an item can have: more than there can be items.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        id_of(self.buckets, 0)
    }

    /// Removes the item with this id; `false` = no such item.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn delete_id(&self, id: ItemId) -> Result<bool> {
        let Some((bucket, slot)) = self.slot_of(id.0.get()) else { return Ok(false) };
        let guard = self.lock(self.shard_of(bucket))?;
        let Some(f) = self.found_at((bucket, slot)) else { return Ok(false) };
        Ok(self.delete_found(&guard, self.home_of(self.hash_of(&f)), &f))
    }

    fn delete_found(&self, guard: &ShardGuard<'_>, home: u64, f: &EntryRef) -> bool {
        let there = self.exists_for_users(&f.header);
        self.remove(guard, home, f);
        if f.header.flags & LEASE != 0 {
            self.wake_fillers();
        }
        if there {
            self.count(Counter::Deleted, 1);
            self.note_change();
        } else if f.header.flags & LEASE == 0 {
            self.count(Counter::Expired, 1);
        }
        there
    }
}
