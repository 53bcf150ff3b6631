//! A machine: a region and the processes that use it, in a PID namespace of its own and, if asked
//! for, a network namespace. All of them end with the process that the test forked, however it ends.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use ucache::{Cache, Expires};

use crate::{
    engine_proc::{Child, Scratch, say},
    options::Options,
    patience::within,
    record::Record,
    staleness::Value,
    worker::{Habits, Worker},
};

pub(crate) const ROOT: &str =
    "this test makes namespaces: run it as root, with CAP_SYS_ADMIN and CAP_NET_ADMIN";

/// A machine of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) number: u32,
    /// The slots of its workers in the record, from this one on.
    pub(crate) first_slot: usize,
    pub(crate) workers: usize,
    pub(crate) options: Options,
    pub(crate) habits: Habits,
    /// Its address in a network namespace of its own.
    pub(crate) address: Option<String>,
}

/// Words that the machine and the test share.
const ENDS: usize = 0;
const COMMAND: usize = 1;
const FAULTS: usize = 2;
const READY: usize = 3;
const CONNECTED: usize = 4;
/// The process that keeps the copies up to date.
const OWNER: usize = 5;
/// Workers killed.
const KILLS: usize = 6;
/// For each worker: its process, and whether a new one is wanted.
const WORKERS: usize = 7;

/// What is done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL; another worker forks its successor.
    Kill,
    Stop,
    Continue,
}

/// A running machine; ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) plan: Plan,
    words: Arc<Scratch>,
    process: Child,
}

impl Machine {
    pub(crate) fn start(plan: &Plan, record: &Record) -> Self {
        let words = Arc::new(Scratch::new(WORKERS + 2 * plan.workers));
        let inside = Inside { plan: plan.clone(), words: Arc::clone(&words), record: record.clone() };
        let process = Child::fork(move || inside.isolate());
        Self { plan: plan.clone(), words, process }
    }

    /// The process whose namespaces are the machine's, once they are there.
    pub(crate) fn pid(&self) -> Pid {
        within("a machine's namespaces", || self.words[READY].load(SeqCst) == 1);
        self.process.pid()
    }

    /// Its network is connected.
    pub(crate) fn connected(&self) {
        self.words[CONNECTED].store(1, SeqCst);
    }

    /// The worker whose process keeps the copies up to date, if it is known.
    pub(crate) fn owner(&self) -> Option<usize> {
        let owner = self.words[OWNER].load(SeqCst);
        (0..self.plan.workers).find(|n| owner != 0 && self.words[WORKERS + 2 * n].load(SeqCst) == owner)
    }

    /// Does this to a worker.
    pub(crate) fn strike(&self, blow: Blow, worker: usize) {
        self.words[COMMAND].store((blow as u64 + 1) << 32 | worker as u64, SeqCst);
        within("a machine's first process", || self.words[COMMAND].load(SeqCst) == 0);
    }

    /// How many workers were killed.
    pub(crate) fn kills(&self) -> u64 {
        self.words[KILLS].load(SeqCst)
    }

    /// Waits until each worker has a process.
    pub(crate) fn await_workers(&self) {
        let has_process = |worker: usize| self.words[WORKERS + 2 * worker].load(SeqCst) != 0;
        within("workers", || (0..self.plan.workers).all(has_process));
    }

    /// Ends all workers after their present operations; returns how many processes failed.
    pub(crate) fn end(self) -> u64 {
        (0..self.plan.workers).for_each(|worker| self.strike(Blow::Continue, worker));
        self.words[ENDS].store(1, SeqCst);
        self.process.join();
        self.words[FAULTS].load(SeqCst)
    }
}

/// The machine from within.
struct Inside {
    plan: Plan,
    words: Arc<Scratch>,
    record: Record,
}

impl Inside {
    /// Makes the namespaces and runs the machine in them.
    fn isolate(&self) {
        let network =
            if self.plan.address.is_some() { CloneFlags::CLONE_NEWNET } else { CloneFlags::empty() };
        unshare(CloneFlags::CLONE_NEWPID | network).expect(ROOT);
        self.words[READY].store(1, SeqCst);
        Child::fork(|| self.run()).join();
    }

    /// The first process of the machine: the parent of all others in the end.
    fn run(&self) {
        if let Some(address) = &self.plan.address {
            within("a network", || self.words[CONNECTED].load(SeqCst) == 1);
            for args in [
                &["addr", "add", address, "dev", "eth0"][..],
                &["link", "set", "eth0", "up"],
                &["link", "set", "lo", "up"],
            ] {
                let done = Command::new("ip").args(args).status().expect("ip: run .ci/deps all");
                assert!(done.success(), "ip {args:?}");
            }
        }
        self.fork_worker(0, None);
        // Wished for again after a while: who took the wish may have been killed before it forked.
        let mut wished = vec![Instant::now(); self.plan.workers];
        while self.words[ENDS].load(SeqCst) == 0 {
            self.obey();
            self.reap();
            for (worker, last) in wished.iter_mut().enumerate() {
                if self.process(worker).load(SeqCst) == 0 && last.elapsed() > Duration::from_millis(5) {
                    self.wants(worker).store(1, SeqCst);
                    *last = Instant::now();
                }
            }
            sleep(Duration::from_micros(500));
        }
        within("workers end: they wait for nothing", || self.reap() == 0);
    }

