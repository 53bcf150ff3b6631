//! What is behind the interface: how it works, where it differs from uWSGI, what it promises, how fast it is, what
//! changed.
//!
//! The pages of the command and of what users asked for are about more than the crate.

#[doc = include_str!("design.md")]
pub mod design {}

#[doc = include_str!("compat.md")]
pub mod compat {}

#[doc = include_str!("reliability.md")]
pub mod reliability {}

#[doc = include_str!("changelog.md")]
pub mod changelog {}

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("command.md")]
pub mod command {}

#[doc = include_str!("requests.md")]
pub mod requests {}

#[doc = include_str!("performance.md")]
pub mod performance {}
