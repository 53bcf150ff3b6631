//! ucache as a near cache of a Redis server, beside what a program has without it: the server alone, and the client-side
//! cache of redis-rs. The server is on a unix socket of the same machine, and shares its processors.

use std::{
    hint::black_box,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ucache::{Backend, Cache, Eviction};

use crate::{
    Effort,
    load::{Store, Workers, gets, rate, sets},
    near_clients::{Caching, Plain},
    report::{Report, Table},
    row::{Goal, Row, Samples, Unit, median},
    server::Server,
    stores::builder,
    support::{key, zipf},
};

const KEYS: u32 = 10_000;
/// Room in every cache.
const ITEMS: u64 = 20_000;
const VALUE: [u8; 100] = [b'v'; 100];
/// What every client puts before its keys.
pub(crate) const PREFIX: &str = "p:";
/// The other sides.
const LOCAL: &str = "local cache, S3-FIFO";
const PLAIN: &str = "local cache";
const CACHING: &str = "redis-rs with its cache";
/// Machines, and workers of each, of the mixed load.
const MACHINES: usize = 2;
const WORKERS: usize = 2;

/// A cache as on a machine of its own: its region has an owner and a connection of its own.
fn machine(name: &str, socket: &Path) -> Cache {
    let url = format!("redis+unix://{}", socket.display());
    let backend = Backend::url(url).prefix(PREFIX).timeout(Duration::from_secs(20));
    builder(name, ITEMS).backend(backend).build().expect("a cache")
}

fn local(name: &str, evict: Eviction) -> Cache {
    builder(name, ITEMS).evict(evict).build().expect("a cache")
}

/// Until the messages of what was written before are through.
fn settle() {
    thread::sleep(Duration::from_millis(500));
}

/// Nanoseconds of one call of so many.
fn per_call(calls: impl FnOnce() -> u64) -> f64 {
    let start = Instant::now();
    let count = calls();
    start.elapsed().as_nanos() as f64 / count as f64
}

fn rows(report: &mut Report, samples: &Samples) {
    let mut row = |name: &str, peer, theirs: &[f64], goal| {
        let row = Row::new(name.to_owned(), peer, Unit::Nanos, samples.of(name, "ucache"), theirs.to_vec());
        report.add(row.with(goal));
    };
    let [local, plain] = [LOCAL, PLAIN].map(|whose| samples.of("hit", whose));
    let [get, set] = ["miss", "write"].map(|what| samples.of(what, "redis-rs"));
    row("hit", LOCAL, &local, Goal::Times(0.8));
    row("hit", PLAIN, &plain, Goal::None);
    row("hit", "redis-rs: GET", &get, Goal::Times(500.0));
    row("hit", CACHING, &samples.of("hit", CACHING), Goal::None);
    // A round trip and 5 us, or 2 us for a write.
    row("miss", "redis-rs: GET", &get, Goal::Most(median(&get) + 5_000.0));
    row("miss", CACHING, &samples.of("miss", CACHING), Goal::None);
    row("write", "redis-rs: SET", &set, Goal::Most(median(&set) + 2_000.0));
}

/// Hits, misses and writes of one process.
fn single(report: &mut Report, socket: &Path, effort: Effort) {
    let all: Vec<_> = (0..KEYS).map(key).collect();
    let (hot, cold) = (&all[..1000], &all[..if effort.quick { 500 } else { 4000 }]);
    let (mut evicting, mut plain) = (local("local", Eviction::S3Fifo), local("plain", Eviction::None));
    let (mut near, mut server) = (machine("near", socket), Plain::connect(socket));
    let mut caching = Caching::connect(socket, ITEMS as usize);
    sets(&mut server, &all);
    sets(&mut evicting, hot);
    sets(&mut plain, hot);
    let mut samples = Samples::default();
    for _ in 0..effort.rounds {
        // Reads of keys that no copy exists of: their values have just been written.
        sets(&mut server, cold);
        settle();
        samples.add("miss".into(), "ucache", per_call(|| gets(&mut near, cold)));
        samples.add("miss".into(), CACHING, caching.gets(cold));
        samples.add("miss".into(), "redis-rs", per_call(|| gets(&mut server, cold)));
        gets(&mut near, hot);
        caching.gets(hot);
        // The best of many short turns: other programs only make them slower.
        let mut best = [f64::INFINITY; 4];
        for _ in 0..if effort.quick { 20 } else { 200 } {
            let turn = [
                per_call(|| gets(&mut evicting, hot)),
                per_call(|| gets(&mut near, hot)),
                per_call(|| gets(&mut plain, hot)),
                caching.gets(hot),
            ];
            best.iter_mut().zip(turn).for_each(|(best, now)| *best = best.min(now));
        }
        for (whose, best) in [LOCAL, "ucache", PLAIN, CACHING].into_iter().zip(best) {
            samples.add("hit".into(), whose, best);
        }
        samples.add("write".into(), "redis-rs", per_call(|| sets(&mut server, hot)));
        samples.add("write".into(), "ucache", per_call(|| sets(&mut near, hot)));
    }
    rows(report, &samples);
}

/// 95 reads and 5 writes of a hundred by two workers of each of two machines; millions a second.
fn mixed<S: Store>(orders: &[Vec<[u8; 16]>], share: usize, make: impl Fn(usize) -> S + Sync) -> f64 {
    let part = |n: usize| &orders[n][..orders[n].len() / share];
    rate(
        Workers::Processes(MACHINES * WORKERS),
        true,
        |n| {
            let mut store = make(n);
            gets(&mut store, part(n));
            store
        },
        |n, store| {
            let mut out = [0; 100];
            for (at, key) in part(n).iter().enumerate() {
                if at % 20 == 19 {
                    store.set(key, &VALUE);
                } else {
                    assert!(store.get(key, black_box(&mut out)), "a key was not found");
                }
            }
            part(n).len() as u64
        },
    )
}

fn mixes(report: &mut Report, socket: &Path, effort: Effort) {
    let accesses = if effort.quick { 4_000 } else { 40_000 };
    let order = |n: usize| zipf(KEYS, n as u64 + 1).into_iter().take(accesses).map(key).collect();
    let orders: Vec<Vec<_>> = (0..MACHINES * WORKERS).map(order).collect();
    let machines: Vec<_> = (0..MACHINES).map(|n| machine(&format!("machine{n}"), socket)).collect();
    let (mut ours, mut plain, mut caching) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        ours.push(mixed(&orders, 1, |n| machines[n / WORKERS].clone()));
        plain.push(mixed(&orders, 4, |_| Plain::connect(socket)));
        caching.push(mixed(&orders, 4, |_| Caching::connect(socket, ITEMS as usize)));
    }
    let name = "95/5, zipf 0.99, 2 machines x 2 workers";
    let row = Row::new(name.to_owned(), "redis-rs", Unit::Rate, ours.clone(), plain);
    report.add(row.with(Goal::Times(10.0)));
    report.add(Row::new(name.to_owned(), CACHING, Unit::Rate, ours, caching));
}

