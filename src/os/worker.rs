//! Threads of the library inside another program's process: they take none of its signals.

use std::{
    cell::Cell,
    io,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::process::fork_count;

/// At most one thread of a kind in a process. A child of fork has none, whatever its parent had.
#[derive(Debug, Default)]
pub(crate) struct PerProcess(AtomicU64);

impl PerProcess {
    /// No thread.
    #[cfg(feature = "capi")]
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the right to start the thread; `false` = it is taken in this process.
    pub(crate) fn begin(&self) -> bool {
        let me = u64::from(fork_count()) + 1;
        self.0.swap(me, Ordering::AcqRel) != me
    }

    /// The thread has ended, or could not be started.
    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// All signals but those that an instruction raises: if these were blocked, the kernel would end
/// the process instead of calling the handler (that of a guarded store).
fn foreign_signals() -> libc::sigset_t {
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

/// Blocks the program's signals in the calling thread, for the rest of its life.
#[cfg(feature = "capi")]
pub(crate) fn block_foreign_signals() {
    let foreign = foreign_signals();
    // SAFETY: the set is a valid one; NULL means that the old mask is not wanted.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const foreign, ptr::null_mut()) };
}

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is one that [`spawn`] started: it may block, whatever the program's
/// own threads do.
pub(crate) fn is_ours() -> bool {
    OURS.get()
}

/// Starts a thread with the program's signals blocked from its first instruction on.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (foreign, mut before) = (foreign_signals(), MaybeUninit::uninit());
    // SAFETY: the call writes `before`; a thread inherits its maker's mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const foreign, before.as_mut_ptr()) };
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        OURS.set(true);
        body();
    });
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    started.map(drop)
}
