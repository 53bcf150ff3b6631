//! The walk over all keys.
#![forbid(unsafe_code)]

use std::{fmt, iter::FusedIterator, sync::Arc};

use super::Cache;
use crate::engine::{Cursor, Engine, Expires, Touch};

/// The keys of a cache, from [`Cache::keys`].
///
/// ```
/// let cache = ucache::Cache::builder("walk").items(10).build()?;
/// cache.set("k", "v")?;
///
/// let mut keys = cache.keys();
/// assert_eq!(keys.next(), Some(b"k".to_vec()));
/// assert_eq!(keys.next(), None);
/// # Ok::<(), ucache::Error>(())
/// ```
#[must_use = "an iterator does nothing unless it is used"]
pub struct Keys {
    engine: Arc<Engine>,
    cursor: Cursor,
    prefix: Box<[u8]>,
}

impl Keys {
    pub(super) fn new(cache: &Cache) -> Self {
        Self::with_prefix(cache, b"")
    }

    pub(super) fn with_prefix(cache: &Cache, prefix: &[u8]) -> Self {
        Self { engine: Arc::clone(&cache.engine), cursor: Cursor::default(), prefix: prefix.into() }
    }
}

impl Iterator for Keys {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let item = self.engine.walk(&mut self.cursor)?;
            if !item.ungettable && item.key.starts_with(&self.prefix) {
                return Some(item.key);
            }
        }
    }
}

// A cursor at its end stays there.
impl FusedIterator for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("cache", &self.engine.config().name).finish_non_exhaustive()
    }
}

/// An item, from [`Cache::entries`]: copies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// [`Expires::Never`], or [`Expires::At`] a Unix time.
    pub expires: Expires,
}

/// The items of a cache, from [`Cache::entries`].
///
/// ```
/// let cache = ucache::Cache::builder("items").items(10).build()?;
/// cache.set("k", "v")?;
/// assert_eq!(cache.entries("").next().map(|entry| entry.value), Some(b"v".to_vec()));
/// # Ok::<(), ucache::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is used"]
pub struct Entries {
    keys: Keys,
}

impl Entries {
    pub(super) fn new(cache: &Cache, prefix: &[u8]) -> Self {
        Self { keys: Keys::with_prefix(cache, prefix) }
    }
}

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let key = self.keys.next()?;
            let mut value = Vec::new();
            // Gone since the walk came by, or no memory for a copy: the next one.
            if let Ok(Some(meta)) = self.keys.engine.get(&key, Touch::Unseen, &mut value) {
                let expires = if meta.expires == 0 { Expires::Never } else { Expires::At(meta.expires) };
                return Some(Entry { key, value, expires });
            }
        }
    }
}

impl FusedIterator for Entries {}
