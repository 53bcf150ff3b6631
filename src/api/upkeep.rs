//! Figures and housekeeping.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Cache, Sweeper};
use crate::{engine::Stats, error::Result};

/// # Upkeep
impl Cache {
    /// One moment's figures, over all processes.
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
        self.engine.stats()
    }

    /// Reclaims the memory of expired and cleared items; returns how many had expired.
    ///
    /// Never needed for correctness: reads miss expired items anyway, and a full cache sweeps on its own.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
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
        self.engine.sweep()
    }

    /// Starts a thread that [sweeps](Cache::sweep) every `interval`, until the returned handle is dropped.
    ///
    /// One sweeper a cache is enough, whatever the number of processes. Forked children do not inherit the thread.
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

    /// Writes the [store](super::Builder::store) to its disk and returns when it is there; does nothing for a cache
    /// without a store.
    ///
    /// Needed against power loss only: what was stored survives the end of any process, killed or not.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) if the disk refuses. The cache goes on in memory.
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
        self.engine.sync()
    }
}
