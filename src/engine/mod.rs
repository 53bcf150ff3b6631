//! The cache: an index of atomic slots over copy-on-write entries in one shared region.
#![forbid(unsafe_code)]

pub mod config;
mod credit;
mod delete;
mod disk;
mod entry;
mod evict;
mod exclusive;
mod extra;
#[cfg(any(feature = "cli", feature = "uwsgi", test))]
mod figures;
mod find;
mod generation;
mod geometry;
mod hash;
#[cfg(test)]
mod hold_tests;
mod ids;
mod import;
mod index;
mod insert;
mod inspect;
mod lease;
mod limits;
mod make;
mod math;
mod native;
mod oldest;
mod open;
mod orphans;
mod read;
mod recover;
mod replace;
mod room;
mod s3fifo;
mod sample;
mod shard;
mod stats;
#[cfg(test)]
mod store_tests;
mod sweep;
#[cfg(test)]
mod tests;
mod types;
mod users;
mod verdict;
mod visit;
mod walk;
mod write;

use std::sync::Arc;

pub use config::{Blocks, Config, Eviction, HugePages, NativeShape, Store};
pub use extra::Swap;
#[cfg(any(feature = "cli", feature = "uwsgi"))]
pub(crate) use figures::Figure;
pub(crate) use find::BATCH;
pub use inspect::Inspection;
pub(crate) use native::{djb33x, murmur2};
pub use types::*;
pub(crate) use walk::Picture;

use crate::shm::{
    HeaderLen, Region,
    layout::{Geometry, Layout},
    sync::AtomicU32,
};

/// One cache, mapped into this process. All methods may be called from any thread and, for anonymous regions,
/// from any process forked after it was created.
#[derive(Debug)]
pub struct Engine {
    region: Arc<Region>,
    layout: Layout,
    geo: Geometry,
    config: Config,
    secret: hash::Secret,
    /// Bytes of an entry's header.
    header_len: HeaderLen,
    entry_head: u64,
    heads_per_shard: u64,
    buckets: u64,
    /// Tells engines of this process apart.
    serial: u64,
    /// Where the process's first thread notes its statistics slot.
    first: crate::os::thread::First,
    /// What the hash of a short key starts from, by its length.
    seeds: hash::Seeds,
    /// Generation of the locks that this engine may use.
    lock_gen: u64,
    /// Victims to come, in caches with exact LRU.
    oldest: oldest::Oldest,
    /// Whether free pages may be given back (never in stores: on a full disk what was given back is gone).
    may_punch: bool,
    /// Forks seen when the store was opened: tells a child from who opened it. 0 = it is not open yet.
    forks: AtomicU32,
    /// Forks seen when the process was found fit to lock; `u32::MAX` = not yet.
    admitted: AtomicU32,
    /// Whether the stamps are those of another boot, or of another file; only while the store is put in order.
    restarted: bool,
    /// Damaged items that were left out when this process put the store in order.
    dropped: u64,
    /// What was noticed when the region was made, for the host's log.
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

    /// Descriptor of the store file, which a host must not close; `None` = anonymous.
    #[must_use]
    pub fn store_fd(&self) -> Option<i32> {
        self.region.file().map(std::os::fd::AsRawFd::as_raw_fd)
    }

    /// A random number of this thread's (xorshift), for sampling.
    fn random(&self) -> u64 {
        thread_local! { static STATE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) } }
        let mut x = STATE.get();
        if x == 0 {
            x = self.secret.0[0] ^ crate::os::process::Owner::me().to_word() | 1;
        }
        x = next_random(x);
        STATE.set(x);
        x
    }
}

/// The random number after `x`, neither of them 0 (Marsaglia's xorshift).
#[inline(always)]
fn next_random(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^ x << 17
}
