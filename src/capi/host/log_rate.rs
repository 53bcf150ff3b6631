//! Rate limit for the log lines of a busy cache: one line of each kind per cache and minute, for
//! all processes together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Seconds between two lines of a kind.
const INTERVAL: u64 = 60;

/// The last time of each kind of line. In shared memory; zero = never.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(super) full: Pace,
    pub(super) refused: [Pace; REASONS],
    pub(super) locked: Pace,
    pub(super) repaired: Pace,
    pub(super) cannot_grow: Pace,
}

#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Unix time of the last line, seconds.
    pub(super) at: AtomicU64,
    // The count at that time (full), or the number of lines omitted since (refused).
    pub(super) count: AtomicU64,
}

impl Pace {
    pub(super) fn due(&self, now: u64) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        // A clock set back must not silence the log.
        at == 0 || now.abs_diff(at) >= INTERVAL
    }

    /// Claims the line of this minute; only one process succeeds.
    pub(super) fn take(&self, now: u64) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        self.due(now) && self.at.compare_exchange(at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Number of refusal reasons with their own lines.
pub(super) const REASONS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_in_total() {
        let pace = Pace::default();
        assert!(pace.take(1000) && !pace.take(1000) && !pace.take(1059));
        assert!(pace.due(1060) && pace.take(1060) && !pace.due(1061));
        // After the clock was set back.
        assert!(pace.take(1000));
    }
}
