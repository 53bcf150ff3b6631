//! Items as a limit: the right to store one item.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{Engine, quota::limit, shard::guard::ShardGuard},
    shm::{
        layout::{header, shard},
        order::quota,
        sync::*,
    },
};

impl Engine {
    /// Takes the right to store an item in this shard, of what the shard has reserved.
    #[inline(always)]
    pub(in crate::engine) fn take_own_item(&self, guard: &ShardGuard<'_>) -> bool {
        limit::acquire(guard.word(shard::ITEMS), 1)
    }

    /// The same of what other shards have reserved; `false` = the cache is full.
    #[inline(always)]
    pub(in crate::engine) fn take_item_from_others(&self, guard: &ShardGuard<'_>) -> bool {
        // A full cache comes here for every new key. Who returned a right has set the hint: only those
        // that a death lost are missed, which `settle_quotas` finds.
        let may_be_spare = self.region.header_word::<{ header::SPARE_ITEMS }>().load(quota::HINT) != 0;
        may_be_spare && self.items.take_from_others(guard.cells, 1)
    }

    /// Returns the right of an item that became unreachable, or was not stored.
    #[inline(always)]
    pub(in crate::engine) fn give_item(&self, guard: &ShardGuard<'_>) {
        let hint = self.region.header_word::<{ header::SPARE_ITEMS }>();
        limit::release(guard.word(shard::ITEMS), 1, hint);
    }

    /// Notes that a rebuild has counted a shard again: its last owner may have lost a part of a limit.
    pub(in crate::engine) fn note_lost(&self) {
        self.region.word(header::LOST).store(1, quota::LOSE);
    }

    /// Corrects what the shards have reserved of both limits, if a rebuild may have left something to
    /// correct and no other thread does; tells whether something was found that a death had lost.
    pub(in crate::engine) fn settle_quotas(&self) -> bool {
        let lost = self.region.word(header::LOST);
        if lost.load(Relaxed) == 0 {
            return false;
        }
        let settle = || {
            lost.swap(0, quota::SETTLE);
            let items = self.items.settle(0);
            let blocks = if self.config.blocks.is_some() { self.blocks.settle(0) } else { Some(false) };
            if items.is_none() || blocks.is_none() {
                self.note_lost();
            }
            items == Some(true) || blocks == Some(true)
        };
        // Only tried: a thread that is stopped there delays nobody.
        self.under(header::LOCK_CAPACITY, Duration::ZERO, || self.note_lost(), settle).unwrap_or(false)
    }

    /// Items by the shards' counts, whatever a clear has left to reap. A count goes up before its
    /// item is there and down after it is gone.
    pub(in crate::engine) fn counted_items(&self) -> u64 {
        self.items.all_used()
    }
}
