//! Times of the workers, measured from outside the cache: the longest operation, hangs, and how
//! soon operations complete that a death fell into.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{fmt, sync::atomic::Ordering::SeqCst};

use crate::{
    engine_proc::{Scratch, now, say},
    engine_rig::MAX_WORKERS,
};

/// An operation longer than this counts as a hang, in nanoseconds.
const HANG: u64 = 1_000_000_000;
/// The watchdog looks every millisecond or two; if it is this late, the whole machine stood still.
const LATE: u64 = 200_000_000;
/// Histogram buckets per doubling.
const FINE: usize = 8;

/// Words shared by all workers and their watchdog. Times are nanoseconds of the monotonic clock, 0
/// = none.
#[derive(Debug)]
pub(crate) struct Times {
    /// Start of the operation in progress, one per worker.
    begun: Scratch,
    /// The first death during it.
    death: Scratch,
    /// Not 0: the worker is stopped.
    paused: Scratch,
    resumed: Scratch,
    /// The operation already counted as a hang.
    hung: Scratch,
    /// Unused, longest operation, hangs, the watchdog's last look, its last late look, number of
    /// late looks.
    all: Scratch,
    histogram: Scratch,
}

impl Times {
    pub(crate) fn new() -> Self {
        let each = || Scratch::new(MAX_WORKERS);
        let times = Self {
            begun: each(),
            death: each(),
            paused: each(),
            resumed: each(),
            hung: each(),
            all: Scratch::new(6),
            histogram: Scratch::new(64 * FINE),
        };
        times.all[3].store(now(), SeqCst);
        times
    }

    pub(crate) fn begin(&self, worker: usize) -> u64 {
        let now = now();
        self.death[worker].store(0, SeqCst);
        self.begun[worker].store(now, SeqCst);
        now
    }

    /// Ends an operation. If a death fell into it, its time shows how soon the survivors continued.
    pub(crate) fn end(&self, worker: usize, begun: u64) {
        let now = now();
        self.begun[worker].store(0, SeqCst);
        // Excludes time when the worker was stopped or the whole machine stood still.
        if self.resumed[worker].load(SeqCst).max(self.all[4].load(SeqCst)) >= begun {
            return;
        }
        self.all[1].fetch_max(now - begun, SeqCst);
        let death = self.death[worker].load(SeqCst);
        if (begun..now).contains(&death) {
            let class = ((now - death).max(1) as f64).log2() * FINE as f64;
            self.histogram[class as usize].fetch_add(1, SeqCst);
        }
    }

    /// Notes that a dead worker is in no operation.
    pub(crate) fn ended(&self, worker: usize) {
        self.begun[worker].store(0, SeqCst);
    }

    /// Notes that a process is about to die, in all operations in progress that have no death yet.
    /// `counts` = the death can affect the cache.
    pub(crate) fn death(&self, counts: bool) {
        let now = if counts { now() } else { u64::MAX };
        for (begun, death) in self.begun.iter().zip(self.death.iter()) {
            if begun.load(SeqCst) != 0 {
                let _ = death.compare_exchange(0, now, SeqCst, SeqCst);
            }
        }
    }

    /// While a process is stopped with a lock, the others' waits are not due to a death.
    fn forget_deaths(&self) {
        self.death.iter().for_each(|death| death.store(u64::MAX, SeqCst));
    }

    /// Start of the operation in progress; `None` = there is none, or the worker is stopped.
    pub(crate) fn in_operation(&self, worker: usize) -> Option<u64> {
        let begun = self.begun[worker].load(SeqCst);
        let runs = self.paused[worker].load(SeqCst) == 0 && self.resumed[worker].load(SeqCst) < begun;
        (begun != 0 && runs).then_some(begun)
    }

    pub(crate) fn pause(&self, worker: usize) {
        self.paused[worker].store(1, SeqCst);
        self.resumed[worker].store(u64::MAX, SeqCst);
        self.forget_deaths();
    }

    pub(crate) fn go_on(&self, worker: usize) {
        self.resumed[worker].store(now(), SeqCst);
        self.paused[worker].store(0, SeqCst);
    }

    /// The watchdog's look at all workers.
    pub(crate) fn watch(&self) {
        let now = now();
        // The watchdog takes no lock: if it is late, no process was running. Hangs are measured
        // anew from here.
        if now - self.all[3].swap(now, SeqCst) > LATE {
            self.all[4].store(now, SeqCst);
            self.all[5].fetch_add(1, SeqCst);
        }
        for worker in 0..MAX_WORKERS {
            let begun = self.begun[worker].load(SeqCst);
            let since = begun.max(self.resumed[worker].load(SeqCst)).max(self.all[4].load(SeqCst));
            let running = begun != 0 && self.paused[worker].load(SeqCst) == 0;
            if running && since.saturating_add(HANG) < now && self.hung[worker].swap(begun, SeqCst) != begun {
                self.all[2].fetch_add(1, SeqCst);
                say(&format!("worker {worker} has been in one operation for over a second"));
            }
        }
    }

    /// Operations of more than a second.
    pub(crate) fn hangs(&self) -> u64 {
        self.all[2].load(SeqCst)
    }

    /// Nanoseconds that this share (in thousandths) of the survivors needed at most.
    fn quantile(&self, thousandths: u64) -> f64 {
        let counts: Vec<u64> = self.histogram.iter().map(|count| count.load(SeqCst)).collect();
        let all: u64 = counts.iter().sum();
        let mut seen = 0;
        for (class, count) in counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen * 1000 >= all * thousandths {
                return ((class + 1) as f64 / FINE as f64).exp2();
            }
        }
        0.0
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples: u64 = self.histogram.iter().map(|count| count.load(SeqCst)).sum();
        let [median, high, worst] = [500, 999, 1000].map(|q| self.quantile(q) / 1e6);
        write!(
            f,
            "resumed after (ms, {samples} operations with a death): median {median:.3}, p99.9 {high:.1}, worst {worst:.1}; hangs over 1 s {}, the machine stood still {} times, longest operation {:.0} ms",
            self.hangs(),
            self.all[5].load(SeqCst),
            self.all[1].load(SeqCst) as f64 / 1e6
        )
    }
}
