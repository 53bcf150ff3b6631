//! The uwsgi packet: a 4-byte header, then a dictionary, an array or plain bytes.
//!
//! ```text
//!  0          1        3          4
//! +----------+--------+----------+--------------------------
//! | modifier1| size LE| modifier2| `size` bytes of payload
//! +----------+--------+----------+--------------------------
//! dictionary: (key length u16 LE, key, value length u16 LE, value)*    array: (length u16 LE, bytes)*
//! ```
/// `modifier1` of everything that belongs to the cache.
pub const MODIFIER1: u8 = 111;
/// Bytes of a header.
pub const HEADER_LEN: usize = 4;
/// Maximum length of a packet's payload and of a field: lengths have 16 bits.
pub const MAX_FIELD: usize = 65_535;

/// Why bytes are not a valid packet, or values do not fit into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The bytes end before a field does.
    #[error("the packet ends inside {0}")]
    Truncated(&'static str),
    /// A field that must have bytes has none.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A field or the whole packet is too long.
    #[error("{len} bytes do not fit, at most {limit} do")]
    TooLong {
        /// Bytes to be packed.
        len: usize,
        /// Maximum number of bytes.
        limit: usize,
    },
    /// A numeric field is not a number.
    #[error("{0} is not a number")]
    NotANumber(&'static str),
    /// A header or a field has a value that is not part of the protocol.
    #[error("unknown {what} {value}")]
    Unknown {
        /// The kind of field.
        what: &'static str,
        /// The value found.
        value: u16,
    },
    /// There are bytes behind the last field.
    #[error("{0} bytes left over")]
    Trailing(usize),
}

/// The first four bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The component that the packet is for; here [`MODIFIER1`].
    pub modifier1: u8,
    /// Bytes of payload that follow.
    pub size: u16,
    /// The command.
    pub modifier2: u8,
}

impl Header {
    /// Parses a header; any four bytes are valid.
    #[must_use]
    pub fn parse(b: [u8; HEADER_LEN]) -> Self {
        Self { modifier1: b[0], size: u16::from_le_bytes([b[1], b[2]]), modifier2: b[3] }
    }

    /// The four bytes on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [low, high] = self.size.to_le_bytes();
        [self.modifier1, low, high, self.modifier2]
    }

    /// A cache packet with this command and payload length.
    ///
    /// # Errors
    /// [`PacketError::TooLong`]: a payload has at most [`MAX_FIELD`] bytes.
    pub fn cache(modifier2: u8, payload: usize) -> Result<Self, PacketError> {
        Ok(Self { modifier1: MODIFIER1, size: field_len(payload)?, modifier2 })
    }
}

/// A packet under construction: the header is filled in at the end.
#[derive(Debug)]
pub struct Builder {
    buf: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty payload.
    #[must_use]
    pub fn new() -> Self {
        let mut buf = Vec::with_capacity(256);
        buf.extend_from_slice(&[0; HEADER_LEN]);
        Self { buf }
    }

    /// Adds a field: its length and its bytes.
    ///
    /// # Errors
    /// [`PacketError::TooLong`]: a field has at most [`MAX_FIELD`] bytes.
    pub fn field(&mut self, bytes: &[u8]) -> Result<(), PacketError> {
        let len = field_len(bytes.len())?;
        self.buf.extend_from_slice(&len.to_le_bytes());
        self.buf.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds a key and its value to a dictionary.
    ///
    /// # Errors
    /// [`PacketError::TooLong`]: each has at most [`MAX_FIELD`] bytes.
    pub fn pair(&mut self, key: &str, value: &[u8]) -> Result<(), PacketError> {
        self.field(key.as_bytes())?;
        self.field(value)
    }

    /// Adds a key and a decimal number to a dictionary.
    ///
    /// # Errors
    /// As [`Builder::pair`].
    pub fn number(&mut self, key: &str, value: impl std::fmt::Display) -> Result<(), PacketError> {
        self.pair(key, value.to_string().as_bytes())
    }

    /// The whole packet.
    ///
    /// # Errors
    /// [`PacketError::TooLong`]: a payload has at most [`MAX_FIELD`] bytes.
    pub fn finish(mut self, modifier2: u8) -> Result<Vec<u8>, PacketError> {
        let header = Header::cache(modifier2, self.buf.len() - HEADER_LEN)?;
        self.buf[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        Ok(self.buf)
    }
}

fn field_len(len: usize) -> Result<u16, PacketError> {
    u16::try_from(len).map_err(|_| PacketError::TooLong { len, limit: MAX_FIELD })
}

/// Takes one length-prefixed field off the front of `rest`.
pub(crate) fn take_field<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], PacketError> {
    let (len, tail) = rest.split_first_chunk::<2>().ok_or(PacketError::Truncated(what))?;
    let len = usize::from(u16::from_le_bytes(*len));
    let (field, tail) = tail.split_at_checked(len).ok_or(PacketError::Truncated(what))?;
    *rest = tail;
    Ok(field)
}

/// Calls `each` for every key and value of a dictionary.
///
/// # Errors
/// [`PacketError::Truncated`] or [`PacketError::Empty`] (a key must have bytes, a value may be
/// empty); pairs before the fault have been passed on.
pub fn dictionary<'a>(
    mut payload: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<(), PacketError> {
    while !payload.is_empty() {
        let key = take_field(&mut payload, "a dictionary key")?;
        if key.is_empty() {
            return Err(PacketError::Empty("a dictionary key"));
        }
        each(key, take_field(&mut payload, "a dictionary value")?);
    }
    Ok(())
}

/// The first `N` non-empty items of an array, `None` if there are fewer.
///
/// # Errors
/// [`PacketError::Truncated`].
pub fn array<const N: usize>(mut payload: &[u8]) -> Result<[Option<&[u8]>; N], PacketError> {
    let mut items = [None; N];
    for slot in &mut items {
        while slot.is_none() && !payload.is_empty() {
            *slot = Some(take_field(&mut payload, "an array item")?).filter(|i| !i.is_empty());
        }
    }
    Ok(items)
}

/// A decimal number, digits only.
///
/// # Errors
/// [`PacketError::NotANumber`] names `what`.
pub fn number(digits: &[u8], what: &'static str) -> Result<u64, PacketError> {
    let wrong = PacketError::NotANumber(what);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    std::str::from_utf8(digits).ok().and_then(|s| s.parse().ok()).ok_or(wrong)
}

/// A decimal number with an optional minus sign.
///
/// # Errors
/// [`PacketError::NotANumber`] names `what`.
pub fn signed(digits: &[u8], what: &'static str) -> Result<i64, PacketError> {
    let wrong = PacketError::NotANumber(what);
    if digits.first() == Some(&b'+') {
        return Err(wrong);
    }
    std::str::from_utf8(digits).ok().and_then(|s| s.parse().ok()).ok_or(wrong)
}

#[cfg(test)]
mod tests;
