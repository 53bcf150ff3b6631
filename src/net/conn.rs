//! Stream connections with one deadline for connecting, writing and reading.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind, Read},
    net::{IpAddr, ToSocketAddrs},
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

use socket2::{SockAddr, SockRef, Socket};

pub(crate) use crate::os::poll::shield;
use crate::os::{poll, stream::Stream};

/// A connection that fails with [`ErrorKind::TimedOut`] once its deadline has passed.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: Stream,
    /// Each piece that is sent or received moves the deadline to this much from then.
    renew: Option<Duration>,
}

impl Conn {
    /// Connects to `host:port`, `[v6]:port`, a path, or an abstract name (`@name`, `\0name` spelled
    /// out).
    ///
    /// The system's resolver resolves host names, within its own time limits.
    pub(crate) fn open(server: &[u8], timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        Self::open_any(&stream_addresses(server)?, deadline)
    }

    /// As [`Conn::open`], to addresses that have been looked up before.
    pub(crate) fn open_known(addresses: &[SockAddr], timeout: Duration) -> io::Result<Self> {
        Self::open_any(addresses, Instant::now() + timeout)
    }

    fn open_any(addresses: &[SockAddr], deadline: Instant) -> io::Result<Self> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match Stream::connect(address, deadline) {
                Ok(stream) => return Ok(Self { stream, renew: None }),
                // The right address, but busy. There is no event to wait for, and a sleep would
                // block all requests of this thread (under gevent the whole worker): the call
                // fails, as in native.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    return Err(io::Error::new(ErrorKind::WouldBlock, "the server's backlog is full"));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Extends the deadline, for transfers whose length is only known later.
    pub(crate) fn extend(&mut self, timeout: Duration) {
        self.stream.until(Instant::now() + timeout);
    }

    /// Lets the connection go on for as long as something is sent or received within each
    /// `timeout`.
    #[cfg_attr(
        not(feature = "cli"),
        expect(dead_code, reason = "the command has no time limit for a whole transfer")
    )]
    pub(crate) fn renewed_by_progress(mut self, timeout: Duration) -> Self {
        self.renew = Some(timeout);
        self.extend(timeout);
        self
    }

    fn progress(&mut self) {
        if let Some(timeout) = self.renew {
            self.extend(timeout);
        }
    }

    /// [`Stream::is_spent`].
    pub(super) fn is_spent(&self) -> bool {
        self.stream.is_spent()
    }

    /// [`Stream::send_at_once`], if it is a TCP connection.
    pub(super) fn send_at_once(&self) {
        let _ = self.stream.send_at_once();
    }

    /// Writes all of `bytes`. A peer that is gone is an error, never a signal.
    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self.stream.send(bytes)?;
            self.progress();
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}

impl Read for Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buf)?;
        self.progress();
        Ok(read)
    }
}

/// One `send`; a closed peer is an error, never a signal.
pub(super) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, poll::NO_SIGNAL)
}

/// Where to connect to, in the order to try.
pub(crate) fn stream_addresses(server: &[u8]) -> io::Result<Vec<SockAddr>> {
    let unix = |path: &[u8]| SockAddr::unix(OsStr::from_bytes(path));
    match server {
        _ if server.contains(&b':') => inet_addresses(server),
        b"" | b"@" | b"\\0" => Err(invalid("the address is empty")),
        // uWSGI includes a NUL in an abstract name, other programs do not.
        [b'@', name @ ..] | [b'\\', b'0', name @ ..] => {
            let plain = [b"\0", name].concat();
            let found = [&plain[..], b"\0"].concat();
            // The longest plain name leaves no space for a NUL.
            Ok(unix(&found).into_iter().chain([unix(&plain)?]).collect())
        }
        path => Ok(vec![unix(path)?]),
    }
}

/// The addresses of `host:port`; an empty host means this machine, as in native.
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

/// Whether the address of a server needs the system's resolver.
pub(super) fn is_named(server: &[u8]) -> bool {
    server.contains(&b':') && host_and_port(server).is_ok_and(|(host, _)| host.parse::<IpAddr>().is_err())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, why)
}

/// Makes sends on a datagram socket never block.
pub(crate) fn never_block(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    SockRef::from(socket).set_nonblocking(true)
}

#[cfg(test)]
mod tests;
