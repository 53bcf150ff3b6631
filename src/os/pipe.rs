//! Writing to a pipe whose reader may have gone.

use std::{
    io::{self, Write},
    mem::MaybeUninit,
    ptr,
};

/// Writes all bytes to standard error at once. A pipe without a reader is an ordinary error, not
/// SIGPIPE, which by default ends the process.
pub(crate) fn write_to_stderr(bytes: &[u8]) -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: each set is initialised by the first call that gets it, and only read later.
    let was_pending = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
        libc::sigpending(pending.as_mut_ptr());
        libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    };
    let done = io::stderr().write_all(bytes);
    // SAFETY: as above.
    unsafe {
        if !was_pending && done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            // Ours: it was sent to this thread, so consume it.
            let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const at_once);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
    done
}
