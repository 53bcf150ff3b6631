//! Threads of the library inside somebody else's process: they take none of its signals.

use std::{
    io,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::guard::guard;
use crate::os::process::fork_count;

/// At most one thread of a kind in a process. A child of fork has none, whatever its parent had.
#[derive(Debug)]
pub(super) struct Once(AtomicU64);

impl Once {
    /// No thread.
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the right to start the thread; `false` = this process has it.
    pub(super) fn begin(&self) -> bool {
        let me = u64::from(fork_count()) + 1;
        self.0.swap(me, Ordering::AcqRel) != me
    }

    /// The thread has ended, or could not be started.
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Starts a thread with all signals blocked from its first instruction on; a panic ends it quietly.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are written by the calls before they are read; a thread inherits its maker's mask.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || guard((), body));
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    started.map(drop)
}
