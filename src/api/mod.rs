//! The safe Rust interface to the engine: handles, their defaults, and this process's registry of
//! names.
#![forbid(unsafe_code)]

mod backend;
mod batch;
mod builder;
mod cache;
mod cas;
mod counter;
mod defaults;
mod expires;
mod get_or_set;
mod keys;
mod lease;
mod maintenance;
mod read;
mod refresh;
mod registry;
mod sink;
mod store;
mod sweeper;
#[cfg(feature = "serde")]
mod typed;
mod write;

pub use backend::Backend;
pub use builder::Builder;
pub use cache::Cache;
#[cfg(feature = "cli")]
pub(crate) use expires::whole_seconds;
pub use keys::{Entries, Entry, Keys};
pub use sweeper::Sweeper;
