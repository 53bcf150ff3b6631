//! The network half of the C surface: caches behind `cache@host:port`, UDP replication between nodes, the initial
//! copy from another server (`sync=`), and what answers such requests (modifier 111).
//!
//! Everything that comes from the network is hostile until parsed: the codecs ([`packet`], [`magic`], [`datagram`],
//! [`dump`]) are safe code without I/O, every read has a bound in bytes and in time, and a fault is a miss or -1
//! with one rate-limited log line, never a crash.

pub(crate) mod client;
pub mod datagram;
pub mod dump;
pub(crate) mod exports;
#[cfg(test)]
mod fuzz;
mod inherit;
mod list;
pub(crate) mod live;
pub mod magic;
pub(crate) mod net;
pub mod packet;
mod pool;
pub mod serve;
pub mod service;
pub(crate) mod sync;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod throttle;
pub(crate) mod udp;

use crate::engine::Expires;

/// Unix times below this (2001-09-09) cannot be meant: a native peer with `purge_lru` sends the relative TTL where an
/// absolute time belongs.
const EARLIEST_TIME: u64 = 1_000_000_000;

/// The expiry that a peer sent as a Unix time; 0 = never.
pub(crate) fn absolute(expires: u64) -> Expires {
    match expires {
        0 => Expires::Never,
        1..EARLIEST_TIME => Expires::In(expires),
        _ => Expires::At(expires),
    }
}

/// The Unix time at which an item that is stored now will expire; 0 = never.
pub(crate) fn ends(expires: Expires, now: u64) -> u64 {
    match expires {
        Expires::Never => 0,
        Expires::In(ttl) => now.saturating_add(ttl),
        Expires::At(time) => time.max(1),
    }
}
