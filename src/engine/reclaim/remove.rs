//! Removing an entry from the index, and only then freeing its memory, right and blocks.
#![forbid(unsafe_code)]

use crate::{
    engine::{Engine, index::bucket::EntryRef, shard::guard::ShardGuard},
    shm::slab,
};

impl Engine {
    /// Removes an entry from the index, then frees its memory, blocks and right to be stored.
    pub(in crate::engine) fn remove(&self, guard: &ShardGuard<'_>, home: u64, f: &EntryRef) {
        self.detach(guard, home, f);
        slab::free(&self.region, guard.cells, f.off, f.header.total(self.header_bytes));
        self.give_blocks(guard, self.blocks_of(&f.header));
        self.give_item(guard);
    }

    /// Removes an entry from the index; the caller becomes responsible for its memory, blocks and
    /// right to be stored.
    #[inline]
    pub(in crate::engine) fn detach(&self, guard: &ShardGuard<'_>, home: u64, f: &EntryRef) {
        self.end_life(f.off, f.header.words().0);
        self.on_remove(guard, f.bucket, f.slot);
        self.unpublish(home, f.bucket, f.slot);
    }
}
