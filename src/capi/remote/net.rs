//! Stream connections with one deadline for everything: connect, write and read.

use std::{
    ffi::{OsStr, c_int},
    io::{self, ErrorKind, Read},
    net::{IpAddr, ToSocketAddrs},
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    sync::OnceLock,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::os::cancel::Shield;

/// Waits until `fd` can be read (or written): above 0 = it can, 0 = `seconds` have passed, below 0 = given up. `None` =
/// the calling thread serves nobody else, and may wait as it likes.
pub(crate) type Wait = fn(fd: c_int, write: bool, seconds: c_int) -> Option<c_int>;

static WAIT: OnceLock<Wait> = OnceLock::new();

/// Lets a host with its own scheduler (gevent, async cores) run other requests while a connection waits. Once, before
/// the first connection; `false` = too late.
#[cfg_attr(not(feature = "uwsgi"), expect(dead_code, reason = "only a host has a scheduler"))]
pub(crate) fn install_wait(wait: Wait) -> bool {
    WAIT.set(wait).is_ok()
}

/// Keeps the calling thread from being cancelled in a connection. `None` where a host's scheduler waits for connections: it
/// runs other requests of the thread meanwhile, which must not find, or leave, cancellation disabled.
pub(crate) fn shield() -> Option<Shield> {
    WAIT.get().is_none().then(Shield::raise)
}

/// A connection that fails with [`ErrorKind::TimedOut`] once its deadline has passed.
#[derive(Debug)]
pub(crate) struct Conn {
    socket: Socket,
    deadline: Instant,
}

impl Conn {
    /// Connects to `host:port`, `[v6]:port`, a path, or an abstract name (`@name`, `\0name` spelled out).
    ///
    /// A host name is resolved by the system's resolver, within the resolver's own time limits.
    pub(crate) fn open(server: &[u8], timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        Self::open_any(&stream_addresses(server)?, deadline)
    }

    /// As [`Conn::open`], to addresses that have been looked up before.
    pub(super) fn open_known(addresses: &[SockAddr], timeout: Duration) -> io::Result<Self> {
        Self::open_any(addresses, Instant::now() + timeout)
    }

    fn open_any(addresses: &[SockAddr], deadline: Instant) -> io::Result<Self> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match Self::connect(address, deadline) {
                Ok(conn) => return Ok(conn),
                // It is the right one, and busy.
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(e),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn connect(address: &SockAddr, deadline: Instant) -> io::Result<Self> {
        let socket = Socket::new(Domain::from(c_int::from(address.family())), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let conn = Self { socket, deadline };
        loop {
            match conn.socket.connect(address) {
                Ok(()) => return Ok(conn),
                // The backlog of a unix socket is full. There is no event to wait for, and a sleep would stop all that
                // this thread serves (under gevent the whole worker): the call fails, as in native.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::new(ErrorKind::WouldBlock, "the server's backlog is full"));
                }
                Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {
                    conn.wait(true)?;
                    return conn.socket.take_error()?.map_or(Ok(conn), Err);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Moves the deadline, for transfers whose length is only known later.
    pub(crate) fn extend(&mut self, timeout: Duration) {
        self.deadline = Instant::now() + timeout;
    }

    /// Whether the connection is of no use any more: closed by the peer, or bytes came that nobody asked for.
    pub(super) fn is_spent(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        !matches!(self.socket.peek(&mut byte), Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// For a connection that is used again: no small packet waits for the answer to the one before.
    pub(super) fn send_at_once(&self) {
        // A unix socket has no such option.
        let _ = self.socket.set_tcp_nodelay(true);
    }

    /// Writes all of `bytes`. A peer that is gone is an error, never a signal.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(&self.socket, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(true)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn wait(&self, write: bool) -> io::Result<()> {
        let left = self.left()?;
        let fd = self.socket.as_raw_fd();
        // A host counts in whole seconds: the deadline is then checked on the way back.
        let seconds = c_int::try_from(left.as_millis().div_ceil(1000)).unwrap_or(c_int::MAX);
        match WAIT.get().and_then(|wait| wait(fd, write, seconds)) {
            Some(1..) => Ok(()),
            Some(0) => Err(ErrorKind::TimedOut.into()),
            // A greenlet that an exception ended, say: errno is of no use, and another wait would not be allowed.
            Some(_) => Err(io::Error::other("the host's event loop gave up waiting")),
            None => poll(fd, write, left),
        }
    }
}

impl Read for Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.left()?;
            match (&self.socket).read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(false)?,
                done => return done,
            }
        }
    }
}

/// One `send`; a peer that is gone is an error, never a signal.
pub(super) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, libc::MSG_NOSIGNAL)
}

/// Waits for the first of several descriptors.
#[derive(Default)]
pub(super) struct Poller(Vec<libc::pollfd>);

impl Poller {
    /// Forgets all descriptors.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds one, which must stay open until after [`Poller::wait`].
    pub(super) fn watch(&mut self, fd: &impl AsRawFd, write: bool) {
        let events = if write { libc::POLLOUT } else { libc::POLLIN };
        self.0.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
    }

    /// Waits until one can be used or has failed, or the time has passed.
    pub(super) fn wait(&mut self, time: Duration) -> io::Result<()> {
        let ms = c_int::try_from(time.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX);
        // SAFETY: the set is valid for its length and not touched elsewhere during the call.
        if unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, ms) } >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            e if e.kind() == ErrorKind::Interrupted => {
                self.0.iter_mut().for_each(|p| p.revents = 0);
                Ok(())
            }
            e => Err(e),
        }
    }

    /// Whether the one added as number `at` (from 0) can be used or has failed.
    pub(super) fn ready(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|p| p.revents != 0)
    }
}

