//! A client of uWSGI's cache protocol (modifier1 111, modifier2 17), one connection a request.
//!
//! ```text
//! packet   modifier1 u8, payload length u16 LE, modifier2 u8, then pairs: length u16 LE, name, length u16 LE, value
//! value    behind the packet, `size` bytes: of set and update in the request, of get in the answer
//! record   key length u16, flags u8, value length u32, expiry u64 (LE), key, value; 15 zero bytes end a dump
//! ```
//! A native server closes without a word where its answer is "no", or where it does not know the command.

use std::{
    ffi::OsStr,
    fmt, io,
    io::{BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    failure::{Failure, Outcome, REFUSED, UNREACHABLE, UNSUPPORTED},
    target::{Item, Record},
};

const MODIFIER1: u8 = 111;
const MAGIC: u8 = 17;
/// Longest value that is taken from a server.
const MAX_VALUE: u64 = u32::MAX as u64;

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
pub(super) struct Client {
    cache: String,
    address: Address,
    timeout: Duration,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// What a server said: the fields of its answer, and the connection, on which a value may follow.
struct Answer {
    status: String,
    size: u64,
    expires: u64,
    rest: BufReader<Box<dyn Stream>>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp(at) => write!(f, "{}@{at}", self.cache),
            Address::Unix(path) => write!(f, "{}@{}", self.cache, path.display()),
            Address::Abstract(name) => write!(f, "{}@@{name}", self.cache),
        }
    }
}

impl Client {
    /// `address` is HOST:PORT, a path, or `@` (or `\0`) and the name of an abstract socket.
    pub(super) fn new(cache: &str, address: &str, timeout: Duration) -> Outcome<Self> {
        let address = if address.starts_with(['/', '.']) {
            Address::Unix(address.into())
        } else if address.contains(':') {
            Address::Tcp(address.to_owned())
        } else if let Some(name) = abstract_name(address) {
            Address::Abstract(name.to_owned())
        } else {
            return Err(Failure::new(UNREACHABLE, format!("{address:?} is no address of a server")).hint(
                "give HOST:PORT or the path of a unix socket: NAME@127.0.0.1:3031, NAME@/run/app.sock; \
                 NAME@@app is the abstract socket @app",
            ));
        };
        Ok(Self { cache: cache.to_owned(), address, timeout })
    }

    pub(super) fn get(&self, key: &[u8]) -> Outcome<Option<Item>> {
        let Some(mut answer) = self.ask(&[("cmd", b"get"), ("key", key)], b"")? else { return Ok(None) };
        if answer.status != "ok" || answer.size == 0 {
            return Ok(None);
        }
        let value = answer.read(answer.size).map_err(|e| self.broken(&e))?;
        Ok(Some(Item { value, expires: answer.expires }))
    }

    pub(super) fn exists(&self, key: &[u8]) -> Outcome<bool> {
        self.done(&[("cmd", b"exists"), ("key", key)], b"")
    }

    pub(super) fn del(&self, key: &[u8]) -> Outcome<bool> {
        self.done(&[("cmd", b"del"), ("key", key)], b"")
    }

    pub(super) fn clear(&self) -> Outcome {
        if self.done(&[("cmd", b"clear")], b"")? {
            return Ok(());
        }
        let refused = self.refused("the server did not clear the cache");
        Err(refused.hint("is there a cache of that name? the server's log says more"))
    }

    /// `false` = the server refused, for whatever reason.
    pub(super) fn store(&self, update: bool, key: &[u8], value: &[u8], ttl: Option<u64>) -> Outcome<bool> {
        let size = value.len().to_string();
        // 0 is "never" on the wire, -1 "at once".
        let expires = match ttl {
            None => "0".to_owned(),
            Some(0) => "-1".to_owned(),
            Some(secs) => secs.to_string(),
        };
        let cmd: &[u8] = if update { b"update" } else { b"set" };
        self.done(
            &[("cmd", cmd), ("key", key), ("size", size.as_bytes()), ("expires", expires.as_bytes())],
            value,
        )
    }

