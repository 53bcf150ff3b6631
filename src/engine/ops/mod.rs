//! The operations of the public interface.
#![forbid(unsafe_code)]

pub(in crate::engine) mod append;
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "for copies of values that are elsewhere"))]
pub(crate) mod beat;
pub(in crate::engine) mod cas;
pub(in crate::engine) mod clear;
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "for copies of values that are elsewhere"))]
pub(in crate::engine) mod copies;
pub(in crate::engine) mod delete;
pub(in crate::engine) mod evict;
pub(in crate::engine) mod evict_run;
pub(in crate::engine) mod get;
pub(in crate::engine) mod insert;
pub(in crate::engine) mod inspect;
pub(in crate::engine) mod lease;
pub(in crate::engine) mod limits;
pub(in crate::engine) mod make_room;
pub(in crate::engine) mod math;
pub(in crate::engine) mod memory;
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "for copies of values that are elsewhere"))]
pub(crate) mod nodes;
pub(in crate::engine) mod replace;
pub(in crate::engine) mod scan;
pub(in crate::engine) mod set;
pub(in crate::engine) mod sweep;
