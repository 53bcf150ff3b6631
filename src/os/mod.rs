//! The operating system: mappings, robust mutexes, clocks, files, process identity. Below the C
//! interface, all system calls are made here.

pub(crate) mod cancel;
pub(crate) mod clock;
mod descriptor;
pub(crate) mod dir_entry;
#[cfg(any(feature = "capi", feature = "redis"))]
pub(crate) mod exit;
pub(crate) mod file;
mod filesystem;
pub(crate) mod futex;
pub(crate) mod huge;
#[cfg(feature = "capi")]
pub(crate) mod local;
pub(crate) mod map;
pub(crate) mod mutex;
pub(crate) mod page;
#[cfg(feature = "capi")]
pub(crate) mod pipe;
#[cfg(any(feature = "capi", feature = "redis"))]
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod sigbus;
pub(crate) mod sparse;
#[cfg(any(feature = "capi", feature = "redis"))]
pub(crate) mod stream;
pub(crate) mod thread;
#[cfg(any(feature = "capi", feature = "redis"))]
pub(crate) mod worker;
