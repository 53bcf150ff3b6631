//! Where a new cache lives: in a file, or in memory and in which pages.
#![forbid(unsafe_code)]

use std::path::Path;

use super::Builder;
use crate::engine::HugePages;

impl Builder {
    /// Keeps the cache in this file, which is created if it is missing and opened with its content if it exists.
    ///
    /// Other processes join with [`Cache::attach`](crate::Cache::attach), with the same `store` in their own builder, or
    /// through uWSGI and C. The file must be on a local filesystem ([`store_fs_trust`](Builder::store_fs_trust)), with one name.
    ///
    /// Settings may change from one opening to the next, as long as no other process has the file open, a forked child
    /// included: while there is one, its settings stay in force. [`items`](Builder::items) and
    /// [`purge_lru`](Builder::purge_lru) decide how the file is laid out: with others the items move to a new file, which
    /// takes the place of the old one (for a moment there must be room for both). It is refused, with both values, when
    /// another process has the file open, or when there are more items than fit and nothing may be evicted.
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

    /// Whether a [store](Builder::store) file that cannot be used (not a store, of an incompatible build, or in use with
    /// other settings) is deleted and made anew; processes that have the old one open keep it, to themselves. Off if not
    /// given: [`build`](Builder::build) fails and leaves the file untouched.
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

    /// Whether a [store](Builder::store) that somebody truncates while it is open ends as misses and errors. Off if not
    /// given: touching what is gone is then SIGBUS, as for any mapped file, and the process ends.
    ///
    /// Installs a handler for SIGBUS, for the life of the process; a handler that was there before gets what is not the
    /// store's. At most 128 guarded stores a process.
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

    /// Whether the [store](Builder::store) may be on a file system that is not known to keep one: not ext4, XFS, tmpfs, F2FS,
    /// btrfs without copying on write, or an overlay on one of these. Off if not given: it is refused, with the reason.
    ///
    /// Two machines must never use one store at the same time, and on a full disk the file system may end the process with
    /// SIGBUS. [`Cache::notes`](crate::Cache::notes) says that it was trusted.
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

    /// Which pages the memory is made of. [`HugePages::Off`] if not given. Without effect on a [store](Builder::store),
    /// whose file system decides.
    ///
    /// Huge pages save misses of the TLB in caches of more than some megabytes, and cost up to 2 MiB for each part of
    /// the cache that is touched at all. Where the kernel has none, small ones serve.
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