    fn process(&self, worker: usize) -> &AtomicU64 {
        &self.words[WORKERS + 2 * worker]
    }

    fn wants(&self, worker: usize) -> &AtomicU64 {
        &self.words[WORKERS + 2 * worker + 1]
    }

    /// Carries out the test's command.
    fn obey(&self) {
        let command = self.words[COMMAND].load(SeqCst);
        if command == 0 {
            return;
        }
        let worker = usize::try_from(command & 0xffff_ffff).expect("a worker");
        let signal = match command >> 32 {
            1 => Signal::SIGKILL,
            2 => Signal::SIGSTOP,
            _ => Signal::SIGCONT,
        };
        let pid = i32::try_from(self.process(worker).load(SeqCst)).expect("a pid");
        // One process must be left that can fork the others.
        if pid != 0 && (signal != Signal::SIGKILL || self.alive() > 1) {
            let struck = kill(Pid::from_raw(pid), signal).is_ok();
            self.words[KILLS].fetch_add(u64::from(struck && signal == Signal::SIGKILL), SeqCst);
        }
        self.words[COMMAND].store(0, SeqCst);
    }

    /// Takes the ends of processes; returns how many workers are left.
    fn reap(&self) -> usize {
        loop {
            let (pid, failed) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code != 0),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal != Signal::SIGKILL),
                _ => break,
            };
            if failed {
                self.words[FAULTS].fetch_add(1, SeqCst);
                say(&format!("machine {}: process {pid} failed", self.plan.number));
            }
            let pid = u64::try_from(pid.as_raw()).expect("a pid");
            let worker = (0..self.plan.workers).find(|&n| self.process(n).load(SeqCst) == pid);
            if let Some(worker) = worker {
                self.process(worker).store(0, SeqCst);
            }
        }
        self.alive()
    }

    /// The number of workers that have a process.
    fn alive(&self) -> usize {
        (0..self.plan.workers).filter(|&n| self.process(n).load(SeqCst) != 0).count()
    }

    /// Forks a worker whose parent is the machine's first process, whoever calls.
    fn fork_worker(&self, worker: usize, cache: Option<&Cache>) {
        let fork = || {
            // SAFETY: the children run code that survives a fork, as the cache promises, and end
            // through `_exit`.
            unsafe { fork() }.expect("fork")
        };
        let exit = |code| -> ! {
            // SAFETY: no destructor of the parent may run twice.
            unsafe { nix::libc::_exit(code) }
        };
        match fork() {
            ForkResult::Parent { child } => _ = waitpid(child, None),
            ForkResult::Child => {
                if let ForkResult::Child = fork() {
                    let body = std::panic::AssertUnwindSafe(|| self.work(worker, cache));
                    exit(i32::from(std::panic::catch_unwind(body).is_err()));
                }
                exit(0);
            }
        }
    }

    /// A worker: the first one of a machine makes the region.
    fn work(&self, worker: usize, cache: Option<&Cache>) {
        let pid = u64::from(std::process::id());
        if self.process(worker).compare_exchange(0, pid, SeqCst, SeqCst).is_err() {
            return;
        }
        let made = cache.is_none().then(|| {
            let builder = Cache::builder("c").items(1000).timeout(Expires::Never);
            builder.backend(self.plan.options.backend()).build().expect("a cache")
        });
        let cache = cache.or(made.as_ref()).expect("given or made");
        let habits = self.plan.habits;
        let mut works = Worker {
            cache,
            record: &self.record,
            slot: self.plan.first_slot + worker,
            habits,
            rng: Rng::with_seed(habits.seed ^ pid << 32 ^ worker as u64),
            seen: vec![Value::Absent; habits.keys as usize],
            misses_tell: self.plan.options.misses_tell(),
        };
        while self.words[ENDS].load(SeqCst) == 0 {
            let wanted = |&n: &usize| self.wants(n).compare_exchange(1, 0, SeqCst, SeqCst).is_ok();
            if let Some(other) = (0..self.plan.workers).find(wanted) {
                self.fork_worker(other, Some(cache));
            }
            if let Some(stats) = cache.near_stats() {
                self.words[OWNER].store(stats.owner_pid.into(), SeqCst);
            }
            works.step();
        }
    }
}
