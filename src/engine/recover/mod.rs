//! Rebuilding a shard from its index after a death, a panic or an unclean open.
#![forbid(unsafe_code)]

pub(in crate::engine) mod orphans;
pub(in crate::engine) mod rebuild;
pub(in crate::engine) mod validate;
