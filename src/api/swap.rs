//! Writing that depends on what is there.
#![forbid(unsafe_code)]

use super::Cache;
use crate::{
    engine::{Expires, Swap, Touch},
    error::{Error, Result},
};

/// # Conditional writing
///
/// Each of these is one step for everybody else, in all threads and processes. The [shared errors](Cache#errors) apply.
impl Cache {
    /// Replaces the value if it is `expected`; returns whether it was. The item expires after the handle's
    /// [`timeout`](Cache::timeout), counted from now. A missing key has no value: see [`set`](Cache::set).
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
        self.engine.swap(key.as_ref(), expected.as_ref(), &swap)
    }

    /// [`compare_and_swap`](Cache::compare_and_swap) that leaves the timeout running, and the LRU place.
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
        self.engine.swap(key.as_ref(), expected.as_ref(), &Swap::Value(value.as_ref(), None))
    }

    /// Removes the key if its value is `expected`; returns whether it did. What a lock that expires is released with:
    /// not somebody else's by mistake.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout) or [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("compare_and_delete").items(10).build()?;
    /// assert!(cache.set_with("lock", "me", Duration::from_secs(10))?);
    /// // ... ten seconds may have passed, and the lock may be another's ...
    /// assert!(!cache.compare_and_delete("lock", "you")?);
    /// assert!(cache.compare_and_delete("lock", "me")?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn compare_and_delete(&self, key: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.swap(key.as_ref(), expected.as_ref(), &Swap::Nothing)
    }

    /// Removes the key and returns its value: of several callers, one gets it.
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
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::new();
        Ok(self.engine.take_out(key.as_ref(), &mut value)?.then_some(value))
    }

    /// Gives an item another timeout, a [`Duration`](std::time::Duration), a
    /// [`SystemTime`](std::time::SystemTime) or an [`Expires`], and counts as a use for LRU; returns whether the key
    /// is there. The value stays.
    ///
    /// # Errors
    /// [`Error::NoSpace`](crate::Error::NoSpace): the entry is written anew, and there was no memory for it;
    /// [`Error::Timeout`](crate::Error::Timeout) or [`Error::WouldDeadlock`](crate::Error::WouldDeadlock).
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
    #[doc(alias = "expire")]
    pub fn touch(&self, key: impl AsRef<[u8]>, expires: impl Into<Expires>) -> Result<bool> {
        self.engine.expire(key.as_ref(), expires.into())
    }

    /// When the item expires: [`Expires::Never`], or [`Expires::At`] a Unix time. `None` = no such key. Counts neither
    /// as a hit or miss nor as a use.
    ///
    /// # Errors
    /// None today; a [`Result`] like the other reads.
    ///
    /// ```
    /// use ucache::Expires;
    ///
    /// let cache = ucache::Cache::builder("expires").items(10).build()?;
    /// cache.set_with("k", "v", Expires::At(4_000_000_000))?;
    /// assert_eq!(cache.expires("k")?, Some(Expires::At(4_000_000_000)));
    /// cache.set_with("l", "v", Expires::Never)?;
    /// assert_eq!(cache.expires("l")?, Some(Expires::Never));
    /// assert_eq!(cache.expires("m")?, None);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "ttl")]
    pub fn expires(&self, key: impl AsRef<[u8]>) -> Result<Option<Expires>> {
        let found = self.engine.get(key.as_ref(), Touch::Unseen, &mut super::sink::NoSink)?;
        Ok(found.map(|meta| if meta.expires == 0 { Expires::Never } else { Expires::At(meta.expires) }))
    }

    /// Reads, computes and writes without losing anybody's change: `change` gets the value (`None` = no such key) and
    /// returns the new one, or `None` to leave all as it is. It is called again when somebody else wrote meanwhile, so
    /// it should be short and do nothing else. Returns the value that is stored at the end.
    ///
    /// An existing item keeps its timeout; a new one gets the handle's [`timeout`](Cache::timeout). No lock is held
    /// while `change` runs. Where a number is counted, [`incr`](Cache::incr) does it in one step.
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
                None => self.set(key, &new)?,
            };
            if done {
                return Ok(Some(new));
            }
            // It is there, and nobody can read it.
            if old.is_none() && self.engine.is_ungettable(key)? {
                return Err(Error::Exists);
            }
        }
    }
}