/// From the writer's OK to the first read of the new value elsewhere, nanoseconds, sorted.
fn delays(socket: &Path, count: usize, mut read: impl FnMut(&[u8; 16], &mut [u8; 100])) -> Vec<f64> {
    let (key, mut server, mut out) = (key(0), Plain::connect(socket), [0; 100]);
    let mut took: Vec<_> = (0..count)
        .map(|n| {
            let mut value = VALUE;
            value[..8].copy_from_slice(&n.to_le_bytes());
            // The reader has a copy of the value before.
            (0..3).for_each(|_| read(&key, &mut out));
            server.set(&key, &value);
            let start = Instant::now();
            while out != value {
                read(&key, &mut out);
            }
            start.elapsed().as_nanos() as f64
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took
}

fn latencies(report: &mut Report, socket: &Path, effort: Effort) {
    let count = if effort.quick { 100 } else { 2000 };
    let (mut reader, mut caching) = (machine("reader", socket), Caching::connect(socket, 100));
    settle();
    let mut of = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for _ in 0..effort.rounds {
        let ours = delays(socket, count, |key, out| _ = Store::get(&mut reader, key, out));
        let theirs = delays(socket, count, |key, out| _ = caching.get(key, out));
        for (n, hundredth) in [50, 99].into_iter().enumerate() {
            of[n][0].push(ours[count * hundredth / 100]);
            of[n][1].push(theirs[count * hundredth / 100]);
        }
    }
    for (name, [ours, theirs]) in ["p50", "p99"].into_iter().zip(of) {
        let name = format!("a change is seen by another machine after: {name}");
        report.add(Row::new(name, CACHING, Unit::Nanos, ours, theirs));
    }
}

/// How many changes of other clients an owner applies.
fn owner(report: &mut Report, socket: &Path, effort: Effort) {
    let cache = machine("owner", socket);
    cache.set("k", "v").expect("set");
    settle();
    let batches = if effort.quick { 50 } else { 1000 };
    let heard = || {
        let stats = cache.near_stats().expect("it has a backend");
        stats.invalidated + stats.invalidated_absent
    };
    let (before, used, start) = (heard(), owners_time(), Instant::now());
    let mut server = Plain::connect(socket);
    let mut silence = 0;
    for _ in 0..batches {
        server.set_thousand();
        silence = silence.max(cache.near_stats().expect("it has a backend").silence_ms);
    }
    let sent = start.elapsed();
    // The last messages are on their way: a moment without another one ends it.
    let mut applied = heard();
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = heard();
        if now == applied {
            break;
        }
        applied = now;
    }
    let count = applied - before;
    let micros = (owners_time() - used) / 1e3 / count as f64;
    let mut table =
        Table::new(&["an owner, while another client writes as fast as it can", "figure", "goal"]);
    let lines = [
        (
            "keys of invalidation messages a second",
            format!("{:.0}", count as f64 / sent.as_secs_f64()),
            ">= 300000",
        ),
        ("processor time of the owner for one", format!("{micros:.2} us"), ""),
        ("age of the beat, at most", format!("{silence} ms"), "< 1000 ms"),
    ];
    table.rows.extend(lines.map(|(what, figure, goal)| vec![what.into(), figure, goal.into()]));
    report.table(table);
}

/// Processor time of this process's owners so far, nanoseconds.
fn owners_time() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads are listed").flatten();
    let of = |path: std::path::PathBuf| {
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
        let is_owner = read("comm").trim() == "ucache-owner";
        let time = read("schedstat").split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok());
        time.filter(|_| is_owner).unwrap_or(0.0)
    };
    tasks.map(|task| of(task.path())).sum()
}

pub(crate) fn run(effort: Effort) -> Report {
    let mut report = Report::new("near", true, effort.rounds);
    let (_server, socket) = Server::redis();
    single(&mut report, &socket, effort);
    mixes(&mut report, &socket, effort);
    latencies(&mut report, &socket, effort);
    owner(&mut report, &socket, effort);
    report.note(
        "Keys of 16 bytes, values of 100, nothing expires. A machine is a region of its own with its own owner and \
         connections; the server listens on a unix socket and has the same processors. A hit hands the caller a copy of \
         the value. redis-rs with its cache: `cache-aio` in one process of one worker, whose runtime has a thread for the \
         messages; no other process shares it. In Python: `make bench PART=python`.",
    );
    report
}
