//! ucache: a crash-safe cache in shared memory. A drop-in for uWSGI's caching subsystem, a C library, a Rust crate.
//!
//! Several processes share one [`Cache`]: the children of a server that forks, or unrelated programs through a store
//! file. Reads take no lock and never wait. A process that is killed at any instruction loses at most the operation it
//! was in, and holds up nobody.
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
//! cache.set("lang", "en")?; // keeps what is there
//! cache.update("lang", "fr")?; // replaces it
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
//! [`Cache`] follows `uwsgiconf.runtime.caching.Cache`:
//!
//! | uwsgiconf | here | what differs |
//! |---|---|---|
//! | `section.caching.add_cache("c", max_items=101)` | [`Cache::builder("c").items(100).build()`](Cache::builder) | `items(100)` holds 100 |
//! | `Cache("c", timeout=60)` | [`Cache::open("c")`](Cache::open), [`with_timeout`](Cache::with_timeout) | the default is 300 s in both |
//! | `set(key, value, timeout=0)` (never) | [`Expires::Never`] | a [`Duration`](std::time::Duration) of zero expires at once |
//! | `key in cache` | [`contains`](Cache::contains) | |
//! | `get(key, preserve_bytes=True)`, `get(key)` | [`get`](Cache::get), [`get_str`](Cache::get_str) | |
//! | `get(key, as_int=True)` | [`get_int`](Cache::get_int) | a missing key is `None`, text an error; uwsgiconf has 0 for both |
//! | `get(key, default=x)` | [`get_or`](Cache::get_or), [`get_int_or`](Cache::get_int_or) | |
//! | `get(key, setter=f)` | [`get_or_set_with`](Cache::get_or_set_with) | one caller of all fills |
//! | `set(key, value, timeout=5)` | [`set`](Cache::set), [`set_with`](Cache::set_with) | |
//! | | [`update`](Cache::update), [`update_with`](Cache::update_with) | uWSGI's `cache_update` |
//! | `delete(key)`, `clear()`, `keys` | [`delete`](Cache::delete), [`clear`](Cache::clear), [`keys`](Cache::keys) | |
//! | `incr`, `decr`, `mul`, `div` | [`incr`](Cache::incr), [`decr`](Cache::decr), [`mul`](Cache::mul), [`div`](Cache::div) | the new value is returned |
//!
//! # Time
//!
//! Expiry has whole seconds: a timeout is rounded up to the next, and the item ends when the clock's second changes, up
//! to one second earlier than a stopwatch would say. From then on it is a miss, swept or not.
//!
//! # Threads, forks, signals
//!
//! A [`Cache`] is `Send`, `Sync` and cheap to clone. Forking is allowed at any time, from programs with threads too:
//! nothing that a child needs can be inherited locked. Signal handlers are no place for a cache (calls allocate), but one
//! that comes back to a cache it interrupted gets [`Error::WouldDeadlock`] instead of a deadlock. Nothing here is async:
//! reads do not block, writes hold a lock for microseconds, [`Cache::get_or_set_with`] blocks as its function does.
#![cfg_attr(not(test), warn(clippy::disallowed_macros))]

mod api;
#[doc(hidden)]
pub mod capi;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod docs;
#[doc(hidden)]
pub mod engine;
mod error;
mod os;
#[doc(hidden)]
pub mod shm;
#[cfg(feature = "uwsgi")]
mod uwsgi;

pub use api::{Builder, Cache, Entries, Entry, Keys, Sweeper};
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
pub use error::Error;

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
/// [`SystemTime`](std::time::SystemTime) it is that time; parts of a second are rounded up.
///
/// ```
/// use std::time::Duration;
/// use ucache::Expires;
///
/// assert_eq!(Expires::from(Duration::from_millis(1500)), Expires::In(2));
/// assert_ne!(Expires::from(Duration::ZERO), Expires::Never);
/// ```
#[doc(inline)]
pub use engine::Expires;
/// A cache's figures, from [`Cache::stats`].
///
/// ```
/// let stats = ucache::Cache::builder("empty").items(10).build()?.stats();
/// assert_eq!((stats.items, stats.capacity, stats.evicted), (0, 10, 0));
/// # Ok::<(), ucache::Error>(())
/// ```
#[doc(inline)]
pub use engine::Stats;
/// The outcome of [`Cache::update`].
///
/// ```
/// use ucache::Stored;
///
/// let cache = ucache::Cache::builder("once").items(10).build()?;
/// assert_eq!(cache.update("k", "v")?, Stored::Inserted);
/// # Ok::<(), ucache::Error>(())
/// ```
#[doc(inline)]
pub use engine::Stored;
/// Its programs run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
