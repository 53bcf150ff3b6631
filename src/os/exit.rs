//! What runs when a process forks or ends.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Once,
        atomic::{AtomicI32, Ordering},
    },
};

const FREE: i32 = -1;

/// Descriptors that a child of fork closes at once. A slot is emptied before its descriptor is
/// closed, so a child never closes a number that belongs to something else by now.
static CLOSED_ON_FORK: [AtomicI32; 160] = [const { AtomicI32::new(FREE) }; 160];

/// A descriptor that children of fork close, until this value is dropped.
#[derive(Debug)]
pub(crate) struct CloseOnFork(Option<usize>);

impl CloseOnFork {
    /// Registers the descriptor. With all slots taken a child keeps its copy open, as with any
    /// other descriptor. Only a thread that never forks may use the descriptor.
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the handler stays in memory as long as the process lives (the library is
            // linked `nodelete`), and makes only async-signal-safe calls.
            unsafe { libc::pthread_atfork(None, None, Some(close_copies)) };
        });
        let fd = fd.as_raw_fd();
        let free =
            |slot: &AtomicI32| slot.compare_exchange(FREE, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        Self(CLOSED_ON_FORK.iter().position(free))
    }
}

impl Drop for CloseOnFork {
    fn drop(&mut self) {
        if let Some(slot) = self.0.and_then(|at| CLOSED_ON_FORK.get(at)) {
            slot.store(FREE, Ordering::Release);
        }
    }
}

extern "C" fn close_copies() {
    for slot in &CLOSED_ON_FORK {
        let fd = slot.swap(FREE, Ordering::AcqRel);
        if fd != FREE {
            // SAFETY: the number is that of a descriptor that the parent has open and registered;
            // the thread that uses it does not exist in this child.
            unsafe { libc::close(fd) };
        }
    }
}

/// Runs a function when the process ends. uWSGI calls `exit` from signal handlers: it should make
/// async-signal-safe calls only, and must not panic.
#[cfg(feature = "capi")]
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the function stays loaded (the library is linked `nodelete`). In exit() any code may
    // run.
    unsafe { libc::atexit(handler) };
}
