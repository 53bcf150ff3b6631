//! The options of a cache with a backend, as the user wrote them.

use std::time::Duration;

#[cfg(feature = "redis")]
use super::redis::Settings;
use crate::{
    engine::{Config, Eviction},
    error::{Error, Result},
};

/// What reads answer while the server cannot be asked. Writes always fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// A miss.
    #[default]
    Miss,
    /// An error.
    Error,
    /// This machine's copy for so long beyond `max_stale`, whole seconds; a miss where there is
    /// none.
    Stale(Duration),
}

/// The options as the user wrote them; nothing is checked before [`Options::check`].
#[derive(Clone, Default)]
pub struct Options {
    /// Names and values, in the order given.
    given: Vec<(&'static str, String)>,
}

/// By hand: the URL and `backend_secret` may hold a password.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("prefix", &self.get("prefix")).finish_non_exhaustive()
    }
}

/// Names of the options.
pub const NAMES: [&str; 21] = [
    "backend",
    "backend_user",
    "backend_secret",
    "sentinel_user",
    "sentinel_secret",
    "ca",
    "cert",
    "key",
    "tls_name",
    "insecure",
    "backend_timeout",
    "connect_timeout",
    "prefix",
    "near",
    "on_down",
    "numbers",
    "clear",
    "tracking",
    "max_stale",
    "l1_ttl",
    "negative",
];

impl Options {
    /// Sets an option by its name; `false` = no option has that name.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let known = NAMES.into_iter().find(|&known| known == name);
        self.given.extend(known.map(|name| (name, value.to_owned())));
        known.is_some()
    }

    /// The value given last for this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().rfind(|(given, _)| *given == name).map(|(_, value)| &value[..])
    }

    /// Checks everything and reads the secret; `None` = no backend is requested.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] says which option is wrong and what to write.
    #[cfg(feature = "redis")]
    pub fn check(&self, cache: &str, on_down: OnDown) -> Result<Option<Settings>> {
        self.check_backend()?.then(|| Settings::check(self, cache, on_down)).transpose()
    }

    /// Refuses a backend where none can be.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    #[cfg(not(feature = "redis"))]
    pub(super) fn check_without(&self) -> Result<()> {
        if self.check_backend()? {
            return Err(invalid(
                "backend",
                "redis",
                "this build of ucache has no backends: build it with the feature redis",
            ));
        }
        Ok(())
    }

    /// Whether a backend is requested, validly or not.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.get("backend").is_some()
    }

    /// Adapts a region to the copies that it is to hold: it evicts, and it keeps nothing longer than
    /// the server does. `evict`: the policy was chosen by the user.
    ///
    /// # Errors
    /// [`Error::InvalidOption`]: a policy that evicts nothing was.
    pub(crate) fn adapt(&self, config: &mut Config, evict: bool) -> Result<()> {
        if !self.is_given() || self.get("near").is_some_and(|near| near != "1") {
            return Ok(());
        }
        if config.eviction == Eviction::None {
            if evict {
                return Err(invalid(
                    "evict",
                    "none",
                    "must evict, as in evict=s3fifo, or the cache needs near=0",
                ));
            }
            config.eviction = Eviction::S3Fifo;
        }
        config.no_expire = false;
        Ok(())
    }

    /// Whether a backend is requested.
    fn check_backend(&self) -> Result<bool> {
        if self.is_given() {
            return Ok(true);
        }
        match NAMES.into_iter().find(|name| self.get(name).is_some()) {
            None => Ok(false),
            Some(name) => Err(invalid(name, "", "has no meaning without backend=redis://...")),
        }
    }
}

/// An option that is refused.
pub(super) fn invalid(option: &'static str, value: &str, reason: &str) -> Error {
    Error::InvalidOption { option, value: value.to_owned(), reason: reason.to_owned() }
}

/// A URL as it may be logged: what stands between the scheme and the last `@` is not shown.
#[cfg(any(feature = "capi", feature = "redis"))]
pub(crate) fn without_credentials(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        (None, Some((_, rest))) => rest.to_owned(),
        _ => text.to_owned(),
    }
}
