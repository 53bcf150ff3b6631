//! The caller's side of `cache@host:port`.
//!
//! A native server closes after each answer. One with ucache keeps the connection where it can, for the next call
//! of this process ([`pool`]). When it has closed it meanwhile, the request goes over a new one: always if it was not
//! carried out (a server that closes in order says so), and if it only reads. A change that may have been made is not
//! asked for again; the call fails.
//!
//! All calls are safe from any thread and process. None waits longer than `Env::socket_timeout` in total (the system's
//! resolver apart, where the server is given by name). Every fault is a miss or `false`, and one rate-limited log line.
#![forbid(unsafe_code)]

use std::{
    io::{self, BufReader, ErrorKind, Read},
    time::{Duration, Instant},
};

use super::{
    magic::{Answer, Command, Request, Status},
    net::{self, Conn},
    packet::{HEADER_LEN, Header, MODIFIER1, PacketError},
    pool::{self, Kept},
    service,
    throttle::Throttle,
};
use crate::{
    capi::{buffer::Gift, env, shown::shown, types::*},
    engine::config::MAX_VALUE,
    os::clock::unix_secs,
};

static FAULTS: Throttle = Throttle::new();

/// Why a call got no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("the answer starts with {0:?}, which is no answer of a cache")]
    Foreign(Header),
    #[error("the answer announces a value of {0} bytes, at most {MAX_VALUE} are accepted")]
    TooLong(u64),
    #[error("the server closed the connection instead of answering; the change may have been made")]
    Closed,
    #[error("the server closes the connection without answering")]
    Goodbye,
    #[error("{0}")]
    Unsupported(&'static str),
}

/// The value and the Unix time of its expiry (0 = never); `None` = a miss or a fault.
pub(crate) fn get(server: &[u8], cache: &[u8], key: &[u8]) -> Option<(Gift, u64)> {
    let (answer, value) = ask(server, &Request::new(Command::Get, cache, key), b"")?;
    // An item of no bytes cannot exist; native too takes it for a miss.
    if answer.status != Status::Ok || value.is_empty() {
        return None;
    }
    let mut copy = Gift::new();
    copy.room(value.len())?.iter_mut().zip(&value).for_each(|(to, from)| {
        to.write(*from);
    });
    Some((copy, answer.expires))
}

/// Whether the server has the key; `false` after a fault too.
pub(crate) fn exists(server: &[u8], cache: &[u8], key: &[u8]) -> bool {
    done(server, &Request::new(Command::Exists, cache, key), b"")
}

/// Removes the key; `false` = it was not there, or a fault.
pub(crate) fn del(server: &[u8], cache: &[u8], key: &[u8]) -> bool {
    done(server, &Request::new(Command::Del, cache, key), b"")
}

/// Removes all keys; `false` = a fault.
pub(crate) fn clear(server: &[u8], cache: &[u8]) -> bool {
    done(server, &Request::new(Command::Clear, cache, b""), b"")
}

/// Stores the value, or calculates with it; `expires` and `set_flags` as in `uwsgi_cache_magic_set`.
///
/// With a MATH flag the value is the 8-byte operand. A native server knows no remote arithmetic: the call then fails,
/// and the stored number stays as it was (native stores the operand over it).
pub(crate) fn set(
    server: &[u8],
    cache: &[u8],
    key: &[u8],
    value: &[u8],
    expires: u64,
    set_flags: u64,
) -> bool {
    let has = |flag| set_flags & flag != 0;
    let command = if has(FLAG_UPDATE) { Command::Update } else { Command::Set };
    let mut request = Request::new(command, cache, key);
    request.expires = if has(FLAG_ABSEXPIRE) { ttl_from(expires, unix_secs()) } else { expires };
    if !has(FLAG_MATH) {
        request.flags = set_flags & (FLAG_UNGETTABLE | FLAG_FIXEXPIRE);
        request.size = value.len() as u64;
        return !value.is_empty() && done(server, &request, value);
    }
    let Ok(operand) = <[u8; 8]>::try_from(value) else { return false };
    request.command = Command::Math;
    request.operand = i64::from_ne_bytes(operand);
    request.flags = set_flags & !(FLAG_ABSEXPIRE | FLAG_LOCAL);
    done(server, &request, b"")
}

/// The TTL that ends at the Unix time `expires`; 0 = never.
fn ttl_from(expires: u64, now: u64) -> u64 {
    match expires {
        0 => 0,
        e if e > now => e - now,
        _ => super::magic::AT_ONCE,
    }
}

fn done(server: &[u8], request: &Request<'_>, value: &[u8]) -> bool {
    ask(server, request, value).is_some_and(|(answer, _)| answer.status == Status::Ok)
}

/// One question and its answer; `None` = the server said nothing (native's "no") or a fault, which is logged.
fn ask(server: &[u8], request: &Request<'_>, value: &[u8]) -> Option<(Answer, Vec<u8>)> {
    match exchange(server, request, value, env::get().socket_timeout()) {
        Ok(answer) => answer,
        Err(fault) => {
            FAULTS.log(|| format!("remote cache \"{}\" at {}: {fault}", shown(request.cache), shown(server)));
            None
        }
    }
}

