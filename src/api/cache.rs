//! The cache handle: how to obtain one, and the defaults it carries.
#![forbid(unsafe_code)]

use std::{fmt, path::Path, time::Duration};

use super::{Builder, defaults::Defaults, registry::CACHES};
use crate::{
    engine::{Engine, Expires},
    error::{Error, Result},
    near::Tier,
};

/// A handle to a shared-memory cache.
///
/// Clones are cheap and refer to the same cache, as do the handles that a forked child inherits. A
/// handle may be used from any thread. The cache of a [builder](Cache::builder) without a
/// [store](Builder::store) lives until the last handle in the last process is dropped; a store file
/// remains.
///
/// # Keys and values
///
/// Both are bytes: anything that is `AsRef<[u8]>`, such as `"k"`, `String`, `b"k"`, `Vec<u8>`. A
/// key has 1 byte up to [`max_key_bytes`](Builder::max_key_bytes), a value 1 byte up to
/// [`max_value_bytes`](Builder::max_value_bytes).
///
/// # Errors
///
/// A missing key is not an error: reads return `None`. The methods share these errors:
///
/// - [`Error::EmptyKey`], [`Error::KeyTooLong`], [`Error::EmptyValue`], [`Error::ValueTooLong`]
///   tell what was wrong with the arguments of a write and the limit it hit.
/// - [`Error::Full`], [`Error::OutOfBlocks`], [`Error::NoSpace`]: a write found no room, and
///   nothing could be evicted.
/// - [`Error::Timeout`]: a live process held a lock for longer than
///   [`lock_timeout`](Builder::lock_timeout). A lock whose owner died never leads to this: it is
///   taken over and what it guards is repaired.
/// - [`Error::WouldDeadlock`]: the calling thread is inside this cache already (a signal handler
///   came back to it).
/// - [`Error::ForeignProcess`]: the calling process came by a bare `clone`, or is in another PID or
///   time namespace: it can only read. [`Error::LockLost`]: Linux before 5.18 lost a dead process's
///   lock when memory ran out; end all users.
///
/// After an error the cache has the same content as before.
///
/// # Example
///
/// ```
/// use ucache::Cache;
///
/// # fn main() -> ucache::Result<()> {
/// let cache = Cache::builder("greetings").items(100).build()?;
///
/// cache.set("en", "hello")?;
/// cache.set("en", "good morning")?; // replaces it
/// assert!(!cache.add("en", "hi")?, "add keeps what is there");
///
/// assert_eq!(cache.get("en")?, Some(b"good morning".to_vec()));
/// assert_eq!(cache.get("fr")?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cache {
    pub(super) tier: Tier,
    pub(super) defaults: Defaults,
}

