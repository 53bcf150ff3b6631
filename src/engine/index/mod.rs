//! The index: buckets, entries, lookups, under a seqlock.
#![forbid(unsafe_code)]

pub(in crate::engine) mod bucket;
pub(in crate::engine) mod entry;
pub(in crate::engine) mod hash;
pub(in crate::engine) mod liveness;
pub(in crate::engine) mod lookup;
mod numbers;
pub(in crate::engine) mod places;
mod runs;