    /// Adds to a counter, which only ucache can do for others. The protocol does not tell the new number.
    pub(super) fn incr(&self, key: &[u8], by: i64, ttl: Option<u64>) -> Outcome {
        // As uwsgi.h has them: UPDATE, MATH, INC, FIXEXPIRE.
        const FLAGS: &[u8] = b"562";
        let (by, expires) = (by.to_string(), ttl.unwrap_or(0).to_string());
        let fields: [(&str, &[u8]); 5] = [
            ("cmd", b"math"),
            ("key", key),
            ("operand", by.as_bytes()),
            ("flags", FLAGS),
            ("expires", expires.as_bytes()),
        ];
        match self.ask(&fields, b"")? {
            Some(answer) if answer.status == "ok" => Ok(()),
            Some(_) => Err(self
                .refused("the server did not change the counter")
                .hint("counters have 8 bytes: `set --int` makes one; the server's log says why it refused")),
            None => Err(self.unsupported("native uWSGI has no arithmetic over its protocol")),
        }
    }

    /// Calls `each` for every item until it fails.
    pub(super) fn each(&self, mut each: impl FnMut(Record) -> Outcome) -> Outcome {
        let answer = self.ask(&[("cmd", b"dump")], b"")?;
        let Some(mut answer) = answer.filter(|a| a.status != "error") else {
            return Err(self.unsupported("native uWSGI does not list its items over its protocol"));
        };
        if answer.status != "ok" {
            return Err(self.refused(&format!("the server has no cache {:?}", self.cache)));
        }
        loop {
            let head = answer.read(15).map_err(|e| self.broken(&e))?;
            if head.iter().all(|&b| b == 0) {
                return Ok(());
            }
            let number = |range: std::ops::Range<usize>| {
                head[range].iter().rev().fold(0_u64, |n, &b| n << 8 | u64::from(b))
            };
            let key = answer.read(number(0..2)).map_err(|e| self.broken(&e))?;
            let value = answer.read(number(3..7)).map_err(|e| self.broken(&e))?;
            let (expires, hidden) = (number(7..15), head[2] & 1 != 0);
            each(Record { key, len: value.len() as u64, value: Some(value), expires, hidden })?;
        }
    }

    fn done(&self, fields: &[(&str, &[u8])], value: &[u8]) -> Outcome<bool> {
        Ok(self.ask(fields, value)?.is_some_and(|answer| answer.status == "ok"))
    }

    /// `None` = the server closed without a word.
    fn ask(&self, fields: &[(&str, &[u8])], value: &[u8]) -> Outcome<Option<Answer>> {
        let packet = self.packet(fields)?;
        let mut stream = self.connect().map_err(|e| self.gone(&e))?;
        // A server that refuses a value may close while we send: what it said counts.
        let sent =
            stream.write_all(&packet).and_then(|()| stream.write_all(value)).and_then(|()| stream.flush());
        let mut rest = BufReader::new(stream);
        let head = match rest.fill_buf_or_eof() {
            Ok(true) => rest.take_bytes(4),
            Ok(false) => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(self.broken(&sent.err().unwrap_or(e))),
        };
        let head = head.map_err(|e| self.broken(&e))?;
        if head[0] != MODIFIER1 || head[3] != MAGIC {
            return Err(Failure::new(
                UNREACHABLE,
                format!("{self}: what answers does not speak the cache protocol"),
            )
            .hint("name the address of a uwsgi `socket`, not of an http-socket or the statistics"));
        }
        let payload = rest.take_bytes(usize::from(u16::from_le_bytes([head[1], head[2]])));
        let mut answer = Answer { status: String::new(), size: 0, expires: 0, rest };
        answer.parse(&payload.map_err(|e| self.broken(&e))?);
        Ok(Some(answer))
    }

