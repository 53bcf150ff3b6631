//! Command 17, which names the cache: `{cmd, key, size, expires, cache}` and
//! `{status, size, expires}`.
//!
//! ucache extends it with things that a native peer ignores or answers with nothing: the fields
//! `flags` (flag words of `uwsgi.h`), `operand` and `keep`, and the commands `math` and `dump`.
use std::time::Duration;

use super::packet::{self, Builder, HEADER_LEN, MODIFIER1, PacketError};

/// `modifier2` of a request and of its answer.
pub const MAGIC: u8 = 17;
/// A TTL that means "expires at once" (native's `(uint64_t) -1`); on the wire it is `-1`, as native
/// writes it.
pub const AT_ONCE: u64 = u64::MAX;

/// How long a server keeps a connection without a request. Clients close theirs earlier.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest value accepted over a kept connection, bytes; a longer one needs its own connection.
pub const MAX_KEPT_VALUE: u64 = 1 << 20;
/// Sent before a connection is closed in order: an empty answer. No request is read after it, so a
/// client that receives it instead of its answer knows that the request was not carried out.
pub const GOODBYE: [u8; HEADER_LEN] = [MODIFIER1, 0, 0, MAGIC];

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The value of a key.
    Get,
    /// Whether a key is stored.
    Exists,
    /// Removes a key.
    Del,
    /// Removes all keys.
    Clear,
    /// Stores the `size` bytes that follow the packet; an existing key stays.
    Set,
    /// Stores the `size` bytes that follow the packet.
    Update,
    /// Arithmetic; between two ucaches only.
    Math,
    /// All items as a stream of records; between two ucaches only.
    Dump,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Exists => "exists",
            Self::Del => "del",
            Self::Clear => "clear",
            Self::Set => "set",
            Self::Update => "update",
            Self::Math => "math",
            Self::Dump => "dump",
        }
    }
}

/// A request, borrowed from its packet or from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The operation of a request.
    pub command: Command,
    /// Name of the cache; empty = the first one.
    pub cache: &'a [u8],
    /// The key; empty where the command has none.
    pub key: &'a [u8],
    /// Bytes of value that follow the packet.
    pub size: u64,
    /// TTL in seconds; 0 = never expires, [`AT_ONCE`] = at once.
    pub expires: u64,
    /// Operand of [`Command::Math`].
    pub operand: i64,
    /// Flag words of `uwsgi.h`; the receiver uses those that apply to the command.
    pub flags: u64,
    /// The client wants to send further requests over this connection; the answer says whether it
    /// may.
    pub keep: bool,
}

impl<'a> Request<'a> {
    /// Bytes that follow the packet.
    #[must_use]
    pub fn body(&self) -> u64 {
        if matches!(self.command, Command::Set | Command::Update) { self.size } else { 0 }
    }

    /// A request with neither value nor options.
    #[must_use]
    pub fn new(command: Command, cache: &'a [u8], key: &'a [u8]) -> Self {
        Self { command, cache, key, size: 0, expires: 0, operand: 0, flags: 0, keep: false }
    }

    /// The packet; the value, if any, is sent behind it.
    ///
    /// # Errors
    /// [`PacketError::TooLong`]: all fields together must fit one packet.
    pub fn encode(&self) -> Result<Vec<u8>, PacketError> {
        let mut b = Builder::new();
        b.pair("cmd", self.command.name().as_bytes())?;
        if !self.key.is_empty() {
            b.pair("key", self.key)?;
        }
        if matches!(self.command, Command::Set | Command::Update) {
            b.number("size", self.size)?;
        }
        match self.expires {
            0 => {}
            1..=MAX_TTL => b.number("expires", self.expires)?,
            _ => b.pair("expires", b"-1")?,
        }
        if self.command == Command::Math {
            b.number("operand", self.operand)?;
        }
        if self.flags != 0 {
            b.number("flags", self.flags)?;
        }
        if self.keep {
            b.pair("keep", b"1")?;
        }
        b.pair("cache", self.cache)?;
        b.finish(MAGIC)
    }

