//! Against what a user would pick instead: the same keys, values and order of accesses everywhere.

use std::sync::Arc;

use tempfile::TempDir;
use ucache::Cache;

use crate::{
    Effort,
    floor::Floor,
    load::{Store, Workers, gets, rate, sets},
    report::{FLOOR, Report},
    row::{Goal, Row, Samples, Unit},
    scripts::{Rates, apcu, shared_dict},
    server::Server,
    stores::{Lmdb, Moka, Quick, ucache},
    support::{key, zipf},
    wire::{Protocol, Wire},
};

/// Requests that a pipelined client has in flight.
const BATCH: usize = 16;

/// Keys of one size of cache, and the orders in which two workers look them up.
struct Keys {
    count: u32,
    all: Vec<[u8; 16]>,
    orders: [Vec<[u8; 16]>; 2],
}

impl Keys {
    fn new(count: u32, accesses: usize) -> Self {
        let order = |seed| zipf(count, seed).into_iter().take(accesses).map(key).collect();
        Self { count, all: (0..count).map(key).collect(), orders: [order(11), order(12)] }
    }

    /// The first accesses of a worker, for what is slow.
    fn some(&self, worker: usize, share: usize) -> &[[u8; 16]] {
        &self.orders[worker][..self.orders[worker].len() / share]
    }
}

fn label(what: &str, count: u32, workers: usize) -> String {
    let plural = if workers == 1 { "worker" } else { "workers" };
    format!("{what}, {}k keys, {workers} {plural}", count / 1000)
}

/// What a script of another language measures.
fn add_both(
    into: &mut Samples,
    keys: &Keys,
    workers: usize,
    whose: &'static str,
    script: impl Fn(&[[u8; 16]], &[&[[u8; 16]]]) -> Rates,
) {
    let orders: Vec<_> = (0..workers).map(|n| keys.some(n, 2)).collect();
    let (got, set) = script(&keys.all, &orders);
    into.add(label("get", keys.count, workers), whose, got);
    into.add(label("update", keys.count, workers), whose, set);
}

/// Gets and updates of one contender. `share`: it does only so much of the accesses.
fn both<S: Store>(
    into: &mut Samples,
    whose: &'static str,
    keys: &Keys,
    workers: (Workers, usize),
    share: (usize, bool),
    make: impl Fn() -> S + Sync,
) {
    let ((kind, count), (share, waits)) = (workers, share);
    // A process that was just forked has yet to map every page of shared memory; servers have
    // theirs.
    let ready = |n| {
        let mut store = make();
        if !waits {
            gets(&mut store, &keys.all);
        }
        gets(&mut store, keys.some(n, share * 2));
        store
    };
    let got = rate(kind, waits, ready, |n, store| gets(store, keys.some(n, share)));
    into.add(label("get", keys.count, count), whose, got);
    let set = rate(kind, waits, ready, |n, store| sets(store, keys.some(n, share * 2)));
    into.add(label("update", keys.count, count), whose, set);
}

/// What lives as long as the rounds of one size.
struct Field {
    ours: Cache,
    floor: Floor,
    quick: Arc<quick_cache::sync::Cache<[u8; 16], [u8; 100]>>,
    moka: moka::sync::Cache<[u8; 16], [u8; 100]>,
    lmdb: TempDir,
}

impl Field {
    fn new(keys: &Keys) -> Self {
        let room = keys.all.len() * 3 / 2;
        let lmdb = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is there");
        let field = Self {
            ours: ucache(keys.count),
            floor: Floor::new(keys.count),
            quick: Arc::new(quick_cache::sync::Cache::new(room)),
            moka: moka::sync::Cache::new(u64::try_from(room).expect("a size")),
            lmdb,
        };
        sets(&mut field.ours.clone(), &keys.all);
        sets(&mut Quick(field.quick.clone()), &keys.all);
        sets(&mut Moka(field.moka.clone()), &keys.all);
        // An LMDB environment must not cross a fork: a process of its own fills it.
        rate(
            Workers::Processes(1),
            true,
            |_| Lmdb::open(field.lmdb.path()),
            |_, lmdb| {
                lmdb.fill(&keys.all);
                1
            },
        );
        field
    }

    /// Everyone takes a turn; each round begins with another one, and every other round goes backwards.
    fn round(&self, number: usize, keys: &Keys, into: &mut Samples) {
        for count in [1, 2] {
            let forks = (Workers::Processes(count), count);
            let threads = (Workers::Threads(count), count);
            for turn in 0..7 {
                let turn = if number.is_multiple_of(2) { turn } else { 6 - turn };
                match (number + turn) % 7 {
                    0 => both(into, "ucache", keys, forks, (1, false), || self.ours.clone()),
                    1 => both(into, "floor", keys, forks, (1, false), || &self.floor),
                    2 => both(into, "quick_cache", keys, threads, (1, false), || Quick(self.quick.clone())),
                    3 => both(into, "moka", keys, threads, (2, false), || Moka(self.moka.clone())),
                    4 => both(into, "LMDB", keys, forks, (4, false), || Lmdb::open(self.lmdb.path())),
                    5 => add_both(into, keys, count, "APCu", apcu),
                    _ => add_both(into, keys, count, "ngx.shared.DICT", shared_dict),
                }
            }
        }
    }
}

