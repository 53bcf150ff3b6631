//! Instructions of each operation, and lines that it misses on several processors, counted by valgrind: the same on a
//! busy machine and on an idle one.
//!
//! `cargo bench --features redis --bench instructions` compares them with `benches/instructions.json` and
//! `benches/lines.json`, and fails when an operation grew by more than 5 % (instructions) or 10 %
//! (lines); `UCACHE_BASELINE=write` makes what it counts the new baseline. Under `cargo test` it
//! counts a little and checks that it can tell.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

#[path = "support/baseline.rs"]
mod baseline;
#[path = "support/geometry.rs"]
mod geometry;
#[path = "../tests/support/patience.rs"]
mod patience;
#[path = "support/results.rs"]
mod results;
#[cfg(feature = "redis")]
#[path = "../tests/support/backend.rs"]
mod server;
mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
    env, fs,
    hint::black_box,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use baseline::{Baseline, Counts};
use geometry::{GEOMETRIES, Geometry};
use support::{Into100, IntoVec, UPDATE, VALUE, key, zipf};
use ucache::engine::{Config, Cursor, Engine, Eviction, Math, Touch};
#[cfg(feature = "redis")]
use ucache::near::{OnDown, Options, Tier};

/// Tells the program that valgrind runs it, and how often it does each operation.
const ROUNDS: &str = "UCACHE_INSTRUCTIONS_ROUNDS";
/// Tells it how many keys there are, when they are used as in a cache, instead of one after the other.
const CROWD: &str = "UCACHE_INSTRUCTIONS_CROWD";
/// Tells it that the cache is full of other keys.
const IN_FULL: &str = "UCACHE_INSTRUCTIONS_IN_FULL";
/// Tells it the URL of the server whose values the cache has copies of.
#[cfg(feature = "redis")]
const NEAR: &str = "UCACHE_INSTRUCTIONS_NEAR";
/// Keys for instructions: all are in the processor's caches.
const KEYS: u32 = 1000;
/// Keys for lines, more than any core's caches hold, and operations on them.
const MANY: u32 = 100_000;
const DRAWS: u32 = 40_000;
/// The function that is counted: callgrind writes its figures whenever it returns.
const COUNTED: &str = "instructions::counted_by_callgrind";

const INSTRUCTIONS: Baseline =
    Baseline { file: "instructions.json", unit: "instructions", most: 1.05, slack: 0.0 };
/// The secret of a cache decides where its keys lie: a little of a figure is chance.
const LINES: Baseline = Baseline { file: "lines.json", unit: "lines", most: 1.10, slack: 0.1 };

/// Many: where one of them lands in the index depends on the cache's secret, and with it a few
/// instructions.
const COUNTERS: u32 = 50;

/// Numbers of keys that are counters, and of keys that are not there.
fn counter(n: u32) -> [u8; 16] {
    key((1 << 25) + n % COUNTERS)
}

fn absent(n: u32) -> [u8; 16] {
    key((1 << 24) + n)
}

type Operation = fn(&Engine, u32);

thread_local! {
    static WALK: RefCell<Cursor> = RefCell::new(Cursor::default());
}

/// One item of a walk over all, which begins again at the end.
#[inline(always)]
fn step(engine: &Engine, at: &mut Cursor) {
    if engine.walk_ref(at).is_none() {
        *at = Cursor::default();
    }
}

