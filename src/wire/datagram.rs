//! The packets of UDP replication: 10 = set, 11 = delete, and ucache's own 12 = clear.
//!
//! ```text
//! set:    [111, size, 10]  key length, key, value length, value, expiry length, expiry (decimal Unix time, 0 = never)
//! delete: [111, size, 11]  key length, key, two zero bytes
//! clear:  [111, size, 12]  four zero bytes
//! ```
//! A native receiver requires two more bytes behind a deleted key than a native sender writes:
//! ucache writes them and does not require them. Native ignores 12, but only packets of at least 8
//! bytes without a log line.
use super::packet::{self, Builder, HEADER_LEN, Header, MODIFIER1, PacketError};

/// Maximum size of an IPv4 datagram's data.
pub const MAX_DATAGRAM: usize = 65_507;
const SET: u8 = 10;
const DELETE: u8 = 11;
const CLEAR: u8 = 12;

/// One change, as a node sends it to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A key has a new value.
    Set {
        /// The key, at least one byte.
        key: &'a [u8],
        /// The value, at least one byte.
        value: &'a [u8],
        /// Unix time of expiry, seconds; 0 = never.
        expires: u64,
    },
    /// A key was removed.
    Delete {
        /// The key, at least one byte.
        key: &'a [u8],
    },
    /// All keys were removed.
    Clear,
}

impl<'a> Datagram<'a> {
    /// The bytes of one datagram.
    ///
    /// # Errors
    /// [`PacketError::TooLong`]: key and value must fit into [`MAX_DATAGRAM`] with 30 bytes around
    /// them; a value is never truncated.
    pub fn encode(&self) -> Result<Vec<u8>, PacketError> {
        let mut b = Builder::new();
        let modifier2 = match self {
            Self::Set { key, value, expires } => {
                b.field(key)?;
                b.field(value)?;
                b.field(expires.to_string().as_bytes())?;
                SET
            }
            Self::Delete { key } => {
                b.field(key)?;
                b.field(b"")?;
                DELETE
            }
            Self::Clear => {
                b.field(b"")?;
                b.field(b"")?;
                CLEAR
            }
        };
        let packet = b.finish(modifier2)?;
        if packet.len() > MAX_DATAGRAM {
            return Err(PacketError::TooLong { len: packet.len(), limit: MAX_DATAGRAM });
        }
        Ok(packet)
    }

    /// Parses one datagram.
    ///
    /// # Errors
    /// Any [`PacketError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let (header, mut rest) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(PacketError::Truncated("the header"))?;
        let header = Header::parse(*header);
        if header.modifier1 != MODIFIER1 {
            return Err(PacketError::Unknown { what: "modifier1", value: header.modifier1.into() });
        }
        let size = usize::from(header.size);
        if rest.len() < size {
            return Err(PacketError::Truncated("the payload"));
        }
        if rest.len() > size {
            return Err(PacketError::Trailing(rest.len() - size));
        }
        match header.modifier2 {
            SET => Self::parse_set(rest),
            DELETE => {
                let key = some(packet::take_field(&mut rest, "the key")?, "the key")?;
                if !matches!(rest, [] | [0, 0]) {
                    return Err(PacketError::Trailing(rest.len()));
                }
                Ok(Self::Delete { key })
            }
            CLEAR if rest == [0; 4] => Ok(Self::Clear),
            other => Err(PacketError::Unknown { what: "command", value: other.into() }),
        }
    }

    fn parse_set(mut rest: &'a [u8]) -> Result<Self, PacketError> {
        let key = some(packet::take_field(&mut rest, "the key")?, "the key")?;
        let value = some(packet::take_field(&mut rest, "the value")?, "the value")?;
        let mut expires = 0;
        if !rest.is_empty() {
            expires = packet::number(packet::take_field(&mut rest, "the expiry")?, "the expiry")?;
        }
        if !rest.is_empty() {
            return Err(PacketError::Trailing(rest.len()));
        }
        Ok(Self::Set { key, value, expires })
    }
}

fn some<'a>(field: &'a [u8], what: &'static str) -> Result<&'a [u8], PacketError> {
    if field.is_empty() { Err(PacketError::Empty(what)) } else { Ok(field) }
}

#[cfg(test)]
mod tests;
