//! Values of any serde type, stored as JSON.
#![forbid(unsafe_code)]

use serde::{Serialize, de::DeserializeOwned};

use super::Cache;
use crate::{
    engine::{Expires, Stored},
    error::{Error, Result},
};

/// # Typed values
///
/// Values are JSON, which every other language that shares the cache reads, too.
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl Cache {
    /// The value as a `T`.
    ///
    /// # Errors
    /// [`Error::Type`] if it is not the JSON of a `T`; otherwise as [`get`](Cache::get).
    ///
    /// ```
    /// use std::collections::BTreeMap;
    ///
    /// let cache = ucache::Cache::builder("get_as").items(10).build()?;
    /// cache.set("ages", r#"{"alice":31}"#)?; // as another program may have written it
    /// let ages: Option<BTreeMap<String, u32>> = cache.get_as("ages")?;
    /// assert_eq!(ages.unwrap()["alice"], 31);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_as<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get_with(key, parse)?.transpose()
    }

    /// [`set`](Cache::set) of a `T`.
    ///
    /// # Errors
    /// [`Error::Type`] if the value has no JSON (a map whose keys are not strings); otherwise as
    /// [`set`](Cache::set).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("set_as").items(10).build()?;
    /// cache.set_as("primes", &[2, 3, 5, 7])?;
    /// assert_eq!(cache.get_as("primes")?, Some(vec![2, 3, 5, 7]));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn set_as<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<Stored> {
        self.set(key, json(value)?)
    }

    /// [`set_with`](Cache::set_with) of a `T`.
    ///
    /// # Errors
    /// As [`set_as`](Cache::set_as).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("set_as_with").items(10).build()?;
    /// cache.set_as_with("cart", &["apple"], Duration::from_secs(3600))?;
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn set_as_with<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: impl Into<Expires>,
    ) -> Result<Stored> {
        self.set_with(key, json(value)?, expires)
    }

    /// [`add`](Cache::add) of a `T`.
    ///
    /// # Errors
    /// As [`set_as`](Cache::set_as).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("add_as").items(10).build()?;
    /// assert!(cache.add_as("on", &true)?);
    /// assert!(!cache.add_as("on", &false)?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn add_as<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<bool> {
        self.add(key, json(value)?)
    }

    /// [`add_with`](Cache::add_with) of a `T`.
    ///
    /// # Errors
    /// As [`set_as`](Cache::set_as).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("add_as_with").items(10).build()?;
    /// assert!(cache.add_as_with("owner", &["me"], Duration::from_secs(60))?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn add_as_with<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: impl Into<Expires>,
    ) -> Result<bool> {
        self.add_with(key, json(value)?, expires)
    }

    /// [`replace`](Cache::replace) of a `T`.
    ///
    /// # Errors
    /// As [`set_as`](Cache::set_as).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("replace_as").items(10).build()?;
    /// assert!(!cache.replace_as("on", &true)?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn replace_as<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<bool> {
        self.replace(key, json(value)?)
    }

    /// [`replace_with`](Cache::replace_with) of a `T`.
    ///
    /// # Errors
    /// As [`set_as`](Cache::set_as).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("replace_as_with").items(10).build()?;
    /// cache.set_as("on", &true)?;
    /// assert!(cache.replace_as_with("on", &false, Duration::from_secs(60))?);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn replace_as_with<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: impl Into<Expires>,
    ) -> Result<bool> {
        self.replace_with(key, json(value)?, expires)
    }

    /// [`get_or_set_with`](Cache::get_or_set_with) of a `T`.
    ///
    /// # Errors
    /// [`Error::Type`] if the stored value is not the JSON of a `T`, or the new value has none;
    /// otherwise as [`get_or_set_with`](Cache::get_or_set_with).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("get_or_set_as_with").items(10).build()?;
    /// let square = |n: &str| n.parse::<u64>().unwrap_or(0).pow(2);
    /// assert_eq!(cache.get_or_set_as_with("12", square)?, 144);
    /// assert_eq!(cache.get_as("12")?, Some(144));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_or_set_as_with<K, T>(&self, key: &K, fill: impl FnOnce(&K) -> T) -> Result<T>
    where
        K: AsRef<[u8]> + ?Sized,
        T: Serialize + DeserializeOwned,
    {
        parse(&self.get_or_try_set_with(key, |key| json(&fill(key)))?)
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::Type(e.into()))
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|e| Error::Type(e.into()))
}