/// Each is counted alone, in this order.
const OPERATIONS: [(&str, Operation); 12] = [
    ("nothing", |_, n| {
        black_box(key(n));
    }),
    ("get hit", |e, n| {
        let mut sink = Into100([0; VALUE]);
        assert!(e.get(&key(n), Touch::Yes, &mut sink).expect("get").is_some());
    }),
    ("get miss", |e, n| {
        let mut sink = Into100([0; VALUE]);
        assert!(e.get(&absent(n), Touch::Yes, &mut sink).expect("get").is_none());
    }),
    ("exists", |e, n| assert!(e.exists(&key(n)).is_some())),
    ("get counted", |e, n| {
        let mut sink = Into100([0; VALUE]);
        assert!(e.get_counted(&key(n), &mut sink).expect("get").is_some());
    }),
    ("update", |e, n| {
        e.set(&key(n), &[b'u'; VALUE], &UPDATE).expect("set");
    }),
    ("increment", |e, n| {
        e.math(&counter(n), Math::Inc, 1, &UPDATE).expect("math");
    }),
    ("delete", |e, n| assert!(e.delete(&key(n)).expect("delete"))),
    ("set", |e, n| {
        e.set(&key(n), &[b's'; VALUE], &UPDATE).expect("set");
    }),
    ("get 4 KB", |e, _| {
        let mut out = Vec::with_capacity(4096);
        assert!(e.get(b"large", Touch::Yes, &mut IntoVec(&mut out)).expect("get").is_some());
    }),
    ("delete and set", |e, n| {
        assert!(e.delete(&key(n)).expect("delete"));
        e.set(&key(n), &[b'd'; VALUE], &UPDATE).expect("set");
    }),
    ("walk, an item", |e, _| WALK.with_borrow_mut(|at| step(e, at))),
];

/// The same in a cache that is full of other keys, in a process of its own: the first cache of a thread is faster.
const FULL: [(&str, Operation); 2] = [
    OPERATIONS[0],
    ("LRU, set at capacity", |e, n| {
        e.set(&key(n), &[b'l'; VALUE], &UPDATE).expect("set");
    }),
];

/// On a local cache, and one with a backend whose copies are in use.
#[cfg(feature = "redis")]
type Read = fn(&[Tier; 2], u32);

/// Reads of both, with the same policy.
#[cfg(feature = "redis")]
const COPIES: [(&str, Read); 3] = [
    ("nothing", |_, n| {
        black_box(key(n));
    }),
    ("S3-FIFO, get hit", |[local, _], n| read(local, n)),
    ("S3-FIFO, near hit", |[_, near], n| read(near, n)),
];

#[cfg(feature = "redis")]
#[inline(always)]
fn read(tier: &Tier, n: u32) {
    let mut sink = Into100([0; VALUE]);
    assert!(tier.get(&key(n), Touch::Yes, &mut sink).expect("get").is_some());
}

/// Each key of an order is met once: it can be deleted, or is new.
const ONCE: [&str; 3] = ["delete", "set", "LRU, set at capacity"];

/// See [`COUNTED`].
#[inline(never)]
fn counted_by_callgrind<T>(cache: &T, operation: fn(&T, u32), order: &[u32]) {
    for &n in order {
        operation(cache, n);
    }
}

/// A cache with room.
fn filled(keys: u32) -> Arc<Engine> {
    let mut config = Config::new("instructions", u64::from(keys) * 2);
    config.max_value = 4096;
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..keys {
        engine.set(&key(n), &[b'v'; VALUE], &UPDATE).expect("set");
    }
    for n in 0..COUNTERS {
        engine.set(&counter(n), &0_i64.to_ne_bytes(), &UPDATE).expect("set");
    }
    engine.set(b"large", &[b'l'; 4096], &UPDATE).expect("set");
    engine
}

/// A cache that evicts, not by the exact order of small ones, and is full of other keys.
fn full(keys: u32) -> Arc<Engine> {
    let capacity = keys.max(20_000);
    let mut config = Config::new("full", u64::from(capacity));
    config.max_value = 256;
    config.eviction = Eviction::Lru;
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..capacity {
        engine.set(&absent(n), &[b'f'; VALUE], &UPDATE).expect("set");
    }
    engine
}

