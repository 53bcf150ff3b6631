//! Operations on several keys in one call.
#![forbid(unsafe_code)]

use super::{Cache, sink::with_buffer};
use crate::{
    engine::{BATCH, Touch},
    error::Result,
};

/// # Several keys
///
/// Each key is handled atomically; the call as a whole is not. The memory of several keys is
/// prefetched at the same time. In a cache much larger than the processor's caches, one call
/// therefore takes less time than one call for each key.
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
    #[doc(alias = "MGET")]
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        if let Some(backed) = self.tier.backed() {
            return backed.get_all(&keys.into_iter().collect::<Vec<_>>());
        }
        let keys = keys.into_iter();
        let mut found = Vec::with_capacity(keys.size_hint().0);
        self.batches(keys, AsRef::as_ref, |key| {
            found.push(self.get(key)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `each` with every key and its value, in their order; `None` = no such key. As in
    /// [`get_with`](Cache::get_with), the value is in a buffer that is reused, and `each` may use
    /// the cache freely.
    ///
    /// # Errors
    /// As [`get`](Cache::get).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get_many_with").items(10).build()?;
    /// cache.set_many([("a", "1"), ("c", "333")])?;
    /// let mut bytes = 0;
    /// cache.get_many_with(["a", "b", "c"], |_, value| bytes += value.map_or(0, <[u8]>::len))?;
    /// assert_eq!(bytes, 4);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        mut each: impl FnMut(K, Option<&[u8]>),
    ) -> Result<()> {
        if let Some(backed) = self.tier.backed() {
            let keys: Vec<_> = keys.into_iter().collect();
            let found = backed.get_all(&keys)?;
            keys.into_iter().zip(found).for_each(|(key, value)| each(key, value.as_deref()));
            return Ok(());
        }
        with_buffer(|buffer| {
            self.batches(keys, AsRef::as_ref, |key| {
                let found = self.tier.get(key.as_ref(), Touch::Yes, buffer)?;
                each(key, found.map(|_| &buffer[..]));
                Ok(())
            })
        })
    }

    /// [`set`](Cache::set)s each value, with the handle's [`timeout`](Cache::timeout).
    ///
    /// # Errors
    /// The first of the [shared errors](Cache#errors). The values before it are stored.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("set_many").items(10).build()?;
    /// cache.set_many([("a", "1"), ("a", "2")])?;
    /// assert_eq!(cache.get_str("a")?.as_deref(), Some("2"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "MSET")]
    pub fn set_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        self.batches(items, |(key, _)| key.as_ref(), |(key, value)| self.set(key, value).map(|_| ()))
    }

    /// [`add`](Cache::add)s each value whose key is missing, with the handle's
    /// [`timeout`](Cache::timeout); returns how many were stored.
    ///
    /// # Errors
    /// The first of the [shared errors](Cache#errors). The values before it are stored.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("add_many").items(10).build()?;
    /// cache.set("b", "old")?;
    /// assert_eq!(cache.add_many([("a", "1"), ("b", "2"), ("c", "3")])?, 2);
    /// assert_eq!(cache.get_str("b")?.as_deref(), Some("old"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn add_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Result<usize> {
        let mut stored = 0;
        self.batches(
            items,
            |(key, _)| key.as_ref(),
            |(key, value)| {
                stored += usize::from(self.add(key, value)?);
                Ok(())
            },
        )?;
        Ok(stored)
    }

    /// Calls `each` with every item in order, after prefetching a batch of keys.
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
            self.tier.prefetch_keys(batch.iter().map(&key));
            batch.drain(..).try_for_each(&mut each)?;
        }
    }
}
