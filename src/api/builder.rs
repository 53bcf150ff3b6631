//! The builder of a new cache.
#![forbid(unsafe_code)]

use std::{path::PathBuf, time::Duration};

use super::{Backend, Cache, defaults::Defaults, expires::whole_seconds, registry::CACHES};
use crate::{
    engine::{Blocks, Config, Engine, Eviction, Expires, Store},
    error::{Error, Result},
    near::{OnDown, Tier},
};

/// The description of a new cache, from [`Cache::builder`] to [`Builder::build`].
///
/// Only [`items`](Builder::items) must be given. The other settings have uWSGI's defaults.
///
/// # Capacity
///
/// A cache accepts a new key as long as it holds fewer than `items` items. With
/// [`blocks`](Builder::blocks), the sum over all items of `ceil(value_bytes / block_bytes)` must
/// also stay within `count`. `items(100)` holds 100 items here; uWSGI's `items=100` holds 99, in
/// ucache's plugin as well.
///
/// High limits cost almost nothing: only address space is reserved for them. Memory is used for
/// what is stored (a key, its value, and some tens of bytes), and whole free pages are returned to
/// the system.
///
/// ```
/// use std::time::Duration;
/// use ucache::{Cache, Eviction};
///
/// let cache = Cache::builder("thumbnails")
///     .items(50_000)
///     .max_value_bytes(1 << 20)
///     .evict(Eviction::Lru)
///     .timeout(Duration::from_secs(24 * 3600))
///     .build()?;
/// assert_eq!(cache.stats().capacity, 50_000);
/// # Ok::<(), ucache::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a description makes no cache before `build`"]
pub struct Builder {
    pub(super) config: Config,
    pub(super) store: Option<PathBuf>,
    pub(super) store_delete: bool,
    pub(super) backend: Option<Backend>,
    defaults: Defaults,
}

impl Builder {
    pub(super) fn new(name: String) -> Self {
        Self {
            config: Config::new(&name, 0),
            store: None,
            store_delete: false,
            backend: None,
            defaults: Defaults::default(),
        }
    }

    /// How many items the cache holds, 1 to 2²⁸ − 2. Must be given.
    ///
    /// ```
    /// use ucache::{Cache, Error};
    ///
    /// let two = Cache::builder("two").items(2).build()?;
    /// two.set("a", "1")?;
    /// two.set("b", "2")?;
    /// assert!(matches!(two.set("c", "3"), Err(Error::Full { limit: 2 })));
    ///
    /// let none = Cache::builder("none").build();
    /// assert!(matches!(none, Err(Error::InvalidOption { option: "items", .. })));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "max_items")]
    #[doc(alias = "max_capacity")]
    pub fn items(mut self, count: u64) -> Self {
        self.config.capacity = count;
        self
    }

    /// The longest key, bytes: 1 to 65,535, 2,048 if not given. uWSGI's `keysize`.
    ///
    /// ```
    /// use ucache::{Cache, Error};
    ///
    /// let cache = Cache::builder("short keys").items(10).max_key_bytes(4).build()?;
    /// cache.set("four", "fits")?;
    /// assert!(matches!(cache.set("fifth", "does not"), Err(Error::KeyTooLong { len: 5, limit: 4 })));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "keysize")]
    pub fn max_key_bytes(mut self, bytes: u64) -> Self {
        self.config.max_key = bytes;
        self
    }