fn operate(rounds: u32, crowd: Option<u32>, in_full: bool) {
    let keys = crowd.unwrap_or(KEYS);
    let (engine, operations) =
        if in_full { (full(keys), FULL.as_slice()) } else { (filled(keys), OPERATIONS.as_slice()) };
    let order: Vec<u32> = match crowd {
        Some(keys) => zipf(keys, 3).into_iter().take(rounds as usize).collect(),
        None => (0..rounds).collect(),
    };
    let mut once = order.clone();
    if crowd.is_some() {
        let mut met = HashSet::new();
        once.retain(|n| met.insert(*n));
        // The lines of the keys that are used often are where they are in a cache at work.
        order.iter().for_each(|&n| assert_eq!(engine.exists(&key(n)).is_some(), !in_full));
    }
    let mut counts = Vec::new();
    for &(name, operation) in operations {
        let order = if ONCE.contains(&name) { &once } else { &order };
        counted_by_callgrind::<Engine>(black_box(&engine), black_box(operation), black_box(order));
        counts.push(order.len().to_string());
    }
    println!("{}", counts.join(" "));
}

/// Reads copies of what a server has. They are in use for as long as this takes under valgrind.
#[cfg(feature = "redis")]
fn read_copies(url: &str, rounds: u32) {
    let mut options = Options::default();
    assert!(options.set("backend", url) && options.set("max_stale", "60s"));
    let caches = [("local", &Options::default()), ("near", &options)].map(|(name, options)| {
        let mut config = Config::new(name, u64::from(KEYS) * 2);
        config.eviction = Eviction::S3Fifo;
        let engine = Engine::create(&config).expect("a cache");
        Tier::open(engine, options, OnDown::Error).expect("a cache")
    });
    let near = &caches[1];
    near.start_owner(true);
    for n in 0..rounds {
        caches.iter().for_each(|tier| _ = tier.put(&key(n), &[b'v'; VALUE], &UPDATE).expect("put"));
    }
    let hits = || near.copy_stats().expect("it has a backend").hits;
    let limit = Instant::now() + Duration::from_secs(120);
    // Twice: then the policy counts no more uses.
    for _ in 0..2 {
        loop {
            let before = hits();
            (0..rounds).for_each(|n| caches.iter().for_each(|tier| read(tier, n)));
            if hits() - before == u64::from(rounds) {
                break;
            }
            assert!(Instant::now() < limit, "no copies after 120 s");
        }
    }
    let before = hits();
    let order: Vec<u32> = (0..rounds).collect();
    for (_, operation) in COPIES {
        counted_by_callgrind::<[Tier; 2]>(black_box(&caches), black_box(operation), black_box(&order));
    }
    assert_eq!(hits() - before, u64::from(rounds), "a server was asked");
    println!("{rounds} {rounds} {rounds}");
}

/// The events of one of callgrind's files by name.
fn events(file: &Path) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let names = line("events: ").unwrap_or_else(|| panic!("{} names no events", file.display()));
    let totals = line("totals: ").or(line("summary: "));
    let totals = totals.unwrap_or_else(|| panic!("{} has no total", file.display()));
    // Zeros at the end are left out.
    let numbers =
        totals.split_whitespace().map(|n| n.parse().expect("a number")).chain(std::iter::repeat(0.0));
    names.split_whitespace().map(str::to_owned).zip(numbers).collect()
}

/// Events of one operation by name, of all operations by name.
type Events = BTreeMap<String, BTreeMap<String, f64>>;

