//! Sockets whose copies a child of fork closes at once. Otherwise, after the parent's death, a
//! connection still open in the child would look alive to its peer, and a UDP port would go on
//! receiving datagrams that no process reads.

use std::{net::Shutdown, ops::Deref, os::fd::AsFd};

use socket2::{SockRef, Socket};

use crate::os::exit::CloseOnFork;

/// A socket of this process only; dropping it shuts down all copies.
#[derive(Debug)]
pub(crate) struct Owned<S: AsFd = Socket> {
    /// Dropped before the socket, whose number may be reused afterwards.
    _registered: CloseOnFork,
    socket: S,
}

impl<S: AsFd> Owned<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self { _registered: CloseOnFork::new(socket.as_fd()), socket }
    }
}

impl<S: AsFd> Deref for Owned<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.socket
    }
}

impl<S: AsFd> Drop for Owned<S> {
    fn drop(&mut self) {
        // The peer may be gone already; a UDP socket has none.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}
