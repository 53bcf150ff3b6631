//! Deletes: an entry is taken out of the index, and only then its memory is used again.
#![forbid(unsafe_code)]

use super::{
    Engine, ItemId,
    entry::{self, LEASE},
    find::{Glance, Match, purpose::WRITE},
    index::{Found, bump},
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::Result,
    shm::{Line, block, sync::*},
};

impl Engine {
    /// Removes `key`; `false` = it was not there.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        let place = self.place_for(key);
        let guard = self.lock(place.shard)?;
        let f = match self.glance_at::<WRITE>(&place) {
            Glance::Entry(m) if self.is_readable(&m) && !self.geo.stamps && self.config.blocks.is_none() => {
                self.delete_plain(guard, place.line, &m);
                return Ok(true);
            }
            Glance::Entry(m) => m.found(),
            Glance::Nothing => return Ok(false),
            Glance::Unclear => match self.probe(place.head, place.tag, key) {
                Some(f) => f,
                None => return Ok(false),
            },
        };
        Ok(self.delete_found(&guard, place.head, &f))
    }

    /// The usual kind of item goes, from the first bucket of its chain, in a cache that neither evicts nor counts blocks.
    #[inline(always)]
    fn delete_plain(&self, guard: ShardGuard<'_>, line: &Line, m: &Match<'_>) {
        guard.add_used(-1);
        line[m.slot as usize & 7].store(0, Release);
        bump(line);
        block::free(&self.region, guard.home, m.off);
        self.free_id(entry::id(m.words.1), guard.home);
        guard.release();
        self.count(Counter::Deleted, 1);
        self.note_change();
    }

    /// Removes the item with this number; `false` = no such item.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn delete_id(&self, id: ItemId) -> Result<bool> {
        let id = id.0.get();
        // The item may move to an overflow bucket between the look and the lock: a few looks, then it is gone.
        for _ in 0..8 {
            let Some((bucket, slot)) = self.place_of(id) else { return Ok(false) };
            let guard = self.lock(self.shard_of(bucket))?;
            if self.place_of(id) != Some((bucket, slot)) {
                continue;
            }
            let Some(f) = self.found_at((bucket, slot)).filter(|f| f.header.id == id) else {
                return Ok(false);
            };
            return Ok(self.delete_found(&guard, self.head_of(self.hash_of(&f)), &f));
        }
        Ok(false)
    }

    fn delete_found(&self, guard: &ShardGuard<'_>, head: u64, f: &Found) -> bool {
        let there = self.exists_for_users(&f.header);
        self.remove(guard, head, f);
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

    /// Takes an entry out of the index, then its memory, number and blocks become free.
    pub(super) fn remove(&self, guard: &ShardGuard<'_>, head: u64, f: &Found) {
        self.detach(guard, head, f);
        block::free(&self.region, guard.home, f.off);
        self.give_blocks(guard, self.blocks_of(&f.header));
        self.free_id(f.header.id, guard.home);
    }

    /// Takes an entry out of the index; its memory, number and blocks are in the caller's hands.
    #[inline]
    pub(super) fn detach(&self, guard: &ShardGuard<'_>, head: u64, f: &Found) {
        guard.add_used(-1);
        self.dequeue(guard, f.bucket, f.slot);
        self.unpublish(head, f.bucket, f.slot);
    }
}
