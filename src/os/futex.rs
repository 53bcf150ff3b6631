//! Waiting for a word in shared memory to change.

use std::{sync::atomic::AtomicU32, time::Duration};

/// Sleeps while `word` holds `expected`, at most `timeout`. May wake early.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    // FUTEX_WAIT measures a relative time by the monotonic clock.
    let ts = super::clock::timespec(timeout);
    // SAFETY: the word is valid and aligned; the kernel only compares it. Not FUTEX_PRIVATE: other
    // processes wake it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const ts, 0, 0) };
}

/// Wakes every waiter of `word`.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: the word is valid and aligned; FUTEX_WAKE does not touch memory.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
}