impl Cache {
    /// Starts a builder for a new cache.
    ///
    /// The name has 1 to 255 bytes, without `@` and NUL; [`Cache::open`] finds the cache by it.
    ///
    /// ```
    /// use ucache::{Cache, Eviction};
    ///
    /// let cache = Cache::builder("pages").items(10_000).evict(Eviction::Lru).build()?;
    /// assert_eq!(cache.name(), "pages");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name.into())
    }

    /// Another handle to a cache that was built by this process or by one it was forked from.
    ///
    /// The handle has the builder's defaults, even if other handles were changed. Never waits: it
    /// may be called in a child that was forked at any moment from a program with threads.
    ///
    /// # Errors
    /// [`Error::NoSuchCache`]: it was not built, or its last handle in this process was dropped.
    /// [Attached](Cache::attach) caches have no name here.
    ///
    /// ```
    /// use ucache::{Cache, Error};
    ///
    /// let built = Cache::builder("sessions").items(100).build()?;
    /// built.set("id", "42")?;
    ///
    /// let opened = Cache::open("sessions")?;
    /// assert_eq!(opened.get_str("id")?.as_deref(), Some("42"));
    ///
    /// drop((built, opened));
    /// assert!(matches!(Cache::open("sessions"), Err(Error::NoSuchCache(_))));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn open(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let (tier, defaults) = CACHES.find(name).ok_or_else(|| Error::NoSuchCache(name.to_owned()))?;
        Ok(Self { tier, defaults })
    }

    /// A handle to the cache in a store file, which any process on the machine may be using at the
    /// same time: a uWSGI server, a C program, a Rust program.
    ///
    /// The file keeps the cache's name and limits. It does not keep the default timeout: that of
    /// the new handle is 300 s. To create the file, or to change its limits, use
    /// [`Builder::store`].
    ///
    /// # Errors
    /// [`Error::Store`] names the file and why it cannot be used: it is missing, is not a store,
    /// was made by an incompatible build, is in use in another PID namespace, or the system refuses
    /// to open or map it. It is left untouched.
    ///
    /// ```
    /// use ucache::Cache;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("shared.ucache");
    /// let here = Cache::builder("shared").items(1000).store(&path).build()?;
    /// here.set("from", "here")?;
    ///
    /// // In the same process or in any other one:
    /// let there = Cache::attach(&path)?;
    /// assert_eq!(there.name(), "shared");
    /// assert_eq!(there.get_str("from")?.as_deref(), Some("here"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn attach(path: impl AsRef<Path>) -> Result<Self> {
        let tier = Tier::of_store(Engine::attach_named(path.as_ref())?)?;
        Ok(Self { tier, defaults: Defaults::default() })
    }

    /// Notes from when this process created or opened the cache, as sentences for a log: a store
    /// that other processes have open keeps their name and limits, items were moved or left out,
    /// huge pages are not available.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("notes.ucache");
    /// use ucache::Cache;
    ///
    /// let first = Cache::builder("first").items(10).store(&path).build()?;
    /// assert!(first.notes().is_empty());
    /// let second = Cache::builder("second").items(10).max_value_bytes(7).store(&path).build()?;
    /// assert_eq!(second.name(), "first");
    /// assert!(second.notes()[0].contains("the creator's settings stay in force"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.tier.notes()
    }

    /// The cache's name.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("tags").items(10).build()?;
    /// assert_eq!(cache.name(), "tags");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.tier.engine().config().name
    }

    /// When the items that this handle stores expire, unless the call says otherwise. The default
    /// is 300 s.
    ///
    /// ```
    /// use ucache::{Cache, Expires};
    ///
    /// let cache = Cache::builder("rates").items(10).build()?;
    /// assert_eq!(cache.timeout(), Expires::In(300));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn timeout(&self) -> Expires {
        self.defaults.expires
    }

    /// A handle to the same cache with another default timeout: a [`Duration`], a
    /// [`SystemTime`](std::time::SystemTime) or an [`Expires`]. This handle keeps its own.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ucache::{Cache, Expires};
    ///
    /// let cache = Cache::builder("forecasts").items(10).build()?;
    /// let hourly = cache.with_timeout(Duration::from_secs(3600));
    /// let for_ever = cache.with_timeout(Expires::Never);
    ///
    /// hourly.set("today", "rain")?;
    /// for_ever.set("climate", "mild")?;
    /// assert!(cache.contains("today") && cache.contains("climate"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Expires>) -> Self {
        let defaults = Defaults { expires: timeout.into(), ..self.defaults };
        Self { tier: self.tier.clone(), defaults }
    }

    /// A handle to the same cache whose [`get_or_set_with`](Cache::get_or_set_with) grants the
    /// function `lease` to compute a value, and waits up to `patience` for another caller's
    /// function. Both default to 30 s.
    ///
    /// `lease` should be longer than the function ever takes: when it is over, a waiter calls its
    /// own function. A filler that *dies* is replaced at once, before its lease ends.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ucache::Cache;
    ///
    /// let cache = Cache::builder("reports").items(10).build()?;
    /// let slow = cache.with_fill_limits(Duration::from_secs(600), Duration::from_secs(5));
    /// let report = slow.get_or_set_with("2024", |year| format!("all of {year}"))?;
    /// assert_eq!(report, b"all of 2024");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[must_use]
    pub fn with_fill_limits(&self, lease: Duration, patience: Duration) -> Self {
        let defaults = Defaults { lease, patience, ..self.defaults };
        Self { tier: self.tier.clone(), defaults }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.tier.engine().config();
        f.debug_struct("Cache")
            .field("name", &config.name)
            .field("items", &config.capacity)
            .field("store", &config.store.as_ref().map(|store| &store.path))
            .field("backend", &self.tier.server())
            .field("timeout", &self.defaults.expires)
            .finish_non_exhaustive()
    }
}
