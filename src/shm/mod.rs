//! The region: the only raw memory of the crate. Other layers see offsets, atomics and copies, never pointers.

pub(crate) mod block;
mod cells;
mod copy;
mod few;
pub(crate) mod layout;
pub(crate) mod marks;
pub mod order;
mod piece;
mod region;
mod size_class;
pub(crate) mod span;
mod tags;

pub(crate) use cells::Home;
pub(crate) use few::few;
pub(crate) use piece::{HeaderLen, Line, ask_for, first_slot};
pub use region::Source;
pub(crate) use region::{Region, sync};
