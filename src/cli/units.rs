//! Times on the command line.

use std::time::Duration;

/// A time to live; `None` = never expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ttl(pub(super) Option<Duration>);

/// Reads a time to live.
pub(super) fn ttl(text: &str) -> Result<Ttl, String> {
    if text == "never" {
        return Ok(Ttl(None));
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => return Err(format!("unknown unit {other:?}: use ms, s, m, h, d or the word never")),
    };
    let n: u64 =
        digits.parse().map_err(|_| "expected seconds, like 90, or 500ms, 15m, 12h, 7d, never".to_owned())?;
    let millis = n.checked_mul(unit).ok_or_else(|| "too long".to_owned())?;
    // As everywhere in uWSGI, 0 means no limit, whatever its unit.
    Ok(Ttl((millis > 0).then(|| Duration::from_millis(millis))))
}

/// Reads a number of seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "expected seconds between 0.1 and 3600".to_owned();
    let secs: f64 = text.parse().map_err(|_| wrong())?;
    if (0.1..=3600.0).contains(&secs) { Ok(Duration::from_secs_f64(secs)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live() {
        for (text, millis) in [
            ("50ms", 50),
            ("1", 1000),
            ("90s", 90_000),
            ("15m", 900_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(ttl(text), Ok(Ttl(Some(Duration::from_millis(millis)))), "{text}");
        }
        for text in ["never", "0", "00", "0ms", "0s", "0m", "0h", "0d"] {
            assert_eq!(ttl(text), Ok(Ttl(None)), "{text}");
        }
        for text in ["", "m", "-1", "1w", "1.5h", "99999999999999999999", "18446744073709551615d"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }
}
