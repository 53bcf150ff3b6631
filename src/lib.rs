//! ucache: a crash-safe shared-memory cache. A drop-in for uWSGI's caching subsystem, a C library, a Rust crate.
#![cfg_attr(not(test), warn(clippy::disallowed_macros))]

#[doc(hidden)]
pub mod engine;
mod error;
mod os;
#[doc(hidden)]
pub mod shm;
#[cfg(feature = "uwsgi")]
mod uwsgi;

pub use error::{Error, Result};
