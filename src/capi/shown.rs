//! Text from outside (names, addresses, keys, configuration) as the log shows it.
#![forbid(unsafe_code)]

use std::fmt::Write;

/// Most bytes of a refused key that are shown.
const KEY: usize = 32;

/// Bytes as a part of one line: what is no printable text is escaped, and so are quotes and backslashes, which end or
/// change what is around them.
pub(in crate::capi) fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' => text.push('\''),
                c => text.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The start of a key, which may be a session's id: enough to find it again, never the whole (of more than a byte).
pub(in crate::capi) fn start_of(key: &[u8]) -> String {
    let part = key.len().div_ceil(2).min(KEY);
    let more = if part < key.len() { format!("... ({} bytes)", key.len()) } else { String::new() };
    format!("\"{}\"{more}", shown(&key[..part]))
}

/// A whole line: no part of it, wherever it came from, starts another one or talks to a terminal.
pub(crate) fn line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 16), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_printable_text_is_escaped() {
        assert_eq!(shown("users-büro it's".as_bytes()), "users-büro it's");
        assert_eq!(shown(b"a\n[pid: 1]\r\t\x1b[31m\0\xff\"\\"), r#"a\n[pid: 1]\r\t\u{1b}[31m\0\xff\"\\"#);
        // The next-line control, the line separator, and what turns the direction round.
        assert_eq!(shown("\u{85}\u{2028}\u{202e}".as_bytes()), r"\u{85}\u{2028}\u{202e}");
    }

    #[test]
    fn no_key_is_shown_whole() {
        let id = b"0123456789abcdef0123456789abcdef";
        assert_eq!(start_of(id), "\"0123456789abcdef\"... (32 bytes)");
        assert_eq!(start_of(&[b'k'; 300]), format!("\"{}\"... (300 bytes)", "k".repeat(KEY)));
        assert_eq!(start_of(b"k\n"), "\"k\"... (2 bytes)");
        assert_eq!(start_of(b"\n"), "\"\\n\"");
        assert_eq!(start_of(b""), "\"\"");
    }

    #[test]
    fn a_line_stays_one() {
        assert_eq!(line("büro: \"k\""), "büro: \"k\"");
        assert_eq!(line("a\nb\u{1b}c\u{85}\0"), r"a\nb\u{1b}c\u{85}\u{0}");
    }
}