/// Runs this program under callgrind; the events of one of these operations each, without those of
/// the first, `nothing`.
fn count_some(names: &[&str], rounds: u32, options: &[String], more: &[(&str, String)]) -> Events {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = dir.path().join("out");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--combine-dumps=no"])
        .args(["--toggle-collect", "--dump-after"].map(|option| format!("{option}={COUNTED}")))
        .args(options)
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().expect("this program has a file"))
        .env(ROUNDS, rounds.to_string())
        .envs(more.iter().map(|(name, value)| (name, value)));
    let output = command.output().expect("valgrind runs (apt-get install valgrind)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts: Vec<f64> = said.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert_eq!(counts.len(), names.len(), "{said}");
    let each = |at: usize| {
        let events = events(&dir.path().join(format!("out.{}", at + 1)));
        events.into_iter().map(|(name, n)| (name, n / counts[at])).collect::<BTreeMap<_, _>>()
    };
    let nothing = each(0);
    let counted = names.iter().enumerate().skip(1);
    counted
        .map(|(at, name)| {
            let events = each(at).into_iter().map(|(event, n)| {
                let without = n - nothing[&event];
                (event, without)
            });
            ((*name).to_owned(), events.collect())
        })
        .collect()
}

/// All operations. `rounds` is at most the number of keys: deletes must find theirs.
fn count(rounds: u32, crowd: Option<u32>, options: &[String]) -> Events {
    assert!(rounds <= crowd.unwrap_or(KEYS));
    let crowd = crowd.map(|keys| (CROWD, keys.to_string()));
    let mut all = count_some(&OPERATIONS.map(|o| o.0), rounds, options, crowd.as_slice());
    let full: Vec<_> = crowd.into_iter().chain([(IN_FULL, "1".to_owned())]).collect();
    all.append(&mut count_some(&FULL.map(|o| o.0), rounds, options, &full));
    all
}

/// The operations on copies of a server's values.
#[cfg(feature = "redis")]
fn count_copies(rounds: u32) -> Events {
    let server = server::Server::start();
    count_some(&COPIES.map(|o| o.0), rounds, &[], &[(NEAR, server.url())])
}

#[cfg(not(feature = "redis"))]
fn count_copies(_rounds: u32) -> Events {
    Events::new()
}

/// Names of those that have instructions, but no lines.
fn copies() -> Vec<&'static str> {
    #[cfg(feature = "redis")]
    return COPIES.iter().skip(1).map(|o| o.0).collect();
    #[cfg(not(feature = "redis"))]
    Vec::new()
}

/// Instructions of one operation.
fn instructions(rounds: u32) -> Counts {
    let all = count(rounds, None, &[]).into_iter().chain(count_copies(rounds));
    all.map(|(name, events)| (name, events["Ir"])).collect()
}

/// Lines that one operation misses in the first and in the second level.
type Missed = BTreeMap<String, [f64; 2]>;

fn missed(geometry: &Geometry, keys: u32, draws: u32) -> Missed {
    let counts = count(draws, Some(keys), &geometry.options());
    let lines = |events: &BTreeMap<String, f64>| {
        [events["D1mr"] + events["D1mw"], events["DLmr"] + events["DLmw"]].map(|n| n.max(0.0))
    };
    counts.into_iter().map(|(name, events)| (name, lines(&events))).collect()
}

/// Every geometry's lines; as many at a time as there are processors.
fn lines() -> Vec<Missed> {
    let together = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let mut all = Vec::new();
    for some in GEOMETRIES.chunks(together) {
        std::thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|g| scope.spawn(move || missed(g, MANY, DRAWS))).collect();
            all.extend(running.into_iter().map(|one| one.join().expect("a simulation")));
        });
    }
    all
}

/// The table of the documentation, in the order of the operations.
fn table(instructions: &Counts, lines: &[Missed]) -> String {
    let mut text = String::from("| operation | instructions |");
    GEOMETRIES.iter().for_each(|g| text += &format!(" {} ({}) |", g.name, g.sizes()));
    text += &format!("\n|---|---|{}\n", "---|".repeat(GEOMETRIES.len()));
    for (name, _) in OPERATIONS.iter().skip(1).chain(&FULL[1..]) {
        text += &format!("| {name} | {:.0} |", instructions[*name]);
        for missed in lines {
            let [first, second] = missed[*name];
            text += &format!(" {first:.1} / {second:.1} |");
        }
        text += "\n";
    }
    for name in copies() {
        text += &format!("| {name} | {:.0} |{}\n", instructions[name], " |".repeat(lines.len()));
    }
    text + &format!(
        "\nInstructions: {KEYS} keys, one after the other. Lines that one operation misses, in the first level for data and in \
         the second, on processors with these caches (sizes in brackets), simulated by valgrind: {MANY} keys of 16 bytes, values of 100, \
         zipf 0.99. What a processor fetches ahead of a program is not simulated.\n"
    )
}

