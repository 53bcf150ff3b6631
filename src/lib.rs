//! ucache: a crash-safe cache in shared memory. A drop-in for uWSGI's caching subsystem, a C
//! library, a Rust crate.
//!
//! Several processes share one [`Cache`]: the children of a server that forks, or unrelated
//! programs through a store file. Reads take no lock and never wait. A process that is killed at
//! any instruction loses at most the operation in progress, and blocks no other process.
//!
//! This page is about the Rust crate; `include/ucache.h` is the C library's.
//!
//! # A cache for a process and its children
//!
//! ```
//! use std::time::Duration;
//! use ucache::Cache;
//!
//! # fn main() -> ucache::Result<()> {
//! let cache = Cache::builder("mycache")
//!     .items(100)
//!     .timeout(Duration::from_secs(60))
//!     .build()?;
//!
//! // Fork workers here: they share it. Anywhere in the program:
//! let cache = Cache::open("mycache")?;
//!
//! cache.set("lang", "en")?;
//! cache.set("lang", "fr")?; // replaces it
//! assert!(!cache.add("lang", "de")?); // keeps what is there
//! assert_eq!(cache.get("lang")?, Some(b"fr".to_vec()));
//!
//! assert_eq!(cache.incr("visits", 1)?, 1);
//! assert_eq!(cache.get_int("visits")?, Some(1));
//!
//! // One caller of all processes renders, the others wait for the page.
//! let page = cache.get_or_set_with("/index", |path| format!("<h1>{path}</h1>"))?;
//! assert_eq!(page, b"<h1>/index</h1>");
//!
//! cache.delete("lang")?;
//! assert!(!cache.contains("lang"));
//! # Ok(())
//! # }
//! ```
//!
//! # A cache for unrelated processes
//!
//! ```
//! use ucache::Cache;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("prices.ucache");
//! // One program makes the file ...
//! let prices = Cache::builder("prices").items(10_000).store(&path).build()?;
//! prices.set("apple", "0.30")?;
//!
//! // ... any other attaches to it.
//! let prices = Cache::attach(&path)?;
//! assert_eq!(prices.get_str("apple")?.as_deref(), Some("0.30"));
//! # Ok(())
//! # }
//! ```
//!
//! # Coming from uwsgiconf
//!
//! [`Cache`] follows `uwsgiconf.runtime.caching.Cache`, with one exception: `set` of uWSGI and of
//! uwsgiconf does not replace an existing value. That operation is [`add`](Cache::add) here.
//! uWSGI's functions and uwsgiconf's class keep their meaning, also with ucache's plugin.
//!
//! | uwsgiconf, uWSGI | here | what differs |
//! |---|---|---|
//! | `section.caching.add_cache("c", max_items=101)` | [`Cache::builder("c").items(100).build()`](Cache::builder) | `items(100)` holds 100 |
//! | `Cache("c", timeout=60)` | [`Cache::open("c")`](Cache::open), [`with_timeout`](Cache::with_timeout) | the default is 300 s in both |
//! | `set(key, value)`, `cache_set` | [`add`](Cache::add) | says whether it stored |
//! | `set(key, value, timeout=5)` | [`add_with`](Cache::add_with) | `timeout=0` is [`Expires::Never`], see [Time](#time) |
//! | `cache_update` | [`set`](Cache::set), [`set_with`](Cache::set_with) | says whether the key was new |
//! | | [`replace`](Cache::replace) | only where the key is there |
//! | `key in cache` | [`contains`](Cache::contains) | |
//! | `get(key, preserve_bytes=True)`, `get(key)` | [`get`](Cache::get), [`get_str`](Cache::get_str) | |
//! | `get(key, as_int=True)` | [`get_int`](Cache::get_int) | a missing key is `None`, text an error; uwsgiconf has 0 for both |
//! | `get(key, default=x)` | [`get_or`](Cache::get_or), [`get_int_or`](Cache::get_int_or) | |
//! | `get(key, setter=f)` | [`get_or_set_with`](Cache::get_or_set_with) | one caller of all fills |
//! | `delete(key)`, `clear()`, `keys` | [`delete`](Cache::delete), [`clear`](Cache::clear), [`keys`](Cache::keys) | |
//! | `incr`, `decr`, `mul`, `div` | [`incr`](Cache::incr), [`decr`](Cache::decr), [`mul`](Cache::mul), [`div`](Cache::div) | the new value is returned |
//!
//! # Time
//!
//! A [`Duration`](std::time::Duration) is kept to the millisecond, on a clock that advances with the
//! kernel's tick (1 to 10 ms): the item may expire as much earlier. So do times to live of the C
//! handles and of the command. uWSGI's functions count whole seconds from the second that the clock
//! shows, as in uWSGI ([`Expires::In`]): the item expires up to one second earlier. From the expiry
//! on an item is a miss, whether a sweep has removed it or not.
//!
//! A timeout of zero expires at once in Rust, and never does everywhere else:
//!
//! | | never | expired at once | not given | as it was |
//! |---|---|---|---|---|
//! | Rust | [`Expires::Never`] | [`Duration::ZERO`](std::time::Duration::ZERO), [`Expires::In(0)`](Expires::In), a time that has passed | the handle's [`timeout`](Cache::timeout): 300 s by default | [`set_keep_ttl`](Cache::set_keep_ttl), [`compare_and_swap_keep_ttl`](Cache::compare_and_swap_keep_ttl); [`append`](Cache::append), [`incr`](Cache::incr) and their like |
//! | C, `ucache_*` | `UCACHE_NEVER`, which is 0 | `UCACHE_MILLIS(0)` | (each call has a `ttl`) | `UCACHE_KEEP_TTL` |
//! | `ucache`, the command | `--ttl never`, `--ttl 0` | (`ucache del`) | never | `--keep-ttl` |
//! | uWSGI: `cache_set` and the C functions | 0 | -1 as seconds from now (C only) | never | `UWSGI_CACHE_FLAG_FIXEXPIRE` (C only) |
//! | uwsgiconf | 0 | | 300 s | |
//!
//! # Features
//!
//! | feature | | what it adds |
//! |---|---|---|
//! | `capi` | default | the C library and the cache protocol of uWSGI; without it the crate depends on `libc`, `once_cell` and `thiserror` only |
//! | `shared` | default | the link arguments of `libucache.so`, such as its soname; leave it out of another shared library |
//! | `serde` | | values of any type, as JSON (`Cache::get_as`); [`Stats`], [`Entry`] and [`Expires`] can be serialised |
//! | `cli` | | the command [`ucache`](docs::command) |
//! | `redis` | | caches with a [`Backend`] |
//! | `tls` | | `redis`, and TLS to the server of a [`Backend`]; needs a C compiler to build |
//! | `uwsgi` | | the plugin for uWSGI; needs a uWSGI and libclang to build |
//! | `header` | | checks `include/ucache.h` at compile time; needs libclang |
//!
//! # Threads, forks, signals
//!
//! A [`Cache`] is `Send`, `Sync` and cheap to clone. A process may fork at any time, also with several
//! threads: a child inherits no locked lock that it needs. Do not use a cache in a signal handler,
//! because calls allocate. A handler that does, and that interrupted a call of the same cache, gets
//! [`Error::WouldDeadlock`] instead of a deadlock. Nothing here is async: reads do not block, writes
//! hold a lock for microseconds, and [`Cache::get_or_set_with`] blocks for as long as its function
//! runs.
#![cfg_attr(not(test), warn(clippy::disallowed_macros))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod api;
#[cfg(feature = "capi")]
#[doc(hidden)]
pub mod capi;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod docs;
#[doc(hidden)]
pub mod engine;
mod error;
#[doc(hidden)]
pub mod near;
#[cfg(feature = "capi")]
#[doc(hidden)]
pub mod net;
mod os;
#[doc(hidden)]
pub mod shm;
#[cfg(feature = "uwsgi")]
mod uwsgi;
#[cfg(feature = "capi")]
#[doc(hidden)]
pub mod wire;

