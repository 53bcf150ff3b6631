//! One connection: made ready for use, then one round trip after the other.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use socket2::SockAddr;

use super::{
    channel::Channel,
    config::Settings,
    login::Login,
    resp::{Parser, Request, Value, fine},
    url::Address,
};
use crate::{
    error::BackendFault,
    os::{process::fork_count, stream::Stream},
};

/// How the reason begins when a server does not answer a greeting by TLS.
pub(super) const NO_ANSWER: &str = "TLS: no answer to the greeting";

/// A connection of this process to a server.
pub(super) struct Conn {
    channel: Channel,
    parser: Parser,
    /// The time limit of a call, for messages.
    timeout: Duration,
    /// A child of a fork neither uses nor shuts down what it inherited.
    forks: u32,
    /// The word of an owner's connection to the same server; 0 = none is known.
    pub(super) place: u64,
    node: u64,
    /// Of the time at which it was made: [`Finder::label`](super::sentinel::Finder::label).
    label: u64,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// Why there are no replies.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: BackendFault,
    /// Whether the server may have got something of the request.
    pub(super) sent: bool,
}

impl Conn {
    /// Connects to a server of values, logs in and selects the database.
    pub(super) fn open(
        settings: &Settings,
        address: &Address,
        deadline: Instant,
    ) -> Result<Self, BackendFault> {
        let mut conn = Self::connect(settings, address, deadline)?;
        let mut request = log_in(&settings.login);
        if settings.url.db != 0 {
            request.add(&[b"SELECT", settings.url.db.to_string().as_bytes()]);
        }
        let needed = request.commands();
        // For `CLIENT LIST`. A user without this permission can still use the cache.
        request.add(&[b"CLIENT", b"SETNAME", b"ucache"]);
        conn.begin(&request, needed, deadline)?;
        Ok(conn)
    }

    /// Connects to a sentinel and logs in.
    pub(super) fn open_sentinel(
        settings: &Settings,
        address: &Address,
        deadline: Instant,
    ) -> Result<Self, BackendFault> {
        let mut conn = Self::connect(settings, address, deadline)?;
        let request = log_in(&settings.sentinel_login);
        conn.begin(&request, request.commands(), deadline)?;
        Ok(conn)
    }

    fn connect(settings: &Settings, address: &Address, deadline: Instant) -> Result<Self, BackendFault> {
        let connect = deadline.min(Instant::now() + settings.connect_timeout);
        let stream = stream(address, connect)
            .map_err(|e| BackendFault::Unreachable { reason: said(&e, settings.connect_timeout) })?;
        let node = stream.peer().map_or(0, |peer| node(&peer));
        let channel = match (&settings.tls, address) {
            (Some(tls), Address::Tcp(host, _)) => Channel::secure(stream, tls, host, deadline)
                .map_err(|e| BackendFault::Unreachable { reason: greeted(&e, settings.timeout) })?,
            _ => Channel::plain(stream),
        };
        let (parser, forks) = (Parser::default(), fork_count());
        Ok(Self { channel, parser, timeout: settings.timeout, forks, place: 0, node, label: 0 })
    }

    /// The first requests of a connection; the first `needed` of them must succeed.
    fn begin(&mut self, request: &Request, needed: usize, deadline: Instant) -> Result<(), BackendFault> {
        let replies = self.round_trip(request, deadline).map_err(|failure| match failure.fault {
            // A server that refuses a certificate says so now, or just goes away.
            BackendFault::Lost { reason } => {
                let hint = if reason.starts_with("TLS:") { "" } else { self.hint() };
                BackendFault::Unreachable { reason: format!("{reason}{hint}") }
            }
            fault => fault,
        })?;
        for reply in replies.into_iter().take(needed) {
            fine(reply)?;
        }
        Ok(())
    }

