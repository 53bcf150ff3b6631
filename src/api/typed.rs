//! Values of any type that serde knows, as JSON.
#![forbid(unsafe_code)]

use serde::{Serialize, de::DeserializeOwned};

use super::Cache;
use crate::{
    engine::{Expires, Stored},
    error::{Error, Result},
};

/// # Typed values
///
/// With the feature `serde`. Values are JSON, which every other language that shares the cache reads, too.
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
    /// cache.update("ages", r#"{"alice":31}"#)?; // as another program may have written it
    /// let ages: Option<BTreeMap<String, u32>> = cache.get_as("ages")?;
    /// assert_eq!(ages.unwrap()["alice"], 31);
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn get_as<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get(key)?.map(|json| parse(&json)).transpose()
    }

    /// [`set`](Cache::set) of a `T`.
    ///
    /// # Errors
    /// [`Error::Type`] if the value has no JSON (a map whose keys are no strings); otherwise as [`set`](Cache::set).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("set_as").items(10).build()?;
    /// assert!(cache.set_as("primes", &[2, 3, 5, 7])?);
    /// assert_eq!(cache.get_as("primes")?, Some(vec![2, 3, 5, 7]));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn set_as<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<bool> {
        self.set(key, json(value)?)
    }

    /// [`update`](Cache::update) of a `T`.
    ///
    /// # Errors
    /// As [`set_as`](Cache::set_as).
    ///
    /// ```
    /// let cache = ucache::Cache::builder("update_as").items(10).build()?;
    /// cache.update_as("on", &true)?;
    /// assert_eq!(cache.get_as("on")?, Some(true));
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn update_as<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<Stored> {
        self.update(key, json(value)?)
    }

    /// [`update_with`](Cache::update_with) of a `T`.
    ///
    /// # Errors
    /// As [`set_as`](Cache::set_as).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = ucache::Cache::builder("update_as_with").items(10).build()?;
    /// cache.update_as_with("cart", &["apple"], Duration::from_secs(3600))?;
    /// # Ok::<(), ucache::Error>(())
    /// ```
    pub fn update_as_with<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: impl Into<Expires>,
    ) -> Result<Stored> {
        self.update_with(key, json(value)?, expires)
    }

    /// [`get_or_set_with`](Cache::get_or_set_with) of a `T`.
    ///
    /// # Errors
    /// [`Error::Type`] if what is stored is not the JSON of a `T`, or the new value has none; otherwise as
    /// [`get_or_set_with`](Cache::get_or_set_with).
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
    serde_json::to_vec(value).map_err(|e| Error::Type(e.to_string()))
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|e| Error::Type(e.to_string()))
}
