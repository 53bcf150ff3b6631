//! The safe Rust face of the engine: handles, their defaults, and the names of this process.
#![forbid(unsafe_code)]

mod builder;
mod cache;
mod expires;
mod fill;
mod keys;
mod many;
mod place;
mod read;
mod refresh;
mod registry;
mod sink;
mod swap;
mod sweeper;
#[cfg(feature = "serde")]
mod typed;
mod upkeep;
mod write;

pub use builder::Builder;
pub use cache::Cache;
pub use keys::{Entries, Entry, Keys};
pub use sweeper::Sweeper;
