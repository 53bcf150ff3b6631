//! Eviction policies. Each is one file and one variant of [`Policy`], behind the [`Hooks`] that are
//! dispatched here.
//!
//! A policy keeps its order in the stamps: a word beside each slot of the index, in an array of its
//! own. Readers write nothing else (I14). Stamps alone are looked at for a victim; of the index and
//! the entries, only the victim's.
#![forbid(unsafe_code)]

mod lru_exact;
mod lru_sampled;
mod s3fifo;
mod sampling;
mod sieve;
pub(in crate::engine) mod victims;

use lru_exact::LruExact;
use lru_sampled::LruSampled;
use s3fifo::S3Fifo;
use sieve::Sieve;

use crate::{
    engine::{
        Engine, Eviction,
        index::{bucket::EntryRef, entry::Header},
        shard::guard::ShardGuard,
        stats::Counter,
    },
    shm::layout::Geometry,
};

/// Greater than the count of any cache: a larger stamp is damaged.
const LAST_COUNT: u64 = 1 << 60;

/// The policy in force. LRU is two: exact in caches of one shard, sampled in larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Policy {
    None,
    LruExact,
    LruSampled,
    S3Fifo,
    Sieve,
}

impl Policy {
    /// The policy of a cache of this layout.
    pub(in crate::engine) fn new(geo: &Geometry) -> Self {
        match eviction(geo) {
            Eviction::None => Self::None,
            Eviction::Lru if geo.shards == 1 => Self::LruExact,
            Eviction::Lru => Self::LruSampled,
            Eviction::S3Fifo => Self::S3Fifo,
            Eviction::Sieve => Self::Sieve,
        }
    }

    /// Whether it keeps a list of victims, made from all stamps of the only shard.
    fn is_exact(self, geo: &Geometry) -> bool {
        geo.shards == 1 && matches!(self, Self::LruExact | Self::Sieve)
    }
}

/// The policy of a layout.
pub(in crate::engine) fn eviction(geo: &Geometry) -> Eviction {
    match (geo.stamps, geo.ghosts, geo.sieve) {
        (false, ..) => Eviction::None,
        (true, false, false) => Eviction::Lru,
        (true, false, true) => Eviction::Sieve,
        (true, true, _) => Eviction::S3Fifo,
    }
}

