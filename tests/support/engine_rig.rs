//! A cache under load from several processes, with shared records of what it must answer.
//!
//! Each worker owns keys that only it writes; every process reads them. Each owned key has two
//! shared words: `intent` (written before an operation) and `acked` (after it), each
//! `seq << 1 | present`. A reader reads `acked` before and `intent` after its read: the value must
//! lie between the two, and a key that was present and only updated in between must be found. Even
//! keys are never deleted.
//!
//! A third word, `seen`, is the newest state that any read has returned. No later read may return
//! an older one: with one writer per key, and with operations cut off by a death as "maybe", that
//! is linearizability, checked while the load runs. The records lie outside the cache, in memory
//! that survives any death.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use ucache::engine::{Config, Engine, Expires, SetOptions};

use crate::{
    engine_audit as audit,
    engine_proc::{Child, Scratch, priority, say},
    engine_times::Times,
    engine_value::{self, Stamp},
    engine_worker::Worker,
};

/// Numbers of owned keys per worker, of counters, and of keys to fill.
pub(crate) const OWNED: u32 = 24;
pub(crate) const COUNTERS: u32 = 4;
pub(crate) const FILLS: u32 = 4;
pub(crate) const MAX_WORKERS: usize = 16;

pub(crate) const UPDATE: SetOptions = SetOptions::set(Expires::Never);
pub(crate) const ADD: SetOptions = SetOptions::add(Expires::Never);

/// Counters of a worker, one word each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Tally {
    Ops,
    Torn,
    Foreign,
    Lost,
    Stale,
    /// An answer that no order of the operations explains.
    Wrong,
    /// Unexplained errors.
    Refused,
    Increments,
    IncrementsBegun,
    Exclusive,
    ExclusiveBegun,
    Fills,
}
const TALLIES: usize = 16;
/// The counters that must stay 0.
pub(crate) const FAULTS: [Tally; 6] =
    [Tally::Torn, Tally::Foreign, Tally::Lost, Tally::Stale, Tally::Wrong, Tally::Refused];

/// The parameters of a load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    pub(crate) workers: usize,
    pub(crate) max_len: usize,
    /// Keys that all workers write; as many as fit are stored before the start.
    pub(crate) shared: u32,
    /// Items may be removed by the cache itself (LRU, clear).
    pub(crate) may_miss: bool,
    pub(crate) clears: bool,
}

impl Load {
    /// A load whose cache holds exactly all its keys.
    pub(crate) fn new(name: &'static str, workers: usize) -> Self {
        let mut load = Self {
            name,
            config: Config::new(name, 1),
            workers,
            max_len: 200_000,
            shared: 24,
            may_miss: false,
            clears: false,
        };
        load.config.capacity = load.keys();
        load.config.max_value = 200_000;
        // Only a hang takes longer, even with eight processes on two cores.
        load.config.lock_timeout = Duration::from_secs(20);
        load
    }

    /// Keys of all kinds; two of them change only under the exclusive lock.
    pub(crate) fn keys(&self) -> u64 {
        u64::from(owned_keys(self.workers) + self.shared + COUNTERS + FILLS + 2)
    }
}

pub(crate) fn owned_keys(workers: usize) -> u32 {
    u32::try_from(workers).expect("few") * OWNED
}

/// The engine, the records and the load; forked children share all of it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) engine: Arc<Engine>,
    pub(crate) load: Load,
    /// `Stats::bytes` of the fresh cache when filled with short values.
    pub(crate) full_bytes: u64,
    tallies: Scratch,
    intent: Scratch,
    pub(crate) acked: Scratch,
    seen: Scratch,
    stop: Scratch,
    pub(crate) times: Times,
    pub(crate) seed: u64,
}

impl Rig {
    pub(crate) fn new(load: Load) -> Self {
        let engine = Engine::create(&load.config).expect("a cache");
        let seed = std::env::var("UCACHE_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| fastrand::u64(..));
        say(&format!("{}: UCACHE_SEED={seed}", load.name));
        let owned = usize::try_from(owned_keys(load.workers)).expect("few");
        let rig = Self {
            tallies: Scratch::new(MAX_WORKERS * TALLIES),
            intent: Scratch::new(owned),
            acked: Scratch::new(owned),
            seen: Scratch::new(owned),
            stop: Scratch::new(1),
            times: Times::new(),
            full_bytes: audit::fill_and_clear(&engine, &load),
            engine,
            load,
            seed,
        };
        rig.store_shared();
        rig
    }

    fn store_shared(&self) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for n in 0..self.load.shared {
            let number = self.shared_key(n);
            engine_value::key_bytes(number, &mut key);
            engine_value::write(Stamp { key: number, writer: 0, seq: 0 }, 100, &mut value);
            self.engine.set(&key, &value, &UPDATE).expect("a shared key");
        }
    }

    pub(crate) fn start(&self, worker: usize, generation: u64) -> Child {
        self.times.ended(worker);
        Child::fork(|| {
            priority(0);
            Worker::new(self, worker, generation).run();
        })
    }

    pub(crate) fn stop(&self) {
        self.stop[0].store(1, SeqCst);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop[0].load(SeqCst) == 1
    }

    pub(crate) fn tally(&self, worker: usize, what: Tally) -> &AtomicU64 {
        &self.tallies[worker * TALLIES + what as usize]
    }

    pub(crate) fn sum(&self, what: Tally) -> u64 {
        (0..self.load.workers).map(|w| self.tally(w, what).load(SeqCst)).sum()
    }

    /// "ops 123 torn 0 ..." of all workers.
    pub(crate) fn report(&self) -> String {
        let faults = FAULTS.map(|f| format!("{f:?} {}", self.sum(f)).to_lowercase()).join(" ");
        format!("{} x{}: ops {} {faults}", self.load.name, self.load.workers, self.sum(Tally::Ops))
    }

    pub(crate) fn assert_clean(&self) {
        assert!(FAULTS.iter().all(|&f| self.sum(f) == 0), "{}", self.report());
    }

    pub(crate) fn words(&self, key: u32) -> (&AtomicU64, &AtomicU64) {
        let at = usize::try_from(key).expect("an index");
        (&self.intent[at], &self.acked[at])
    }

    /// Sequence number of the newest state of a key that a read has returned.
    pub(crate) fn seen(&self, key: u32) -> &AtomicU64 {
        &self.seen[usize::try_from(key).expect("an index")]
    }

    pub(crate) fn shared_key(&self, n: u32) -> u32 {
        owned_keys(self.load.workers) + n
    }

    pub(crate) fn counter_key(&self, n: u32) -> Vec<u8> {
        format!("counter {n}").into_bytes()
    }
}

/// State words: `seq << 1 | present`.
pub(crate) fn state(seq: u32, present: bool) -> u64 {
    u64::from(seq) << 1 | u64::from(present)
}
pub(crate) fn seq_of(state: u64) -> u32 {
    u32::try_from(state >> 1).expect("32 bits")
}
pub(crate) fn present(state: u64) -> bool {
    state & 1 == 1
}
