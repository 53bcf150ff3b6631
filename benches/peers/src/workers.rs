//! More workers than processors: costs measured here, put into a model of lines and locks, which two workers check.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::Ordering::{Acquire, Release},
    time::Instant,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    Effort,
    engine_proc::{Scratch, in_children},
    host::{BOTH, Flavor, Rig, turns},
    report::{Report, Table},
    simulation::{Costs, Load, Locking, Operation, run as simulated},
    support::zipf,
    uwsgi::{CACHES, phase_rates},
};

const WORKERS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
const KEYS: u32 = 100_000;
/// Keys whose lines stay with a worker: 1 MiB of L2 at three lines a key.
const REACH: u32 = 5_000;
/// Shards of the plugin's cache of 150,000 items.
const SHARDS: u32 = 256;
/// The best of some attempts: other programs only make it slower.
fn best(attempts: usize, mut once: impl FnMut() -> f64) -> f64 {
    (0..attempts).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Keeps the calling thread on one processor, so that two of them run on different ones.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).expect("a small number");
    // Where there is one processor only, both run there.
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

/// Nanoseconds for a line to go to another processor: two processes answer each other in it.
fn line() -> f64 {
    const TURNS: u64 = 2000;
    const BATCHES: u64 = 200;
    let words = Scratch::new(64);
    let (turn, shortest) = (&words[0], &words[16]);
    in_children(2, |n| {
        pin(n);
        let n = n as u64;
        let mut best = u64::MAX;
        for batch in 0..BATCHES {
            let start = Instant::now();
            for at in (batch * TURNS..(batch + 1) * TURNS).filter(|at| at % 2 == n) {
                while turn.load(Acquire) != at {
                    std::hint::spin_loop();
                }
                turn.store(at + 1, Release);
            }
            best = best.min(u64::try_from(start.elapsed().as_nanos()).expect("a short time"));
        }
        if n == 0 {
            shortest.store(best, Release);
        }
    });
    shortest.load(Acquire) as f64 / TURNS as f64
}

/// Nanoseconds of a call that wakes, and from its beginning to the moment when the sleeper runs: two threads on
/// different processors answer each other over a socket.
fn wake() -> (f64, f64) {
    const TURNS: u32 = 200;
    let (mut here, mut there) = UnixStream::pair().expect("a pair of sockets");
    let answering = std::thread::spawn(move || {
        pin(1);
        let mut byte = [0];
        while there.read(&mut byte).is_ok_and(|n| n == 1) && there.write_all(&byte).is_ok() {}
    });
    let asking = std::thread::spawn(move || {
        pin(0);
        let mut calls = f64::INFINITY;
        let each = best(50, || {
            let (start, mut calling) = (Instant::now(), 0.0);
            for _ in 0..TURNS {
                let call = Instant::now();
                here.write_all(b"x").expect("it reads");
                calling += call.elapsed().as_secs_f64();
                here.read_exact(&mut [0]).expect("it answers");
            }
            calls = calls.min(calling * 1e9 / f64::from(TURNS));
            start.elapsed().as_secs_f64() * 1e9 / f64::from(2 * TURNS)
        });
        (calls, each)
    });
    let measured = asking.join().expect("the thread ends");
    answering.join().expect("the thread ends");
    measured
}

/// Nanoseconds of a pause between two tries.
fn pause() -> f64 {
    const PAUSES: u32 = 1000;
    best(50, || {
        let start = Instant::now();
        (0..PAUSES).for_each(|_| std::hint::spin_loop());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(PAUSES)
    })
}

/// What is simulated: phases of the plugin by name, and of how many in a hundred each.
const LOADS: [(&str, &[(&str, u32)]); 5] = [
    ("get hit", &[("get hit", 100)]),
    ("mixed 95/5", &[("get hit", 95), ("update", 5)]),
    ("mixed 50/50", &[("get hit", 50), ("update", 50)]),
    ("update", &[("update", 100)]),
    ("hot counter", &[("hot counter", 100)]),
];

/// Millions a second of each phase by one and by two workers, the best of all rounds.
struct Measured {
    one: std::collections::BTreeMap<String, f64>,
    two: std::collections::BTreeMap<String, f64>,
}

impl Measured {
    fn nanos(&self, phase: &str) -> f64 {
        1e3 / self.one[phase] - 1e3 / self.one["loop alone"]
    }

    /// A phase as the model has it. How much of it is under the lock is not measured: of ucache's write what a miss
    /// does not do, but at least half; of native's operation nine tenths.
    fn operation(&self, flavor: Flavor, phase: &str) -> Operation {
        // A number in memory changes without a lock: one line, which all workers write.
        let common_line = flavor == Flavor::Ucache && phase == "hot counter";
        let (nanos, writes) = (self.nanos(phase), phase != "get hit" && !common_line);
        let outside = match flavor {
            Flavor::Ucache if !writes => nanos,
            Flavor::Ucache => self.nanos("get miss").min(nanos / 2.0),
            Flavor::Native => nanos / 10.0,
        };
        Operation { writes, outside, hold: nanos - outside, common_line }
    }
}

