//! Reading.
#![forbid(unsafe_code)]

use super::{
    Cache, Keys,
    sink::{IntSink, SliceSink},
};
use crate::{
    engine::Touch,
    error::{Error, Result},
};

/// # Reading
///
/// Reads take no lock and wait for nobody. An expired item is a miss from the second it expires in.
impl Cache {
    /// Whether the key is stored. Counts neither as a hit or miss in [`stats`](Cache::stats) nor as a use for
    /// [LRU](super::Builder::purge_lru).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("contains").items(10).build()?;
    /// cache.set("k", "v")?;
    /// assert!(cache.contains("k"));
    /// assert!(!cache.contains("l"));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "exists")]
    #[must_use]
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        self.engine.exists(key.as_ref()).is_some()
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
        let found = self.engine.get(key.as_ref(), Touch::Yes, &mut value)?;
        Ok(found.map(|_| value))
    }

    /// Copies the value to the front of `buffer` and returns its length. Allocates nothing: the fastest read.
    ///
    /// Unless the result is a length, the content of `buffer` is unspecified afterwards; behind that length it always
    /// is.
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
        match self.engine.get(key.as_ref(), Touch::Yes, &mut sink) {
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

    /// The value as the number that [`incr`](Cache::incr), [`decr`](Cache::decr), [`mul`](Cache::mul) and
    /// [`div`](Cache::div) keep: 8 bytes, two's complement, in the machine's byte order. To store one, use
    /// [`i64::to_ne_bytes`].
    ///
    /// Digits are text, not a number: `set("k", "7")` is for [`get_str`](Cache::get_str). Text of exactly 8 bytes
    /// cannot be told from a number and is taken for one. (uWSGI's `cache_num`, which uwsgiconf's `as_int=True` calls,
    /// answers 0 for a missing key and for text alike, so that a `default` or `setter` beside it is never used.)
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
        let mut sink = IntSink::default();
        if self.engine.get(key.as_ref(), Touch::Yes, &mut sink)?.is_none() {
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

    /// The keys stored, in no order.
    ///
    /// Others may write during the walk: a key that is there all the time comes exactly once, one that comes or goes
    /// meanwhile may be missed. Neither a lock nor memory for all keys at once is taken.
    ///
    /// ```
    /// let cache = ucache::Cache::builder("keys").items(10).build()?;
    /// cache.set("page:1", "a")?;
    /// cache.set("page:2", "b")?;
    /// cache.set("user:1", "c")?;
    ///
    /// for key in cache.keys().filter(|key| key.starts_with(b"page:")) {
    ///     cache.delete(&key)?;
    /// }
    /// assert_eq!(cache.keys().collect::<Vec<_>>(), [b"user:1"]);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn keys(&self) -> Keys {
        Keys::new(self)
    }
}