fn exchange(
    server: &[u8],
    request: &Request<'_>,
    value: &[u8],
    timeout: Duration,
) -> Result<Option<(Answer, Vec<u8>)>, Fault> {
    let end = Instant::now() + timeout;
    let asked = Request { keep: value.len() as u64 <= service::MAX_BODY, ..*request };
    // The longest keys leave no room for the wish.
    let packet = asked.encode().or_else(|_| request.encode())?;
    if asked.keep
        && let Some(mut kept) = pool::take(server)
    {
        kept.conn.extend(timeout);
        match converse(kept, request.command, &packet, value) {
            Ok(Heard::Answer(answer, body)) => return Ok(Some((answer, body))),
            Ok(Heard::Nothing(sent)) if sent.is_ok() && !only_reads(request.command) => {
                return Err(Fault::Closed);
            }
            Ok(Heard::Nothing(_)) | Err(Fault::Goodbye) => {}
            Err(fault) => return Err(fault),
        }
    }
    let conn = Conn::open(server, end.saturating_duration_since(Instant::now()))?;
    match converse(Kept::new(conn, server), request.command, &packet, value)? {
        Heard::Answer(answer, body) => Ok(Some((answer, body))),
        Heard::Nothing(Err(e)) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(Fault::Unsupported("the server refused the value without a word (is it too long for it?)"))
        }
        Heard::Nothing(Err(e)) => Err(e.into()),
        Heard::Nothing(Ok(())) if request.command == Command::Math => {
            Err(Fault::Unsupported("no answer to remote arithmetic, which native uWSGI does not have"))
        }
        Heard::Nothing(Ok(())) => Ok(None),
    }
}

/// Whether a request that was carried out may be sent again.
fn only_reads(command: Command) -> bool {
    matches!(command, Command::Get | Command::Exists)
}

/// What a server said.
enum Heard {
    Answer(Answer, Vec<u8>),
    /// It closed without a byte. A request that could not be sent whole was not carried out either.
    Nothing(io::Result<()>),
}

/// Sends the request and reads the answer; the connection is kept if the server says that it waits on it.
fn converse(mut kept: Kept, command: Command, packet: &[u8], value: &[u8]) -> Result<Heard, Fault> {
    // One segment where the value is small; a big one is not copied.
    let sent = if value.len() <= 16_384 {
        kept.conn.write_all(&[packet, value].concat())
    } else {
        kept.conn.write_all(packet).and_then(|()| kept.conn.write_all(value))
    };
    // A small answer takes one system call.
    let mut conn = BufReader::new(&mut kept.conn);
    let answer = match (&sent, read_answer(&mut conn)) {
        // A server that refuses a value early closes while we write: its answer says more than the broken pipe.
        (_, Ok(Some(answer))) => answer,
        (_, Ok(None)) => return Ok(Heard::Nothing(sent)),
        (_, Err(Fault::Goodbye)) => return Err(Fault::Goodbye),
        (Err(_), Err(_)) => return sent.map(|()| Heard::Nothing(Ok(()))).map_err(Fault::Io),
        (Ok(()), Err(fault)) => return Err(fault),
    };
    let body = match command {
        Command::Get if answer.status == Status::Ok => {
            if answer.size > MAX_VALUE {
                return Err(Fault::TooLong(answer.size));
            }
            net::read_value(&mut conn, answer.size)?
        }
        _ => Vec::new(),
    };
    if answer.keep && sent.is_ok() && conn.buffer().is_empty() {
        pool::put(kept);
    }
    Ok(Heard::Answer(answer, body))
}

/// Reads the header and the dictionary of an answer; `None` = the peer closed without a byte.
pub(super) fn read_answer(conn: &mut impl Read) -> Result<Option<Answer>, Fault> {
    match read_packet(conn)? {
        None => Ok(None),
        Some((header, _)) if header.to_bytes() == service::GOODBYE => Err(Fault::Goodbye),
        Some((header, _)) if header.modifier2 != super::magic::MAGIC => Err(Fault::Foreign(header)),
        Some((_, payload)) => Ok(Some(Answer::parse(&payload)?)),
    }
}

/// Reads one cache packet; `None` = the peer closed without a byte.
pub(super) fn read_packet(conn: &mut impl Read) -> Result<Option<(Header, Vec<u8>)>, Fault> {
    let mut raw = [0; HEADER_LEN];
    let first = loop {
        match conn.read(&mut raw) {
            Ok(n) => break n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // A native server that declines with our value still unread ends the connection with a reset.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break 0,
            Err(e) => return Err(e.into()),
        }
    };
    if first == 0 {
        return Ok(None);
    }
    conn.read_exact(&mut raw[first..])?;
    let header = Header::parse(raw);
    if header.modifier1 != MODIFIER1 {
        return Err(Fault::Foreign(header));
    }
    Ok(Some((header, net::read_value(conn, header.size.into())?)))
}

#[cfg(test)]
mod tests;