fn measure(rig: &Rig, effort: Effort) -> [Measured; 2] {
    let mut measured = BOTH.map(|_| Measured { one: Default::default(), two: Default::default() });
    for round in 0..effort.rounds {
        for flavor in turns(round) {
            let side = &mut measured[usize::from(flavor == Flavor::Native)];
            for (workers, into) in [(1, &mut side.one), (2, &mut side.two)] {
                for (phase, rate) in phase_rates(rig, flavor, workers, CACHES, effort) {
                    let best = into.entry(phase).or_insert(rate);
                    *best = best.max(rate);
                }
            }
        }
    }
    measured
}

/// The fewest workers that do nine tenths of what any number does, unless that is the largest number.
fn limit(rates: &[f64]) -> Option<usize> {
    let most = rates.iter().copied().fold(0.0, f64::max);
    rates.iter().position(|&rate| rate >= most * 0.9).filter(|&at| at + 1 < rates.len())
}

/// One line of the table: a load of one side, by all numbers of workers.
fn row(name: &str, whose: &str, costs: Costs, load: &Load<'_>, two: Option<f64>, table: &mut Table) {
    let outcomes = WORKERS.map(|workers| simulated(costs, load, workers, 300_000));
    let rates = outcomes.map(|outcome| outcome.rate);
    let mut cells = vec![name.to_owned(), whose.to_owned()];
    cells.extend(rates.iter().map(|rate| format!("{rate:.1}")));
    cells.push(two.map_or_else(String::new, |two| format!("{two:.1} ({:.2})", rates[1] / two)));
    cells.push(limit(&rates).map_or_else(String::new, |at| {
        let plural = if at == 0 { "worker" } else { "workers" };
        format!("{} {plural} ({:.0} % held)", WORKERS[at], outcomes[at].busiest * 100.0)
    }));
    println!("{}", cells.join(" | "));
    table.figures.push(json!({
        "load": name, "whose": whose, "workers": WORKERS, "rates": rates, "measured_2": two,
        "busiest": outcomes.map(|outcome| outcome.busiest), "limit": limit(&rates).map(|at| WORKERS[at]),
    }));
    table.rows.push(cells);
}

pub(crate) fn run(effort: Effort) -> Report {
    let mut report = Report::new("workers", true, effort.rounds);
    let measured = measure(&Rig::new(), effort);
    let (call, wake) = wake();
    let costs = Costs { line: best(3, line), call, wake, pause: pause() };
    let order = zipf(KEYS, 13);
    let mut head = vec!["load, M/s".to_owned(), "whose".to_owned()];
    head.extend(WORKERS.iter().map(|workers| format!("{workers}")));
    head.extend(["2 measured (model by it)".to_owned(), "no more beyond".to_owned()]);
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, phases) in LOADS {
        for (flavor, side) in [(Flavor::Ucache, &measured[0]), (Flavor::Native, &measured[1])] {
            let kinds: Vec<_> =
                phases.iter().map(|&(phase, share)| (side.operation(flavor, phase), share)).collect();
            let (locking, whose) = match flavor {
                Flavor::Ucache => (Locking::Shards(SHARDS), "ucache"),
                Flavor::Native => (Locking::ReadersAndWriters, "native"),
            };
            // A counter is one key.
            let one_key = [0];
            let (order, keys) = if name == "hot counter" { (&one_key[..], 1) } else { (&order[..], KEYS) };
            let load = Load { locking, kinds: &kinds, order, keys, reach: REACH };
            row(name, whose, costs, &load, Some(side.two[name]), &mut table);
        }
    }
    let ours = &measured[0];
    let (get, update) = (ours.operation(Flavor::Ucache, "get hit"), ours.operation(Flavor::Ucache, "update"));
    let clock = Operation { common_line: true, ..get };
    for (name, shards, kinds) in [
        ("update, 64 shards", 64, [(update, 100)]),
        ("update, one shard", 1, [(update, 100)]),
        ("get hit, exact LRU", 1, [(clock, 100)]),
    ] {
        let load =
            Load { locking: Locking::Shards(shards), kinds: &kinds, order: &order, keys: KEYS, reach: REACH };
        row(name, "ucache", costs, &load, None, &mut table);
    }
    report.table(table);
    report.note(format!(
        "Simulated, but for the column that is measured: {KEYS} keys, zipf 0.99, {SHARDS} shards in ucache and one lock for \
         readers and writers in uWSGI. Measured here: an operation of a lone worker; {:.0} ns for a line that \
         another processor had, {:.0} ns for a wake-up, of which {:.0} are the waker's, {:.1} ns for a pause between tries of a lock. The \
         model (`benches/support/simulation.rs`) adds what workers cost each other, and knows neither the bandwidth of the memory nor \
         sockets. \"held\": share of the time for which the busiest lock is held. Measured rates are the best of the \
         rounds, in brackets the model's by the measured one.",
        costs.line, costs.wake, costs.call, costs.pause
    ));
    report
}
