//! The cache protocol over sockets: the client of `cache@host:port`, the server side (modifier
//! 111), UDP replication between nodes, and the initial copy from another server (`sync=`).
//!
//! Every read is bounded in bytes and in time. A fault is an error or one rate-limited log line,
//! never a crash. [`host::Host`] is the interface to the surrounding process.
#![forbid(unsafe_code)]

mod append_list;
pub mod client;
pub(crate) mod conn;
pub(crate) mod fork_sockets;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod handler;
pub mod host;
pub mod keepalive;
pub(crate) mod pool;
#[cfg(any(feature = "cli", feature = "uwsgi"))]
pub(crate) mod purge;
pub(crate) mod replicate;
pub(crate) mod sync;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod throttle;
