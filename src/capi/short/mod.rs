//! The short C interface of ucache.h, `ucache_get` and so on: an opaque handle, lengths of type `size_t`, the caller's
//! buffers, one set of statuses. It knows no uWSGI; its caches are in no list of a host.
//!
//! # Safety
//!
//! What every function asks of its caller, beside the words of [`crate::capi`]:
//!
//! - A *handle* is NULL or came from `ucache_open`, `ucache_attach` or `ucache_named`, and was not closed.
//! - A *buffer* is NULL with a size of 0, or as many writable bytes as the size beside it says. The key may lie in it, no
//!   other argument does.
//! - A *callback* returns, or ends its thread (see `callback`): it neither throws through its caller nor jumps over it.

mod callback;
pub mod detail;
pub mod handle;
mod nodes;
pub mod read;
pub mod stats;
pub mod status;
pub mod walk;
pub mod write;

pub use handle::ucache;
pub use stats::ucache_stats;
