//! More workers than there are processors: a model of workers, cache lines and locks, event by event. What an operation
//! costs a lone worker, what a line costs that another processor had, and what a wake-up costs are measured; the model
//! adds what workers cost each other. It knows neither the bandwidth of the memory nor sockets.
#![allow(dead_code, reason = "every bench and test uses its own part")]

use std::{cmp::Reverse, collections::BinaryHeap};

/// Nanoseconds on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// A line that another processor wrote.
    pub(crate) line: f64,
    /// The call that wakes a sleeper, and the time from its beginning to the moment when the sleeper runs.
    pub(crate) call: f64,
    pub(crate) wake: f64,
    /// A pause between two tries.
    pub(crate) pause: f64,
}

/// Tries of a waiter for a shard's lock before it sleeps; before the first it pauses 8 times, then twice as often each
/// time (`src/os/mutex.rs`).
const TRIES: u32 = 5;
const PAUSES: f64 = 8.0;

/// How the operations of one cache exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Reads take no lock; writes that of their shard. Waiters spin, then sleep; who comes first when it is free has it.
    Shards(u32),
    /// Reads share one lock, writes have it alone, as glibc's: waiters sleep at once, the last reader hands the lock over
    /// to a writer that waits, a writer to all readers that wait.
    ReadersAndWriters,
}

/// One kind of operation of a lone worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// It takes a lock, or in uWSGI the lock of writers.
    pub(crate) writes: bool,
    /// Nanoseconds without a lock, and with it (without locks: all of it is in the first).
    pub(crate) outside: f64,
    pub(crate) hold: f64,
    /// A line that all operations of this kind write (a counter, the clock of an order), after the lock.
    pub(crate) common_line: bool,
}

/// What the workers do: kinds of operations, and how many of a hundred each of them is.
pub(crate) struct Load<'a> {
    pub(crate) locking: Locking,
    pub(crate) kinds: &'a [(Operation, u32)],
    /// Keys in the order of their use; each worker begins elsewhere in it.
    pub(crate) order: &'a [u32],
    pub(crate) keys: u32,
    /// Operations after which a worker has lost a key's lines to other keys: then they cost what they cost a lone
    /// worker.
    pub(crate) reach: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// Operations a second of all workers together, in millions.
    pub(crate) rate: f64,
    /// Share of the time for which the busiest lock was held.
    pub(crate) busiest: f64,
}

/// A time in picoseconds: events are ordered by whole numbers.
type Moment = u64;

fn moment(nanos: f64) -> Moment {
    (nanos * 1000.0).round() as Moment
}

const NOBODY: u32 = u32::MAX;

/// A line that workers write: who has it, and until when it is on its way.
#[derive(Clone, Copy)]
struct Line {
    owner: u32,
    free: Moment,
}

const UNTOUCHED: Line = Line { owner: NOBODY, free: 0 };

impl Line {
    /// When a worker that asks now has it to itself.
    fn take(&mut self, worker: u32, now: Moment, cost: Moment) -> Moment {
        if self.owner == worker || self.owner == NOBODY {
            self.owner = worker;
            return now.max(self.free);
        }
        self.owner = worker;
        self.free = now.max(self.free) + cost;
        self.free
    }
}

#[derive(Clone)]
struct Lock {
    line: Line,
    readers: u32,
    writer: bool,
    sleeping_readers: Vec<u32>,
    sleeping_writers: Vec<u32>,
    /// Who had it alone last, since when, and for how long anybody had.
    last: u32,
    since: Moment,
    held: Moment,
}

/// What a worker does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Begin,
    /// Asks for the lock's line, and when it has that, for the lock.
    Ask,
    Try,
    /// The lock was handed over to it.
    Granted,
    /// Asks for the lock's line again, and when it has that, gives the lock back.
    Release,
    Leave,
}

struct Worker {
    at: usize,
    done: u32,
    kind: usize,
    key: u32,
    /// How often it has tried to get the lock.
    tries: u32,
}

struct Machine<'a> {
    load: &'a Load<'a>,
    costs: Costs,
    line: Moment,
    workers: Vec<Worker>,
    locks: Vec<Lock>,
    /// Of each key: the last writer, and of each worker and key: the operation that used it last.
    writers: Vec<u32>,
    used: Vec<u32>,
    /// The line that all share.
    common: Line,
    events: BinaryHeap<Reverse<(Moment, u32, Stage)>>,
    seed: u64,
}

