//! The process behind the C functions: its caches, their options and C structs, the log, and the
//! network.

pub(crate) mod cache;
pub mod caches;
pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod env;
#[cfg(test)]
mod fuzz;
pub(crate) mod hash;
pub(crate) mod kvlist;
pub(crate) mod log_rate;
mod mem;
pub(crate) mod network;
pub(crate) mod options;
pub(crate) mod preload;
mod remote;
pub(crate) mod report;
pub(crate) mod standalone;
pub(crate) mod units;
pub(crate) mod view;

/// Whether `text` defines a cache. For the fuzz target, hence with checks of what it is parsed to.
#[doc(hidden)]
#[must_use]
pub fn check_definition(text: &[u8]) -> bool {
    let Ok(settings) = options::parse(text, options::Defaults::default()) else { return false };
    let config = &settings.config;
    assert!(settings.items > 0 && settings.blocks >= settings.items && config.check().is_ok());
    assert!(!settings.name.is_empty() && !settings.name.to_bytes().contains(&b'@'));
    true
}
