//! Conditional writes.
#![forbid(unsafe_code)]

use super::Cache;
use crate::{
    engine::{Expires, Swap, Touch},
    error::{Error, Result},
};

/// # Conditional writing
///
/// Each of these is atomic for all threads and processes. The [shared errors](Cache#errors) apply.
impl Cache {
    /// Replaces the value if it is `expected`; returns whether it was. The item expires after the
    /// handle's [`timeout`](Cache::timeout), counted from now. A missing key has no value: see
    /// [`add`](Cache::add).
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("compare_and_swap").items(10).build()?;
    /// cache.set("state", "idle")?;
    /// assert!(cache.compare_and_swap("state", "idle", "busy")?);
    /// assert!(!cache.compare_and_swap("state", "idle", "busy")?, "somebody else was faster");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "cas")]
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let swap = Swap::Value(value.as_ref(), Some(self.defaults.expires));
        self.tier.swap(key.as_ref(), expected.as_ref(), &swap)
    }

    /// [`compare_and_swap`](Cache::compare_and_swap) that keeps the expiry and the LRU position.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("compare_and_swap_keep_ttl").items(10).build()?;
    /// cache.set_with("token", "new", Duration::from_secs(60))?;
    /// assert!(cache.compare_and_swap_keep_ttl("token", "new", "used")?); // ends when it would have ended
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn compare_and_swap_keep_ttl(
        &self,
        key: impl AsRef<[u8]>,
        expected: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool> {
        self.tier.swap(key.as_ref(), expected.as_ref(), &Swap::Value(value.as_ref(), None))
    }

    /// Removes the key if its value is `expected`; returns whether it did. It releases a lock that
    /// can expire, without releasing by mistake a lock that another caller has taken since.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or
    /// [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("compare_and_delete").items(10).build()?;
    /// assert!(cache.add_with("lock", "me", Duration::from_secs(10))?);
    /// // ... ten seconds may have passed, and the lock may be another's ...
    /// assert!(!cache.compare_and_delete("lock", "you")?);
    /// assert!(cache.compare_and_delete("lock", "me")?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn compare_and_delete(&self, key: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) -> Result<bool> {
        self.tier.swap(key.as_ref(), expected.as_ref(), &Swap::Nothing)
    }

    /// Removes the key and returns its value. Of several concurrent callers, one gets the value.
    ///
    /// # Errors
    /// As [`get`](Cache::get) and [`delete`](Cache::delete).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("take").items(10).build()?;
    /// cache.set("flash", "saved!")?;
    /// assert_eq!(cache.take("flash")?.as_deref(), Some(&b"saved!"[..]));
    /// assert_eq!(cache.take("flash")?, None);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "pop")]
    #[doc(alias = "GETDEL")]
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::new();
        Ok(self.tier.take_out(key.as_ref(), &mut value)?.then_some(value))
    }

    /// Sets a new timeout for an item: a [`Duration`](std::time::Duration), a
    /// [`SystemTime`](std::time::SystemTime) or an [`Expires`]. Counts as a use for LRU; returns
    /// whether the key exists. The value stays.
    ///
    /// # Errors
    /// [`Error::NoSpace`](crate::Error::NoSpace): the entry is rewritten, and there was no memory
    /// for it; [`Error::Timeout`](crate::Error::Timeout) or
    /// [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("touch").items(10).build()?;
    /// cache.set_with("session", "alice", Duration::from_secs(60))?;
    /// assert!(cache.touch("session", Duration::from_secs(600))?);
    /// assert!(!cache.touch("nobody's", Duration::from_secs(600))?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "EXPIRE")]
    pub fn touch(&self, key: impl AsRef<[u8]>, expires: impl Into<Expires>) -> Result<bool> {
        self.tier.expire(key.as_ref(), expires.into())
    }

    /// When the item expires: [`Expires::Never`], [`Expires::At`] a whole second or
    /// [`Expires::AtMillis`]; [`Expires::deadline`] makes either a time. `None` = no such
    /// key. It is neither counted as a hit or miss nor as a use.
    ///
    /// ```
    /// use ucache::Expires;
    ///
    /// let cache = ucache::Cache::builder("expires").items(10).build()?;
    /// cache.set_with("k", "v", Expires::At(4_000_000_000))?;
    /// assert_eq!(cache.expires("k"), Some(Expires::At(4_000_000_000)));
    /// cache.set_with("l", "v", Expires::Never)?;
    /// assert_eq!(cache.expires("l"), Some(Expires::Never));
    /// assert_eq!(cache.expires("m"), None);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "TTL")]
    #[doc(alias = "EXPIRETIME")]
    #[must_use]
    pub fn expires(&self, key: impl AsRef<[u8]>) -> Option<Expires> {
        // A read that takes no value cannot fail.
        let found = self.tier.get(key.as_ref(), Touch::Unseen, &mut ()).ok().flatten();
        found.map(|meta| meta.expires())
    }

    /// Reads, computes and writes without losing a concurrent change: `change` gets the value
    /// (`None` = no such key) and returns the new one, or `None` to change nothing. It is called
    /// again if another caller wrote in the meantime, so it should be short and have no side
    /// effects. Returns the value that is stored at the end.
    ///
    /// An existing item keeps its timeout; a new one gets the handle's [`timeout`](Cache::timeout).
    /// No lock is held while `change` runs. To count, use [`incr`](Cache::incr), which is atomic.
    ///
    /// # Errors
    /// The [shared errors](Cache#errors).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("modify").items(10).build()?;
    /// for word in ["one", "two", "three"] {
    ///     cache.modify("words", |old| {
    ///         let mut all = old.map(<[u8]>::to_vec).unwrap_or_default();
    ///         all.extend_from_slice(word.as_bytes());
    ///         all.push(b' ');
    ///         Some(all)
    ///     })?;
    /// }
    /// assert_eq!(cache.get_str("words")?.as_deref(), Some("one two three "));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn modify(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let key = key.as_ref();
        loop {
            let old = self.get(key)?;
            let Some(new) = change(old.as_deref()) else { return Ok(old) };
            let done = match &old {
                Some(old) => self.compare_and_swap_keep_ttl(key, old, &new)?,
                None => self.add(key, &new)?,
            };
            if done {
                return Ok(Some(new));
            }
            // It exists but cannot be read.
            if old.is_none() && self.tier.is_ungettable(key)? {
                return Err(Error::Exists);
            }
        }
    }
}
