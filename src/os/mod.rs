//! The operating system: mappings, robust mutexes, clocks, files, process identity. The only system calls below
//! the C surface.

pub(crate) mod cancel;
pub(crate) mod clock;
pub(crate) mod file;
mod filesystem;
pub(crate) mod futex;
pub(crate) mod guard;
pub(crate) mod huge;
pub(crate) mod local;
pub(crate) mod map;
pub(crate) mod mutex;
pub(crate) mod pipe;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod thread;