    /// What it may mean that the server ended the connection during the login.
    fn hint(&self) -> &'static str {
        match self.channel.hint() {
            Some(hint) => hint,
            None if self.node != 0 => "; if it is a port for TLS, write rediss://",
            None => "",
        }
    }

    /// Notes when the connection was made.
    pub(super) fn with_label(self, label: u64) -> Self {
        Self { label, ..self }
    }

    pub(super) fn label(&self) -> u64 {
        self.label
    }

    /// A number of the server's address; never 0 for one with a port.
    pub(super) fn node(&self) -> u64 {
        self.node
    }

    /// Whether this process may send another request over it.
    pub(super) fn is_usable(&self) -> bool {
        self.is_ours() && !self.channel.is_spent()
    }

    /// Whether it belongs to this process, not to its parent.
    pub(super) fn is_ours(&self) -> bool {
        self.forks == fork_count()
    }

    /// Sends all commands and reads a reply to each. After a failure the connection is of no use
    /// any more.
    pub(super) fn round_trip(&mut self, request: &Request, deadline: Instant) -> Result<Vec<Value>, Failure> {
        self.send(request, deadline)?;
        let read = |conn: &mut Self| loop {
            match conn.next(deadline) {
                // What is told before all replies have come is about nothing that is kept.
                Ok(Value::Push(_)) => {}
                Ok(value) => return Ok(value),
                Err(e) => return Err(Failure { fault: conn.fault(&e), sent: true }),
            }
        };
        (0..request.commands()).map(|_| read(self)).collect()
    }

    /// Sends all commands.
    pub(super) fn send(&mut self, request: &Request, deadline: Instant) -> Result<(), Failure> {
        self.channel.until(deadline);
        let mut rest = request.bytes();
        while !rest.is_empty() {
            match self.channel.send(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                // The server may have replied with a reason before it closed, which is read here.
                Err(e) if e.kind() != ErrorKind::TimedOut && rest.len() < request.bytes().len() => break,
                Err(e) => {
                    let sent = rest.len() < request.bytes().len();
                    return Err(Failure { fault: self.fault(&e), sent });
                }
            }
        }
        Ok(())
    }

    /// The next reply or message. What has arrived of one stays, for a later call.
    pub(super) fn next(&mut self, deadline: Instant) -> io::Result<Value> {
        self.channel.until(deadline);
        self.parser.next(&mut self.channel)
    }

    /// Leaves the connection to a thread that never forks: see [`Stream::close_on_fork`].
    pub(super) fn close_on_fork(&mut self) {
        self.channel.close_on_fork();
    }

    /// Ends the connection for all processes that have it.
    pub(super) fn end(&self) {
        self.channel.end();
    }

    pub(super) fn fault(&self, error: &io::Error) -> BackendFault {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => BackendFault::TimedOut { waited: self.timeout },
            ErrorKind::InvalidData => BackendFault::Protocol { what: "no reply of a Redis server" },
            ErrorKind::UnexpectedEof => BackendFault::Lost { reason: "closed by the server".to_owned() },
            _ => BackendFault::Lost { reason: error.to_string() },
        }
    }
}

/// The request that logs in, or an empty one.
fn log_in(login: &Login) -> Request {
    let mut request = Request::default();
    let words = login.command();
    if !words.is_empty() {
        request.add(&words);
    }
    request
}

/// The number of an address.
fn node(address: &SocketAddr) -> u64 {
    let (ip, port) = match address.ip() {
        IpAddr::V4(ip) => (u64::from(ip.to_bits()), address.port()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            // Two addresses of one fleet with the same number are as likely as two equal keys.
            let mixed = (bits as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (bits >> 64) as u64;
            (mixed.rotate_left(17).wrapping_mul(0xff51_afd7_ed55_8ccd), address.port())
        }
    };
    ip << 16 ^ ip >> 48 ^ u64::from(port)
}

/// Connects. A host name is resolved by the system's resolver, within the resolver's own time
/// limits.
fn stream(address: &Address, deadline: Instant) -> io::Result<Stream> {
    match address {
        Address::Unix(path) => Stream::connect(&SockAddr::unix(path)?, deadline),
        Address::Tcp(host, port) => {
            let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match Stream::connect(&address.into(), deadline) {
                    Ok(stream) => {
                        stream.send_at_once()?;
                        return Ok(stream);
                    }
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
    }
}

/// What went wrong when a server was greeted by TLS.
fn greeted(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        ErrorKind::TimedOut => {
            format!("{NO_ANSWER} within {timeout:?}: does the server speak TLS at this port?")
        }
        _ => error.to_string(),
    }
}

/// What went wrong when connecting.
fn said(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        ErrorKind::TimedOut => format!("not connected within {timeout:?}"),
        // A unix socket with a full backlog.
        ErrorKind::WouldBlock => "too many connections are waiting to be accepted".to_owned(),
        _ => error.to_string(),
    }
}
