//! A cache of a running server, through [`net`](crate::net): one connection for each request.
//!
//! A native server closes without an answer to say no, or if it does not know the command.

use std::{
    fmt, io,
    io::BufReader,
    net::ToSocketAddrs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use socket2::SockAddr;

use super::{
    failure::{Failure, Outcome, REFUSED, UNREACHABLE, UNSUPPORTED},
    record::{Item, Record},
};
use crate::{
    api::whole_seconds,
    net::{
        client::{ClientError, read_answer, round_trip_once},
        conn::{Conn, stream_addresses},
    },
    wire::{
        command::{AT_ONCE, Answer, Command, Request, Status},
        flags::{FLAG_FIXEXPIRE, FLAG_INC, FLAG_MATH, FLAG_UPDATE},
        packet::PacketError,
        records::read_record,
    },
};

/// The pause before another attempt to connect to a server whose backlog is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Where a server listens.
#[derive(Clone, Debug)]
enum Address {
    Tcp(String),
    Unix(PathBuf),
    /// The name of a socket without a file.
    Abstract(String),
}

/// One cache of one server.
#[derive(Clone, Debug)]
pub(super) struct ServerCache {
    cache: String,
    address: Address,
    /// Maximum wait for each step: connecting, and every further piece of a transfer.
    timeout: Duration,
}

impl fmt::Display for ServerCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp(at) => write!(f, "{}@{at}", self.cache),
            Address::Unix(path) => write!(f, "{}@{}", self.cache, path.display()),
            Address::Abstract(name) => write!(f, "{}@@{name}", self.cache),
        }
    }
}

impl ServerCache {
    /// `address` is HOST:PORT, a path, or `@` (or `\0`) and the name of an abstract socket.
    pub(super) fn new(cache: &str, address: &str, timeout: Duration) -> Outcome<Self> {
        let address = if address.starts_with(['/', '.']) {
            Address::Unix(address.into())
        } else if address.contains(':') {
            Address::Tcp(address.to_owned())
        } else if let Some(name) = abstract_name(address) {
            Address::Abstract(name.to_owned())
        } else {
            return Err(Failure::new(UNREACHABLE, format!("{address:?} is not the address of a server"))
                .hint(
                    "give HOST:PORT or the path of a unix socket: NAME@127.0.0.1:3031, NAME@/run/app.sock; \
                 NAME@@app is the abstract socket @app",
                ));
        };
        Ok(Self { cache: cache.to_owned(), address, timeout })
    }

    pub(super) fn get(&self, key: &[u8]) -> Outcome<Option<Item>> {
        let answer = self.request(&self.about(Command::Get, key), b"")?;
        let stored = answer.filter(|(answer, value)| answer.status == Status::Ok && !value.is_empty());
        Ok(stored.map(|(answer, value)| Item { value, expires: answer.expires.saturating_mul(1000) }))
    }

    pub(super) fn exists(&self, key: &[u8]) -> Outcome<bool> {
        self.done(&self.about(Command::Exists, key), b"")
    }

    pub(super) fn del(&self, key: &[u8]) -> Outcome<bool> {
        self.done(&self.about(Command::Del, key), b"")
    }

    pub(super) fn clear(&self) -> Outcome {
        if self.done(&self.about(Command::Clear, b""), b"")? {
            return Ok(());
        }
        let refused = self.refused("the server did not clear the cache");
        Err(refused.hint("is there a cache of that name? the server's log says more"))
    }

