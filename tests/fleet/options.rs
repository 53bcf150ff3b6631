//! The options of a machine's backend.

use std::time::Duration;

use fastrand::Rng;
use ucache::{Backend, OnDown};

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) timeout: Duration,
    pub(crate) copies: Copies,
    /// A clear raises a number that keys carry.
    pub(crate) numbered: bool,
}

/// What a machine keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Copies {
    /// Nothing: every read asks the server.
    None,
    /// The server tells of changes. `stale`: how much older a copy may be while the server is down.
    Told { max_stale: Duration, stale: Option<Duration> },
    /// The server tells nothing, and copies live so long.
    Untold { ttl: Duration },
}

impl Options {
    /// Any options; most machines keep copies.
    pub(crate) fn random(url: String, numbered: bool, rng: &mut Rng) -> Self {
        let seconds = Duration::from_secs(rng.u64(1..3));
        let copies = match rng.u8(0..10) {
            0 if !numbered => Copies::None,
            1 if !numbered => Copies::Untold { ttl: seconds },
            n => Copies::Told {
                max_stale: Duration::from_millis(rng.u64(50..1000)),
                stale: (n < 4).then_some(seconds),
            },
        };
        Self { url, timeout: Duration::from_millis(rng.u64(100..500)), copies, numbered }
    }

    /// How old a value may be, nanoseconds.
    pub(crate) fn bound(&self) -> u64 {
        let bound = match self.copies {
            Copies::None => Duration::ZERO,
            Copies::Told { max_stale, stale } => max_stale + stale.unwrap_or_default(),
            Copies::Untold { ttl } => ttl,
        };
        u64::try_from(bound.as_nanos()).expect("a short time")
    }

    /// Whether a read that finds nothing says that the key is absent: otherwise the server may be
    /// down.
    pub(crate) fn misses_tell(&self) -> bool {
        !matches!(self.copies, Copies::Told { stale: Some(_), .. })
    }

    /// Failures are told from misses where that can be.
    pub(crate) fn backend(&self) -> Backend {
        let backend = Backend::url(&self.url).timeout(self.timeout).clear_by_generation(self.numbered);
        match self.copies {
            Copies::None => backend.near(false).on_down(OnDown::Error),
            Copies::Told { max_stale, stale } => {
                backend.max_stale(max_stale).on_down(stale.map_or(OnDown::Error, OnDown::Stale))
            }
            Copies::Untold { ttl } => backend.tracking(false).copy_ttl(ttl).on_down(OnDown::Error),
        }
    }
}
