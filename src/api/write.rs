//! Writing.
#![forbid(unsafe_code)]

use super::Cache;
use crate::{
    engine::{Expires, Math, Mode, SetOptions, Stored},
    error::Result,
};

/// # Writing
///
/// A write is one step for everybody else: readers see the old value or the new one, whole. The
/// [shared errors](Cache#errors) apply to all of these.
impl Cache {
    /// Stores a value unless the key exists; returns whether it did. The item expires after the handle's
    /// [`timeout`](Cache::timeout).
    ///
    /// An existing key keeps its value and its timeout: of several callers at the same time, exactly one stores.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("set").items(10).build()?;
    /// assert!(cache.set("leader", "me")?);
    /// assert!(!cache.set("leader", "me too")?);
    /// assert_eq!(cache.get_str("leader")?.as_deref(), Some("me"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "add")]
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
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
    /// assert_eq!(cache.keys().count(), 3);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: impl Into<Expires>,
    ) -> Result<bool> {
        let options =
            SetOptions { mode: Mode::Add, expires: expires.into(), keep_ttl: false, ungettable: false };
        let stored = self.engine.set(key.as_ref(), value.as_ref(), &options)?;
        Ok(stored != Stored::Kept)
    }

    /// Stores a value, whether the key exists or not, and tells which it was. The item expires after the handle's
    /// [`timeout`](Cache::timeout), counted from now.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use ucache::Stored;
    ///
    /// let cache = ucache::Cache::builder("update").items(10).build()?;
    /// assert_eq!(cache.update("k", "old")?, Stored::Inserted);
    /// assert_eq!(cache.update("k", "new")?, Stored::Updated);
    /// assert_eq!(cache.get_str("k")?.as_deref(), Some("new"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "replace")]
    pub fn update(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Stored> {
        self.update_with(key, value, self.defaults.expires)
    }

    /// [`update`](Cache::update) with a timeout of its own: a [`Duration`](std::time::Duration), a
    /// [`SystemTime`](std::time::SystemTime) or an [`Expires`].
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("update_with").items(10).build()?;
    /// cache.update_with("token", "abc", Duration::from_secs(60))?;
    /// cache.update_with("token", "revoked", Duration::ZERO)?;
    /// assert!(!cache.contains("token"), "a timeout of zero expires at once");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn update_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: impl Into<Expires>,
    ) -> Result<Stored> {
        let expires = expires.into();
        let options = SetOptions { mode: Mode::Update, expires, keep_ttl: false, ungettable: false };
        self.engine.set(key.as_ref(), value.as_ref(), &options)
    }

    /// [`update`](Cache::update) that leaves the timeout of an existing key running, and its LRU place. A new key
    /// gets the handle's [`timeout`](Cache::timeout).
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("update_keep_ttl").items(10).build()?;
    /// cache.set_with("session", "anonymous", Duration::from_secs(600))?;
    /// cache.update_keep_ttl("session", "alice")?; // ends when it would have ended
    /// assert_eq!(cache.get_str("session")?.as_deref(), Some("alice"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn update_keep_ttl(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Stored> {
        self.engine.set(key.as_ref(), value.as_ref(), &self.keeping_ttl())
    }

    /// Removes the key; returns whether it was there.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("delete").items(10).build()?;
    /// cache.set("k", "v")?;
    /// assert!(cache.delete("k")?);
    /// assert!(!cache.delete("k")?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "remove")]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.delete(key.as_ref())
    }

    /// Adds to a number and returns the new one.
    ///
    /// One atomic step for all processes. A missing key starts from [`math_initial`](super::Builder::math_initial) and
    /// gets the handle's [`timeout`](Cache::timeout); an existing one keeps the timeout it has, so that a counter of
    /// a minute's requests ends with the minute. The arithmetic wraps around.
    ///
    /// # Errors
    /// [`Error::NotANumber`](crate::Error::NotANumber) if the value does not have 8 bytes (see
    /// [`get_int`](Cache::get_int)); it stays as it is. Otherwise the [shared errors](Cache#errors).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("incr").items(10).build()?;
    /// assert_eq!(cache.incr("visits", 1)?, 1);
    /// assert_eq!(cache.incr("visits", 41)?, 42);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn incr(&self, key: impl AsRef<[u8]>, delta: i64) -> Result<i64> {
        self.math(key.as_ref(), Math::Inc, delta)
    }

    /// Subtracts from a number and returns the new one; otherwise as [`incr`](Cache::incr).
    ///
    /// # Errors
    /// As [`incr`](Cache::incr).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("decr").items(10).build()?;
    /// assert_eq!(cache.decr("stock", 3)?, -3);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn decr(&self, key: impl AsRef<[u8]>, delta: i64) -> Result<i64> {
        self.math(key.as_ref(), Math::Dec, delta)
    }

    /// Multiplies a number and returns the new one; otherwise as [`incr`](Cache::incr).
    ///
    /// # Errors
    /// As [`incr`](Cache::incr).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("mul").items(10).build()?;
    /// cache.incr("n", 21)?;
    /// assert_eq!(cache.mul("n", 2)?, 42);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn mul(&self, key: impl AsRef<[u8]>, factor: i64) -> Result<i64> {
        self.math(key.as_ref(), Math::Mul, factor)
    }

    /// Divides a number, truncating, and returns the new one; division by 0 gives 0, as in uWSGI. Otherwise as
    /// [`incr`](Cache::incr).
    ///
    /// # Errors
    /// As [`incr`](Cache::incr).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("div").items(10).build()?;
    /// cache.incr("n", 85)?;
    /// assert_eq!(cache.div("n", 2)?, 42);
    /// assert_eq!(cache.div("n", 0)?, 0);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn div(&self, key: impl AsRef<[u8]>, divisor: i64) -> Result<i64> {
        self.math(key.as_ref(), Math::Div, divisor)
    }

    /// Removes everything in one step: every process misses every key from this moment on.
    ///
    /// The cost does not depend on the number of items; their memory is reclaimed by the writes that follow, or by
    /// [`sweep`](Cache::sweep).
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("clear").items(10).build()?;
    /// cache.set("k", "v")?;
    /// cache.clear()?;
    /// assert!(!cache.contains("k"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn clear(&self) -> Result<()> {
        self.engine.clear()
    }

    fn math(&self, key: &[u8], op: Math, operand: i64) -> Result<i64> {
        self.engine.math(key, op, operand, &self.keeping_ttl())
    }

    fn keeping_ttl(&self) -> SetOptions {
        SetOptions { mode: Mode::Update, expires: self.defaults.expires, keep_ttl: true, ungettable: false }
    }
}