    /// Parses the payload of a request. Unknown fields are ignored; of repeated fields the last one
    /// counts (native sends `size` twice).
    ///
    /// # Errors
    /// Any [`PacketError`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, PacketError> {
        let mut request = Self::new(Command::Get, b"", b"");
        let mut name = &b""[..];
        let mut fault = Ok(());
        packet::dictionary(payload, |key, value| {
            let r = (|| {
                match key {
                    b"cmd" => name = value,
                    b"key" => request.key = value,
                    b"cache" => request.cache = value,
                    b"size" => request.size = packet::number(value, "size")?,
                    b"expires" => request.expires = ttl(value)?,
                    b"operand" => request.operand = packet::signed(value, "operand")?,
                    b"flags" => request.flags = packet::number(value, "flags")?,
                    b"keep" => request.keep = value == b"1",
                    _ => {}
                }
                Ok(())
            })();
            if fault.is_ok() {
                fault = r;
            }
        })?;
        fault?;
        request.command = command(name)?;
        Ok(request)
    }
}

/// Largest valid TTL: native computes with 64-bit seconds, so a larger one wraps into the past.
pub const MAX_TTL: u64 = i64::MAX as u64;

fn ttl(value: &[u8]) -> Result<u64, PacketError> {
    if value.first() == Some(&b'-') {
        return packet::signed(value, "expires").map(|_| AT_ONCE);
    }
    packet::number(value, "expires")
}

fn command(name: &[u8]) -> Result<Command, PacketError> {
    Ok(match name {
        b"get" => Command::Get,
        b"exists" => Command::Exists,
        b"del" => Command::Del,
        b"clear" => Command::Clear,
        b"set" => Command::Set,
        b"update" => Command::Update,
        b"dump" => Command::Dump,
        b"math" => Command::Math,
        _ => return Err(PacketError::Unknown { what: "cmd of length", value: short(name) }),
    })
}

fn short(field: &[u8]) -> u16 {
    u16::try_from(field.len()).unwrap_or(u16::MAX)
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok,
    /// No such key or cache. A native server sends no answer instead.
    NotFound,
    /// Refused. A native server sends no answer instead.
    Error,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The outcome.
    pub status: Status,
    /// Bytes of value that follow the packet.
    pub size: u64,
    /// Unix time of expiry, seconds; 0 = never.
    pub expires: u64,
    /// The server waits for a further request on this connection.
    pub keep: bool,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self { status, size: 0, expires: 0, keep: false }
    }
}

impl Answer {
    /// The packet; the value, if any, is sent behind it.
    ///
    /// # Errors
    /// None in practice: the fields are short.
    pub fn encode(&self) -> Result<Vec<u8>, PacketError> {
        let mut b = Builder::new();
        let status = match self.status {
            Status::Ok => "ok",
            Status::NotFound => "notfound",
            Status::Error => "error",
        };
        b.pair("status", status.as_bytes())?;
        if self.size != 0 {
            b.number("size", self.size)?;
        }
        if self.expires != 0 {
            b.number("expires", self.expires)?;
        }
        if self.keep {
            b.pair("keep", b"1")?;
        }
        b.finish(MAGIC)
    }

    /// Parses the payload of an answer. Unknown fields are ignored; an unknown status is an error.
    ///
    /// # Errors
    /// Any [`PacketError`].
    pub fn parse(payload: &[u8]) -> Result<Self, PacketError> {
        let mut answer = Self::from(Status::Error);
        let (mut status, mut size, mut expires) = (&b""[..], None, None);
        packet::dictionary(payload, |key, v| match key {
            b"status" => status = v,
            b"size" => size = Some(v),
            b"expires" => expires = Some(v),
            b"keep" => answer.keep = v == b"1",
            _ => {}
        })?;
        answer.status = match status {
            b"ok" => Status::Ok,
            b"notfound" => Status::NotFound,
            b"error" => Status::Error,
            _ => return Err(PacketError::Unknown { what: "status of length", value: short(status) }),
        };
        if let Some(v) = size {
            answer.size = packet::number(v, "size")?;
        }
        if let Some(v) = expires {
            // Native prints the time as a signed number: an item that "expires at once" may have a
            // minus sign.
            answer.expires =
                packet::number(v, "expires").or_else(|_| packet::signed(v, "expires").map(|_| 1))?;
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
