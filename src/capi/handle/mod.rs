//! The short C interface of ucache.h, `ucache_get` and so on: an opaque handle, lengths of type
//! `size_t`, the caller's buffers, one set of statuses. It knows no uWSGI; its caches are in no
//! list of a host.
//!
//! # Safety
//!
//! What every function asks of its caller, beside the words of [`crate::capi`]:
//!
//! - A *handle* is NULL or came from `ucache_open`, `ucache_attach` or `ucache_named`, and was not
//!   closed.
//! - A *buffer* is NULL with a size of 0, or as many writable bytes as the size beside it says. The
//!   key may lie in it, no other argument does.
//! - A *callback* returns, or ends its thread (see `callback`): it neither throws through its
//!   caller nor jumps over it.

mod call;
mod callback;
pub mod error;
mod figures;
pub mod lease;
pub mod many;
pub mod memory;
mod nodes;
pub mod open;
pub mod read;
pub mod stats;
pub mod status;
pub mod store;
pub mod walk;
pub mod write;

pub use lease::ucache_lease;
pub use many::ucache_read;
pub use memory::ucache_memory;
pub use open::ucache;
pub use stats::ucache_stats;
