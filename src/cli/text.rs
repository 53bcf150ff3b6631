//! Human-readable bytes, numbers and times.

use std::fmt::Write;

/// Bytes as one line of text: unprintable ones become `\n`, `\t`, `\r`, `\\` or `\xNN`.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                // Also the C1 controls, and the marks that turn the direction of text round.
                c if c.is_control()
                    || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                c => text.push(c),
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

/// Text as one line: only control characters are escaped.
pub(super) fn line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Inverse of [`escape`]; `None` = an invalid escape sequence.
pub(super) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let [kind, tail @ ..] = rest else { return None };
        rest = tail;
        bytes.push(match kind {
            b'\\' => b'\\',
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}

/// A number with a comma between thousands.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest fitting unit.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut n, mut unit) = (bytes as f64 / 1024.0, 0);
    while n >= 1023.95 && unit + 1 < UNITS.len() {
        n /= 1024.0;
        unit += 1;
    }
    format!("{n:.1} {}", UNITS[unit])
}

/// A rate in few characters: 950, 12.3k, 4.56M.
pub(super) fn rate(n: f64) -> String {
    match n {
        n if n < 1000.0 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1}k", n / 1e3),
        n => format!("{:.2}M", n / 1e6),
    }
}

/// A share in percent; `-` if the whole is 0.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

/// How many times as much, with two digits behind the point; `-` if the whole is 0.
pub(super) fn times(part: u64, whole: u64) -> String {
    let hundredths = (u128::from(part) * 100 + u128::from(whole) / 2).checked_div(whole.into());
    hundredths.map_or_else(|| "-".to_owned(), |n| format!("{}.{:02}", n / 100, n % 100))
}

/// The remaining seconds of an item, rounded up, or `never`. Times in milliseconds.
pub(super) fn left(expires: u64, now: u64) -> String {
    if expires == 0 { "never".to_owned() } else { expires.saturating_sub(now).div_ceil(1000).to_string() }
}

/// At most `width` characters; longer text ends in `…`.
pub(super) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_comes_back() {
        let cases: [(&[u8], &str); 6] = [
            (b"plain:1", "plain:1"),
            ("naïve ключ".as_bytes(), "naïve ключ"),
            (b"a\nb\tc\\d\r", "a\\nb\\tc\\\\d\\r"),
            (b"\x00\x1b[31mred\x7f", "\\x00\\x1b[31mred\\x7f"),
            (b"\xff\xfeok\xc3", "\\xff\\xfeok\\xc3"),
            ("\u{202e}\u{85}".as_bytes(), "\\xe2\\x80\\xae\\xc2\\x85"),
        ];
        for (bytes, text) in cases {
            assert_eq!(escape(bytes), text);
            assert_eq!(unescape(text.as_bytes()).as_deref(), Some(bytes));
        }
        for wrong in ["\\", "\\q", "\\x", "\\x1", "\\xzz", "\\x+1"] {
            assert_eq!(unescape(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn figures() {
        assert_eq!([0, 7, 1000, 1_234_567].map(count), ["0", "7", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 1 << 20, (1 << 20) - 1].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 MiB"]
        );
        assert_eq!([1.0, 12_345.0, 4.56e6].map(rate), ["1", "12.3k", "4.56M"]);
        assert_eq!((times(4, 3), times(7, 0)), ("1.33".to_owned(), "-".to_owned()));
        assert_eq!((percent(1, 3), percent(0, 0)), ("33.3 %".to_owned(), "-".to_owned()));
        assert_eq!(
            (left(0, 5), left(4_001, 5), left(3, 5)),
            ("never".to_owned(), "4".to_owned(), "0".to_owned())
        );
        assert_eq!((fit("abcdef", 4), fit("ab", 2)), ("abc…".to_owned(), "ab".to_owned()));
    }
}
