//! Converts Rust's times to the engine's milliseconds.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::Expires;

/// In so long from now. Parts of a millisecond are rounded up; [`Duration::ZERO`] expires at once
/// (uWSGI's 0, "never", is [`Expires::Never`]). The engine counts whole milliseconds: an item is
/// never read later than that, and may expire up to one millisecond earlier.
impl From<Duration> for Expires {
    fn from(ttl: Duration) -> Self {
        Self::InMillis(whole_millis(ttl))
    }
}

/// At this time. Parts of a millisecond are rounded up; a time that has passed expires at once.
impl From<SystemTime> for Expires {
    fn from(time: SystemTime) -> Self {
        Self::AtMillis(time.duration_since(UNIX_EPOCH).map_or(0, whole_millis))
    }
}

impl Expires {
    /// The time at which an item stored now expires; `None` = never, or later than the clock can
    /// say.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use ucache::Expires;
    ///
    /// assert_eq!(Expires::Never.deadline(), None);
    /// assert_eq!(Expires::AtMillis(1500).deadline(), Some(UNIX_EPOCH + Duration::from_millis(1500)));
    /// ```
    #[must_use]
    pub fn deadline(self) -> Option<SystemTime> {
        match self {
            Self::Never => None,
            Self::In(secs) => SystemTime::now().checked_add(Duration::from_secs(secs)),
            Self::InMillis(millis) => SystemTime::now().checked_add(Duration::from_millis(millis)),
            Self::At(secs) => UNIX_EPOCH.checked_add(Duration::from_secs(secs)),
            Self::AtMillis(millis) => UNIX_EPOCH.checked_add(Duration::from_millis(millis)),
        }
    }
}

/// Milliseconds of `duration`, rounded up.
pub(super) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Seconds of `duration`, rounded up.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_millisecond_count_as_one() {
        let cases = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(999), 999),
            (Duration::from_nanos(1_000_000_001), 1001),
            (Duration::from_secs(300), 300_000),
            (Duration::MAX, u64::MAX),
        ];
        for (ttl, millis) in cases {
            assert_eq!(Expires::from(ttl), Expires::InMillis(millis), "{ttl:?}");
        }
    }

    #[test]
    fn times_before_the_epoch_have_passed() {
        assert_eq!(Expires::from(UNIX_EPOCH - Duration::from_secs(5)), Expires::AtMillis(0));
        assert_eq!(Expires::from(UNIX_EPOCH + Duration::from_micros(1_500_001)), Expires::AtMillis(1501));
    }
}
