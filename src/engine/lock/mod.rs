//! Taking the locks of one shard, of all shards in turn, or exclusively.
#![forbid(unsafe_code)]

pub(in crate::engine) mod enter;
pub(in crate::engine) mod exclusive;
pub(in crate::engine) mod visit;
