//! Address arithmetic: from hashes and buckets to home buckets and shards.
#![forbid(unsafe_code)]

use crate::{engine::Engine, shm::layout::SLOTS};

/// An item's id: the place of its slot, from 1 on. Some slot of an index of the largest size has
/// the greatest that fits.
#[inline(always)]
pub(crate) fn id_of(bucket: u64, slot: u64) -> u32 {
    (bucket * SLOTS + slot) as u32
}

/// Maximum number of shards.
pub(in crate::engine) const MAX_SHARDS: u64 = 4096;

impl Engine {
    /// Home bucket of a hash.
    #[inline(always)]
    pub(in crate::engine) fn home_of(&self, hash: u64) -> u64 {
        self.region.home_bucket(hash).0
    }

    /// Shard of a hash's home bucket: `home bucket / homes_per_shard`, where the quotient's two
    /// roundings down make one.
    #[inline]
    pub(in crate::engine) fn shard_of_hash(&self, hash: u64) -> u64 {
        ((hash >> 32) * self.geo.shards) >> 32
    }

    /// Shard of a bucket.
    #[inline]
    pub(in crate::engine) fn shard_of(&self, bucket: u64) -> u64 {
        self.geo.shard_of(bucket, self.homes_per_shard)
    }
}
