//! Arithmetic on numbers.
#![forbid(unsafe_code)]

use super::Cache;
use crate::{
    engine::{Math, SetOptions},
    error::Result,
};

/// # Counting
///
/// Each of these is one step for everybody else. The [shared errors](Cache#errors) apply.
impl Cache {
    /// Adds to a number and returns the new one.
    ///
    /// One atomic step for all processes. A missing key starts from
    /// [`math_initial`](super::Builder::math_initial) and gets the handle's
    /// [`timeout`](Cache::timeout); an existing one keeps the timeout it has, so that a counter of
    /// a minute's requests ends with the minute. The arithmetic wraps around.
    ///
    /// # Errors
    /// [`Error::NotANumber`](crate::Error::NotANumber) if the value does not have 8 bytes (see
    /// [`get_int`](Cache::get_int)); it stays as it is. Otherwise the [shared
    /// errors](Cache#errors).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("incr").items(10).build()?;
    /// assert_eq!(cache.incr("visits", 1)?, 1);
    /// assert_eq!(cache.incr("visits", 41)?, 42);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    #[doc(alias = "INCRBY")]
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
    #[doc(alias = "DECRBY")]
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

    /// Divides a number, truncating, and returns the new one; division by 0 gives 0, as in uWSGI.
    /// Otherwise as [`incr`](Cache::incr).
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

    fn math(&self, key: &[u8], op: Math, operand: i64) -> Result<i64> {
        self.tier.math(key, op, operand, &SetOptions::set(self.defaults.expires).keep_ttl())
    }
}
