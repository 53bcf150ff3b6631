//! Runs an operation in a child, one machine instruction at a time.
#![allow(dead_code, reason = "every test binary uses its own part")]

use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    sys::{
        ptrace,
        signal::{Signal, raise},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::engine_proc::Child;

/// Pins the calling thread and its later children to one core, which makes stepping three times as
/// fast.
pub(crate) fn pin() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu().expect("sched_getcpu")).expect("a core's number");
    sched_setaffinity(Pid::from_raw(0), &one).expect("sched_setaffinity");
}

/// Called by a stepped child where stepping should begin and end.
pub(crate) fn mark() {
    raise(MARK).expect("raise");
}
const MARK: Signal = Signal::SIGUSR1;

/// A child stopped before, in or after its operation.
#[derive(Debug)]
pub(crate) struct Stepped {
    child: Child,
    /// Instructions executed.
    pub(crate) steps: u64,
    done: bool,
    /// Calls of [`mark`].
    marks: u64,
}

impl Stepped {
    /// Forks a child that prepares and stops right before `operation`.
    pub(crate) fn new(prepare: impl FnOnce(), operation: impl FnOnce()) -> Self {
        let child = Child::fork(|| {
            prepare();
            ptrace::traceme().expect("ptrace(TRACEME): the tests need to trace their own children");
            raise(Signal::SIGSTOP).expect("raise");
            operation();
            raise(Signal::SIGSTOP).expect("raise");
        });
        child.wait_stopped();
        Self { child, steps: 0, done: false, marks: 0 }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// Steps one instruction; `false` = the operation has ended.
    pub(crate) fn step(&mut self) -> bool {
        if self.done {
            return false;
        }
        ptrace::step(self.child.pid(), None).expect("ptrace(SINGLESTEP)");
        match waitpid(self.child.pid(), None).expect("waitpid") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => self.steps += 1,
            WaitStatus::Stopped(_, Signal::SIGSTOP) => self.done = true,
            other => panic!("after {} steps: {other:?}", self.steps),
        }
        !self.done
    }

    /// Continues to where the next system call begins or ends; counts no instruction. `false` = the
    /// operation has ended.
    pub(crate) fn next_system_call(&mut self) -> bool {
        ptrace::syscall(self.child.pid(), None).expect("ptrace(SYSCALL)");
        match waitpid(self.child.pid(), None).expect("waitpid") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, Signal::SIGSTOP) => self.done = true,
            other => panic!("on the way to a system call: {other:?}"),
        }
        !self.done
    }

    /// Steps one instruction between two calls of [`mark`]; the rest runs at full speed. `false` =
    /// the operation has ended.
    pub(crate) fn step_marked(&mut self) -> bool {
        while !self.done {
            let one = self.marks % 2 == 1;
            let pid = self.child.pid();
            if one { ptrace::step(pid, None) } else { ptrace::cont(pid, None) }.expect("ptrace");
            match waitpid(pid, None).expect("waitpid") {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                    self.steps += 1;
                    return true;
                }
                WaitStatus::Stopped(_, MARK) => self.marks += 1,
                WaitStatus::Stopped(_, Signal::SIGSTOP) => self.done = true,
                other => panic!("after {} steps: {other:?}", self.steps),
            }
        }
        false
    }

    /// Whether it holds a robust mutex: the kernel knows the list of those that a dead thread leaves.
    pub(crate) fn holds_a_lock(&self) -> bool {
        let (pid, mut head, mut len) = (self.child.pid(), std::ptr::null_mut::<libc::c_void>(), 0_usize);
        // SAFETY: both are valid for a write.
        let rc =
            unsafe { libc::syscall(libc::SYS_get_robust_list, pid.as_raw(), &raw mut head, &raw mut len) };
        assert_eq!(rc, 0, "get_robust_list: {}", std::io::Error::last_os_error());
        // The first word leads to the first lock, or back to the head.
        let first = ptrace::read(pid, head).expect("ptrace(PEEKDATA)");
        first != head as libc::c_long
    }

    /// Steps on to where it holds a lock; `false` = the operation has ended.
    pub(crate) fn step_into_lock(&mut self) -> bool {
        while !self.done && !self.holds_a_lock() {
            self.step();
        }
        !self.done
    }

    /// Continues to the end of the operation.
    pub(crate) fn finish(&mut self) {
        while !self.done {
            ptrace::cont(self.child.pid(), None).expect("ptrace(CONT)");
            match waitpid(self.child.pid(), None).expect("waitpid") {
                WaitStatus::Stopped(_, MARK) => {}
                WaitStatus::Stopped(_, Signal::SIGSTOP) => self.done = true,
                other => panic!("after {} steps: {other:?}", self.steps),
            }
        }
    }

    /// Sends SIGKILL at the current instruction.
    pub(crate) fn kill(self) {
        assert!(self.child.kill(), "the stepped child ended by itself");
    }
}