/// What a policy does. The functions get the engine: a policy has no state of its own but stamps
/// and shard words.
trait Hooks {
    /// The stamp of a new item in the shard; `hash` is its key's, `at` its bucket and slot.
    fn insert(e: &Engine, guard: &ShardGuard<'_>, hash: u64, at: (u64, u64)) -> u64;

    /// An item was used. Called without a lock: at most one store, to the item's stamp.
    fn hit(e: &Engine, bucket: u64, slot: u64);

    /// An item leaves its slot, for whatever reason.
    fn remove(_e: &Engine, _guard: &ShardGuard<'_>, _bucket: u64, _slot: u64) {}

    /// The next item to evict from the shard, or from a sample of it unless the `whole` shard is to
    /// be looked at; never the one at `keep`.
    fn victim(e: &Engine, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>, whole: bool) -> Option<EntryRef>;

    /// Whether the key of an evicted item is remembered.
    fn is_remembered(_e: &Engine, _f: &EntryRef) -> bool {
        false
    }

    /// Remembers the key of an evicted item, by its hash.
    fn remember(_e: &Engine, _guard: &ShardGuard<'_>, _hash: u64, _header: &Header) {}

    /// Bucket and slot of a victim that was chosen, and whose lines were prefetched, by earlier
    /// evictions.
    fn chosen(_e: &Engine, _guard: &ShardGuard<'_>) -> Option<(u64, u64)> {
        None
    }

    /// Prefetches the lines of the shard's next eviction, if one was prepared; returns whether it
    /// was.
    fn prefetch(_e: &Engine, _guard: &ShardGuard<'_>) -> bool {
        false
    }

    /// Rebuild: the contribution of a remaining item to the sum for [`Hooks::rebuilt`].
    fn rebuild_item(_e: &Engine, _bucket: u64, _slot: u64) -> u64 {
        0
    }

    /// Rebuild: all items of the shard have been visited.
    fn rebuilt(_e: &Engine, _guard: &ShardGuard<'_>, _sum: u64) {}

    /// The stamp of an item in a store being opened. `newest` collects the value from which counts
    /// resume.
    fn rebase(e: &Engine, stamp: u64, newest: &mut u64) -> u64;

    /// Counts of the shard resume after `newest`: the word on disk may be older than the stamps.
    fn resume(_e: &Engine, _guard: &ShardGuard<'_>, _newest: u64) {}
}

/// Calls a hook of the policy in force; the last argument is the result without a policy.
macro_rules! dispatch {
    ($e:expr, $hook:ident($($argument:expr),*), $none:expr) => {
        match $e.policy {
            Policy::None => $none,
            Policy::LruExact => LruExact::$hook($e, $($argument),*),
            Policy::LruSampled => LruSampled::$hook($e, $($argument),*),
            Policy::S3Fifo => S3Fifo::$hook($e, $($argument),*),
            Policy::Sieve => Sieve::$hook($e, $($argument),*),
        }
    };
}

impl Engine {
    /// The stamp of a new item.
    #[inline(always)]
    pub(in crate::engine) fn first_stamp(&self, guard: &ShardGuard<'_>, hash: u64, at: (u64, u64)) -> u64 {
        if self.policy == Policy::None { u64::MAX } else { self.queue_new(&guard.alias(), hash, at) }
    }

    #[inline(never)]
    fn queue_new(&self, guard: &ShardGuard<'_>, hash: u64, at: (u64, u64)) -> u64 {
        dispatch!(self, insert(guard, hash, at), u64::MAX)
    }

    /// Marks a slot's item as used now.
    #[inline(never)]
    pub(in crate::engine) fn touch(&self, bucket: u64, slot: u64) {
        dispatch!(self, hit(bucket, slot), ());
    }

    /// An item leaves its slot, for whatever reason.
    #[inline]
    pub(in crate::engine) fn on_remove(&self, guard: &ShardGuard<'_>, bucket: u64, slot: u64) {
        dispatch!(self, remove(guard, bucket, slot), ());
    }

    /// The next item to evict; see [`Hooks::victim`].
    pub(in crate::engine) fn victim(
        &self,
        guard: &ShardGuard<'_>,
        keep: Option<(u64, u64)>,
        whole: bool,
    ) -> Option<EntryRef> {
        dispatch!(self, victim(guard, keep, whole), None)
    }

    /// Records what the policy needs of a victim before its removal; returns its home bucket.
    pub(in crate::engine) fn on_evict(&self, guard: &ShardGuard<'_>, f: &EntryRef) -> u64 {
        self.count(Counter::Evicted, 1);
        let is_remembered = dispatch!(self, is_remembered(f), false);
        if f.bucket < self.geo.homes && !is_remembered {
            return f.bucket;
        }
        let hash = self.hash_of(f);
        if is_remembered {
            dispatch!(self, remember(guard, hash, &f.header), ());
        }
        self.home_of(hash)
    }

    /// The victim chosen by earlier evictions; see [`Hooks::chosen`].
    #[inline(always)]
    pub(in crate::engine) fn chosen_victim(&self, guard: &ShardGuard<'_>) -> Option<(u64, u64)> {
        dispatch!(self, chosen(guard), None)
    }

    /// Prefetches the lines of the shard's next eviction, while the key's own bucket is waited for;
    /// tells whether one was prepared.
    #[inline(always)]
    pub(in crate::engine) fn prefetch_eviction(&self, guard: &ShardGuard<'_>) -> bool {
        dispatch!(self, prefetch(guard), false)
    }

    /// Rebuild: see [`Hooks::rebuild_item`].
    pub(in crate::engine) fn policy_rebuild_item(&self, bucket: u64, slot: u64) -> u64 {
        dispatch!(self, rebuild_item(bucket, slot), 0)
    }

    /// Rebuild: see [`Hooks::rebuilt`].
    pub(in crate::engine) fn policy_rebuilt(&self, guard: &ShardGuard<'_>, sum: u64) {
        dispatch!(self, rebuilt(guard, sum), ());
    }

    /// The stamp of an item of a store that is opened: see [`Hooks::rebase`]. One that is not known
    /// goes first.
    pub(in crate::engine) fn rebase_stamp(&self, stamp: u64, newest: &mut u64) -> u64 {
        if stamp == u64::MAX {
            return 0;
        }
        dispatch!(self, rebase(stamp, newest), stamp)
    }

    /// Counts of a shard resume after `newest`.
    pub(in crate::engine) fn resume_clock(&self, guard: &ShardGuard<'_>, newest: u64) {
        dispatch!(self, resume(guard, newest), ());
    }
}