pub use api::{Backend, Builder, Cache, Entries, Entry, Keys, Sweeper};
/// What cache calls return.
///
/// ```
/// fn visits(cache: &ucache::Cache) -> ucache::Result<i64> {
///     Ok(cache.get_int("visits")?.unwrap_or(0))
/// }
/// # let cache = ucache::Cache::builder("result").items(10).build()?;
/// # assert_eq!(visits(&cache)?, 0);
/// # Ok::<(), ucache::Error>(())
/// ```
#[doc(inline)]
pub use error::Result;

/// What cache calls fail with.
///
/// ```
/// use ucache::{Cache, Error};
///
/// let cache = Cache::builder("limited").items(10).max_value_bytes(1000).build()?;
/// match cache.set("k", [0; 2000]) {
///     Err(Error::ValueTooLong { len, limit }) => assert_eq!((len, limit), (2000, 1000)),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[doc(inline)]
pub use error::{BackendFault, Error, StoreFault};

/// What reads of a cache with a [`Backend`] answer while its server is down.
///
/// ```
/// use ucache::{Backend, OnDown};
///
/// let backend = Backend::url("redis://127.0.0.1:6379").on_down(OnDown::Miss);
/// # drop(backend);
/// ```
#[doc(inline)]
pub use near::OnDown;

/// The policy of [`Builder::evict`].
///
/// ```
/// assert_eq!(ucache::Eviction::S3Fifo.to_string(), "s3fifo");
/// ```
#[doc(inline)]
pub use engine::Eviction;
/// The pages of [`Builder::huge_pages`].
#[doc(inline)]
pub use engine::HugePages;

/// The end of an item's life.
///
/// From a [`Duration`](std::time::Duration) it is that long from now, from a
/// [`SystemTime`](std::time::SystemTime) it is that time; parts of a millisecond are rounded up.
///
/// ```
/// use std::time::Duration;
/// use ucache::Expires;
///
/// assert_eq!(Expires::from(Duration::from_millis(1500)), Expires::InMillis(1500));
/// assert_ne!(Expires::from(Duration::ZERO), Expires::Never);
/// ```
#[doc(inline)]
pub use engine::Expires;
/// What the memory of a cache is used for, from [`Cache::memory`].
#[doc(inline)]
pub use engine::Memory;
/// What a machine did with its copies of values at a server, from [`Cache::near_stats`].
#[cfg(feature = "redis")]
#[doc(inline)]
pub use engine::NearStats;
/// The blocks of some sizes, in [`Memory`].
#[doc(inline)]
pub use engine::SizeClass;
/// A cache's figures, from [`Cache::stats`].
///
/// ```
/// let stats = ucache::Cache::builder("empty").items(10).build()?.stats();
/// assert_eq!((stats.items, stats.capacity, stats.evicted), (0, 10, 0));
/// # Ok::<(), ucache::Error>(())
/// ```
#[doc(inline)]
pub use engine::Stats;
/// The outcome of [`Cache::set`].
///
/// ```
/// use ucache::Stored;
///
/// let cache = ucache::Cache::builder("once").items(10).build()?;
/// assert_eq!(cache.set("k", "v")?, Stored::Inserted);
/// # Ok::<(), ucache::Error>(())
/// ```
#[doc(inline)]
pub use engine::Stored;
/// Its programs run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
