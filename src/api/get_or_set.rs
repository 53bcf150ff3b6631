//! Stampede protection: one caller computes a missing value, the others wait.
#![forbid(unsafe_code)]

use super::{Cache, lease::Lease};
use crate::{
    engine::Fill,
    error::{Error, Result},
};

/// # Filling
impl Cache {
    /// Returns a copy of the value. A missing value is first computed by `fill` and stored with the
    /// handle's [`timeout`](Cache::timeout).
    ///
    /// Of all callers that miss the key at the same time, in all threads and processes, one calls
    /// its `fill`; it is the *filler*. The others wait for its result, so an expensive value is
    /// computed once. A waiter takes over when the filler
    ///
    /// - panics: at once,
    /// - dies with its process: at once,
    /// - takes longer than the lease of [`with_fill_limits`](Cache::with_fill_limits): when the
    ///   lease ends.
    ///
    /// With a backend the callers of all machines are meant; one on another machine
    /// takes over when the lease ends, whatever became of the filler.
    ///
    /// No lock is held while `fill` runs. It may use the cache freely, but must not fill its own
    /// key again.
    ///
    /// The value is returned even if it could not be stored: it is empty or too long, the cache is
    /// full, or the caller had waited for its whole patience. [`stats`](Cache::stats) counts the
    /// refusals. The lease is stored as an item, too: in a full cache that evicts nothing there is
    /// no room for it, and each caller computes the value.
    ///
    /// # Errors
    /// [`Error::EmptyKey`] or [`Error::KeyTooLong`], without a call of `fill`;
    /// [`Error::WouldDeadlock`] if `fill` fills its own key.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get_or_set_with").items(10).build()?;
    ///
    /// let page = cache.get_or_set_with("/about", |path| format!("<h1>{path}</h1>"))?;
    /// assert_eq!(page, b"<h1>/about</h1>");
    ///
    /// let again = cache.get_or_set_with("/about", |_| -> Vec<u8> { unreachable!("it is stored") })?;
    /// assert_eq!(again, page);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "setter")]
    #[doc(alias = "get_with")]
    pub fn get_or_set_with<K, V>(&self, key: &K, fill: impl FnOnce(&K) -> V) -> Result<Vec<u8>>
    where
        K: AsRef<[u8]> + ?Sized,
        V: Into<Vec<u8>>,
    {
        self.get_or_try_set_with(key, |key| Ok::<V, Error>(fill(key)))
    }

    /// [`get_or_set_with`](Cache::get_or_set_with) for a function that can fail. An error of `fill`
    /// is returned and nothing is stored; a waiter takes over. `E` must be convertible from the
    /// cache's own errors, as [`std::io::Error`] and `Box<dyn std::error::Error>` are.
    ///
    /// # Errors
    /// Those of `fill` and of [`get_or_set_with`](Cache::get_or_set_with).
    ///
    /// ```
    /// use std::{fs, io};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = ucache::Cache::builder("get_or_try_set_with").items(10).build()?;
    /// let load = |path: &str| -> io::Result<Vec<u8>> {
    ///     cache.get_or_try_set_with(path, |path| fs::read(path))
    /// };
    ///
    /// assert_eq!(load("/no/such/file").unwrap_err().kind(), io::ErrorKind::NotFound);
    /// assert!(!cache.contains("/no/such/file"));
    ///
    /// assert_eq!(load("/proc/self/comm")?, fs::read("/proc/self/comm")?);
    /// assert!(cache.contains("/proc/self/comm"));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "try_get_with")]
    #[doc(alias = "get_or_insert_with")]
    pub fn get_or_try_set_with<K, V, E>(
        &self,
        key: &K,
        fill: impl FnOnce(&K) -> Result<V, E>,
    ) -> Result<Vec<u8>, E>
    where
        K: AsRef<[u8]> + ?Sized,
        V: Into<Vec<u8>>,
        E: From<Error>,
    {
        let bytes = key.as_ref();
        let mut stored = Vec::new();
        match self.tier.begin_fill(bytes, self.defaults.lease, self.defaults.patience, &mut stored) {
            Ok(Fill::Hit(_)) => Ok(stored),
            Ok(Fill::Filler(token)) => {
                let lease = Lease::to_fill(&self.tier, bytes, token);
                let value = fill(key)?.into();
                let stored = lease.end_fill(&value, self.defaults.expires).transpose();
                Ok(given(value, stored)?)
            }
            Ok(Fill::TimedOut) => fill(key).map(Into::into),
            Err(error) if no_room(&error) => fill(key).map(Into::into),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an error only means that the value is not stored; the cache and the key are valid.
fn no_room(error: &Error) -> bool {
    matches!(
        error,
        Error::EmptyValue
            | Error::ValueTooLong { .. }
            | Error::Full { .. }
            | Error::OutOfBlocks { .. }
            | Error::NoSpace { .. }
            | Error::Exists
            | Error::Timeout { .. }
    )
}

/// A computed value, for its caller. That it could not be stored is no reason to keep it back.
pub(super) fn given<T>(value: Vec<u8>, stored: Result<T>) -> Result<Vec<u8>> {
    match stored {
        Err(error) if !no_room(&error) && !matches!(error, Error::Backend { .. }) => Err(error),
        _ => Ok(value),
    }
}
