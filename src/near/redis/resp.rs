//! The protocol (RESP 2 and 3): replies as values, and what a reply that is an error means.

use std::io::{self, ErrorKind, Read};

pub(super) use super::request::Request;
use crate::error::BackendFault;

/// A reply, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing.
    #[default]
    Nil,
    /// A number, or a truth value.
    Int(i64),
    /// A string of any bytes.
    Bulk(Vec<u8>),
    /// A status, or a number that is no 64-bit integer.
    Simple(String),
    /// The server refused the command.
    Error(String),
    /// An array, a set, or a map (key, value, key, ...).
    Array(Vec<Value>),
    /// A message that is not the reply to a request.
    Push(Vec<Value>),
}

/// Values of the deepest reply that is accepted, one inside the other.
const DEPTH: usize = 16;
/// Longest line (a status, an error, a number) that is accepted, bytes.
const LINE: usize = 64 << 10;
/// Longest string that is accepted, bytes: as long as a server can be told to send.
const BULK: usize = 4 << 30;
/// Bytes of a usual read.
const CHUNK: usize = 16 << 10;
/// Most bytes that are made room for before they have arrived.
const AHEAD: usize = 1 << 20;
/// A buffer larger than this is given back after the reply.
const KEEP: usize = 64 << 10;

/// Cuts a stream into values. A half-read value stays, and is completed by later calls: each of its
/// parts is read once, however many of them there are.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// What has arrived, and room behind it that is not cleared for each read.
    buffer: Vec<u8>,
    /// Bytes of the buffer that have arrived.
    filled: usize,
    /// Those of them that have been read as values.
    done: usize,
    /// Values that are not complete yet, each a part of the one before.
    open: Vec<Open>,
}

/// An array, or the like, some of whose parts are missing.
#[derive(Debug)]
struct Open {
    kind: Kind,
    missing: usize,
    parts: Vec<Value>,
}

/// What becomes of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Push,
    /// Attributes stand before the value that they are about, and are not kept.
    Attributes,
}

/// A value, or the beginning of one.
enum Token {
    Whole(Value),
    Begin(Kind, usize),
}

/// Why a value is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// At least this many more bytes are needed.
    Bytes(usize),
    /// The bytes are not of this protocol.
    Wrong,
}

impl Parser {
    /// The next value of the stream.
    ///
    /// # Errors
    /// Those of `from`; [`ErrorKind::UnexpectedEof`], [`ErrorKind::InvalidData`].
    pub(super) fn next(&mut self, from: &mut impl Read) -> io::Result<Value> {
        loop {
            let bytes = self.buffer.get(..self.filled).unwrap_or_default();
            let mut cut = Cut { bytes, at: self.done };
            match cut.token() {
                Ok(token) => {
                    self.done = cut.at;
                    self.tidy();
                    if let Some(value) = self.add(token)? {
                        return Ok(value);
                    }
                }
                Err(Lack::Wrong) => return Err(ErrorKind::InvalidData.into()),
                Err(Lack::Bytes(more)) => self.fill(from, more)?,
            }
        }
    }

    /// Adds a token to the innermost value; returns the outermost one when that is complete. Memory
    /// grows with what arrives, not with what is announced.
    fn add(&mut self, token: Token) -> io::Result<Option<Value>> {
        match token {
            Token::Whole(value) => return Ok(self.close(value)),
            Token::Begin(kind, missing) if missing > 0 => {
                if self.open.len() >= DEPTH {
                    return Err(ErrorKind::InvalidData.into());
                }
                self.open.push(Open { kind, missing, parts: Vec::new() });
            }
            Token::Begin(Kind::Array, _) => return Ok(self.close(Value::Array(Vec::new()))),
            Token::Begin(Kind::Push, _) => return Ok(self.close(Value::Push(Vec::new()))),
            Token::Begin(Kind::Attributes, _) => {}
        }
        Ok(None)
    }

    /// Puts a complete value where it belongs.
    fn close(&mut self, mut value: Value) -> Option<Value> {
        while let Some(outer) = self.open.last_mut() {
            outer.parts.push(value);
            outer.missing -= 1;
            if outer.missing > 0 {
                return None;
            }
            let outer = self.open.pop()?;
            value = match outer.kind {
                Kind::Array => Value::Array(outer.parts),
                Kind::Push => Value::Push(outer.parts),
                Kind::Attributes => return None,
            };
        }
        Some(value)
    }

    /// Drops what has been read, when that costs nothing.
    fn tidy(&mut self) {
        if self.done == self.filled {
            self.buffer.truncate(KEEP);
            self.buffer.shrink_to(KEEP);
            (self.done, self.filled) = (0, 0);
        }
    }

    fn fill(&mut self, from: &mut impl Read, more: usize) -> io::Result<()> {
        self.buffer.copy_within(self.done..self.filled, 0);
        self.filled -= self.done;
        self.done = 0;
        let room = self.filled + more.clamp(CHUNK, AHEAD);
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        match from.read(self.buffer.get_mut(self.filled..).unwrap_or_default())? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            got => {
                self.filled += got;
                Ok(())
            }
        }
    }
}

