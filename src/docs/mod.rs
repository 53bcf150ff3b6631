//! Documents: how ucache works, how to run it, where it differs from uWSGI's cache, what it
//! guarantees, how fast it is, what changed.
//!
//! The pages about operation, the command and user requests are about more than the crate.

#[doc = include_str!("design.md")]
pub mod design {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("operation.md")]
pub mod operation {}

#[doc = include_str!("compat.md")]
pub mod compat {}

#[doc = include_str!("reliability.md")]
pub mod reliability {}

#[doc = include_str!("../../CHANGELOG.md")]
pub mod changelog {}

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("command.md")]
pub mod command {}

#[doc = include_str!("requests.md")]
pub mod requests {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("backend.md")]
pub mod backend {}

#[doc = include_str!("python.md")]
pub mod python {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[doc = include_str!("pages.md")]
pub mod pages {}
