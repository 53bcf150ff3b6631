//! Shards: their locks, guards and expiry hints.
#![forbid(unsafe_code)]

pub(in crate::engine) mod expiry;
pub(in crate::engine) mod guard;