/// A position in the bytes that have arrived.
struct Cut<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cut<'a> {
    fn token(&mut self) -> Result<Token, Lack> {
        let line = self.line()?;
        let (&mark, rest) = line.split_first().ok_or(Lack::Wrong)?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        let value = match mark {
            b'+' | b',' | b'(' => Value::Simple(text()),
            b'-' => Value::Error(text()),
            b':' => Value::Int(number(rest)?),
            b'#' => Value::Int(i64::from(rest == b"t")),
            b'_' => Value::Nil,
            b'$' | b'=' => self.bulk(rest)?.map_or(Value::Nil, |bytes| Value::Bulk(bytes.to_vec())),
            b'!' => {
                let bytes = self.bulk(rest)?.unwrap_or_default();
                Value::Error(String::from_utf8_lossy(bytes).into_owned())
            }
            b'*' | b'~' => return begin(Kind::Array, rest, 1),
            b'%' => return begin(Kind::Array, rest, 2),
            b'>' => return begin(Kind::Push, rest, 1),
            b'|' => return begin(Kind::Attributes, rest, 2),
            _ => return Err(Lack::Wrong),
        };
        Ok(Token::Whole(value))
    }

    /// Up to the next line end, without it.
    fn line(&mut self) -> Result<&'a [u8], Lack> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.windows(2).take(LINE).position(|pair| pair == b"\r\n") {
            Some(len) => {
                self.at += len + 2;
                Ok(&rest[..len])
            }
            None if rest.len() > LINE => Err(Lack::Wrong),
            None => Err(Lack::Bytes(1)),
        }
    }

    fn bulk(&mut self, len: &[u8]) -> Result<Option<&'a [u8]>, Lack> {
        let Ok(len) = usize::try_from(number(len)?) else { return Ok(None) };
        if len > BULK {
            return Err(Lack::Wrong);
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.get(..len + 2) {
            Some(whole) if whole.ends_with(b"\r\n") => {
                self.at += len + 2;
                Ok(Some(&whole[..len]))
            }
            Some(_) => Err(Lack::Wrong),
            None => Err(Lack::Bytes(len + 2 - rest.len())),
        }
    }
}

/// The beginning of `count` times `each` values; fewer than none is nil.
fn begin(kind: Kind, count: &[u8], each: usize) -> Result<Token, Lack> {
    match usize::try_from(number(count)?) {
        Ok(count) => Ok(Token::Begin(kind, count.checked_mul(each).ok_or(Lack::Wrong)?)),
        Err(_) => Ok(Token::Whole(Value::Nil)),
    }
}

fn number(text: &[u8]) -> Result<i64, Lack> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Lack::Wrong)
}

/// A fault in the reply to one command.
pub(super) type Reply<T> = Result<T, BackendFault>;

/// An error that a server replied with: a code in capitals, and words.
pub(super) fn fault_of(reply: String) -> BackendFault {
    match reply.split(' ').next().unwrap_or_default() {
        "OOM" => BackendFault::Full { reply },
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "READONLY" | "NOREPLICAS" => {
            BackendFault::Unavailable { reply }
        }
        "MOVED" | "ASK" => BackendFault::Refused { reply: format!("{reply} ({})", super::mode::IS_CLUSTER) },
        _ => BackendFault::Refused { reply },
    }
}

/// Whether the command met a key that holds no string, but a list, a hash or the like.
pub(super) fn is_wrong_type(fault: &BackendFault) -> bool {
    matches!(fault, BackendFault::Refused { reply } if reply.starts_with("WRONGTYPE"))
}

/// A reply that is not one to the request.
pub(super) const fn unexpected(what: &'static str) -> BackendFault {
    BackendFault::Protocol { what }
}

/// Anything but an error.
pub(super) fn fine(value: Value) -> Reply<Value> {
    match value {
        Value::Error(reply) => Err(fault_of(reply)),
        value => Ok(value),
    }
}

/// A string, or nothing.
pub(super) fn string(value: Value) -> Reply<Option<Vec<u8>>> {
    match fine(value)? {
        Value::Nil => Ok(None),
        Value::Bulk(bytes) => Ok(Some(bytes)),
        _ => Err(unexpected("neither a string nor nil")),
    }
}

/// A number.
pub(super) fn int(value: Value) -> Reply<i64> {
    match fine(value)? {
        Value::Int(n) => Ok(n),
        _ => Err(unexpected("not a number")),
    }
}

/// Whether it is `OK`, as opposed to nil.
pub(super) fn is_ok(value: Value) -> Reply<bool> {
    match fine(value)? {
        Value::Simple(ok) if ok == "OK" => Ok(true),
        Value::Nil => Ok(false),
        _ => Err(unexpected("neither OK nor nil")),
    }
}

/// The elements of an array.
pub(super) fn array(value: Value) -> Reply<Vec<Value>> {
    match fine(value)? {
        Value::Array(values) => Ok(values),
        _ => Err(unexpected("not an array")),
    }
}

#[cfg(test)]
#[path = "resp_tests.rs"]
mod tests;