    /// `false` = the server refused, for any reason.
    pub(super) fn store(
        &self,
        update: bool,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Outcome<bool> {
        let command = if update { Command::Update } else { Command::Set };
        let expires = match ttl.map(whole_seconds) {
            None => 0,
            Some(0) => AT_ONCE,
            Some(secs) => secs,
        };
        self.done(&Request { size: value.len() as u64, expires, ..self.about(command, key) }, value)
    }

    /// Adds to a counter, which only ucache supports remotely. The protocol does not return the new
    /// number.
    pub(super) fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Outcome {
        let request = Request {
            operand: by,
            flags: FLAG_UPDATE | FLAG_MATH | FLAG_INC | FLAG_FIXEXPIRE,
            expires: ttl.map_or(0, whole_seconds),
            ..self.about(Command::Math, key)
        };
        match self.request(&request, b"")? {
            Some((answer, _)) if answer.status == Status::Ok => Ok(()),
            Some(_) => Err(self
                .refused("the server did not change the counter")
                .hint("counters have 8 bytes: `set --int` makes one; the server's log says why it refused")),
            None => Err(self.unsupported("native uWSGI has no arithmetic in its protocol")),
        }
    }

    /// Calls `each` for every item until it fails.
    pub(super) fn each(&self, mut each: impl FnMut(Record) -> Outcome) -> Outcome {
        let packet = self.about(Command::Dump, b"").encode().map_err(|e| self.unsendable(e))?;
        let mut conn = self.connect().map_err(|e| self.gone(&e))?;
        let sent = conn.write_all(&packet);
        let mut stream = BufReader::with_capacity(65_536, conn);
        let answer = match (sent, read_answer(&mut stream)) {
            (_, Ok(answer)) => answer,
            (Err(e), Err(_)) => return Err(self.broken(&e)),
            (Ok(()), Err(error)) => return Err(self.failed(error)),
        };
        let Some(answer) = answer.filter(|a| a.status != Status::Error) else {
            return Err(self.unsupported("native uWSGI cannot list its items in its protocol"));
        };
        if answer.status != Status::Ok {
            return Err(self.refused(&format!("the server has no cache {:?}", self.cache)));
        }
        while let Some(record) = read_record(&mut stream).map_err(|e| self.broken(&e))? {
            each(Record {
                key: record.key,
                len: record.value.len() as u64,
                value: Some(record.value),
                expires: record.expires.saturating_mul(1000),
                hidden: record.ungettable,
            })?;
        }
        Ok(())
    }

    fn about<'a>(&'a self, command: Command, key: &'a [u8]) -> Request<'a> {
        Request::new(command, self.cache.as_bytes(), key)
    }

    fn done(&self, request: &Request<'_>, value: &[u8]) -> Outcome<bool> {
        Ok(self.request(request, value)?.is_some_and(|(answer, _)| answer.status == Status::Ok))
    }

    /// `None` = the server closed without an answer.
    fn request(&self, request: &Request<'_>, value: &[u8]) -> Outcome<Option<(Answer, Vec<u8>)>> {
        let packet = request.encode().map_err(|e| self.unsendable(e))?;
        let conn = self.connect().map_err(|e| self.gone(&e))?;
        match round_trip_once(conn, request.command, &packet, value) {
            // A goodbye alone is not an answer either.
            Err(ClientError::Goodbye) => Ok(None),
            done => done.map_err(|error| self.failed(error)),
        }
    }

    fn connect(&self) -> io::Result<Conn> {
        let addresses = match &self.address {
            Address::Unix(path) => vec![SockAddr::unix(path)?],
            Address::Abstract(name) => stream_addresses(format!("@{name}").as_bytes())?,
            Address::Tcp(at) => at.to_socket_addrs()?.map(SockAddr::from).collect(),
        };
        let end = Instant::now() + self.timeout;
        loop {
            match Conn::open_known(&addresses, end.saturating_duration_since(Instant::now())) {
                Ok(conn) => return Ok(conn.renewed_by_progress(self.timeout)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                    thread::sleep(PAUSE);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn gone(&self, error: &io::Error) -> Failure {
        Failure::new(UNREACHABLE, format!("{self}: cannot connect: {error}")).hint(match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                "is the server running? the address is that of its `socket`; \
                 a cache with `store=` can be read from the file while the server is down"
            }
            io::ErrorKind::PermissionDenied => "run this as the server's user, or see uWSGI's `chmod-socket`",
            _ => "`--timeout` waits longer",
        })
    }

    fn failed(&self, error: ClientError) -> Failure {
        match error {
            ClientError::Io(error) => self.broken(&error),
            ClientError::Foreign(_) => Failure::new(
                UNREACHABLE,
                format!("{self}: the program at this address does not speak the cache protocol"),
            )
            .hint("name the address of a uwsgi `socket`, not of an http-socket or the statistics"),
            other => Failure::new(UNREACHABLE, format!("{self}: {other}")),
        }
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let failure = |text: &str| Failure::new(UNREACHABLE, format!("{self}: {text}"));
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                failure(&format!("no answer within {:?}", self.timeout))
                    .hint("are all workers busy? `--timeout` waits longer")
            }
            io::ErrorKind::UnexpectedEof => {
                failure("the server closed in the middle of an answer").hint("its log may say why")
            }
            _ => failure(&error.to_string()),
        }
    }

    fn unsendable(&self, error: PacketError) -> Failure {
        match error {
            PacketError::TooLong { .. } => self
                .refused("the key is too long for the protocol")
                .hint("a request has at most 65,535 bytes beside the value"),
            other => self.refused(&other.to_string()),
        }
    }

    fn refused(&self, text: &str) -> Failure {
        Failure::new(REFUSED, format!("{self}: {text}"))
    }

    fn unsupported(&self, text: &str) -> Failure {
        Failure::new(UNSUPPORTED, format!("{self}: no answer: {text}"))
            .hint("a server with `plugin = ucache` can; a cache with `store=` can be opened as a file")
    }
}

/// The name behind `@` or `\0`, which mean the same to uWSGI.
fn abstract_name(address: &str) -> Option<&str> {
    address.strip_prefix('@').or_else(|| address.strip_prefix("\\0")).filter(|name| !name.is_empty())
}
