//! A stream socket with one deadline for everything: connect, write and read.

use std::{
    ffi::c_int,
    io::{self, ErrorKind, Read},
    mem::MaybeUninit,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

#[cfg(feature = "redis")]
use super::exit::CloseOnFork;
use super::{descriptor::above_standard, poll};

/// A connected socket. Waits fail with [`ErrorKind::TimedOut`] once the deadline has passed.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Dropped before the socket, whose number may be reused afterwards.
    #[cfg(feature = "redis")]
    registered: Option<CloseOnFork>,
    socket: Socket,
    deadline: Instant,
}

impl Stream {
    /// Connects. A unix socket whose backlog is full is [`ErrorKind::WouldBlock`]: there is no event
    /// to wait for.
    pub(crate) fn connect(address: &SockAddr, deadline: Instant) -> io::Result<Self> {
        let socket =
            above_standard(Socket::new(Domain::from(c_int::from(address.family())), Type::STREAM, None)?)?;
        socket.set_nonblocking(true)?;
        let stream = Self {
            #[cfg(feature = "redis")]
            registered: None,
            socket,
            deadline,
        };
        loop {
            match stream.socket.connect(address) {
                Ok(()) => return Ok(stream),
                Err(e) if poll::is_in_progress(&e) => {
                    stream.wait(true)?;
                    return stream.socket.take_error()?.map_or(Ok(stream), Err);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes children of fork close their copies at once. Only for a thread that never forks. The
    /// peer would otherwise not learn of this process's death.
    #[cfg(feature = "redis")]
    pub(crate) fn close_on_fork(&mut self) {
        self.registered = Some(CloseOnFork::new(std::os::fd::AsFd::as_fd(&self.socket)));
    }

    /// Ends the connection for all processes that have it.
    #[cfg(feature = "redis")]
    pub(crate) fn end(&self) {
        // The peer may be gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// The address of the other end; `None` = it has none, as with a unix socket.
    #[cfg(feature = "redis")]
    pub(crate) fn peer(&self) -> Option<std::net::SocketAddr> {
        self.socket.peer_addr().ok()?.as_socket()
    }

    /// Sets the time at which waits give up.
    pub(crate) fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Whether the connection can no longer be used: closed by the peer, or unexpected bytes have
    /// arrived.
    pub(crate) fn is_spent(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        !matches!(self.socket.peek(&mut byte), Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// For connections that are reused: small packets are not delayed until the previous one is
    /// acknowledged. An error for a unix socket, which has no such option.
    pub(crate) fn send_at_once(&self) -> io::Result<()> {
        self.socket.set_tcp_nodelay(true)
    }

    /// Writes some of `bytes`. A peer that is gone is an error, never a signal.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.send_with_flags(bytes, poll::NO_SIGNAL) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(true)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// The time until the deadline; none left is an error.
    pub(crate) fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// In an event loop other requests of the thread run meanwhile.
    fn wait(&self, write: bool) -> io::Result<()> {
        poll::wait_hosted(&self.socket, write, self.left()?)
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.left()?;
            match (&self.socket).read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(false)?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}
