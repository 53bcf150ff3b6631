//! Rust's times as the engine's whole seconds.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::Expires;

/// In so long from now. Parts of a second are rounded up; [`Duration::ZERO`] expires at once (uWSGI's 0, "never", is
/// [`Expires::Never`]).
impl From<Duration> for Expires {
    fn from(ttl: Duration) -> Self {
        Self::In(whole_seconds(ttl))
    }
}

/// At this time. Parts of a second are rounded up; a time that has passed expires at once.
impl From<SystemTime> for Expires {
    fn from(time: SystemTime) -> Self {
        Self::At(time.duration_since(UNIX_EPOCH).map_or(0, whole_seconds))
    }
}

/// Seconds of `duration`, rounded up.
pub(super) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_second_count_as_a_second() {
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(999), 1),
            (Duration::from_secs(1), 1),
            (Duration::from_millis(1001), 2),
            (Duration::from_secs(300), 300),
            (Duration::MAX, u64::MAX),
        ];
        for (ttl, seconds) in cases {
            assert_eq!(Expires::from(ttl), Expires::In(seconds), "{ttl:?}");
        }
    }

    #[test]
    fn times_before_the_epoch_have_passed() {
        assert_eq!(Expires::from(UNIX_EPOCH - Duration::from_secs(5)), Expires::At(0));
        assert_eq!(Expires::from(UNIX_EPOCH + Duration::from_millis(1500)), Expires::At(2));
    }
}
