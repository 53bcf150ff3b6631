//! Reading.
#![forbid(unsafe_code)]

use super::{
    Cache,
    sink::{IntSink, SliceSink, with_buffer},
};
use crate::{
    engine::Touch,
    error::{Error, Result},
};

/// # Reading
///
/// Reads take no lock and never wait. An expired item is a miss from the second it expires in.
impl Cache {
    /// Whether the key is stored. It is neither counted as a hit or miss in [`stats`](Cache::stats)
    /// nor as a use for [LRU](super::Builder::evict).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("contains").items(10).build()?;
    /// cache.set("k", "v")?;
    /// assert!(cache.contains("k"));
    /// assert!(!cache.contains("l"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "exists")]
    #[doc(alias = "contains_key")]
    #[must_use]
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        self.tier.exists(key.as_ref()).is_some()
    }

    /// A copy of the value.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] if there is no memory for the copy.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get").items(10).build()?;
    /// cache.set("k", [0, 159, 146, 150])?;
    /// assert_eq!(cache.get("k")?, Some(vec![0, 159, 146, 150]));
    /// assert_eq!(cache.get("l")?, None);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::new();
        let found = self.tier.get(key.as_ref(), Touch::Yes, &mut value)?;
        Ok(found.map(|_| value))
    }

    /// Calls `read` with the value and returns the result of `read`; `None` = no such key.
    ///
    /// The value is a copy in a buffer that the calling thread reuses, so that usually nothing is
    /// allocated. `read` may use the cache freely. (moka's `get_with` corresponds to
    /// [`get_or_set_with`](Cache::get_or_set_with).)
    ///
    /// # Errors
    /// As [`get`](Cache::get).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get_with").items(10).build()?;
    /// cache.set("list", "1,2,3")?;
    /// let sum = cache.get_with("list", |value| {
    ///     value.split(|&b| b == b',').map(|digit| i32::from(digit[0] - b'0')).sum::<i32>()
    /// })?;
    /// assert_eq!(sum, Some(6));
    /// assert_eq!(cache.get_with("none", |value| value.len())?, None);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_with<R>(&self, key: impl AsRef<[u8]>, read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        with_buffer(|buffer| {
            let found = self.tier.get(key.as_ref(), Touch::Yes, buffer)?;
            Ok(found.map(|_| read(buffer)))
        })
    }

    /// Copies the value to the front of `buffer` and returns its length. Allocates nothing: the
    /// fastest read.
    ///
    /// If the result is not a length, the content of `buffer` is unspecified afterwards. The part
    /// of `buffer` behind that length is always unspecified.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] names the size that the value needs.
    ///
    /// ```
    /// use ucache::Error;
    ///
    /// let cache = ucache::Cache::builder("get_into").items(10).build()?;
    /// cache.set("k", "value")?;
    ///
    /// let mut buffer = [0; 64];
    /// let len = cache.get_into("k", &mut buffer)?.expect("was set");
    /// assert_eq!(&buffer[..len], b"value");
    ///
    /// let too_small = cache.get_into("k", &mut [0; 3]);
    /// assert!(matches!(too_small, Err(Error::BufferTooSmall { needed: 5, len: 3 })));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_into(&self, key: impl AsRef<[u8]>, buffer: &mut [u8]) -> Result<Option<usize>> {
        let mut sink = SliceSink { buffer, len: 0 };
        match self.tier.get(key.as_ref(), Touch::Yes, &mut sink) {
            Ok(found) => Ok(found.map(|_| sink.len)),
            Err(Error::BufferTooSmall { .. }) => {
                Err(Error::BufferTooSmall { needed: sink.len, len: sink.buffer.len() })
            }
            Err(error) => Err(error),
        }
    }

    /// The value as text.
    ///
    /// # Errors
    /// [`Error::NotUtf8`]; otherwise as [`get`](Cache::get).
    ///
    /// ```
    /// use ucache::Error;
    ///
    /// let cache = ucache::Cache::builder("get_str").items(10).build()?;
    /// cache.set("k", "naïve")?;
    /// assert_eq!(cache.get_str("k")?.as_deref(), Some("naïve"));
    ///
    /// cache.set("bytes", [0xff])?;
    /// assert!(matches!(cache.get_str("bytes"), Err(Error::NotUtf8)));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_str(&self, key: impl AsRef<[u8]>) -> Result<Option<String>> {
        self.get(key)?.map(|value| String::from_utf8(value).map_err(|_| Error::NotUtf8)).transpose()
    }

    /// The value as the number that [`incr`](Cache::incr), [`decr`](Cache::decr),
    /// [`mul`](Cache::mul) and [`div`](Cache::div) keep: 8 bytes, two's complement, in the
    /// machine's byte order. To store one, use [`i64::to_ne_bytes`].
    ///
    /// Digits are text, not a number: `set("k", "7")` is for [`get_str`](Cache::get_str). Text of
    /// exactly 8 bytes cannot be told from a number and is taken for one. (uWSGI's `cache_num`,
    /// which uwsgiconf's `as_int=True` calls, answers 0 for a missing key and for text alike, so
    /// that a `default` or `setter` beside it is never used.)
    ///
    /// # Errors
    /// [`Error::NotANumber`] if the value does not have 8 bytes.
    ///
    /// ```
    /// use ucache::Error;
    ///
    /// let cache = ucache::Cache::builder("get_int").items(10).build()?;
    /// cache.set("n", 41_i64.to_ne_bytes())?;
    /// cache.incr("n", 1)?;
    /// assert_eq!(cache.get_int("n")?, Some(42));
    /// assert_eq!(cache.get_int("missing")?.unwrap_or(0), 0);
    ///
    /// cache.set("digits", "42")?;
    /// assert!(matches!(cache.get_int("digits"), Err(Error::NotANumber { len: 2 })));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "num")]
    pub fn get_int(&self, key: impl AsRef<[u8]>) -> Result<Option<i64>> {
        if self.tier.local().is_none() {
            let Some(value) = self.get(key)? else { return Ok(None) };
            return self
                .tier
                .number_of(&value)
                .map(Some)
                .ok_or(Error::NotANumber { len: value.len() as u64 });
        }
        let mut sink = IntSink::default();
        if self.tier.get(key.as_ref(), Touch::Yes, &mut sink)?.is_none() {
            return Ok(None);
        }
        if sink.len != sink.bytes.len() {
            return Err(Error::NotANumber { len: sink.len as u64 });
        }
        Ok(Some(i64::from_ne_bytes(sink.bytes)))
    }

    /// A copy of the value, or `default` for a missing key, which stays missing.
    ///
    /// # Errors
    /// As [`get`](Cache::get).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get_or").items(10).build()?;
    /// assert_eq!(cache.get_or("theme", "light")?, b"light");
    /// cache.set("theme", "dark")?;
    /// assert_eq!(cache.get_or("theme", "light")?, b"dark");
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_or(&self, key: impl AsRef<[u8]>, default: impl Into<Vec<u8>>) -> Result<Vec<u8>> {
        Ok(self.get(key)?.unwrap_or_else(|| default.into()))
    }

    /// The number, or `default` for a missing key, which stays missing.
    ///
    /// # Errors
    /// As [`get_int`](Cache::get_int).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get_int_or").items(10).build()?;
    /// assert_eq!(cache.get_int_or("hits", -1)?, -1);
    /// cache.incr("hits", 1)?;
    /// assert_eq!(cache.get_int_or("hits", -1)?, 1);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_int_or(&self, key: impl AsRef<[u8]>, default: i64) -> Result<i64> {
        Ok(self.get_int(key)?.unwrap_or(default))
    }
}
