//! The defaults that a handle carries.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::engine::Expires;

/// The handle's defaults, for calls that do not give their own values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) expires: Expires,
    pub(super) lease: Duration,
    pub(super) patience: Duration,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { expires: Expires::In(300), lease: Duration::from_secs(30), patience: Duration::from_secs(30) }
    }
}
