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

/// All signals but those that an instruction raises: blocked, these would end the process, and nobody's handler (that of
/// a guarded store) be asked.
pub(in crate::capi) fn foreign_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigfillset` writes the set before the others change it.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for own in [libc::SIGBUS, libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
            libc::sigdelset(set.as_mut_ptr(), own);
        }
        set.assume_init()
    }
}

/// Starts a thread with all of others' signals blocked from its first instruction on; a panic ends it quietly.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (foreign, mut before) = (foreign_signals(), MaybeUninit::uninit());
    // SAFETY: the call writes `before`; a thread inherits its maker's mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const foreign, before.as_mut_ptr()) };
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || guard((), body));
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    started.map(drop)
}
