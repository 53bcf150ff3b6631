//! When a key ends, in the server's words.

use super::Word;
use crate::engine::Expires;

/// Later expiries become this one, seconds: as in the engine, and far from where the server's
/// milliseconds overflow.
const LATEST: u64 = ((1 << 44) - 1) / 1000;

/// An expiry as options of `SET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// It has passed: nothing is to be stored.
    AtOnce,
    /// Never.
    Never,
    /// In this many milliseconds, by the server's clock.
    In(u64),
    /// At this Unix time in milliseconds, by the server's clock.
    At(u64),
}

impl From<Expires> for Ends {
    fn from(expires: Expires) -> Self {
        match expires {
            Expires::Never => Self::Never,
            Expires::In(0) | Expires::At(0) | Expires::InMillis(0) | Expires::AtMillis(0) => Self::AtOnce,
            Expires::In(secs) => Self::In(secs.min(LATEST) * 1000),
            Expires::At(secs) => Self::At(secs.min(LATEST) * 1000),
            Expires::InMillis(millis) => Self::In(millis.min(LATEST * 1000)),
            Expires::AtMillis(millis) => Self::At(millis.min(LATEST * 1000)),
        }
    }
}

impl Ends {
    /// `PX 5000`, `PXAT 1700000000000`, or nothing.
    pub(super) fn options(&self) -> Vec<Word<'static>> {
        let pair =
            |word: &'static [u8], millis: u64| vec![word.into(), millis.to_string().into_bytes().into()];
        match self {
            Self::AtOnce | Self::Never => Vec::new(),
            Self::In(millis) => pair(b"PX", *millis),
            Self::At(millis) => pair(b"PXAT", *millis),
        }
    }

    /// The same as two arguments of a script.
    pub(super) fn arguments(&self) -> [Word<'static>; 2] {
        match self {
            Self::AtOnce => [(&b"GONE"[..]).into(), (&b"0"[..]).into()],
            Self::Never => [(&b""[..]).into(), (&b"0"[..]).into()],
            Self::In(millis) => [(&b"PX"[..]).into(), millis.to_string().into_bytes().into()],
            Self::At(millis) => [(&b"PXAT"[..]).into(), millis.to_string().into_bytes().into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_and_do_not_overflow() {
        assert_eq!(Ends::from(Expires::Never), Ends::Never);
        assert_eq!(Ends::from(Expires::In(0)), Ends::AtOnce);
        assert_eq!(Ends::from(Expires::In(5)), Ends::In(5000));
        assert_eq!(Ends::from(Expires::At(1_700_000_000)), Ends::At(1_700_000_000_000));
        assert_eq!(Ends::from(Expires::InMillis(50)), Ends::In(50));
        assert_eq!(Ends::from(Expires::AtMillis(1_700_000_000_050)), Ends::At(1_700_000_000_050));
        assert_eq!(Ends::from(Expires::InMillis(u64::MAX)), Ends::In(LATEST * 1000));
        assert_eq!(Ends::from(Expires::In(u64::MAX)), Ends::In(LATEST * 1000));
        assert_eq!(Ends::from(Expires::In(5)).options(), [&b"PX"[..], b"5000"]);
        assert!(Ends::Never.options().is_empty());
    }
}
