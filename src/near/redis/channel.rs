//! The bytes of a connection, plain or by TLS.

use std::{
    io::{self, Read},
    time::Instant,
};

use super::tls::{Session, Tls};
use crate::os::stream::Stream;

/// A connected stream and, with TLS, what the protocol knows of it.
#[derive(Debug)]
pub(super) struct Channel {
    session: Option<Session>,
    stream: Stream,
}

impl Channel {
    pub(super) fn plain(stream: Stream) -> Self {
        Self { session: None, stream }
    }

    /// Greets a server that was connected to. `host`: the name that its certificate must have,
    /// unless the options name another.
    pub(super) fn secure(mut stream: Stream, tls: &Tls, host: &str, deadline: Instant) -> io::Result<Self> {
        stream.until(deadline);
        let session = Some(tls.begin(&mut stream, host)?);
        Ok(Self { session, stream })
    }

    /// Sets the time at which waits give up.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.stream.until(deadline);
    }

    /// Whether the connection can no longer be used: closed by the peer, or unexpected bytes have
    /// arrived.
    pub(super) fn is_spent(&self) -> bool {
        self.stream.is_spent()
    }

    /// Writes some of `bytes`. After an error the server has got nothing of them, or nothing that it
    /// can make use of.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.stream.left().and_then(|_| self.stream.send(bytes)),
            Some(session) => session.send(&self.stream, bytes),
        }
    }

    /// See [`Stream::close_on_fork`].
    pub(super) fn close_on_fork(&mut self) {
        self.stream.close_on_fork();
    }

    /// Ends the connection for all processes that have it.
    pub(super) fn end(&self) {
        self.stream.end();
    }

    /// What a connection by TLS that the server ended during the login may mean.
    pub(super) fn hint(&self) -> Option<&'static str> {
        self.session.as_ref().map(Session::hint)
    }
}

impl Read for Channel {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.stream.read(buf),
            Some(session) => session.read(&mut self.stream, buf),
        }
    }
}