    fn packet(&self, fields: &[(&str, &[u8])]) -> Outcome<Vec<u8>> {
        let mut packet = vec![MODIFIER1, 0, 0, MAGIC];
        for (name, value) in fields.iter().copied().chain([("cache", self.cache.as_bytes())]) {
            for bytes in [name.as_bytes(), value] {
                packet.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
                packet.extend_from_slice(bytes);
            }
        }
        let len = u16::try_from(packet.len() - 4).map_err(|_| {
            self.refused("the key is too long for the protocol")
                .hint("a request has at most 65,535 bytes beside the value")
        })?;
        packet[1..3].copy_from_slice(&len.to_le_bytes());
        Ok(packet)
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let limit = Some(self.timeout);
        match &self.address {
            Address::Unix(path) => Ok(Box::new(self.connect_unix(path)?)),
            // uWSGI counts the NUL behind an abstract name as a part of it, others do not.
            Address::Abstract(name) => match self.connect_unix(OsStr::new(&format!("\0{name}\0")).as_ref()) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    Ok(Box::new(self.connect_unix(OsStr::new(&format!("\0{name}")).as_ref())?))
                }
                connected => Ok(Box::new(connected?)),
            },
            Address::Tcp(at) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in at.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, self.timeout) {
                        Ok(stream) => {
                            stream.set_read_timeout(limit)?;
                            stream.set_write_timeout(limit)?;
                            stream.set_nodelay(true)?;
                            return Ok(Box::new(stream));
                        }
                        Err(e) => last = e,
                    }
                }
                Err(last)
            }
        }
    }

    fn connect_unix(&self, name: &Path) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_read_timeout(Some(self.timeout))?;
        // Also bounds the connection to a server whose backlog is full.
        socket.set_write_timeout(Some(self.timeout))?;
        socket.connect(&SockAddr::unix(name)?)?;
        Ok(OwnedFd::from(socket).into())
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

    fn refused(&self, text: &str) -> Failure {
        Failure::new(REFUSED, format!("{self}: {text}"))
    }

    fn unsupported(&self, text: &str) -> Failure {
        Failure::new(UNSUPPORTED, format!("{self}: no answer: {text}"))
            .hint("a server with `plugin = ucache` can; a cache with `store=` can be opened as a file")
    }
}

impl Answer {
    fn parse(&mut self, mut payload: &[u8]) {
        while let Some((name, rest)) = field(payload) {
            let Some((value, rest)) = field(rest) else { return };
            payload = rest;
            let text = String::from_utf8_lossy(value);
            match name {
                b"status" => self.status = text.into_owned(),
                b"size" => self.size = text.parse().unwrap_or(0),
                b"expires" => self.expires = text.parse().unwrap_or(0),
                _ => {}
            }
        }
    }

    /// Exactly so many bytes; memory grows with what arrives.
    fn read(&mut self, len: u64) -> io::Result<Vec<u8>> {
        if len > MAX_VALUE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a value of {len} bytes is announced"),
            ));
        }
        self.rest.take_bytes(usize::try_from(len).unwrap_or(usize::MAX))
    }
}

/// The name behind `@` or `\0`, which uWSGI takes for the same.
fn abstract_name(address: &str) -> Option<&str> {
    address.strip_prefix('@').or_else(|| address.strip_prefix("\\0")).filter(|name| !name.is_empty())
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}

/// What the client reads with.
trait Reading {
    fn fill_buf_or_eof(&mut self) -> io::Result<bool>;
    fn take_bytes(&mut self, len: usize) -> io::Result<Vec<u8>>;
}

impl<R: Read> Reading for BufReader<R> {
    /// Waits for the first byte; `false` = there is none.
    fn fill_buf_or_eof(&mut self) -> io::Result<bool> {
        loop {
            match io::BufRead::fill_buf(self) {
                Ok(bytes) => return Ok(!bytes.is_empty()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn take_bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.by_ref().take(len as u64).read_to_end(&mut bytes)?;
        if bytes.len() == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
