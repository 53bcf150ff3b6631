//! Stale-while-revalidate: callers get the old value while one of them computes the new one.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Cache, expires::whole_millis, get_or_set::given, lease::Lease};
use crate::{
    engine::{Expires, MAX_STALE, Meta, Touch},
    error::{Error, Result},
};

/// # Refreshing
impl Cache {
    /// [`get_or_set_with`](Cache::get_or_set_with) with stale-while-revalidate. When the handle's
    /// [`timeout`](Cache::timeout) is over, the value is kept for another `stale`. During that time
    /// one caller of all processes computes the new value, and all others get the old one at once.
    ///
    /// The caller that refreshes waits for its own function. To keep that wait out of requests,
    /// also call this from a background thread. When the refreshing caller dies or panics, or takes
    /// longer than the lease of [`with_fill_limits`](Cache::with_fill_limits), the next caller
    /// refreshes. A key that is missing, or older than both times together, is filled as
    /// [`get_or_set_with`](Cache::get_or_set_with) does.
    ///
    /// The new value is stored only if the old value is still there. It is not stored after a
    /// concurrent write, delete or clear, nor when both times are over before `fill` returns.
    ///
    /// For all other reads, the item expires at the end of both times. With [`Expires::Never`] a
    /// value never becomes stale. `stale` counts in milliseconds.
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

    /// [`get_or_refresh_with`](Cache::get_or_refresh_with) for a function that can fail. The error
    /// of a failed refresh is returned to the caller that ran the function. The old value stays,
    /// for [`get`](Cache::get) and for the other callers, and the next caller tries again.
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
        let stale = whole_millis(stale).min(MAX_STALE);
        let lasting = self.with_timeout(longer(self.defaults.expires, stale));
        let Some((meta, value)) = self.stale(bytes, stale)? else {
            // Fresh or missing: read, counted and filled as usual.
            return lasting.get_or_try_set_with(key, fill);
        };
        let lease = match self.tier.begin_refresh(bytes, self.defaults.lease) {
            Ok(Some(token)) => Lease::to_refresh(&self.tier, bytes, token),
            // Another caller is refreshing, or a stopped writer holds the lock: the old value is
            // good enough.
            Ok(None) | Err(Error::Timeout { .. }) => return Ok(value),
            Err(e) => return Err(e.into()),
        };
        // Another caller may have refreshed since the first read.
        let mut now = Vec::new();
        if let Ok(Some(later)) = self.tier.get(bytes, Touch::Unseen, &mut now)
            && later.expires_millis != meta.expires_millis
            && !later.ends_within(stale)
        {
            return Ok(now);
        }
        let new = fill(key)?.into();
        // A write, delete or clear meanwhile takes precedence.
        let stored = lasting.compare_and_swap(bytes, &value, &new);
        drop(lease);
        Ok(given(new, stored)?)
    }

    /// The value of a key that is past its own time, and what is known of it.
    fn stale(&self, key: &[u8], stale: u64) -> Result<Option<(Meta, Vec<u8>)>> {
        let found = self.tier.get(key, Touch::Unseen, &mut ())?;
        let Some(meta) = found.filter(|meta| meta.ends_within(stale)) else { return Ok(None) };
        // Counts the read; the value may be newer than the one of the first read.
        Ok(self.get(key)?.map(|value| (meta, value)))
    }
}

/// The expiry `by` milliseconds later.
fn longer(expires: Expires, by: u64) -> Expires {
    match expires {
        Expires::Never => Expires::Never,
        // As of the time without it, the end is a whole second.
        Expires::In(secs) if by.is_multiple_of(1000) => Expires::In(secs.saturating_add(by / 1000)),
        Expires::In(secs) => Expires::InMillis(secs.saturating_mul(1000).saturating_add(by)),
        Expires::At(time) => Expires::AtMillis(time.saturating_mul(1000).saturating_add(by)),
        Expires::InMillis(millis) => Expires::InMillis(millis.saturating_add(by)),
        Expires::AtMillis(time) => Expires::AtMillis(time.saturating_add(by)),
    }
}
