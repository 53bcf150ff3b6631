//! Places within a shard: its buckets by number, home buckets first.
#![forbid(unsafe_code)]

use crate::{
    engine::{Engine, shard::guard::ShardGuard},
    shm::{
        layout::{Geometry, shard},
        sync::*,
    },
};

/// The buckets of a shard that can have items, for several looks.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct OwnBuckets {
    shard: u64,
    /// How many there are.
    pub(in crate::engine) all: u64,
    /// How many home buckets each shard has.
    homes: u64,
}

impl OwnBuckets {
    /// The `n`-th one, home buckets first.
    #[inline(always)]
    pub(in crate::engine) fn nth(&self, geo: &Geometry, n: u64) -> u64 {
        nth(geo, (self.shard, self.homes), n)
    }
}

/// The `n`-th bucket of a shard, of those with so many home buckets each.
#[inline(always)]
fn nth(geo: &Geometry, (shard, homes): (u64, u64), n: u64) -> u64 {
    if n < homes { shard * homes + n } else { geo.overflow_bucket(shard, n - homes) }
}

impl Engine {
    /// Number of the shard's buckets that can have items.
    pub(in crate::engine) fn buckets_of(&self, guard: &ShardGuard<'_>) -> u64 {
        self.homes_per_shard
            + guard.word(shard::OVERFLOW_BUMP).load(Relaxed).min(self.region.overflow_ready())
    }

    /// [`Engine::buckets_of`], and where they are.
    #[inline(always)]
    pub(in crate::engine) fn own_buckets(&self, guard: &ShardGuard<'_>) -> OwnBuckets {
        OwnBuckets { shard: guard.no, all: self.buckets_of(guard), homes: self.homes_per_shard }
    }

    /// Bucket and slot of a location within the shard.
    #[inline]
    pub(in crate::engine) fn slot_at(&self, guard: &ShardGuard<'_>, number: u64) -> (u64, u64) {
        (self.nth_bucket(guard, number / 8), number % 8)
    }

    /// Inverse of the above; 0 = not of this shard.
    pub(in crate::engine) fn number_of_slot(
        &self,
        guard: &ShardGuard<'_>,
        (bucket, slot): (u64, u64),
    ) -> u64 {
        if self.shard_of(bucket) != guard.no {
            return 0;
        }
        let n = if bucket < self.geo.homes {
            bucket - guard.no * self.homes_per_shard
        } else {
            self.homes_per_shard + self.geo.overflow_number(bucket)
        };
        n * 8 + slot
    }

    /// The shard's `n`-th bucket, home buckets first.
    #[inline]
    pub(in crate::engine) fn nth_bucket(&self, guard: &ShardGuard<'_>, n: u64) -> u64 {
        nth(&self.geo, (guard.no, self.homes_per_shard), n)
    }
}
