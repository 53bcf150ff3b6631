//! Writing.
#![forbid(unsafe_code)]

use super::Cache;
use crate::{
    engine::{Expires, SetOptions, Side, Stored},
    error::Result,
};

/// # Writing
///
/// Each write is atomic: readers see either the whole old value or the whole new one. The [shared
/// errors](Cache#errors) apply to all of these.
///
/// | | key is missing | key is there |
/// |---|---|---|
/// | [`set`](Cache::set) | stores | stores |
/// | [`add`](Cache::add) | stores | leaves it |
/// | [`replace`](Cache::replace) | stores nothing | stores |
/// | [`append`](Cache::append), [`prepend`](Cache::prepend) | stores nothing | adds to its value |
impl Cache {
    /// Stores a value, whether the key exists or not, and returns which was the case. The item
    /// expires after the handle's [`timeout`](Cache::timeout), counted from now.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use ucache::Stored;
    ///
    /// let cache = ucache::Cache::builder("set").items(10).build()?;
    /// assert_eq!(cache.set("k", "old")?, Stored::Inserted);
    /// assert_eq!(cache.set("k", "new")?, Stored::Updated);
    /// assert_eq!(cache.get_str("k")?.as_deref(), Some("new"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "insert")]
    #[doc(alias = "put")]
    #[doc(alias = "update")]
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Stored> {
        self.set_with(key, value, self.defaults.expires)
    }

    /// [`set`](Cache::set) with a timeout of its own: a [`Duration`](std::time::Duration), a
    /// [`SystemTime`](std::time::SystemTime) or an [`Expires`].
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use ucache::Expires;
    ///
    /// let cache = ucache::Cache::builder("set_with").items(10).build()?;
    /// cache.set_with("a minute", "v", Duration::from_secs(60))?;
    /// cache.set_with("until then", "v", SystemTime::now() + Duration::from_secs(60))?;
    /// cache.set_with("for ever", "v", Expires::Never)?;
    /// cache.set_with("expired", "v", Duration::ZERO)?;
    /// assert_eq!(cache.keys().count(), 3);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "SETEX")]
    pub fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: impl Into<Expires>,
    ) -> Result<Stored> {
        self.tier.set(key.as_ref(), value.as_ref(), &SetOptions::set(expires.into()))
    }

    /// [`set`](Cache::set) that keeps the expiry and the LRU position of an existing key. A new key
    /// gets the handle's [`timeout`](Cache::timeout).
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("set_keep_ttl").items(10).build()?;
    /// cache.set_with("session", "anonymous", Duration::from_secs(600))?;
    /// cache.set_keep_ttl("session", "alice")?; // ends when it would have ended
    /// assert_eq!(cache.get_str("session")?.as_deref(), Some("alice"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "KEEPTTL")]
    pub fn set_keep_ttl(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Stored> {
        self.tier.set(key.as_ref(), value.as_ref(), &SetOptions::set(self.defaults.expires).keep_ttl())
    }

    /// Stores a value if the key is missing; returns whether it was. The item expires after the
    /// handle's [`timeout`](Cache::timeout).
    ///
    /// An existing key keeps its value and its timeout: of several callers at the same time,
    /// exactly one stores.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("add").items(10).build()?;
    /// assert!(cache.add("leader", "me")?);
    /// assert!(!cache.add("leader", "me too")?);
    /// assert_eq!(cache.get_str("leader")?.as_deref(), Some("me"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "SETNX")]
    #[doc(alias = "put_if_absent")]
    pub fn add(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        self.add_with(key, value, self.defaults.expires)
    }

    /// [`add`](Cache::add) with a timeout of its own.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("add_with").items(10).build()?;
    /// assert!(cache.add_with("lock", "me", Duration::from_secs(10))?);
    /// assert!(!cache.add_with("lock", "you", Duration::from_secs(10))?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn add_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: impl Into<Expires>,
    ) -> Result<bool> {
        let stored = self.tier.set(key.as_ref(), value.as_ref(), &SetOptions::add(expires.into()))?;
        Ok(stored != Stored::Kept)
    }

    /// Stores a value if the key is there; returns whether it was. The item expires after the
    /// handle's [`timeout`](Cache::timeout), counted from now.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("replace").items(10).build()?;
    /// assert!(!cache.replace("page", "new")?);
    /// cache.set("page", "old")?;
    /// assert!(cache.replace("page", "new")?);
    /// assert_eq!(cache.get_str("page")?.as_deref(), Some("new"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn replace(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        self.replace_with(key, value, self.defaults.expires)
    }

    /// [`replace`](Cache::replace) with a timeout of its own.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("replace_with").items(10).build()?;
    /// cache.set("token", "abc")?;
    /// assert!(cache.replace_with("token", "revoked", Duration::ZERO)?);
    /// assert!(!cache.contains("token"), "a timeout of zero expires at once");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn replace_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: impl Into<Expires>,
    ) -> Result<bool> {
        let stored = self.tier.set(key.as_ref(), value.as_ref(), &SetOptions::replace(expires.into()))?;
        Ok(stored != Stored::Kept)
    }

    /// Appends `bytes` to the value and returns its new length; `None` = no such key. The expiry
    /// stays.
    ///
    /// The entry is rewritten, so the cost is that of [`set`](Cache::set) with the whole value.
    ///
    /// # Errors
    /// [`Error::ValueTooLong`](crate::Error::ValueTooLong) if the new value is; otherwise the
    /// [shared errors](Cache#errors). The value stays as it was.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("append").items(10).build()?;
    /// assert_eq!(cache.append("log", "a")?, None);
    /// cache.set("log", "start")?;
    /// assert_eq!(cache.append("log", ", end")?, Some(10));
    /// assert_eq!(cache.get_str("log")?.as_deref(), Some("start, end"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn append(&self, key: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Result<Option<usize>> {
        self.join(key.as_ref(), bytes.as_ref(), Side::Back)
    }

    /// Prepends `bytes` to the value; otherwise as [`append`](Cache::append).
    ///
    /// # Errors
    /// As [`append`](Cache::append).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("prepend").items(10).build()?;
    /// cache.set("recent", "b")?;
    /// assert_eq!(cache.prepend("recent", "a,")?, Some(3));
    /// assert_eq!(cache.get_str("recent")?.as_deref(), Some("a,b"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn prepend(&self, key: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Result<Option<usize>> {
        self.join(key.as_ref(), bytes.as_ref(), Side::Front)
    }

    fn join(&self, key: &[u8], bytes: &[u8], side: Side) -> Result<Option<usize>> {
        Ok(self.tier.join(key, bytes, side)?.map(|len| len as usize))
    }

    /// Removes the key; returns whether it was there.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or
    /// [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("delete").items(10).build()?;
    /// cache.set("k", "v")?;
    /// assert!(cache.delete("k")?);
    /// assert!(!cache.delete("k")?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "remove")]
    #[doc(alias = "invalidate")]
    #[doc(alias = "DEL")]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.tier.delete(key.as_ref())
    }

    /// Removes all items in one step: every process misses every key from this moment on.
    ///
    /// The cost does not depend on the number of items. Their memory is reclaimed by the writes
    /// that follow, or by [`sweep`](Cache::sweep).
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or
    /// [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("clear").items(10).build()?;
    /// cache.set("k", "v")?;
    /// cache.clear()?;
    /// assert!(!cache.contains("k"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "invalidate_all")]
    #[doc(alias = "flush_all")]
    #[doc(alias = "FLUSHDB")]
    pub fn clear(&self) -> Result<()> {
        self.tier.clear()
    }
}
