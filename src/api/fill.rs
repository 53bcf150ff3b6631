//! Get-or-set: one caller computes, the others wait.
#![forbid(unsafe_code)]

use std::process;

use super::Cache;
use crate::{
    engine::{Engine, Expires, Fill, FillToken},
    error::{Error, Result},
};

/// # Filling
impl Cache {
    /// A copy of the value; a missing one is computed by `fill` and stored first, with the handle's
    /// [`timeout`](Cache::timeout).
    ///
    /// Of all callers that miss the key at the same time, in all threads and processes, one calls its `fill` and the
    /// others wait for the result: an expensive value is not computed twice because it expired on a busy server. The
    /// others take over when the one
    ///
    /// - panics: at once,
    /// - dies with its process: at once,
    /// - takes longer than the lease of [`with_fill_limits`](Cache::with_fill_limits): then.
    ///
    /// No lock is held while `fill` runs, it may use the cache at will, but not fill its own key again.
    ///
    /// The value is returned even if it could not be stored: it is empty or too long, the cache is full, or the caller
    /// had waited for the whole patience. [`stats`](Cache::stats) counts the refusals. What says that somebody computes is an
    /// item, too: in a full cache that evicts nothing there is no room for it, and each caller computes.
    ///
    /// # Errors
    /// [`Error::EmptyKey`] or [`Error::KeyTooLong`], without a call of `fill`; [`Error::WouldDeadlock`] to a `fill` that asks
    /// for its own key.
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
    pub fn get_or_set_with<K, V>(&self, key: &K, fill: impl FnOnce(&K) -> V) -> Result<Vec<u8>>
    where
        K: AsRef<[u8]> + ?Sized,
        V: Into<Vec<u8>>,
    {
        self.get_or_try_set_with(key, |key| Ok::<V, Error>(fill(key)))
    }

    /// [`get_or_set_with`](Cache::get_or_set_with) for a function that can fail. A failure is returned and stores
    /// nothing; a waiter takes over. `E` takes the cache's own errors in, as [`std::io::Error`] and
    /// `Box<dyn std::error::Error>` do.
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
        match self.engine.begin_fill(bytes, self.defaults.lease, self.defaults.patience, &mut stored) {
            Ok(Fill::Hit(_)) => Ok(stored),
            Ok(Fill::Filler(token)) => {
                let turn = Turn::new(&self.engine, bytes, token);
                let value = fill(key)?.into();
                turn.end(&value, self.defaults.expires)?;
                Ok(value)
            }
            Ok(Fill::TimedOut) => fill(key).map(Into::into),
            Err(error) if no_room(&error) => fill(key).map(Into::into),
            Err(error) => Err(error.into()),
        }
    }
}

/// The duty to fill a key; given up when dropped.
struct Turn<'a> {
    engine: &'a Engine,
    key: &'a [u8],
    token: Option<FillToken>,
    process: u32,
}

impl<'a> Turn<'a> {
    fn new(engine: &'a Engine, key: &'a [u8], token: FillToken) -> Self {
        Self { engine, key, token: Some(token), process: process::id() }
    }

    /// Stores the value and wakes the waiters.
    fn end(mut self, value: &[u8], expires: Expires) -> Result<()> {
        match self.take().map(|token| self.engine.end_fill(self.key, token, value, expires)) {
            Some(Err(error)) if !no_room(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The token, in the process that has the duty: not in a child that the filling function forked.
    fn take(&mut self) -> Option<FillToken> {
        self.token.take().filter(|_| self.process == process::id())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.take() {
            // If this fails, the waiters take over when the lease is over.
            let _ = self.engine.abandon_fill(self.key, token);
        }
    }
}

/// Whether a value is only not stored, while the cache and the key are fine.
pub(super) fn no_room(error: &Error) -> bool {
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
