//! Iterators over keys and items.
#![forbid(unsafe_code)]

use std::{fmt, iter::FusedIterator};

use super::Cache;
use crate::{
    engine::{Expires, Touch},
    error::Result,
    near::{Position, Tier},
};

/// # All keys
///
/// Other callers may write during a walk. A key that is stored during the whole walk is returned
/// exactly once; one that is added or removed meanwhile may be missed. The walk takes no lock and
/// needs no memory for all keys at once. The order is unspecified.
impl Cache {
    /// The keys stored.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("keys").items(10).build()?;
    /// cache.set_many([("page:1", "a"), ("user:1", "b")])?;
    /// for key in cache.keys().filter(|key| key.ends_with(b":1")) {
    ///     cache.delete(&key)?;
    /// }
    /// assert_eq!(cache.keys().count(), 0);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "SCAN")]
    pub fn keys(&self) -> Keys {
        self.keys_with_prefix("")
    }

    /// The keys that start with `prefix`: a walk over all [`keys`](Cache::keys).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("keys_with_prefix").items(10).build()?;
    /// cache.set_many([("user:1", "a"), ("page:1", "b")])?;
    /// assert_eq!(cache.keys_with_prefix("user:").collect::<Vec<_>>(), [b"user:1"]);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn keys_with_prefix(&self, prefix: impl AsRef<[u8]>) -> Keys {
        Keys::new(self, prefix.as_ref())
    }

    /// The stored items, with value and expiry; a `for` loop over a `&Cache` yields the same.
    /// Reading them counts neither as hits nor as uses. Each value is one that its key had during
    /// the walk.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("entries").items(10).build()?;
    /// cache.set("k", "v")?;
    /// for entry in &cache {
    ///     assert_eq!((&entry.key[..], &entry.value[..]), (&b"k"[..], &b"v"[..]));
    /// }
    /// assert_eq!(cache.entries().count(), 1);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "iter")]
    pub fn entries(&self) -> Entries {
        self.entries_with_prefix("")
    }

    /// The [`entries`](Cache::entries) whose keys start with `prefix`.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("entries_with_prefix").items(10).build()?;
    /// cache.set_many([("user:1", "alice"), ("page:1", "...")])?;
    /// let users: Vec<_> = cache.entries_with_prefix("user:").map(|entry| entry.value).collect();
    /// assert_eq!(users, [b"alice"]);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn entries_with_prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        Entries { keys: Keys::new(self, prefix.as_ref()) }
    }

    /// Removes the keys that start with `prefix`; returns how many. Keys of that prefix that are
    /// stored meanwhile may stay. [`clear`](Cache::clear) removes all keys, in one step.
    ///
    /// # Errors
    /// As [`delete`](Cache::delete); the keys before the error are removed.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("delete_prefix").items(10).build()?;
    /// cache.set_many([("page:1", "a"), ("page:2", "b"), ("user:1", "c")])?;
    /// assert_eq!(cache.delete_prefix("page:")?, 2);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "invalidate_entries_if")]
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<usize> {
        self.keys_with_prefix(prefix).try_fold(0, |n, key| Ok(n + usize::from(self.delete(key)?)))
    }
}

impl IntoIterator for &Cache {
    type Item = Entry;
    type IntoIter = Entries;

    fn into_iter(self) -> Entries {
        self.entries()
    }
}

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
    tier: Tier,
    cursor: Position,
    prefix: Box<[u8]>,
}

impl Keys {
    fn new(cache: &Cache, prefix: &[u8]) -> Self {
        Self { tier: cache.tier.clone(), cursor: Position::default(), prefix: prefix.into() }
    }
}

impl Iterator for Keys {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let item = self.tier.walk(&mut self.cursor)?;
            if !item.ungettable && item.key.starts_with(&self.prefix) {
                return Some(item.key);
            }
        }
    }
}

// An exhausted cursor stays exhausted.
impl FusedIterator for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("cache", &self.tier.engine().config().name).finish_non_exhaustive()
    }
}

/// An item, from [`Cache::entries`]; it owns copies of the key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// [`Expires::Never`], [`Expires::At`] or [`Expires::AtMillis`].
    pub expires: Expires,
}

/// The items of a cache, from [`Cache::entries`].
///
/// ```
/// let cache = ucache::Cache::builder("items").items(10).build()?;
/// cache.set("k", "v")?;
/// assert_eq!(cache.entries().next().map(|entry| entry.value), Some(b"v".to_vec()));
/// # Ok::<(), ucache::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is used"]
pub struct Entries {
    keys: Keys,
}

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let key = self.keys.next()?;
            let mut value = Vec::new();
            // Removed since, or no memory for a copy: skip it.
            if let Ok(Some(meta)) = self.keys.tier.get(&key, Touch::Unseen, &mut value) {
                return Some(Entry { key, value, expires: meta.expires() });
            }
        }
    }
}

impl FusedIterator for Entries {}