/// The second level's lines, which an operation waits for, as figures for the baseline.
fn figures(lines: &[Missed]) -> Counts {
    let of = |(geometry, missed): (&Geometry, &Missed)| {
        let name = geometry.name;
        missed.iter().map(|(operation, lines)| (format!("{operation}, {name}"), lines[1])).collect::<Vec<_>>()
    };
    GEOMETRIES.iter().zip(lines).flat_map(of).collect()
}

/// What holds for every build, and that growth is noticed.
fn check(counts: &Counts) {
    assert_eq!(counts.len(), OPERATIONS.len() + FULL.len() + copies().len() - 2);
    assert!(counts.values().all(|&n| n > 10.0), "{counts:?}");
    assert!(counts["get miss"] < counts["update"] && counts["exists"] < counts["update"], "{counts:?}");
    #[cfg(feature = "redis")]
    {
        // The beat and the clock, beside a local hit.
        let [local, near] = ["S3-FIFO, get hit", "S3-FIFO, near hit"].map(|name| counts[name]);
        assert!(local < near && near < 1.5 * local, "{counts:?}");
    }
    let mut slower = counts.clone();
    slower.insert("get hit".into(), counts["get hit"] * 1.06);
    assert_eq!(INSTRUCTIONS.grown(&slower, counts).len(), 1);
    assert_eq!(INSTRUCTIONS.grown(counts, counts), [""; 0]);
    for baseline in [INSTRUCTIONS, LINES] {
        let known = baseline.known();
        assert!(
            known.as_object().is_some_and(|all| !all.is_empty()),
            "benches/{} holds nothing",
            baseline.file
        );
    }
}

/// What was used just before is in the second level, what is stored in a large cache is not, and no line is missed in
/// the second level that is not missed in the first.
fn check_lines() {
    let missed = missed(&GEOMETRIES[1], KEYS, 200);
    assert_eq!(missed.len(), OPERATIONS.len() + FULL.len() - 2);
    assert!(missed.values().all(|[first, second]| second <= first), "{missed:?}");
    let (used, stored) = (missed["exists"], missed["LRU, set at capacity"]);
    assert!(used[1] < 0.2 && stored[1] > 3.0 && stored[0] > 4.0 * used[0], "{missed:?}");
}

fn main() -> ExitCode {
    let number = |name: &str| env::var(name).ok().map(|n| n.parse().expect("a number"));
    if let Some(rounds) = number(ROUNDS) {
        #[cfg(feature = "redis")]
        if let Ok(url) = env::var(NEAR) {
            read_copies(&url, rounds);
            return ExitCode::SUCCESS;
        }
        operate(rounds, number(CROWD), env::var_os(IN_FULL).is_some());
        return ExitCode::SUCCESS;
    }
    if !env::args().any(|argument| argument == "--bench") {
        check(&instructions(50));
        check_lines();
        println!("test instructions ... ok");
        return ExitCode::SUCCESS;
    }
    let (counts, lines) = (instructions(KEYS), lines());
    let table = table(&counts, &lines);
    println!("{table}");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/performance.md");
    let before = fs::read_to_string(&page).expect("src/docs/performance.md is there");
    fs::write(&page, results::replaced(&before, "instructions", &table)).expect("the page is written");
    let fine = [INSTRUCTIONS.compare(&counts), LINES.compare(&figures(&lines))];
    if fine == [true; 2] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
