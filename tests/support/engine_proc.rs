//! Child processes of the engine's tests, and words of memory shared with them.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    num::NonZeroUsize,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind, set_hook},
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use crate::patience::{PATIENCE, poll};
use nix::{
    sys::{
        mman::{MapFlags, ProtFlags, mmap_anonymous, munmap},
        prctl::set_pdeathsig,
        resource::{Resource, setrlimit},
        signal::{SigHandler, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    time::{ClockId, clock_gettime},
    unistd::{ForkResult, Pid, fork},
};

/// Only a hang takes this long; a loaded machine is slow, not stuck.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Writes one line to stderr, bypassing the test harness, whose output buffer a child cannot pass
/// on.
pub(crate) fn say(line: &str) {
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(b'\n');
    let _ = nix::unistd::write(std::io::stderr(), &bytes);
}

/// Nanoseconds of the monotonic clock, which is the same for all processes.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    u64::try_from(time.tv_sec()).expect("positive") * 1_000_000_000
        + u64::try_from(time.tv_nsec()).expect("positive")
}

/// The seed of a test's choices: `UCACHE_SEED`, or random; printed.
pub(crate) fn seed() -> u64 {
    let text = std::env::var("UCACHE_SEED").ok();
    let seed = text.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("UCACHE_SEED: a number"));
    say(&format!("UCACHE_SEED={seed}"));
    seed
}

/// A forked child. It is killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// Forks a process that runs `body`: exit 0 when it returns, 101 when it panics.
    pub(crate) fn fork(body: impl FnOnce()) -> Self {
        // SAFETY: the child only runs `body` and ends through `_exit`. It takes no lock of the
        // standard library that another thread of the harness may hold (output goes through `say`),
        // and glibc's malloc survives forks.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self { pid: child, reaped: false },
            ForkResult::Child => run_child(body),
        }
    }

    /// [`Child::fork`] by a bare system call, unnoticed by the C library.
    pub(crate) fn clone_bare(body: impl FnOnce()) -> Self {
        // SAFETY: as in `fork`; without flags the call is a fork whose child continues on a copy of
        // this stack.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            0 => run_child(body),
            pid => Self { pid: Pid::from_raw(i32::try_from(pid).expect("a process")), reaped: false },
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("kill");
    }

    /// Sends SIGKILL and waits for the end. Returns whether the signal ended it.
    pub(crate) fn kill(mut self) -> bool {
        self.signal(Signal::SIGKILL);
        let status = waitpid(self.pid, None).expect("waitpid");
        self.reaped = true;
        matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _))
    }

    /// Whether a child that was sent `signal` has ended, and whether because of it.
    pub(crate) fn try_ended_by(&mut self, signal: Signal) -> Option<bool> {
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).expect("waitpid");
        if status == WaitStatus::StillAlive {
            return None;
        }
        self.reaped = true;
        Some(matches!(status, WaitStatus::Signaled(_, by, _) if by == signal))
    }

    /// Waits until the child is stopped by a signal.
    pub(crate) fn wait_stopped(&self) {
        let status = waitpid(self.pid, Some(WaitPidFlag::WUNTRACED)).expect("waitpid");
        assert!(matches!(status, WaitStatus::Stopped(..)), "the child should stop, but: {status:?}");
    }

    /// Whether the child has ended, and its result (`Ok` = exit 0).
    pub(crate) fn try_end(&mut self) -> Option<Result<(), String>> {
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).expect("waitpid");
        let outcome = match status {
            WaitStatus::StillAlive => return None,
            WaitStatus::Exited(_, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        };
        self.reaped = true;
        Some(outcome)
    }

    /// Waits for the end, which must be an exit 0.
    pub(crate) fn join(mut self) {
        match poll(PATIENCE, || self.try_end()) {
            Some(Ok(())) => {}
            Some(Err(how)) => panic!("child {} ended badly: {how}", self.pid),
            None => panic!("child {} hangs", self.pid),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// Lets SIGSEGV and SIGABRT end this process and its later children at once and without a core, as
/// in a program without handlers.
pub(crate) fn die_of_signals() {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("setrlimit");
    for signal in [Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGBUS] {
        // SAFETY: the default action replaces the standard library's handler; no handler of ours is
        // installed.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.expect("signal");
    }
}

/// Sets the priority of the calling thread and of children it forks: more negative = higher. Does
/// nothing without permission.
pub(crate) fn priority(nice: i32) {
    // SAFETY: changes only this thread's scheduling.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

fn run_child(body: impl FnOnce()) -> ! {
    // A failing test must not leave workers behind.
    let _ = set_pdeathsig(Signal::SIGKILL);
    set_hook(Box::new(|info| say(&format!("child {}: {info}", std::process::id()))));
    let code = if catch_unwind(AssertUnwindSafe(body)).is_ok() { 0 } else { 101 };
    // SAFETY: _exit only ends the process; exit handlers and destructors of the forked harness must
    // not run twice.
    unsafe { libc::_exit(code) }
}

/// Serialises tests: there are only two cores, and a child forked by one test would inherit files
/// that another has open.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forks `count` children that run `body(number)` and joins them all.
pub(crate) fn in_children(count: usize, body: impl Fn(usize)) {
    let children: Vec<Child> = (0..count).map(|n| Child::fork(|| body(n))).collect();
    children.into_iter().for_each(Child::join);
}

/// Zeroed words shared with all processes forked later.
#[derive(Debug)]
pub(crate) struct Scratch {
    base: NonNull<AtomicU64>,
    len: usize,
}

impl Scratch {
    pub(crate) fn new(len: usize) -> Self {
        let bytes = NonZeroUsize::new(len * size_of::<AtomicU64>()).expect("some words");
        let (prot, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a fresh anonymous mapping at an address the kernel chooses touches no other
        // memory.
        let base = unsafe { mmap_anonymous(None, bytes, prot, flags) }.expect("mmap");
        Self { base: base.cast(), len }
    }
}

impl Deref for Scratch {
    type Target = [AtomicU64];
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `base` is a page-aligned mapping of `len` zeroed words, mapped until drop, and
        // all processes only access them through atomics.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: `new` created the mapping with this length, and borrows through `deref` end
        // before the drop.
        let _ = unsafe { munmap(self.base.cast(), self.len * size_of::<AtomicU64>()) };
    }
}

// SAFETY: the memory is only accessed through atomics, and the mapping lives as long as the value.
unsafe impl Send for Scratch {}
// SAFETY: as for Send.
unsafe impl Sync for Scratch {}
