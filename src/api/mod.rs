//! The safe Rust face of the engine: handles, their defaults, and the names of this process.
#![forbid(unsafe_code)]

mod builder;
mod cache;
mod expires;
mod fill;
mod keys;
mod read;
mod registry;
mod sink;
mod sweeper;
mod upkeep;
mod write;

pub use builder::Builder;
pub use cache::Cache;
pub use keys::Keys;
pub use sweeper::Sweeper;
