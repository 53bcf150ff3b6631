//! Escaping of foreign text (names, addresses, keys, configuration) for the log.
use std::fmt::Write;

/// Maximum number of bytes shown of a refused key.
const KEY: usize = 32;

/// Bytes as a part of a line: unprintable text is escaped, and so are quotes and backslashes, which
/// could end or change the surrounding text.
pub(crate) fn shown(bytes: &[u8]) -> String {
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

/// The start of a key, which may be a session id: enough to find it, but never all of it (unless it
/// has one byte).
pub(crate) fn start_of(key: &[u8]) -> String {
    let part = key.len().div_ceil(2).min(KEY);
    let more = if part < key.len() { format!("... ({} bytes)", key.len()) } else { String::new() };
    format!("\"{}\"{more}", shown(&key[..part]))
}

/// A whole line: no part of it can start another line or control a terminal.
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
    fn unprintable_text_is_escaped() {
        assert_eq!(shown("users-büro it's".as_bytes()), "users-büro it's");
        assert_eq!(shown(b"a\n[pid: 1]\r\t\x1b[31m\0\xff\"\\"), r#"a\n[pid: 1]\r\t\u{1b}[31m\0\xff\"\\"#);
        // The next-line control, the line separator, and the right-to-left override.
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
