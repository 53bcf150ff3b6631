//! Sockets whose copies a child of fork closes at once: a connection that only the child still has open would look
//! alive to its peer after the parent's death, and nobody would answer it; a UDP port would go on taking datagrams that
//! nobody reads. And what a process does at its exit.

use std::{
    net::Shutdown,
    ops::Deref,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Once,
        atomic::{AtomicI32, Ordering},
    },
};

use socket2::{SockRef, Socket};

const FREE: i32 = -1;

/// Descriptors of live [`Owned`] sockets. A slot is emptied before its descriptor is closed, so a child never closes
/// a number that has become something else's.
static OPEN: [AtomicI32; 160] = [const { AtomicI32::new(FREE) }; 160];

/// A socket of this process alone; shut down for all copies when it is dropped.
#[derive(Debug)]
pub(super) struct Owned<S: AsFd = Socket> {
    socket: S,
    slot: Option<usize>,
}

impl<S: AsFd> Owned<S> {
    /// Takes the socket. With all slots taken a child keeps its copy open, as with any other descriptor.
    pub(super) fn new(socket: S) -> Self {
        static HANDLERS: Once = Once::new();
        HANDLERS.call_once(|| {
            // SAFETY: the handlers stay in memory as long as the process lives (the library is linked `nodelete`); one
            // makes only async-signal-safe calls, the other runs in exit(), where any code may.
            unsafe {
                libc::pthread_atfork(None, None, Some(close_copies));
                libc::atexit(at_exit);
            }
        });
        let fd = socket.as_fd().as_raw_fd();
        let free =
            |slot: &AtomicI32| slot.compare_exchange(FREE, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let slot = OPEN.iter().position(free);
        Self { socket, slot }
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
        if let Some(slot) = self.slot.and_then(|at| OPEN.get(at)) {
            slot.store(FREE, Ordering::Release);
        }
        // The peer may be gone already, and a UDP socket has none.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}

extern "C" fn close_copies() {
    for slot in &OPEN {
        let fd = slot.swap(FREE, Ordering::AcqRel);
        if fd != FREE {
            // SAFETY: the number is that of a socket that the parent's `Owned` has open; its thread, the only user, does
            // not exist in this child.
            unsafe { libc::close(fd) };
        }
    }
}

extern "C" fn at_exit() {
    crate::capi::guard::guard((), super::service::finish);
}
