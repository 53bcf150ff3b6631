//! The client of `cache@host:port`.
//!
//! A native server closes the connection after each answer. A ucache server keeps it if it can, for
//! the next call of this process (`pool`). If the server has closed it meanwhile, the request is
//! repeated over a new connection if it was not carried out (a server that closes in order says
//! so), or if it only reads. Any other change may have been made, so it is not repeated; the call
//! fails.
//!
//! All calls are safe from any thread and process. None waits longer than its timeout in total
//! (except for the system's resolver, if the server is given by name).

use std::{
    io::{self, BufReader, ErrorKind, Read},
    time::{Duration, Instant},
};

use super::{
    conn::Conn,
    pool::{self, Session},
};
use crate::{
    engine::config::MAX_VALUE,
    wire::{
        command::{Answer, Command, GOODBYE, MAGIC, MAX_KEPT_VALUE, Request, Status},
        packet::{HEADER_LEN, Header, MODIFIER1, PacketError},
        records::read_value,
    },
};

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("the answer starts with {0:?}: not an answer of the cache protocol")]
    Foreign(Header),
    #[error("the answer announces a value of {0} bytes, at most {MAX_VALUE} are accepted")]
    TooLong(u64),
    #[error("the server closed the connection instead of answering; the change may have been made")]
    Closed,
    #[error("the server closed the connection before it read the request")]
    Goodbye,
    #[error("{0}")]
    Unsupported(&'static str),
}

/// One request and its answer, over a pooled or a new connection; `None` = the server closed the
/// connection without sending a byte (native's "no").
pub(crate) fn exchange(
    server: &[u8],
    request: &Request<'_>,
    value: &[u8],
    timeout: Duration,
) -> Result<Option<(Answer, Vec<u8>)>, ClientError> {
    let end = Instant::now() + timeout;
    let kept = Request { keep: value.len() as u64 <= MAX_KEPT_VALUE, ..*request };
    // The longest keys leave no space for the field `keep`.
    let packet = kept.encode().or_else(|_| request.encode())?;
    if kept.keep
        && let Some(mut session) = pool::take(server)
    {
        session.conn.extend(timeout);
        match round_trip(session, request.command, &packet, value) {
            Ok(Reply::Answer(answer, body)) => return Ok(Some((answer, body))),
            Ok(Reply::Nothing(sent)) if sent.is_ok() && !only_reads(request.command) => {
                return Err(ClientError::Closed);
            }
            Ok(Reply::Nothing(_)) | Err(ClientError::Goodbye) => {}
            Err(fault) => return Err(fault),
        }
    }
    let conn = Conn::open(server, end.saturating_duration_since(Instant::now()))?;
    match round_trip(Session::new(conn, server), request.command, &packet, value)? {
        Reply::Answer(answer, body) => Ok(Some((answer, body))),
        Reply::Nothing(Err(e)) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(ClientError::Unsupported("the server refused the value without an answer (is it too long?)"))
        }
        Reply::Nothing(Err(e)) => Err(e.into()),
        Reply::Nothing(Ok(())) if request.command == Command::Math => Err(ClientError::Unsupported(
            "no answer to remote arithmetic, which native uWSGI does not support",
        )),
        Reply::Nothing(Ok(())) => Ok(None),
    }
}

/// One request and its answer over this connection, which is closed then; `None` = the server
/// closed without a byte.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the command keeps no connection"))]
pub(crate) fn round_trip_once(
    conn: Conn,
    command: Command,
    packet: &[u8],
    value: &[u8],
) -> Result<Option<(Answer, Vec<u8>)>, ClientError> {
    match round_trip(Session::new(conn, b""), command, packet, value)? {
        Reply::Answer(answer, body) => Ok(Some((answer, body))),
        Reply::Nothing(_) => Ok(None),
    }
}

/// Whether a request that was carried out may be sent again.
fn only_reads(command: Command) -> bool {
    matches!(command, Command::Get | Command::Exists)
}

/// The server's reaction to a request.
enum Reply {
    Answer(Answer, Vec<u8>),
    /// It closed without sending a byte. A request that could not be sent completely was not
    /// carried out.
    Nothing(io::Result<()>),
}

/// Sends the request and reads the answer; keeps the connection if the server will wait on it.
fn round_trip(
    mut session: Session,
    command: Command,
    packet: &[u8],
    value: &[u8],
) -> Result<Reply, ClientError> {
    // One segment if the value is small; a large one is not copied.
    let sent = if value.len() <= 16_384 {
        session.conn.write_all(&[packet, value].concat())
    } else {
        session.conn.write_all(packet).and_then(|()| session.conn.write_all(value))
    };
    // A small answer is read by one system call.
    let mut conn = BufReader::new(&mut session.conn);
    let answer = match (&sent, read_answer(&mut conn)) {
        // A server that refuses a value early closes while we write: its answer is more useful than
        // the broken pipe.
        (_, Ok(Some(answer))) => answer,
        (_, Ok(None)) => return Ok(Reply::Nothing(sent)),
        (_, Err(ClientError::Goodbye)) => return Err(ClientError::Goodbye),
        (Err(_), Err(_)) => return sent.map(|()| Reply::Nothing(Ok(()))).map_err(ClientError::Io),
        (Ok(()), Err(fault)) => return Err(fault),
    };
    let body = match command {
        Command::Get if answer.status == Status::Ok => {
            if answer.size > MAX_VALUE {
                return Err(ClientError::TooLong(answer.size));
            }
            read_value(&mut conn, answer.size)?
        }
        _ => Vec::new(),
    };
    if answer.keep && sent.is_ok() && conn.buffer().is_empty() {
        pool::put(session);
    }
    Ok(Reply::Answer(answer, body))
}

/// Reads the header and the dictionary of an answer; `None` = the peer closed without sending a
/// byte.
pub(crate) fn read_answer(conn: &mut impl Read) -> Result<Option<Answer>, ClientError> {
    match read_packet(conn)? {
        None => Ok(None),
        Some((header, _)) if header.to_bytes() == GOODBYE => Err(ClientError::Goodbye),
        Some((header, _)) if header.modifier2 != MAGIC => Err(ClientError::Foreign(header)),
        Some((_, payload)) => Ok(Some(Answer::parse(&payload)?)),
    }
}

/// Reads one cache packet; `None` = the peer closed without sending a byte.
pub(crate) fn read_packet(conn: &mut impl Read) -> Result<Option<(Header, Vec<u8>)>, ClientError> {
    let mut raw = [0; HEADER_LEN];
    let first = loop {
        match conn.read(&mut raw) {
            Ok(n) => break n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // A native server that declines with our value still unread resets the connection.
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
        return Err(ClientError::Foreign(header));
    }
    Ok(Some((header, read_value(conn, header.size.into())?)))
}

#[cfg(test)]
mod tests;
