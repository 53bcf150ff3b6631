//! The hash functions that uWSGI offers by name. The engine hashes with its own keyed function;
//! these are for `hash->name` and for images that a native peer loads.

use crate::engine::{djb33x, murmur2};

/// The values of `hash=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// `djb33x`, the default.
    #[default]
    Djb33x,
    /// `murmur2`
    Murmur2,
    /// `random`
    Random,
    /// `rand`
    Rand,
    /// `rr`
    RoundRobin,
}

impl Algorithm {
    /// The algorithm with this name.
    pub(crate) fn by_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"djb33x" => Self::Djb33x,
            b"murmur2" => Self::Murmur2,
            b"random" => Self::Random,
            b"rand" => Self::Rand,
            b"rr" => Self::RoundRobin,
            _ => return None,
        })
    }

    /// Hashes `key`. The three names that are not functions of the key hash as `djb33x`.
    pub(crate) fn hash(self, key: &[u8]) -> u32 {
        match self {
            Self::Murmur2 => murmur2(key),
            _ => djb33x(key),
        }
    }
}
