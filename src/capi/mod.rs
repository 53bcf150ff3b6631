//! The C library: the 34 cache functions of `uwsgi.h`, the structs they share with C, and the
//! handle API.
//!
//! # Safety
//!
//! Requirements of every exported function, unless its own text says otherwise:
//!
//! - A *key* or *value* is a pointer to as many readable bytes as the accompanying length says.
//!   NULL or a length of 0 is allowed and makes the call fail.
//! - A *name* is NULL or a NUL-terminated string. NULL and "" name the first cache.
//! - An *out* parameter is NULL or points to writable, aligned memory of its type.
//! - A *cache* is NULL or points to a `struct uwsgi_cache`; one not created by this library is
//!   refused.
//!
//! Every function may be called from any thread and from any process forked after the cache was
//! created. None lets a panic escape. None calls another exported one: inside a host that exports
//! the same names, such a call would reach the host's function.

mod arg;
mod buffer;
pub mod compat;
mod exit;
pub mod handle;
#[cfg(feature = "header")]
mod header;
pub mod host;
pub(crate) mod panic;
pub mod types;
