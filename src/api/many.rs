//! Several keys in one call.
#![forbid(unsafe_code)]

use super::{Cache, Keys, keys::Entries};
use crate::{engine::BATCH, error::Result};

/// # Several keys
///
/// What is one step is each key, not the call. The memory of several keys is asked for at the same time, so that in a cache
/// much larger than the processor's own one call takes less time than as many with a key each.
impl Cache {
    /// Copies of the values of `keys`, in their order.
    ///
    /// # Errors
    /// As [`get`](Cache::get).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get_many").items(10).build()?;
    /// cache.set_many([("a", "1"), ("c", "3")])?;
    /// let found = cache.get_many(["a", "b", "c"])?;
    /// assert_eq!(found, [Some(b"1".to_vec()), None, Some(b"3".to_vec())]);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let mut found = Vec::new();
        self.batches(keys, AsRef::as_ref, |key| {
            found.push(self.get(key)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Stores each value whose key does not exist, with the handle's [`timeout`](Cache::timeout); returns how many.
    ///
    /// # Errors
    /// The first of the [shared errors](Cache#errors). What came before it is stored.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("set_many").items(10).build()?;
    /// cache.set("b", "old")?;
    /// assert_eq!(cache.set_many([("a", "1"), ("b", "2"), ("c", "3")])?, 2);
    /// assert_eq!(cache.get_str("b")?.as_deref(), Some("old"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn set_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<usize> {
        let mut stored = 0;
        self.batches(
            items,
            |(key, _)| key.as_ref(),
            |(key, value)| {
                stored += usize::from(self.set(key, value)?);
                Ok(())
            },
        )?;
        Ok(stored)
    }

    /// Stores each value, whether its key exists or not, with the handle's [`timeout`](Cache::timeout).
    ///
    /// # Errors
    /// The first of the [shared errors](Cache#errors). What came before it is stored.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("update_many").items(10).build()?;
    /// cache.update_many([("a", "1"), ("a", "2")])?;
    /// assert_eq!(cache.get_str("a")?.as_deref(), Some("2"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn update_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.batches(items, |(key, _)| key.as_ref(), |(key, value)| self.update(key, value).map(|_| ()))
    }

    /// Calls `each` with every item in its order, the memory of a batch's keys asked for before.
    fn batches<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> &[u8],
        mut each: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let mut items = items.into_iter().fuse();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            batch.extend(items.by_ref().take(BATCH));
            if batch.is_empty() {
                return Ok(());
            }
            self.engine.ask_for(batch.iter().map(&key));
            batch.drain(..).try_for_each(&mut each)?;
        }
    }

    /// The keys that start with `prefix`, in no order: a walk over all [`keys`](Cache::keys), which it shares the
    /// promises of.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("keys_with_prefix").items(10).build()?;
    /// cache.set_many([("user:1", "a"), ("page:1", "b")])?;
    /// assert_eq!(cache.keys_with_prefix("user:").collect::<Vec<_>>(), [b"user:1"]);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn keys_with_prefix(&self, prefix: impl AsRef<[u8]>) -> Keys {
        Keys::with_prefix(self, prefix.as_ref())
    }

    /// The items whose keys start with `prefix` (empty = all), with value and expiry, in no order. Reading them counts
    /// neither as hits nor as uses.
    ///
    /// Others may write meanwhile: what [`keys`](Cache::keys) promises holds, and each value is one that its key had
    /// during the walk.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("entries").items(10).build()?;
    /// cache.set("user:1", "alice")?;
    /// for entry in cache.entries("user:") {
    ///     assert_eq!((&entry.key[..], &entry.value[..]), (&b"user:1"[..], &b"alice"[..]));
    /// }
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn entries(&self, prefix: impl AsRef<[u8]>) -> Entries {
        Entries::new(self, prefix.as_ref())
    }

    /// Removes the keys that start with `prefix`; returns how many. Others' new keys of that prefix may stay.
    /// [`clear`](Cache::clear) removes all keys, in one step.
    ///
    /// # Errors
    /// As [`delete`](Cache::delete); what came before it is removed.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("delete_prefix").items(10).build()?;
    /// cache.set_many([("page:1", "a"), ("page:2", "b"), ("user:1", "c")])?;
    /// assert_eq!(cache.delete_prefix("page:")?, 2);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<usize> {
        self.keys_with_prefix(prefix).try_fold(0, |n, key| Ok(n + usize::from(self.delete(key)?)))
    }
}