/// Runs so many operations by so many workers.
pub(crate) fn run(costs: Costs, load: &Load<'_>, workers: u32, operations: u32) -> Outcome {
    let locks = match load.locking {
        Locking::Shards(count) => count,
        Locking::ReadersAndWriters => 1,
    };
    let lock = Lock {
        line: UNTOUCHED,
        readers: 0,
        writer: false,
        sleeping_readers: Vec::new(),
        sleeping_writers: Vec::new(),
        last: NOBODY,
        since: 0,
        held: 0,
    };
    let start = |n| load.order.len() / workers as usize * n as usize;
    let worker = |n| Worker { at: start(n), done: 0, kind: 0, key: 0, tries: 0 };
    let mut machine = Machine {
        load,
        costs,
        line: moment(costs.line),
        workers: (0..workers).map(worker).collect(),
        locks: vec![lock; locks as usize],
        writers: vec![NOBODY; load.keys as usize],
        used: vec![0; (load.keys * workers) as usize],
        common: UNTOUCHED,
        events: (0..workers).map(|n| Reverse((u64::from(n) * 7, n, Stage::Begin))).collect(),
        seed: 0x2545_f491_4f6c_dd1d,
    };
    machine.work(operations)
}

impl Machine<'_> {
    fn work(&mut self, operations: u32) -> Outcome {
        // The first half warms the lines.
        let (mut done, mut from, mut held, mut now) = (0, 0, vec![0; self.locks.len()], 0);
        while done < operations {
            let Some(Reverse((time, n, stage))) = self.events.pop() else {
                panic!("every worker sleeps");
            };
            now = time;
            match stage {
                Stage::Begin => {
                    done += 1;
                    if done == operations / 2 {
                        from = now;
                        held = self.locks.iter().map(|lock| lock.held).collect();
                    }
                    self.begin(n, now);
                }
                Stage::Ask => self.line_of_lock(n, now, Stage::Try),
                Stage::Try => self.ask(n, now),
                Stage::Granted => self.enter(n, now, true),
                Stage::Release => self.line_of_lock(n, now, Stage::Leave),
                Stage::Leave => self.release(n, now),
            }
        }
        let took = (now - from).max(1) as f64;
        let busiest =
            self.locks.iter().zip(&held).map(|(lock, before)| lock.held - before).max().unwrap_or(0);
        Outcome { rate: f64::from(operations - operations / 2) / took * 1e6, busiest: busiest as f64 / took }
    }

    fn at(&mut self, time: Moment, n: u32, stage: Stage) {
        self.events.push(Reverse((time, n, stage)));
    }

    fn operation(&self, n: u32) -> Operation {
        self.load.kinds[self.workers[n as usize].kind].0
    }

    fn lock_of(&self, n: u32) -> usize {
        match self.load.locking {
            Locking::Shards(count) => {
                let mixed = u64::from(self.workers[n as usize].key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                ((mixed * u64::from(count)) >> 32) as usize
            }
            Locking::ReadersAndWriters => 0,
        }
    }

    fn random(&mut self) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 32) as u32
    }

    /// A time that is a fifth shorter or longer at most: workers must not march in step.
    fn about(&mut self, nanos: f64) -> Moment {
        let factor = 0.8 + 0.4 * f64::from(self.random()) / f64::from(u32::MAX);
        moment(nanos * factor)
    }

    /// Chooses the next operation and does what needs no lock.
    fn begin(&mut self, n: u32, now: Moment) {
        let mut draw = self.random() % 100;
        let kind = self.load.kinds.iter().position(|&(_, share)| {
            let chosen = draw < share;
            draw = draw.saturating_sub(share);
            chosen
        });
        let worker = &mut self.workers[n as usize];
        worker.kind = kind.expect("the shares make a hundred");
        worker.key = self.load.order[worker.at % self.load.order.len()];
        worker.at += 1;
        worker.done += 1;
        let operation = self.operation(n);
        let mut end = now + self.about(operation.outside);
        if !operation.writes && self.load.locking != Locking::ReadersAndWriters {
            end += self.lines_of_key(n, false);
            if operation.common_line {
                end = self.common.take(n, end, self.line);
            }
            self.at(end, n, Stage::Begin);
        } else {
            self.at(end, n, Stage::Ask);
        }
    }

    /// What a key's lines cost more than they cost a lone worker: one line, since they are asked for at the same time.
    fn lines_of_key(&mut self, n: u32, writes: bool) -> Moment {
        let worker = &self.workers[n as usize];
        let used = &mut self.used[(n * self.load.keys + worker.key) as usize];
        let had = *used != 0 && worker.done - *used < self.load.reach;
        *used = worker.done;
        let writer = &mut self.writers[worker.key as usize];
        let foreign = *writer != NOBODY && *writer != n;
        if writes {
            *writer = n;
        } else if foreign {
            // Both have it now; the next read is free until somebody writes.
            *writer = NOBODY;
        }
        if foreign && had { self.line } else { 0 }
    }

    fn is_shared(&self, n: u32) -> bool {
        self.load.locking == Locking::ReadersAndWriters && !self.operation(n).writes
    }

    /// An operation on the lock's line takes it away from who has it.
    fn line_of_lock(&mut self, n: u32, now: Moment, next: Stage) {
        let at = self.lock_of(n);
        let end = self.locks[at].line.take(n, now, self.line);
        self.at(end, n, next);
    }

    fn ask(&mut self, n: u32, now: Moment) {
        let (at, shared) = (self.lock_of(n), self.is_shared(n));
        let lock = &mut self.locks[at];
        let foreign = lock.last != n && lock.last != NOBODY;
        if lock.writer || (!shared && lock.readers > 0) {
            self.wait(n, at, now, shared);
            return;
        }
        if shared {
            lock.readers += 1;
        } else {
            lock.writer = true;
        }
        self.enter(n, now, foreign);
    }

    /// Does what the lock protects. `foreign`: another worker had the lock before.
    fn enter(&mut self, n: u32, now: Moment, foreign: bool) {
        let (operation, at, shared) = (self.operation(n), self.lock_of(n), self.is_shared(n));
        self.workers[n as usize].tries = 0;
        let mut lines = self.lines_of_key(n, operation.writes);
        if foreign && matches!(self.load.locking, Locking::Shards(_)) {
            // The block that the shard's last writer left; asked for together with the key's.
            lines = self.line;
        }
        let mut end = now + self.about(operation.hold) + lines;
        if operation.common_line {
            end = self.common.take(n, end - lines, self.line);
        }
        let lock = &mut self.locks[at];
        if !shared {
            lock.last = n;
            lock.since = now;
        }
        self.at(end, n, Stage::Release);
    }

    fn wait(&mut self, n: u32, at: usize, now: Moment, shared: bool) {
        let tries = &mut self.workers[n as usize].tries;
        if matches!(self.load.locking, Locking::Shards(_)) && *tries < TRIES {
            let pauses = PAUSES * f64::from(1 << *tries);
            *tries += 1;
            let pauses = self.about(pauses * self.costs.pause);
            self.at(now + pauses, n, Stage::Ask);
        } else if shared {
            self.locks[at].sleeping_readers.push(n);
        } else {
            self.locks[at].sleeping_writers.push(n);
        }
    }

    /// Gives the lock back, hands it over or wakes.
    fn release(&mut self, n: u32, now: Moment) {
        let (at, shared) = (self.lock_of(n), self.is_shared(n));
        let lock = &mut self.locks[at];
        if shared {
            lock.readers -= 1;
        } else {
            lock.writer = false;
            lock.held += now - lock.since;
        }
        let mut woken = Vec::new();
        if !shared && !lock.sleeping_readers.is_empty() {
            woken.append(&mut lock.sleeping_readers);
            lock.readers += woken.len() as u32;
        } else if lock.readers == 0 && !lock.sleeping_writers.is_empty() {
            woken.push(lock.sleeping_writers.remove(0));
            lock.writer = shared;
        }
        let granted = lock.writer || lock.readers > 0;
        let (wake, call) = (moment(self.costs.wake), moment(self.costs.call));
        let busy = if woken.is_empty() { 0 } else { call };
        for sleeper in woken {
            self.at(now + wake, sleeper, if granted { Stage::Granted } else { Stage::Ask });
        }
        self.at(now + busy, n, Stage::Begin);
    }
}
