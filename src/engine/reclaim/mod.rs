//! Removing items: one, or all dead ones of a shard.
#![forbid(unsafe_code)]

pub(in crate::engine) mod compact;
pub(in crate::engine) mod reap;
pub(in crate::engine) mod remove;
