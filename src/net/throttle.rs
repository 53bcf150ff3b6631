//! Log lines that a peer can cause: at most one of each kind in ten seconds, with a count of those
//! omitted.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::os::clock::coarse_unix_secs;

const INTERVAL_SECS: u64 = 10;

/// Rate limit of one kind of line. Two atomics and no lock, so a fork cannot copy it locked.
#[derive(Debug)]
pub(crate) struct Throttle {
    next: AtomicU64,
    dropped: AtomicU64,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Passes the line to `log`, unless one of its kind was logged recently.
    pub(crate) fn log(&self, log: impl FnOnce(&str), line: impl FnOnce() -> String) {
        if let Some(dropped) = self.pass(coarse_unix_secs()) {
            let more = if dropped == 0 { String::new() } else { format!(" ({dropped} more like this)") };
            log(&format!("{}{more}", line()));
        }
    }

    fn pass(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        // A clock set back by more than the interval allows a line as well.
        let due = now >= next || next - now > INTERVAL_SECS;
        if due && self.next.compare_exchange(next, now + INTERVAL_SECS, Relaxed, Relaxed).is_ok() {
            return Some(self.dropped.swap(0, Relaxed));
        }
        self.dropped.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_with_a_count() {
        let t = Throttle::new();
        assert_eq!(t.pass(100), Some(0));
        assert_eq!(t.pass(100), None);
        assert_eq!(t.pass(100 + INTERVAL_SECS - 1), None);
        assert_eq!(t.pass(100 + INTERVAL_SECS), Some(2));
        assert_eq!(t.pass(5), Some(0), "the clock went back");
    }
}
