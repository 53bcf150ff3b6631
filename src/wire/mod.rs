//! The wire format of uWSGI's cache protocol: packets, the commands in them, datagrams, and whole
//! caches as a stream.
//!
//! Everything from the network is untrusted until parsed. The codecs are safe code without I/O;
//! those of streams read from any [`Read`](std::io::Read).
#![forbid(unsafe_code)]

pub mod command;
pub mod datagram;
pub mod flags;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod image;
pub mod packet;
#[cfg(any(feature = "cli", feature = "uwsgi"))]
pub(crate) mod page;
pub mod records;
pub(crate) mod shown;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod uwsgi_hash;
