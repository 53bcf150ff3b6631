//! Stale while revalidate: an old value is served while one caller computes the new one.
#![forbid(unsafe_code)]

use std::{
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Cache, expires::whole_seconds, sink::NoSink};
use crate::{
    engine::{Engine, Expires, FillToken, Touch},
    error::{Error, Result},
};

/// # Refreshing
impl Cache {
    /// [`get_or_set_with`](Cache::get_or_set_with) that makes nobody wait for a value that is only old: when the
    /// handle's [`timeout`](Cache::timeout) is over, the value lives on for `stale`, and one caller of all processes
    /// computes it anew, while all others get the old one at once.
    ///
    /// The caller that refreshes waits for its own function; call this from a background thread, too, and no request
    /// ever does. When that caller dies or panics, or takes longer than the lease of
    /// [`with_fill_limits`](Cache::with_fill_limits), the next one refreshes. A missing key, and one that is older
    /// than both times together, is filled as [`get_or_set_with`](Cache::get_or_set_with) does.
    ///
    /// What was computed is stored if the old value is still there: not after an update, a delete or a clear meanwhile, nor
    /// when both times are over before `fill` is done.
    ///
    /// For everybody who reads in other ways, the item expires at the end of both times. With
    /// [`Expires::Never`] nothing is ever old. `stale` is rounded up to whole seconds.
    ///
    /// # Errors
    /// As [`get_or_set_with`](Cache::get_or_set_with).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("get_or_refresh_with").items(10).build()?;
    /// let rates = cache.with_timeout(Duration::from_secs(60));
    ///
    /// // fresh for a minute, served for ten more while one caller fetches new ones
    /// let euro = rates.get_or_refresh_with("EUR", Duration::from_secs(600), |_| "1.08")?;
    /// assert_eq!(euro, b"1.08");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "stale_while_revalidate")]
    pub fn get_or_refresh_with<K, V>(
        &self,
        key: &K,
        stale: Duration,
        fill: impl FnOnce(&K) -> V,
    ) -> Result<Vec<u8>>
    where
        K: AsRef<[u8]> + ?Sized,
        V: Into<Vec<u8>>,
    {
        self.get_or_try_refresh_with(key, stale, |key| Ok::<V, Error>(fill(key)))
    }

    /// [`get_or_refresh_with`](Cache::get_or_refresh_with) for a function that can fail. A failed refresh is returned
    /// to the caller whose function it was; the old value stays, for [`get`](Cache::get) and for the others, and the
    /// next caller tries again.
    ///
    /// # Errors
    /// Those of `fill` and of [`get_or_set_with`](Cache::get_or_set_with).
    ///
    /// ```
    /// use std::{io, time::Duration};
    ///
    /// let cache = ucache::Cache::builder("get_or_try_refresh_with").items(10).build()?;
    /// let down = |_: &str| Err::<Vec<u8>, _>(io::Error::other("the service is down"));
    /// let failed = cache.get_or_try_refresh_with("EUR", Duration::from_secs(600), down);
    /// assert_eq!(failed.unwrap_err().to_string(), "the service is down");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_or_try_refresh_with<K, V, E>(
        &self,
        key: &K,
        stale: Duration,
        fill: impl FnOnce(&K) -> Result<V, E>,
    ) -> Result<Vec<u8>, E>
    where
        K: AsRef<[u8]> + ?Sized,
        V: Into<Vec<u8>>,
        E: From<Error>,
    {
        let bytes = key.as_ref();
        let stale = whole_seconds(stale);
        let lasting = self.with_timeout(longer(self.defaults.expires, stale));
        let found = self.engine.get(bytes, Touch::Unseen, &mut NoSink).map_err(E::from)?;
        let Some(meta) = found.filter(|meta| is_old(meta.expires, stale)) else {
            // Fresh, or not there: counted, and filled, as ever.
            return lasting.get_or_try_set_with(key, fill);
        };
        // The count of the read, whose value may be newer than the first look's.
        let Some(value) = self.get(bytes).map_err(E::from)? else {
            return lasting.get_or_try_set_with(key, fill);
        };
        let turn = match self.engine.begin_refresh(bytes, self.defaults.lease) {
            Ok(Some(token)) => {
                Turn { engine: &self.engine, key: bytes, token: Some(token), process: process::id() }
            }
            // Somebody else is at it; or a writer stands still, which is no reason to fail a read.
            Ok(None) | Err(Error::Timeout { .. }) => return Ok(value),
            Err(e) => return Err(e.into()),
        };
        // Somebody may have been through since the first look.
        let mut now = Vec::new();
        if let Ok(Some(later)) = self.engine.get(bytes, Touch::Unseen, &mut now)
            && later.expires != meta.expires
            && !is_old(later.expires, stale)
        {
            return Ok(now);
        }
        let new = fill(key)?.into();
        // Whoever wrote, deleted or cleared meanwhile knew better. And a value that cannot be stored is the caller's all the
        // same, as in `get_or_set_with`.
        match lasting.compare_and_swap(bytes, &value, &new) {
            Err(error) if !super::fill::no_room(&error) => Err(error.into()),
            _ => {
                drop(turn);
                Ok(new)
            }
        }
    }
}

/// The right to refresh; given back when dropped.
struct Turn<'a> {
    engine: &'a Engine,
    key: &'a [u8],
    token: Option<FillToken>,
    process: u32,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Not in a child that the function forked.
        if let Some(token) = self.token.take().filter(|_| self.process == process::id()) {
            // If this fails, the right ends with its lease.
            let _ = self.engine.end_refresh(self.key, token);
        }
    }
}

fn longer(expires: Expires, by: u64) -> Expires {
    match expires {
        Expires::Never => Expires::Never,
        Expires::In(secs) => Expires::In(secs.saturating_add(by)),
        Expires::At(time) => Expires::At(time.saturating_add(by)),
    }
}

/// Whether an item with this expiry is in the last `stale` seconds of its life.
fn is_old(expires: u64, stale: u64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    expires != 0 && expires <= now.saturating_add(stale)
}
