//! Items as commands of the Redis protocol: `SET key value [EXAT seconds]` or `[PXAT milliseconds]`,
//! each an array of bulk strings.
//!
//! `redis-cli --pipe` sends such a stream to a Redis or Valkey server.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use super::record::Record;

/// Maximum length of a string, bytes; Redis has the same limit.
const MAX_BULK: u64 = 512 << 20;

/// What is wrong with other options.
const OPTIONS: &str = "of the options of SET, EX, PX, EXAT and PXAT are known";

/// Writes one command. With `numbers`, counters become decimal text.
pub(super) fn write(out: &mut dyn Write, record: &Record, numbers: bool) -> io::Result<()> {
    let value = record.value.as_deref().unwrap_or_default();
    let digits = counter(value).filter(|_| numbers).map(|n| n.to_string());
    let value = digits.as_deref().map_or(value, str::as_bytes);
    write!(out, "*{}\r\n", if record.expires == 0 { 3 } else { 5 })?;
    for part in [b"SET", &record.key[..], value] {
        bulk(out, part)?;
    }
    let (unit, time) = match record.expires {
        0 => return Ok(()),
        whole if whole.is_multiple_of(1000) => (b"EXAT", whole / 1000),
        millis => (b"PXAT", millis),
    };
    bulk(out, unit)?;
    bulk(out, time.to_string().as_bytes())?;
    Ok(())
}

fn bulk(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    write!(out, "${}\r\n", bytes.len())?;
    out.write_all(bytes)?;
    out.write_all(b"\r\n")
}

/// The number in a value that looks like a counter: 8 bytes that are not printable text.
pub(super) fn counter(value: &[u8]) -> Option<i64> {
    let bytes = <[u8; 8]>::try_from(value).ok()?;
    let text = bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    (!text).then(|| i64::from_ne_bytes(bytes))
}

/// Reads one SET; `None` = the end of the stream. `now` in milliseconds.
pub(super) fn read(from: &mut impl BufRead, now: u64) -> io::Result<Option<Record>> {
    let Some(count) = length(from, b'*')? else { return Ok(None) };
    if !(3..=10).contains(&count) {
        return Err(wrong("only SET commands can be loaded"));
    }
    let mut parts = Vec::new();
    for _ in 0..count {
        let len =
            length(from, b'$')?.filter(|&n| n <= MAX_BULK).ok_or_else(|| wrong("a string is expected"))?;
        let mut part = Vec::new();
        from.by_ref().take(len).read_to_end(&mut part)?;
        let mut end = [0; 2];
        from.read_exact(&mut end)?;
        if part.len() as u64 != len || end != *b"\r\n" {
            return Err(wrong("the length of a string is wrong"));
        }
        parts.push(part);
    }
    set(parts, now).map(Some)
}

fn set(mut parts: Vec<Vec<u8>>, now: u64) -> io::Result<Record> {
    if !parts[0].eq_ignore_ascii_case(b"SET") {
        return Err(wrong("only SET commands can be loaded"));
    }
    let number = |b: &[u8]| std::str::from_utf8(b).ok().and_then(|t| t.parse::<u64>().ok());
    let expires = match parts.get(3..).unwrap_or_default() {
        [] => 0,
        [unit, time] => {
            let time = number(time);
            let millis = match unit.to_ascii_uppercase().as_slice() {
                b"EXAT" => time.map(|secs| secs.checked_mul(1000)),
                b"PXAT" => time.map(Some),
                b"EX" => time.map(|secs| secs.checked_mul(1000)?.checked_add(now)),
                b"PX" => time.map(|millis| millis.checked_add(now)),
                _ => None,
            };
            let millis = millis.ok_or_else(|| wrong(OPTIONS))?;
            // Redis refuses 0, too. Here it would mean an item that never expires.
            millis
                .filter(|_| time != Some(0))
                .ok_or_else(|| wrong("its time of expiry is 0 or too far off"))?
        }
        _ => return Err(wrong(OPTIONS)),
    };
    let value = parts.swap_remove(2);
    let key = parts.swap_remove(1);
    Ok(Record { key, len: value.len() as u64, value: Some(value), expires, hidden: false })
}

/// Reads a line with `sign` and a number; `None` = no more bytes.
fn length(from: &mut impl BufRead, sign: u8) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    from.by_ref().take(24).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let digits = line.strip_prefix(&[sign]).and_then(|l| l.strip_suffix(b"\r\n"));
    let number = digits
        .filter(|d| d.iter().all(u8::is_ascii_digit))
        .and_then(|d| std::str::from_utf8(d).ok()?.parse().ok());
    number.map(Some).ok_or_else(|| wrong("not a stream of Redis commands"))
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], value: &[u8], expires: u64) -> Record {
        Record {
            key: key.to_vec(),
            len: value.len() as u64,
            value: Some(value.to_vec()),
            expires,
            hidden: false,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let all = [
            record(b"k", b"v", 0),
            record(b"\r\n$1", b"\0*3\r\n", 1_900_000_000_000),
            record(b"n", &[7; 8], 1_900_000_000_001),
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|r| write(&mut bytes, r, false).unwrap());
        assert!(bytes.starts_with(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"));
        let mut from = &bytes[..];
        for r in &all {
            assert_eq!(read(&mut from, 0).unwrap().as_ref(), Some(r));
        }
        assert_eq!(read(&mut from, 0).unwrap(), None);
    }

    #[test]
    fn counters_as_text() {
        let mut bytes = Vec::new();
        write(&mut bytes, &record(b"n", &(-42_i64).to_ne_bytes(), 0), true).unwrap();
        assert!(bytes.ends_with(b"$3\r\n-42\r\n"), "{bytes:?}");
        assert_eq!(
            (counter(b"value 17"), counter(b"\0\0\0\0\0\0\0"), counter(&[0; 8])),
            (None, None, Some(0))
        );
    }

    #[test]
    fn other_streams_are_refused() {
        for stream in [
            &b"SET k v\r\n"[..],
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nv\r\n",
            b"*3\r\n$3\r\nDEL\r\n$1\r\nk\r\n$1\r\nv\r\n",
            b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n$2\r\nNX\r\n$1\r\n1\r\n",
            b"*99999999999999999999\r\n",
            b"*-1\r\n",
            b"*3\r\n$99999999999\r\n",
        ] {
            assert!(read(&mut &stream[..], 0).is_err(), "{}", String::from_utf8_lossy(stream));
        }
        for (unit, time) in [
            ("EXAT", "0"),
            ("PXAT", "00"),
            ("EX", "0"),
            ("PX", "0"),
            ("EXAT", "18446744073709551615"),
            ("PX", "18446744073709551615"),
        ] {
            let set = ["SET", "k", "v", unit, time].map(|part| part.as_bytes().to_vec());
            let said = super::set(set.to_vec(), 100_000).unwrap_err().to_string();
            assert!(said.contains("0 or too far off"), "{unit} {time}: {said}");
        }
        let relative = b"*5\r\n$3\r\nset\r\n$1\r\nk\r\n$1\r\nv\r\n$2\r\npx\r\n$4\r\n1500\r\n";
        assert_eq!(read(&mut &relative[..], 100_000).unwrap(), Some(record(b"k", b"v", 101_500)));
    }
}
