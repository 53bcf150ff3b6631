//! The C library: the 34 cache functions of `uwsgi.h`, the structs they share with C, and what they need.
//!
//! # Safety
//!
//! What every exported function asks of its caller, unless its own text says otherwise:
//!
//! - A *key* or *value* is a pointer to as many readable bytes as the length beside it says. NULL or a length of
//!   0 is allowed and makes the call fail.
//! - A *name* is NULL or a NUL-terminated string. NULL and "" name the first cache.
//! - An *out* parameter is NULL or points to writable, aligned memory of its type.
//! - A *cache* is NULL or points to a `struct uwsgi_cache`: one that this library made is used, any other is refused.
//!
//! Every function may be called from any thread and from any process forked after the cache was made. None lets
//! a panic out. None is called by another one: inside a host that exports the same names such a call would land
//! in the host's function.

mod arg;
mod buffer;
pub(crate) mod cache;
pub(crate) mod env;
pub mod extras;
pub(crate) mod guard;
pub(crate) mod hash;
#[cfg(feature = "header")]
mod header;
pub mod keys;
mod kvlist;
mod leave;
pub mod lifecycle;
pub mod lock;
pub mod magic;
mod mem;
pub(crate) mod options;
mod peer;
mod preload;
pub mod raw;
pub mod remote;
mod report;
pub mod short;
pub(crate) mod shown;
pub(crate) mod standalone;
pub mod sweep;
pub mod sync;
mod thread;
pub mod types;
mod units;
pub(crate) mod view;
mod write;
