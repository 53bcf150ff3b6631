//! Whether the wall clock was set back. Copies end by it: those that are there would be kept longer
//! than the server keeps their values, which need not tell of their end.

use crate::os::clock::{millis, unix_millis};

/// The difference of two clocks that count whole milliseconds varies by less, slewed or not: the
/// kernel slews both.
const ROUNDING: i64 = 3;

/// The wall clock as it was at the last look.
#[derive(Debug)]
pub(super) struct Wall {
    /// How far it was ahead of the time since boot, milliseconds.
    ahead: i64,
}

impl Wall {
    pub(super) fn look() -> Self {
        Self { ahead: ahead() }
    }

    /// Whether it was set back since the last look.
    pub(super) fn was_set_back(&mut self) -> bool {
        self.is_behind(ahead())
    }

    fn is_behind(&mut self, now: i64) -> bool {
        let before = std::mem::replace(&mut self.ahead, now);
        now < before - ROUNDING
    }
}

fn ahead() -> i64 {
    loop {
        let (before, wall, after) = (millis(), unix_millis(), millis());
        // A thread that was interrupted in between looks again.
        if after <= before + 1 {
            return wall.cast_signed() - after.cast_signed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_is_noticed_once() {
        let mut wall = Wall { ahead: 10_000 };
        let seen = [10_002, 9_999, 9_900, 9_901, 3_609_900, 9_900].map(|now| wall.is_behind(now));
        assert_eq!(seen, [false, false, true, false, false, true]);
        let mut wall = Wall::look();
        assert!((0..1000).all(|_| !wall.was_set_back()));
    }
}
