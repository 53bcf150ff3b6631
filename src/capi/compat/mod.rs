//! The cache functions of `uwsgi.h`, by their names and with their contracts.

pub mod extras;
pub mod keys;
pub mod lifecycle;
pub mod lock;
pub mod magic;
pub mod raw;
pub(crate) mod remote;
pub mod sweep;
pub mod sync;
