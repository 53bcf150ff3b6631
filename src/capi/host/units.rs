//! Numbers in a definition, with optional units: `blocksize=64k`, `items=1m`, `store_sync=5m`.

/// The quantity of a number, which determines its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Bytes: k is 1024.
    Bytes,
    /// Items, blocks, ...: k is 1000.
    Things,
    /// Seconds: m is a minute.
    Seconds,
    /// Milliseconds.
    Millis,
}

impl Counts {
    /// The factor of a unit, in lower case.
    fn factor(self, unit: &str) -> Option<u64> {
        Some(match (self, unit) {
            (_, "") | (Self::Bytes, "b" | "byte" | "bytes") | (Self::Seconds, "s") | (Self::Millis, "ms") => {
                1
            }
            (Self::Bytes, "k" | "kb" | "kib") => 1 << 10,
            (Self::Bytes, "m" | "mb" | "mib") => 1 << 20,
            (Self::Bytes, "g" | "gb" | "gib") => 1 << 30,
            (Self::Things, "k") | (Self::Millis, "s") => 1000,
            (Self::Things, "m") => 1_000_000,
            (Self::Things, "g") => 1_000_000_000,
            (Self::Seconds, "m") => 60,
            (Self::Seconds, "h") => 3600,
            (Self::Seconds, "d") => 86_400,
            _ => return None,
        })
    }

    /// The known units, for a message.
    fn known(self) -> &'static str {
        match self {
            Self::Bytes | Self::Things => "k, m or g",
            Self::Seconds => "s, m, h or d",
            Self::Millis => "ms or s",
        }
    }
}

/// A parsed number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Number<'t> {
    /// A number without a unit.
    Plain(u64),
    /// A number with a unit; the digits alone are the second field.
    WithUnit(u64, &'t str),
    /// Not a number that fits into 64 bits; the reason, unless it is just out of bounds.
    None(Option<String>),
}

/// Parses a decimal number with an optional unit; blanks around it and before the unit are allowed.
pub(crate) fn read(text: &[u8], of: Counts) -> Number<'_> {
    let Ok(text) = std::str::from_utf8(text.trim_ascii()) else { return Number::None(None) };
    let digits = &text[..text.bytes().take_while(u8::is_ascii_digit).count()];
    let unit = text[digits.len()..].trim_start();
    if digits.is_empty() {
        return Number::None(None);
    }
    let Some(factor) = of.factor(&unit.to_ascii_lowercase()) else {
        return Number::None(Some(format!("; unknown unit {unit:?} (use {})", of.known())));
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(number) if unit.is_empty() => Number::Plain(number),
        Some(number) => Number::WithUnit(number, digits),
        None => Number::None(None),
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts::*, *};

    #[test]
    fn units_are_what_they_say() {
        for (text, of, number) in [
            ("64k", Bytes, 65_536),
            ("64KB", Bytes, 65_536),
            ("64 KiB", Bytes, 65_536),
            ("100 bytes", Bytes, 100),
            ("1m", Bytes, 1 << 20),
            (" 3GiB ", Bytes, 3 << 30),
            ("1m", Things, 1_000_000),
            ("50K", Things, 50_000),
            ("1g", Things, 1_000_000_000),
            ("90s", Seconds, 90),
            ("5m", Seconds, 300),
            ("2H", Seconds, 7200),
            ("1d", Seconds, 86_400),
            ("250ms", Millis, 250),
            ("2s", Millis, 2000),
        ] {
            let digits = text.trim().trim_end_matches(|c: char| !c.is_ascii_digit());
            assert_eq!(read(text.as_bytes(), of), Number::WithUnit(number, digits), "{text}");
        }
        assert_eq!(read(b" 024 ", Bytes), Number::Plain(24));
    }

    #[test]
    fn invalid_numbers_are_rejected() {
        for text in [
            "",
            "k",
            "-1",
            "+1",
            "1.5k",
            "10x",
            "0x10",
            "1k1",
            "18446744073709551615k",
            "99999999999999999999",
        ] {
            for of in [Bytes, Things, Seconds, Millis] {
                assert!(matches!(read(text.as_bytes(), of), Number::None(_)), "{text} of {of:?}");
            }
        }
        assert_eq!(read(b"1\xff", Bytes), Number::None(None));
        assert_eq!(
            read(b"1h", Things),
            Number::None(Some("; unknown unit \"h\" (use k, m or g)".to_owned()))
        );
        assert_eq!(
            read(b"1kb", Things),
            Number::None(Some("; unknown unit \"kb\" (use k, m or g)".to_owned()))
        );
    }
}
