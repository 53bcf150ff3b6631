//! Statistics and maintenance.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Cache, Sweeper};
#[cfg(feature = "redis")]
use crate::engine::NearStats;
use crate::{
    engine::{Memory, Stats},
    error::Result,
};

/// # Maintenance
impl Cache {
    /// A snapshot of the statistics, over all processes.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("stats").items(10).build()?;
    /// cache.set("k", "v")?;
    /// cache.get("k")?;
    /// cache.get("l")?;
    ///
    /// let stats = cache.stats();
    /// assert_eq!((stats.items, stats.capacity), (1, 10));
    /// assert_eq!((stats.hits, stats.misses), (1, 1));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.tier.stats()
    }

    /// What the memory is used for: payload, resident pages, overhead, fragmentation, and the blocks
    /// by size.
    ///
    /// Every block is looked at, at 5 to 100 ns each; of a store each page is read. No lock is
    /// taken: nobody waits, and what changes meanwhile may be counted as it was or as it is. A cache
    /// with a backend tells of this machine's copies.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("memory").items(10).build()?;
    /// cache.set("key", [0; 100])?;
    ///
    /// let memory = cache.memory();
    /// assert_eq!((memory.payload, memory.entries), (103, 128));
    /// assert_eq!((memory.classes[0].size, memory.classes[0].items), (128, 1));
    /// assert!(memory.resident > memory.payload);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.tier.engine().memory()
    }

    /// [`Cache::memory`] at a bounded price, for monitoring: above 32 MiB of blocks a sample of them
    /// is taken for all (`sampled` says so). It takes some milliseconds, and 1 ms more for each
    /// 250 MB that the cache has ever used.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("memory_sample").items(10).build()?;
    /// let memory = cache.memory_sample();
    /// assert_eq!((memory.payload, memory.sampled), (0, false));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn memory_sample(&self) -> Memory {
        self.tier.engine().memory_sample()
    }

    /// What this machine did with its copies of the values at the server, over all processes;
    /// `None` for a cache without a [backend](super::Builder::backend).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("near_stats").items(10).build()?;
    /// assert_eq!(cache.near_stats(), None);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn near_stats(&self) -> Option<NearStats> {
        self.tier.copy_stats()
    }

    /// Reclaims the memory of expired and cleared items; returns how many had expired.
    ///
    /// Never needed for correctness: reads miss expired items anyway, and a full cache sweeps by
    /// itself.
    ///
    /// It also moves items out of sparse memory and releases that. A store is synced if something
    /// was moved, and disk space that is not needed any more is given back. Others go on meanwhile;
    /// each waits for a part of one shard at most.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or
    /// [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("sweep").items(10).build()?;
    /// cache.set_with("k", "v", Duration::ZERO)?;
    /// assert_eq!(cache.stats().items, 1);
    /// assert_eq!(cache.sweep()?, 1);
    /// assert_eq!(cache.stats().items, 0);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn sweep(&self) -> Result<u64> {
        self.tier.sweep()
    }

    /// Starts a thread that [sweeps](Cache::sweep) every `interval`, until the returned handle is
    /// dropped.
    ///
    /// One sweeper per cache is enough for any number of processes. Forked children do not inherit
    /// the thread.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) if `interval` is zero,
    /// [`Error::Os`](crate::Error::Os) if the system refuses a thread.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("sweeper").items(10).build()?;
    /// let sweeper = cache.sweeper(Duration::from_secs(3))?;
    /// // ... serve ...
    /// drop(sweeper);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn sweeper(&self, interval: Duration) -> Result<Sweeper> {
        Sweeper::start(self.clone(), interval)
    }

    /// Writes the [store](super::Builder::store) to its disk and returns when it is there; does
    /// nothing for a cache without a store.
    ///
    /// Needed only against power loss: stored items survive the end of any process, killed or not.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if the disk reports an error. The cache continues in memory.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("ledger.ucache");
    /// let cache = ucache::Cache::builder("ledger").items(10).store(path).build()?;
    /// cache.set("paid", "yes")?;
    /// cache.sync()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sync(&self) -> Result<()> {
        self.tier.sync()
    }
}