    /// The longest value, bytes: 1 to 2³² − 1, 65,536 if not given. uWSGI's `blocksize`.
    ///
    /// ```
    /// use ucache::{Cache, Error};
    ///
    /// let cache = Cache::builder("short values").items(10).max_value_bytes(3).build()?;
    /// cache.set("a", "abc")?;
    /// assert!(matches!(cache.set("b", "abcd"), Err(Error::ValueTooLong { len: 4, limit: 3 })));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "blocksize")]
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.config.max_value = bytes;
        self
    }

    /// Also limits the sum of all values: `count` blocks, of which a value uses `ceil(value_bytes /
    /// block_bytes)`. Both are 1 to 2³² − 1. uWSGI's `bitmap=1` with `blocks` and `blocksize`.
    ///
    /// ```
    /// use ucache::{Cache, Error};
    ///
    /// let cache = Cache::builder("four blocks").items(10).blocks(4, 64).build()?;
    /// cache.set("three", [0; 130])?;
    /// cache.set("one", "x")?;
    /// assert!(matches!(cache.set("none left", "x"), Err(Error::OutOfBlocks { need: 1, limit: 4 })));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "bitmap")]
    pub fn blocks(mut self, count: u64, block_bytes: u64) -> Self {
        self.config.blocks = Some(Blocks { size: block_bytes, count });
        self
    }

    /// The eviction policy of a full cache. [`Eviction::None`] if not given: a new item is refused.
    ///
    /// The order of [`Eviction::Lru`] is exact in caches of up to 4,096 items; larger ones choose
    /// among samples. Reading and replacing an item is a use; [`contains`](Cache::contains) is not.
    ///
    /// ```
    /// use ucache::{Cache, Eviction};
    ///
    /// let recent = Cache::builder("recent").items(2).evict(Eviction::Lru).build()?;
    /// recent.set_many([("a", "1"), ("b", "2")])?;
    /// recent.get("a")?;
    /// recent.set("c", "3")?;
    /// assert!(recent.contains("a") && !recent.contains("b") && recent.contains("c"));
    ///
    /// let pages = Cache::builder("pages").items(1000).evict(Eviction::S3Fifo).build()?;
    /// for page in 0..5000 {
    ///     pages.set(format!("/page/{page}"), "...")?;
    /// }
    /// assert_eq!((pages.stats().items, pages.stats().evicted), (1000, 4000));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "lru")]
    #[doc(alias = "purge_lru")]
    #[doc(alias = "eviction_policy")]
    pub fn evict(mut self, policy: Eviction) -> Self {
        self.config.eviction = policy;
        self
    }

    /// Lets a full cache with [`Builder::no_expire`] sweep expired items out, at most once in
    /// `min_interval`. Parts of a second are rounded up; zero, the default, means never. Other
    /// caches sweep whenever they are full.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let builder = ucache::Cache::builder("swept").items(2).no_expire(true);
    /// let cache = builder.sweep_on_full(Duration::from_secs(5)).build()?;
    /// for key in ["a", "b", "c", "d"] {
    ///     cache.set_with(key, "v", Duration::ZERO)?;
    /// }
    /// assert_eq!(cache.stats().items, 2);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn sweep_on_full(mut self, min_interval: Duration) -> Self {
        self.config.sweep_on_full = u32::try_from(whole_seconds(min_interval)).unwrap_or(u32::MAX);
        self
    }

    /// Whether a full cache is cleared when nothing had expired. Off if not given.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("all or nothing").items(2).clear_on_full(true).build()?;
    /// for key in ["a", "b", "c"] {
    ///     cache.set(key, "x")?;
    /// }
    /// assert_eq!(cache.keys().collect::<Vec<_>>(), [b"c"]);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn clear_on_full(mut self, on: bool) -> Self {
        self.config.clear_on_full = on;
        self
    }

    /// Keeps timeouts without enforcing them: an expired item can be read until a full cache needs
    /// its place. Off if not given.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("patient").items(10).no_expire(true).build()?;
    /// cache.set_with("k", "v", Duration::ZERO)?;
    /// assert!(cache.contains("k"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn no_expire(mut self, on: bool) -> Self {
        self.config.no_expire = on;
        self
    }

    /// The value from which [`incr`](Cache::incr), [`decr`](Cache::decr), [`mul`](Cache::mul) and
    /// [`div`](Cache::div) start if the key is missing. 0 if not given.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("from a thousand").items(10).math_initial(1000).build()?;
    /// assert_eq!(cache.incr("k", 1)?, 1001);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn math_initial(mut self, number: i64) -> Self {
        self.config.math_initial = number;
        self
    }

    /// How long a write waits for a lock that a live process holds, up to an hour. 1 s if not
    /// given.
    ///
    /// Locks are held for microseconds. Only a stopped holder (SIGSTOP, a debugger) makes other
    /// writers wait. Reads take no lock.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("hasty").items(10).lock_timeout(Duration::from_millis(50)).build()?;
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.config.lock_timeout = limit;
        self
    }

    /// Whether [`Stats::last_modified`](crate::Stats::last_modified) is kept. Off if not given.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("dated").items(10).last_modified(true).build()?;
    /// assert_eq!(cache.stats().last_modified, 0);
    /// cache.set("k", "v")?;
    /// assert!(cache.stats().last_modified > 0);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "lastmod")]
    pub fn last_modified(mut self, on: bool) -> Self {
        self.config.last_modified = on;
        self
    }

    /// When items expire, unless the [handle](Cache::with_timeout) or the call says otherwise: a
    /// [`Duration`], or [`Expires::Never`]. 300 s if not given.
    ///
    /// ```
    /// use ucache::{Cache, Expires};
    ///
    /// let cache = Cache::builder("lasting").items(10).timeout(Expires::Never).build()?;
    /// assert_eq!(cache.timeout(), Expires::Never);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "time_to_live")]
    pub fn timeout(mut self, timeout: impl Into<Expires>) -> Self {
        self.defaults.expires = timeout.into();
        self
    }

    /// The limits of [`get_or_set_with`](Cache::get_or_set_with), as in
    /// [`with_fill_limits`](Cache::with_fill_limits). 30 s each if not given.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let minute = Duration::from_secs(60);
    /// let cache = ucache::Cache::builder("slow to fill").items(10).fill_limits(minute, minute).build()?;
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn fill_limits(mut self, lease: Duration, patience: Duration) -> Self {
        self.defaults.lease = lease;
        self.defaults.patience = patience;
        self
    }

    /// Creates the cache.
    ///
    /// Children forked from now on share it. Build a cache once, not for every request: when it is
    /// dropped, some hundred bytes of its entry in this process's list of names remain.
    ///
    /// # Errors
    /// - [`Error::InvalidOption`] names a setting that is out of its range, and the range.
    /// - [`Error::NameInUse`]: a live cache of this process has the name.
    /// - [`Error::Store`]: names the store file, and why it cannot be used; it is left untouched.
    /// - [`Error::Os`]: the system refused memory.
    ///
    /// ```
    /// use ucache::{Cache, Error};
    ///
    /// let first = Cache::builder("mine").items(10).build()?;
    /// let second = Cache::builder("mine").items(10).build();
    /// assert!(matches!(second, Err(Error::NameInUse(_))));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn build(self) -> Result<Cache> {
        let Self { mut config, store, store_delete, backend, defaults } = self;
        if store_delete && store.is_none() {
            return Err(Error::InvalidOption {
                option: "store_delete",
                value: "true".to_owned(),
                reason: "needs a store".to_owned(),
            });
        }
        let options = backend.map(Backend::into_options).unwrap_or_default();
        options.adapt(&mut config, false)?;
        config.store = store.map(|path| Store { path, delete_unusable: store_delete });
        config.check()?;
        // Checked before the engine opens a store that belongs to the existing cache of this name.
        if CACHES.find(&config.name).is_some() {
            return Err(Error::NameInUse(config.name));
        }
        let tier = Tier::open(Engine::create_named(&config)?, &options, OnDown::Error)?;
        tier.start_owner(false);
        CACHES.insert(&config.name, &tier, defaults)?;
        Ok(Cache { tier, defaults })
    }
}
