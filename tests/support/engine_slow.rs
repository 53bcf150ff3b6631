//! Finds out what a slow operation waits for: a processor; a lock whose owner is running, waiting
//! for a processor or stopped; or a lock without an owner (a lost wake-up).
//!
//! The kernel reports the state of a process, how long it was runnable without running, and the
//! word it sleeps on. A second process only reads the clock: delays that it sees, too, are not the
//! cache's.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use nix::unistd::Pid;

use crate::{
    engine_proc::{Child, Scratch, now, priority, say},
    engine_times::Times,
};

/// Operations longer than this are examined, in nanoseconds.
const SLOW: u64 = 50_000_000;
/// Operations longer than this are reported one by one.
const TOLD: u64 = 500_000_000;
/// A process that sleeps on a free lock for this long is not just waiting behind one that was woken
/// but has no processor yet.
const LOST: u64 = 250_000_000;

/// The result of one look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// It is running, or waiting for a processor.
    Runnable,
    /// It sleeps on a lock whose owner is in this state (`R` runs or waits for a processor, `S`
    /// sleeps, `T` is stopped).
    LockOf(char),
    /// It sleeps on a lock whose owner has died; the next locker repairs.
    LockOfDead,
    /// It sleeps on a word that is no lock, or a lock without an owner.
    Free,
    /// It sleeps in the kernel, not on a lock (page faults, files).
    Kernel,
}

#[derive(Debug)]
struct Slow {
    begun: u64,
    last: u64,
    /// Nanoseconds it had been runnable without running at the first look.
    delay: u64,
    delayed: u64,
    seen: BTreeMap<Seen, u32>,
    /// Start of its sleep on a free word; 0 = not sleeping, or reported already.
    free: u64,
}

/// The slow operations in progress, and what finished ones waited for.
#[derive(Debug)]
pub(crate) struct Watch {
    now: BTreeMap<usize, Slow>,
    all: BTreeMap<Seen, u32>,
    operations: u32,
    told: u32,
    lost: u32,
    /// The longest gap of the clock reader, and its last reading; it ends at this value.
    gap: Scratch,
    reader: Child,
}

impl Watch {
    /// With few workers the reader naps, so as not to take their processor.
    pub(crate) fn new(workers: usize) -> Self {
        let gap = Scratch::new(1);
        let reader = Child::fork(|| {
            priority(0);
            let mut last = now();
            loop {
                let time = now();
                gap[0].fetch_max(time - last, SeqCst);
                last = time;
                if workers < 8 {
                    std::thread::sleep(Duration::from_millis(1));
                    last = now();
                }
            }
        });
        Self { now: BTreeMap::new(), all: BTreeMap::new(), operations: 0, told: 0, lost: 0, gap, reader }
    }

    /// Looks at every worker that has been in one operation for long.
    pub(crate) fn look(&mut self, times: &Times, workers: &[Option<Child>]) {
        let time = now();
        for (worker, child) in workers.iter().enumerate() {
            let begun = times.in_operation(worker);
            if self.now.get(&worker).is_some_and(|slow| begun != Some(slow.begun)) {
                self.end(worker);
            }
            if let (Some(begun), Some(child)) = (begun, child)
                && time.saturating_sub(begun) > SLOW
            {
                self.one(worker, child.pid(), begun, time);
            }
        }
    }

    fn one(&mut self, worker: usize, pid: Pid, begun: u64, time: u64) {
        let delay = run_delay(pid);
        let new = Slow { begun, last: time, delay, delayed: 0, seen: BTreeMap::new(), free: 0 };
        let slow = self.now.entry(worker).or_insert(new);
        slow.last = time;
        slow.delayed = delay.saturating_sub(slow.delay);
        let seen = see(pid);
        *slow.seen.entry(seen).or_default() += 1;
        match seen {
            Seen::Free if slow.free == 0 => slow.free = time,
            Seen::Free => {}
            _ => slow.free = 0,
        }
        if slow.free != 0 && time - slow.free > LOST {
            slow.free = 0;
            self.lost += 1;
            say(&format!("worker {worker} (process {pid}) sleeps on a lock without an owner"));
        }
    }

    fn end(&mut self, worker: usize) {
        let Some(slow) = self.now.remove(&worker) else { return };
        self.operations += 1;
        for (&seen, looks) in &slow.seen {
            *self.all.entry(seen).or_default() += looks;
        }
        let took = slow.last - slow.begun;
        if took > TOLD && self.told < 20 {
            self.told += 1;
            let (ms, delayed) = (took / 1_000_000, slow.delayed / 1_000_000);
            say(&format!(
                "worker {worker}: an operation took {ms} ms or more, {delayed} ms of it waiting for a processor; seen: {:?}",
                slow.seen
            ));
        }
    }

    /// Operations that kept sleeping although no process would wake them.
    pub(crate) fn lost_wakeups(&self) -> u32 {
        self.lost
    }

    /// Ends the clock reader; returns a report.
    pub(crate) fn stop(self) -> String {
        let text = self.to_string();
        assert!(self.reader.kill(), "the clock reader ended by itself");
        text
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, all, lost, .. } = self;
        let gap = self.gap[0].load(SeqCst) as f64 / 1e6;
        write!(
            f,
            "{operations} operations of more than {} ms, seen {all:?}, lost wake-ups {lost}; longest delay of a process that only reads the clock {gap:.0} ms",
            SLOW / 1_000_000
        )
    }
}

fn run_delay(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Whether a process sleeps on a futex.
pub(crate) fn sleeps_on_a_lock(pid: Pid) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split_whitespace().next().is_some_and(|number| number.parse() == Ok(libc::SYS_futex))
}

/// Whether a process has ended, reaped or not.
pub(crate) fn is_gone(pid: Pid) -> bool {
    state(pid.as_raw()).is_none()
}

/// `R`, `S`, `D`, `T`; `None` = the process has ended or is a zombie.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    (!matches!(state, 'Z' | 'X')).then_some(state)
}

fn see(pid: Pid) -> Seen {
    if state(pid.as_raw()).is_none_or(|state| state == 'R') {
        return Seen::Runnable;
    }
    // The call's number, then its arguments; the first argument of a futex call is its address.
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = call.split_whitespace();
    let futex = words.next().is_some_and(|number| number.parse() == Ok(libc::SYS_futex));
    let address = words.next().and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let (true, Some(address)) = (futex, address) else {
        return if call.starts_with("running") { Seen::Runnable } else { Seen::Kernel };
    };
    let mut word = [0; 4];
    let memory = File::open(format!("/proc/{pid}/mem"));
    if !memory.is_ok_and(|memory| memory.read_exact_at(&mut word, address).is_ok()) {
        return Seen::Kernel;
    }
    let word = u32::from_ne_bytes(word);
    match i32::try_from(word & 0x3fff_ffff) {
        _ if word & 0x4000_0000 != 0 => Seen::LockOfDead,
        Ok(0) | Err(_) => Seen::Free,
        Ok(owner) => state(owner).map_or(Seen::LockOfDead, Seen::LockOf),
    }
}
