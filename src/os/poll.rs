//! `poll`, and the few numbers of the socket interface that safe code above needs.

use std::{
    ffi::c_int,
    io::{self, ErrorKind},
    os::fd::AsRawFd,
    time::Duration,
};

use once_cell::race::OnceBox;

use super::{cancel::Shield, worker};

/// Waits until `fd` can be read (or written): above 0 = it can, 0 = `seconds` have passed, below 0 = given up. `None` =
/// the calling thread serves no other request and may block.
pub(crate) type Wait = fn(fd: c_int, write: bool, seconds: c_int) -> Option<c_int>;

static WAIT: OnceBox<Wait> = OnceBox::new();

/// Lets a host with its own scheduler (gevent, async cores) run other requests while a connection
/// waits. To be called once, before the first connection; `false` = too late.
#[cfg_attr(not(feature = "uwsgi"), expect(dead_code, reason = "only a host has a scheduler"))]
pub(crate) fn install_wait(wait: Wait) -> bool {
    WAIT.set(Box::new(wait)).is_ok()
}

/// Disables cancellation of the calling thread during a connection. `None` if a host's scheduler
/// waits for connections: it runs other requests of the thread meanwhile, whose cancellation state
/// must not be affected.
pub(crate) fn shield() -> Option<Shield> {
    WAIT.get().is_none().then(Shield::raise)
}

/// Waits as the host does, until one descriptor can be read (or written).
pub(crate) fn wait_hosted(fd: &impl AsRawFd, write: bool, left: Duration) -> io::Result<()> {
    // A host counts in whole seconds: the deadline is checked again after the wait.
    let seconds = c_int::try_from(left.as_millis().div_ceil(1000)).unwrap_or(c_int::MAX);
    let host = WAIT.get().filter(|_| !worker::is_ours());
    match host.and_then(|host| host(fd.as_raw_fd(), write, seconds)) {
        Some(1..) => Ok(()),
        Some(0) => Err(ErrorKind::TimedOut.into()),
        // For example a greenlet ended by an exception: errno is meaningless, and another wait
        // would not be allowed.
        Some(_) => Err(io::Error::other("the host's event loop ended the wait")),
        None => wait(fd, write, left),
    }
}

/// The flag of `send` that makes a peer that is gone an error instead of a signal.
pub(crate) const NO_SIGNAL: c_int = libc::MSG_NOSIGNAL;

/// Whether a connection that cannot block is on its way.
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Waits for the first of several descriptors.
#[cfg(feature = "capi")]
#[derive(Default)]
pub(crate) struct Poller(Vec<libc::pollfd>);

#[cfg(feature = "capi")]
impl Poller {
    /// Forgets all descriptors.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds one, which must stay open until after [`Poller::wait`].
    pub(crate) fn watch(&mut self, fd: &impl AsRawFd, write: bool) {
        let events = if write { libc::POLLOUT } else { libc::POLLIN };
        self.0.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
    }

    /// Waits until one can be used or has failed, or the time has passed.
    pub(crate) fn wait(&mut self, time: Duration) -> io::Result<()> {
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
    pub(crate) fn ready(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|p| p.revents != 0)
    }
}

/// Waits until one descriptor can be read (or written); a signal ends the wait early.
pub(crate) fn wait(fd: &impl AsRawFd, write: bool, left: Duration) -> io::Result<()> {
    let events = if write { libc::POLLOUT } else { libc::POLLIN };
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
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
