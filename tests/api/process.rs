//! Forked children that exit by themselves, or are killed and reaped.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::within;

/// A child process; killed and reaped when dropped.
pub(super) struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

impl Child {
    /// Runs `job` in a child, which succeeds if it returns true.
    pub(super) fn fork(job: impl FnOnce() -> bool) -> Self {
        match Self::split() {
            Some(child) => child,
            None => end(catch_unwind(AssertUnwindSafe(job)).unwrap_or(false)),
        }
    }

    /// Returns twice: with a child in the parent, with `None` in the child, which must call
    /// [`end`].
    pub(super) fn split() -> Option<Self> {
        // SAFETY: the child uses the cache (fork-safe: the subject of these tests) and the
        // allocator (glibc's fork handlers make it usable), and leaves by `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        // Not `then_some`: a `Child` with pid 0 would kill this whole process group when dropped.
        (pid > 0).then(|| Self { pid, reaped: false })
    }

    /// Kills the child like the kernel's OOM killer, and reaps it.
    pub(super) fn kill(mut self) {
        self.kill_and_reap();
    }

    /// Waits for the end; true = it succeeded.
    pub(super) fn ended_well(mut self) -> bool {
        let mut status = 0;
        within(format!("child {} ends", self.pid), || {
            // SAFETY: `status` is a live local, the pid is that of our unreaped child.
            let got = unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) };
            assert!(got >= 0, "waitpid: {}", io::Error::last_os_error());
            got == self.pid
        });
        self.reaped = true;
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    fn kill_and_reap(&mut self) {
        if !self.reaped {
            // SAFETY: the pid is that of our unreaped child, so it cannot have been reused.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
            self.reaped = true;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

/// Ends a child with success or failure.
pub(super) fn end(good: bool) -> ! {
    // SAFETY: ends this process at once, without the exit handlers, which belong to the parent.
    unsafe { libc::_exit(i32::from(!good)) }
}

/// Runs `job` with its number in `n` concurrent children; returns whether all succeeded.
pub(super) fn all_of(n: i64, job: impl Fn(i64) -> bool) -> bool {
    all_well((0..n).map(|i| Child::fork(|| job(i))).collect())
}

/// Waits for every child, even after a failure; returns whether all succeeded.
pub(super) fn all_well(children: Vec<Child>) -> bool {
    let ends: Vec<bool> = children.into_iter().map(Child::ended_well).collect();
    ends.into_iter().all(|well| well)
}
