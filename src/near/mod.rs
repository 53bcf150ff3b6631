//! Caches with a backend: a Valkey or Redis server holds the values, for all machines.
//!
//! Reads are answered by copies, or ask the server. A worker has plain connections of its own, without any state at the
//! server: it may be killed at any instruction, and a child of a fork makes its own. Nothing is
//! sent twice that may have been executed, but for reads. No call waits longer than
//! `backend_timeout`.
//!
//! [`Tier`] is a cache's engine or its backend, with the operations of
//! [`Engine`](crate::engine::Engine) under the same names; `api`, `capi` and the command hold one.
//! Above the engine, below them. `src/docs/backend.md` has the table of commands.
#![forbid(unsafe_code)]

mod options;
#[cfg(feature = "redis")]
mod redis;
mod tier;

#[cfg(feature = "capi")]
pub(crate) use options::without_credentials;
pub use options::{NAMES, OnDown, Options};
#[cfg(feature = "redis")]
pub use redis::{Backed, Backend, Calculation, Figures, Found, Limits, Numbers, Old, Scan, Settings, Ttl};
pub use tier::{Position, Tier, WeakTier};

/// The backend that no cache has in this build.
#[cfg(not(feature = "redis"))]
#[derive(Clone, Copy, Debug)]
pub enum Backed {}

#[cfg(not(feature = "redis"))]
impl Backed {
    /// # Errors
    /// None.
    pub fn get_all<K>(&self, _keys: &[K]) -> crate::Result<Vec<Option<Vec<u8>>>> {
        match *self {}
    }
}

#[cfg(any(feature = "capi", feature = "redis"))]
use crate::{engine::Sink, shm::SharedBytes};

/// Gives bytes that are not shared to a sink; `false` = it declined.
#[cfg(any(feature = "capi", feature = "redis"))]
pub(crate) fn give<S: Sink>(bytes: &[u8], sink: &mut S) -> bool {
    // Sinks copy whole words.
    let word = |part: &[u8]| {
        let mut word = [0; 8];
        word.iter_mut().zip(part).for_each(|(to, &from)| *to = from);
        u64::from_ne_bytes(word)
    };
    let words: Vec<_> = bytes.chunks(8).map(word).collect();
    sink.take(&SharedBytes::of(&words, bytes.len()))
}
