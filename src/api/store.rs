//! Builder settings for where a cache is stored: a file, or memory with a given page size.
#![forbid(unsafe_code)]

use std::path::Path;

use super::Builder;
use crate::engine::HugePages;

impl Builder {
    /// Keeps the cache in this file, which is created if it is missing and opened with its content
    /// if it exists.
    ///
    /// Other processes join with [`Cache::attach`](crate::Cache::attach), with the same `store` in
    /// their own builder, or through uWSGI and C. The file must be on a local filesystem
    /// ([`store_fs_trust`](Builder::store_fs_trust)) and have only one name.
    ///
    /// Settings may change from one opening to the next, as long as no other process has the file
    /// open, a forked child included. While another process has it open, the settings of that
    /// process stay in force. [`items`](Builder::items) and [`evict`](Builder::evict) decide the
    /// layout of the file. If one of them changes, the items move to a new file, which replaces the
    /// old one (for a moment there must be room for both). The change is refused, with both values,
    /// when another process has the file open, or when there are more items than fit and nothing
    /// may be evicted.
    ///
    /// ```
    /// use ucache::Cache;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("visits.ucache");
    /// for visit in 1..=3 {
    ///     let cache = Cache::builder("visits").items(10).store(&path).build()?;
    ///     assert_eq!(cache.incr("count", 1)?, visit);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn store(mut self, path: impl AsRef<Path>) -> Self {
        self.store = Some(path.as_ref().to_owned());
        self
    }

    /// Whether a [store](Builder::store) file that cannot be used (not a store, of an incompatible
    /// build, or in use with other settings) is deleted and created again. Processes that have the
    /// old file open keep using it among themselves. Off if not given: [`build`](Builder::build)
    /// fails and leaves the file untouched.
    ///
    /// ```
    /// use ucache::{Cache, Error};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("not a store");
    /// std::fs::write(&path, "my diary")?;
    ///
    /// let builder = Cache::builder("careful").items(10).store(&path);
    /// assert!(matches!(builder.clone().build(), Err(Error::Store { .. })));
    /// assert_eq!(std::fs::read(&path)?, b"my diary");
    ///
    /// builder.store_delete(true).build()?.set("k", "v")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn store_delete(mut self, on: bool) -> Self {
        self.store_delete = on;
        self
    }

    /// Whether truncation of an open [store](Builder::store) by another program leads to misses and
    /// errors. Off if not given: an access to the missing part then raises SIGBUS, as for any
    /// mapped file, and the process ends.
    ///
    /// Installs a handler for SIGBUS for the life of the process. Faults outside the store are
    /// passed to the handler that was installed before. At most 128 guarded stores per process.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("guarded.ucache");
    /// let cache = ucache::Cache::builder("guarded").items(10).store(&path).store_guard(true).build()?;
    /// cache.set("k", "v")?;
    /// std::fs::OpenOptions::new().write(true).open(&path)?.set_len(0)?;
    /// assert_eq!(cache.get("k")?, None);
    /// assert!(cache.set("k", "v").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn store_guard(mut self, on: bool) -> Self {
        self.config.store_guard = on;
        self
    }

    /// Whether the [store](Builder::store) may be on a file system that is not known to support
    /// one. Known are ext4, XFS, tmpfs, F2FS, btrfs without copy-on-write, and an overlay on one of
    /// these. Off if not given: the store is refused, with the reason.
    ///
    /// Two machines must never use one store at the same time, and on a full disk the file system
    /// may end the process with SIGBUS. [`Cache::notes`](crate::Cache::notes) reports that the file
    /// system was trusted.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("anywhere.ucache");
    /// let cache = ucache::Cache::builder("anywhere").items(10).store(&path).store_fs_trust(true).build()?;
    /// cache.set("k", "v")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn store_fs_trust(mut self, on: bool) -> Self {
        self.config.store_fs_trust = on;
        self
    }

    /// The page size of the memory. [`HugePages::Off`] if not given. Without effect on a
    /// [store](Builder::store), where the file system decides.
    ///
    /// Huge pages save TLB misses in caches of more than some megabytes. They cost up to 2 MiB for
    /// each part of the cache that is touched. Where the kernel has no huge pages, small ones are
    /// used.
    ///
    /// ```
    /// use ucache::HugePages;
    ///
    /// let cache = ucache::Cache::builder("pages").items(1_000_000).huge_pages(HugePages::Advised).build()?;
    /// cache.set("k", "v")?;
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.config.huge_pages = pages;
        self
    }
}
