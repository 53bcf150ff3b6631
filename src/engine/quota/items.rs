//! Items as a limit: the right to store one item.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::{
    engine::{Engine, quota::limit, shard::guard::ShardGuard},
    shm::{
        layout::{header, shard},
        order::quota,
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

    /// Corrects what the shards have reserved of both limits, unless another thread does; tells
    /// whether something was found that a death had lost.
    pub(in crate::engine) fn settle_quotas(&self) -> bool {
        let settle = || self.items.settle(0) | (self.config.blocks.is_some() && self.blocks.settle(0));
        // Only tried: a thread that is stopped there delays nobody.
        self.under(header::LOCK_CAPACITY, Duration::ZERO, || {}, settle).unwrap_or(false)
    }

    /// Items by the shards' counts, whatever a clear has left to reap. A count goes up before its
    /// item is there and down after it is gone.
    pub(in crate::engine) fn counted_items(&self) -> u64 {
        self.items.all_used()
    }
}
