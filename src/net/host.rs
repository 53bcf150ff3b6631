//! The interface to the process that runs the network code.

use std::{any::Any, fmt::Debug, io, panic, time::Duration};

use crate::{engine::Expires, near::Tier, os::worker, wire::image::Geometry};

/// A cache that remote requests and copies access.
pub trait Served: Sync {
    /// The cache itself, to read from.
    fn tier(&self) -> &Tier;
    /// The geometry of its native image.
    fn geometry(&self) -> Geometry;
    /// Stores a value, or performs arithmetic with it as the operand; `flags` as in
    /// [`wire::flags`](crate::wire::flags). `false` = refused.
    fn store(&self, key: &[u8], value: &[u8], expires: u64, flags: u64) -> bool;
    /// Removes a key; `false` = it was not stored.
    fn remove(&self, key: &[u8]) -> bool;
    /// Removes all keys; `false` = refused.
    fn clear(&self) -> bool;
}

/// The process: its caches, its log and its limits.
pub trait Host: Sync + Debug {
    /// The cache with this name; an empty name means the first cache.
    fn cache(&self, name: &[u8]) -> Option<&'static dyn Served>;
    /// Writes one line (without its end) to the log.
    fn log(&self, line: &str);
    /// Maximum time to wait for a peer.
    fn timeout(&self) -> Duration;
    /// Whether the calling thread may use the system's resolver for the server of a copy. It may
    /// not if another thread forks processes that would inherit the resolver's locks.
    fn may_look_up(&self) -> bool;
    /// Called when a thread of this library has ended by a panic.
    fn panicked(&self, payload: Box<dyn Any + Send>);
}

/// Starts a thread with all signals blocked. A panic ends it and is reported to the host.
pub(super) fn spawn(
    host: &'static dyn Host,
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    worker::spawn(name, move || {
        // The engine's guards keep shared data consistent: unwind safety holds.
        if let Err(payload) = panic::catch_unwind(panic::AssertUnwindSafe(body)) {
            host.panicked(payload);
        }
    })
}

/// Unix times below this (2001-09-09) are not meant as such: a native peer with `purge_lru` sends a
/// relative TTL instead of an absolute time.
const EARLIEST_TIME: u64 = 1_000_000_000;

/// Interprets an expiry sent by a peer as a Unix time; 0 = never.
pub(crate) fn absolute(expires: u64) -> Expires {
    match expires {
        0 => Expires::Never,
        1..EARLIEST_TIME => Expires::In(expires),
        _ => Expires::At(expires),
    }
}

/// The Unix time at which an item stored now will expire; 0 = never.
pub(crate) fn ends(expires: Expires, now: u64) -> u64 {
    match expires {
        Expires::Never => 0,
        Expires::In(ttl) => now.saturating_add(ttl),
        Expires::At(time) => time.max(1),
        Expires::InMillis(ttl) => now.saturating_add(ttl.div_ceil(1000)),
        Expires::AtMillis(time) => time.div_ceil(1000).max(1),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A process without caches or a log.
    #[derive(Debug)]
    pub(crate) struct NoHost;

    impl Host for NoHost {
        fn cache(&self, _: &[u8]) -> Option<&'static dyn Served> {
            None
        }

        fn log(&self, _: &str) {}

        fn timeout(&self) -> Duration {
            Duration::from_secs(4)
        }

        fn may_look_up(&self) -> bool {
            true
        }

        fn panicked(&self, _: Box<dyn Any + Send>) {}
    }
}