/// Waits in the calling thread; a signal ends the wait early.
fn poll(fd: c_int, write: bool, left: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd, events: if write { libc::POLLOUT } else { libc::POLLIN }, revents: 0 };
    let ms = c_int::try_from(left.as_millis() + 1).unwrap_or(c_int::MAX);
    // SAFETY: `poll` is one valid pollfd that this frame owns for the whole call.
    match unsafe { libc::poll(&raw mut poll, 1, ms) } {
        1.. => Ok(()),
        0 => Err(ErrorKind::TimedOut.into()),
        _ => match io::Error::last_os_error() {
            e if e.kind() == ErrorKind::Interrupted => Ok(()),
            e => Err(e),
        },
    }
}

/// Reads exactly `len` bytes. Memory grows with what arrives, not with what the peer announced.
pub(crate) fn read_value(from: &mut impl Read, len: u64) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    let got = from.take(len).read_to_end(&mut value)?;
    if got as u64 == len { Ok(value) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Where to connect to, in the order to try.
pub(super) fn stream_addresses(server: &[u8]) -> io::Result<Vec<SockAddr>> {
    let unix = |path: &[u8]| SockAddr::unix(OsStr::from_bytes(path));
    match server {
        _ if server.contains(&b':') => inet_addresses(server),
        b"" | b"@" | b"\\0" => Err(invalid("the address is empty")),
        // uWSGI counts the NUL behind an abstract name as a part of it, others do not.
        [b'@', name @ ..] | [b'\\', b'0', name @ ..] => {
            let plain = [b"\0", name].concat();
            let found = [&plain[..], b"\0"].concat();
            // The longest plain name has no room for a NUL.
            Ok(unix(&found).into_iter().chain([unix(&plain)?]).collect())
        }
        path => Ok(vec![unix(path)?]),
    }
}

/// The addresses of `host:port`; an empty host is this machine, as for native.
pub(crate) fn inet_addresses(server: &[u8]) -> io::Result<Vec<SockAddr>> {
    Ok(host_and_port(server)?.to_socket_addrs()?.map(SockAddr::from).collect())
}

fn host_and_port(server: &[u8]) -> io::Result<(&str, u16)> {
    let text = std::str::from_utf8(server).map_err(|_| invalid("the address is not text"))?;
    let (host, port) = text.rsplit_once(':').ok_or_else(|| invalid("no port in the address"))?;
    let port: u16 = port.parse().map_err(|_| invalid("the port is not 0 to 65535"))?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Ok((if host.is_empty() { "0.0.0.0" } else { host }, port))
}

/// Whether the system's resolver has to be asked for the address of a server.
pub(super) fn is_named(server: &[u8]) -> bool {
    server.contains(&b':') && host_and_port(server).is_ok_and(|(host, _)| host.parse::<IpAddr>().is_err())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, why)
}

/// Keeps a datagram socket from ever blocking its sender.
pub(crate) fn never_block(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    SockRef::from(socket).set_nonblocking(true)
}

#[cfg(test)]
mod tests;
