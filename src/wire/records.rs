//! ucache's stream of records, the answer to the command `dump`: a whole cache, item by item.
//!
//! A record is `key length u16, flags u8, value length u32, expiry u64` (little-endian), key,
//! value. A header of 15 zero bytes ends the stream, so that a truncated stream is detected.

use std::io::{self, ErrorKind, Read};

const RECORD_HEADER: usize = 15;

/// One item on its way from one cache to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Unix time of expiry, seconds; 0 = never.
    pub expires: u64,
    /// Whether reads miss the item.
    pub ungettable: bool,
}

/// The result of reading a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items passed on.
    pub items: u64,
    /// Used slots that are inconsistent in themselves or with the geometry.
    pub damaged: u64,
}

/// Encodes one record of a stream; [`end_of_records`] ends it.
#[must_use]
pub fn encode_record(r: &Record) -> Option<Vec<u8>> {
    let mut b = Vec::with_capacity(RECORD_HEADER + r.key.len() + r.value.len());
    b.extend_from_slice(&u16::try_from(r.key.len()).ok()?.to_le_bytes());
    b.push(u8::from(r.ungettable));
    b.extend_from_slice(&u32::try_from(r.value.len()).ok()?.to_le_bytes());
    b.extend_from_slice(&r.expires.to_le_bytes());
    b.extend_from_slice(&r.key);
    b.extend_from_slice(&r.value);
    Some(b)
}

/// The end mark behind the last record.
#[must_use]
pub fn end_of_records() -> [u8; RECORD_HEADER] {
    [0; RECORD_HEADER]
}

/// Reads records up to the end mark and passes them on. Memory: one record, at most 4 GiB if that
/// much arrives.
///
/// # Errors
/// Errors of `from`; [`ErrorKind::UnexpectedEof`] for a truncated stream. Records passed on before
/// are complete.
pub fn read_records(from: &mut impl Read, each: &mut dyn FnMut(Record)) -> io::Result<Counts> {
    let mut counts = Counts::default();
    while let Some(record) = read_record(from)? {
        if record.key.is_empty() || record.value.is_empty() {
            counts.damaged += 1;
            continue;
        }
        counts.items += 1;
        each(record);
    }
    Ok(counts)
}

/// Reads one record, whose key or value may be empty; `None` = the end mark.
///
/// # Errors
/// As [`read_records`].
pub fn read_record(from: &mut impl Read) -> io::Result<Option<Record>> {
    let mut head = [0; RECORD_HEADER];
    from.read_exact(&mut head)?;
    if head == end_of_records() {
        return Ok(None);
    }
    let [k0, k1, flags, v0, v1, v2, v3, expires @ ..] = head;
    let key = read_value(from, u16::from_le_bytes([k0, k1]).into())?;
    let value = read_value(from, u32::from_le_bytes([v0, v1, v2, v3]).into())?;
    let (expires, ungettable) = (u64::from_le_bytes(expires), flags & 1 != 0);
    Ok(Some(Record { key, value, expires, ungettable }))
}

/// Reads exactly `len` bytes. Memory grows with the bytes that arrive, not with the announced
/// length.
///
/// # Errors
/// Errors of `from`; [`ErrorKind::UnexpectedEof`] if it ends early.
pub fn read_value(from: &mut impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    let got = from.take(len).read_to_end(&mut value)?;
    if got as u64 == len { Ok(value) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_arrives() {
        let few: &[u8] = b"few";
        assert_eq!(read_value(&mut &*few, 3).unwrap(), b"few");
        assert_eq!(read_value(&mut &*few, 2).unwrap(), b"fe");
        assert_eq!(read_value(&mut &*few, u64::MAX).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
