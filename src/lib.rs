//! ucache: a crash-safe shared-memory cache. A drop-in for uWSGI's caching subsystem, a C library, a Rust crate.
#![cfg_attr(not(test), warn(clippy::disallowed_macros))]

pub mod docs;
#[doc(hidden)]
pub mod engine;
mod error;
mod os;
#[doc(hidden)]
pub mod shm;

pub use error::{Error, Result};

/// Its programs run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
