//! The cache: a seqlock-protected index of atomic slots over copy-on-write entries in one shared
//! region.
//!
//! # Invariants
//!
//! Comments on orderings and `SAFETY` comments cite these by number.
//!
//! - **I1, publish last.** An entry is complete before the one store that makes a slot lead to it
//!   (`seqlock::PUBLISH`). A reader follows a slot with `seqlock::FOLLOW`, so it sees the whole
//!   entry.
//! - **I2, seqlock.** After an entry became unreachable, and before its block is written
//!   again, the writer advances the sequence number of the home bucket (`seqlock::BUMP`, then the
//!   fence `seqlock::RETIRE`). A reader that finds the same number before and after its copy has
//!   copied nothing that was reused.
//! - **I3, immutable entries.** A published entry never changes. The one exception is a number, an
//!   8-byte value in anonymous memory (I15).
//! - **I4, one writer a shard.** Slots, sequence numbers, counters, bins, extents and the cached
//!   block of a shard change only under its lock. Stamps, quota words and span words are shared:
//!   they change by atomic operations.
//! - **I5, the index is the truth.** Counts, free lists and quota of a shard can be computed from
//!   its index. A death between any two instructions leaves each key with its old or
//!   its new value, and a rebuild restores the rest.
//! - **I6, dirty until rebuilt.** A shard whose owner died is marked dirty before its lock is
//!   declared consistent. The mark goes only when the rebuild is complete. No writer changes a
//!   dirty shard.
//! - **I7, nothing read is trusted.** Offsets, lengths and numbers from the region are checked
//!   before use (`Region::entry_view`, `slab::holds`): damage costs items, never memory safety. A
//!   block is free only where its own words say so, with a check that depends on its place.
//! - **I8, poison.** The first word of a free block is 0, which is no entry: a late reader finds no
//!   key there.
//! - **I9, places.** An item stays in its slot as long as its key is stored. Its id is the number of
//!   that slot.
//! - **I10, quota.** `used <= reserved` in each shard, and the reservations of all shards never
//!   exceed the limit. A right to store an item is used before the item is there, and until it is
//!   gone. What a death loses between two words is computed again.
//! - **I11, lock order.** Nobody waits for another lock, or for another process, while holding a
//!   shard's lock: the locks of the header (pool, quotas) are only tried then.
//! - **I12, no malloc under a lock.** Neither under a shard's lock nor in a rebuild: the
//!   allocator's locks may be those of a thread that a fork left behind. Scratch memory is mapped.
//! - **I13, access.** All access to shared memory is atomic or by `shm::copy`, at offsets that
//!   `Layout::new` placed and `Region::new` found inside the mapping. No reference to plain shared
//!   memory exists.
//! - **I14, readers write stamps only.** A lost or misplaced stamp changes which item is evicted,
//!   nothing else.
//! - **I15, lives.** A number has a life beside it, which no other number of the region ever has. It
//!   changes without the lock by one exchange of both words, which fails when the life has ended. A
//!   writer ends the life before the entry becomes unreachable, and before it reads a value that it
//!   will replace. What was read of a life counts only if the sequence did not change (I2).
#![forbid(unsafe_code)]

mod admission;
pub mod config;
#[cfg(any(feature = "cli", feature = "uwsgi", test))]
mod figures;
mod generation;
mod geometry;
#[cfg(any(feature = "cli", feature = "uwsgi"))]
mod reasons;
mod stats;
mod types;

mod index;
mod lock;
mod ops;
mod policy;
mod quota;
mod reclaim;
mod recover;
mod shard;
mod store;

#[cfg(test)]
mod heap_tests;
#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod number_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

#[cfg(feature = "capi")]
pub(crate) use config::MAX_KEY;
pub use config::{Blocks, Config, Eviction, HugePages, NativeShape, Store};
#[cfg(any(feature = "cli", feature = "uwsgi"))]
pub(crate) use figures::Figure;
pub(crate) use index::lookup::BATCH;
#[cfg(feature = "capi")]
pub(crate) use ops::scan::ScanSink;
pub use ops::{
    append::Side,
    cas::Swap,
    inspect::Inspection,
    memory::{Memory, SizeClass},
    scan::Cursor,
};
#[cfg(feature = "redis")]
pub(crate) use ops::{
    beat::{Beat, OwnerLock},
    copies::Begun,
    nodes::MOST as MOST_NODES,
};
#[cfg(feature = "uwsgi")]
#[allow(unused_imports, reason = "for a uWSGI with routes")]
pub(crate) use reasons::{BYPASSED, REFUSED};
#[allow(unused_imports, reason = "for caches whose values are elsewhere")]
pub(crate) use stats::Counter;
#[cfg(feature = "capi")]
pub(crate) use store::uwsgi_format::{djb33x, murmur2};
pub use types::*;

use crate::shm::{
    HeaderLen, Region,
    layout::{Geometry, Layout},
    sync::{AtomicU32, AtomicU64},
};

/// One cache, mapped into this process. All methods may be called from any thread and, for
/// anonymous regions, from any process forked after it was created.
#[derive(Debug)]
pub struct Engine {
    region: Arc<Region>,
    layout: Layout,
    geo: Geometry,
    config: Config,
    policy: policy::Policy,
    items: quota::limit::Quota,
    blocks: quota::limit::Quota,
    secret: index::hash::Secret,
    /// Bytes of an entry header.
    header_len: HeaderLen,
    header_bytes: u64,
    homes_per_shard: u64,
    buckets: u64,
    /// Distinguishes the engines of this process.
    serial: u64,
    /// Cell for the statistics slot of the process's first thread.
    first: crate::os::thread::First,
    /// Initial values of short keys' hashes, by length.
    seeds: index::hash::Seeds,
    /// The generation of the locks that this engine may use.
    lock_gen: u64,
    /// Upcoming victims in caches with exact LRU.
    victims: policy::victims::VictimList,
    /// Whether pages of free spans may be released (never those of reserved huge pages).
    may_punch: bool,
    /// Forks seen when the store was opened: tells a child from the process that opened it. 0 = it
    /// is not open yet.
    forks: AtomicU32,
    /// Fork count when the process was admitted; `u32::MAX` = not yet.
    admitted: AtomicU32,
    /// Whether the stamps are those of another boot, or of another file; only while the store is
    /// put in order.
    restarted: bool,
    /// The tick of the clock, [`clock::coarse_millis`](crate::os::clock::coarse_millis), in which this
    /// process last found no shard that a death has left.
    no_dead: AtomicU64,
    /// Damaged items dropped when this process rebuilt the store.
    dropped: u64,
    /// Messages about the creation of the region, for the host's log.
    notes: Vec<String>,
}

impl Engine {
    /// The limits in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was noticed when the region was made or opened: texts for a log.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// File descriptor of the store, which the host must not close; `None` = anonymous.
    #[must_use]
    pub fn store_fd(&self) -> Option<i32> {
        self.region.file().map(std::os::fd::AsRawFd::as_raw_fd)
    }
}