/// memcached and Redis, one request in flight and pipelined.
fn daemons(keys: &Keys, effort: Effort, into: &mut Samples) {
    let servers = [
        (Protocol::Memcached, "memcached", "memcached x16", Server::memcached(1 << 30)),
        (Protocol::Redis, "Redis", "Redis x16", Server::redis()),
    ];
    for (protocol, _, _, (_, socket)) in &servers {
        let mut wire = Wire::connect(*protocol, socket);
        keys.all.chunks(100).for_each(|some| wire.set_many(some, &[b'v'; 100]));
    }
    for _ in 0..effort.rounds {
        for count in [1, 2] {
            for (protocol, plain, batched, (_, socket)) in &servers {
                let connect = || Wire::connect(*protocol, socket);
                both(into, plain, keys, (Workers::Processes(count), count), (64, true), connect);
                let some = |n| keys.some(n, 8).chunks_exact(BATCH);
                let total = |n| u64::try_from(some(n).len() * BATCH).expect("a count");
                let got = rate(
                    Workers::Processes(count),
                    true,
                    |_| connect(),
                    |n, wire| {
                        let mut out = [0; 100];
                        some(n).for_each(|batch| assert!(wire.get_many(batch, &mut out) > 0));
                        total(n)
                    },
                );
                into.add(label("get", keys.count, count), batched, got);
                let set = rate(
                    Workers::Processes(count),
                    true,
                    |_| connect(),
                    |n, wire| {
                        some(n).for_each(|batch| wire.set_many(batch, &[b'w'; 100]));
                        total(n)
                    },
                );
                into.add(label("update", keys.count, count), batched, set);
            }
        }
    }
}

/// In the order of their rows.
const PEERS: [&str; 10] = [
    "floor",
    "quick_cache",
    "moka",
    "LMDB",
    "APCu",
    "ngx.shared.DICT",
    "memcached",
    "memcached x16",
    "Redis",
    "Redis x16",
];

/// The targets of the design.
fn goal(what: &str, workers: usize, peer: &str) -> Goal {
    match (what, workers, peer) {
        ("get", 1, "floor") => Goal::Times(1.0 / 1.5),
        ("update", 1, "floor") => Goal::Times(1.0 / 3.0),
        ("get", 1, "LMDB" | "APCu" | "ngx.shared.DICT") => Goal::Times(5.0),
        ("get", 1, "quick_cache") => Goal::Times(1.0 / 1.3),
        ("update", 1, "LMDB" | "APCu" | "ngx.shared.DICT") => Goal::Times(4.0),
        (_, 1, "memcached" | "Redis") => Goal::Times(100.0),
        _ => Goal::None,
    }
}

fn rows(report: &mut Report, samples: &Samples, count: u32) {
    for what in ["get", "update"] {
        for workers in [1, 2] {
            let name = label(what, count, workers);
            let ours = samples.of(&name, "ucache");
            for peer in PEERS {
                let theirs = samples.of(&name, peer);
                if theirs.is_empty() {
                    continue;
                }
                let goal = goal(what, workers, peer);
                let row = Row::new(name.clone(), peer, Unit::Rate, ours.clone(), theirs.clone());
                report.add(row.with(goal));
                if matches!(goal, Goal::Times(_))
                    && ["quick_cache", "LMDB", "APCu", "ngx.shared.DICT"].contains(&peer)
                {
                    let floor = samples.of(&name, "floor");
                    let row = Row::new(name.clone(), peer, Unit::Rate, floor, theirs);
                    report.add(row.with(goal).of_the_floor());
                }
            }
        }
        let one = samples.of(&label(what, count, 1), "ucache");
        let two = samples.of(&label(what, count, 2), "ucache");
        let goal = if what == "get" { Goal::Times(1.8) } else { Goal::None };
        let name = label(what, count, 2);
        report.add(Row::new(name, "1 worker", Unit::Rate, two, one).with(goal));
    }
}

pub(crate) fn run(effort: Effort) -> Report {
    let mut report = Report::new("peers", true, effort.rounds);
    let sizes: &[u32] = if effort.quick { &[100_000] } else { &[100_000, 1_000_000] };
    for &count in sizes {
        let keys = Keys::new(count, if effort.quick { 1 << 18 } else { 1 << 20 });
        let mut samples = Samples::default();
        let field = Field::new(&keys);
        for number in 0..effort.rounds {
            field.round(number, &keys, &mut samples);
        }
        if count == sizes[0] {
            daemons(&keys, effort, &mut samples);
        }
        rows(&mut report, &samples, count);
    }
    report.note(
        "Keys of 16 bytes, values of 100, nothing expires, zipf 0.99; every get hands the caller a copy of the value, which is looked \
         at. Workers are processes, for quick_cache and moka (which know one process only) threads; each has read every \
         key once before it is timed. x16: 16 requests at once. One worker is timed in processor time, two, and the \
         servers, by the clock. LMDB on /dev/shm without syncing, one transaction an operation; APCu and \
         ngx.shared.DICT without the time of PHP's and LuaJIT's loop, but with that of a call there, which makes a string.",
    );
    report.note(FLOOR);
    report
}
