//! Instructions of each operation, counted by callgrind: the same on a busy machine and on an idle one.
//!
//! `cargo bench --bench instructions` compares them with `benches/instructions.json` and fails when an operation grew
//! by more than 5 %; `UCACHE_BASELINE=write` makes what it counts the new baseline. Under `cargo test` it counts a
//! little and checks that it can tell.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    hint::black_box,
    path::Path,
    process::{Command, ExitCode},
};

use serde_json::{Value, json};
use support::{Into100, IntoVec, UPDATE, VALUE, key};
use ucache::engine::{Config, Engine, Math, Touch};

/// Tells the program that valgrind runs it, and how often it does each operation.
const ROUNDS: &str = "UCACHE_INSTRUCTIONS_ROUNDS";
/// Growth of an operation that fails the bench.
const MOST: f64 = 1.05;
const KEYS: u32 = 1000;
/// The function that is counted: callgrind writes its figures whenever it returns.
const COUNTED: &str = "instructions::counted_by_callgrind";

/// Many: where one of them lands in the index depends on the cache's secret, and with it a few instructions.
const COUNTERS: u32 = 50;

fn counter(n: u32) -> [u8; 16] {
    key(2 * KEYS + n % COUNTERS)
}

/// Instructions of one operation, by its name.
type Counts = BTreeMap<String, f64>;
type Operation = fn(&Engine, u32);

/// Each is counted alone, in this order.
const OPERATIONS: [(&str, Operation); 10] = [
    ("nothing", |_, n| {
        black_box(key(n));
    }),
    ("get hit", |e, n| {
        let mut sink = Into100([0; VALUE]);
        assert!(e.get(&key(n), Touch::Yes, &mut sink).expect("get").is_some());
    }),
    ("get miss", |e, n| {
        let mut sink = Into100([0; VALUE]);
        assert!(e.get(&key(n + KEYS), Touch::Yes, &mut sink).expect("get").is_none());
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
];

/// See [`COUNTED`].
#[inline(never)]
fn counted_by_callgrind(engine: &Engine, operation: Operation, rounds: u32) {
    for n in 0..rounds {
        operation(engine, n % KEYS);
    }
}

fn operate(rounds: u32) {
    let mut config = Config::new("instructions", u64::from(KEYS) * 2);
    config.max_value = 4096;
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..KEYS {
        engine.set(&key(n), &[b'v'; VALUE], &UPDATE).expect("set");
    }
    for n in 0..COUNTERS {
        engine.set(&counter(n), &0_i64.to_ne_bytes(), &UPDATE).expect("set");
    }
    engine.set(b"large", &[b'l'; 4096], &UPDATE).expect("set");
    for (_, operation) in OPERATIONS {
        counted_by_callgrind(black_box(&engine), black_box(operation), black_box(rounds));
    }
}

/// The total of one of callgrind's files.
fn total(file: &Path) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.and_then(|line| line.trim().parse().ok())
        .unwrap_or_else(|| panic!("{} has no total", file.display()))
}

/// Runs this program under callgrind. `rounds` is at most the number of keys: deletes must find theirs.
fn count(rounds: u32) -> Counts {
    assert!(rounds <= KEYS);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = dir.path().join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--combine-dumps=no"])
        .args(["--toggle-collect", "--dump-after"].map(|option| format!("{option}={COUNTED}")))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().expect("this program has a file"))
        .env(ROUNDS, rounds.to_string())
        .output()
        .expect("valgrind runs (apt-get install valgrind)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let each = |at: usize| total(&dir.path().join(format!("out.{}", at + 1))) / f64::from(rounds);
    let nothing = each(0);
    let counted = OPERATIONS.iter().enumerate().skip(1);
    counted.map(|(at, (name, _))| ((*name).to_owned(), each(at) - nothing)).collect()
}

/// Which figures can be compared: those of one compiler, target and profile.
fn build() -> String {
    let rustc =
        Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    let version = rustc.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "with assertions" } else { "profile bench" };
    format!("{version}, {}, {profile}", env::consts::ARCH)
}

/// Operations that grew too much, as texts.
fn grown(counts: &Counts, baseline: &Counts) -> Vec<String> {
    let pairs = counts.iter().filter_map(|(name, &now)| Some((name, now, *baseline.get(name)?)));
    pairs
        .filter(|&(_, now, before)| now > before * MOST)
        .map(|(name, now, before)| {
            format!("{name}: {before:.1} -> {now:.1} instructions ({:.2}x)", now / before)
        })
        .collect()
}

fn baseline_file() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json"))
}

/// All builds' figures.
fn baselines() -> Value {
    let text = fs::read_to_string(baseline_file()).unwrap_or_else(|_| "{}".into());
    serde_json::from_str(&text).expect("benches/instructions.json is JSON")
}

fn compare(counts: &Counts) -> ExitCode {
    let (build, mut all) = (build(), baselines());
    if env::var("UCACHE_BASELINE").is_ok_and(|what| what == "write") {
        let rounded: BTreeMap<_, _> =
            counts.iter().map(|(name, n)| (name, (n * 10.0).round() / 10.0)).collect();
        all[&build] = json!(rounded);
        fs::write(baseline_file(), format!("{all:#}\n")).expect("the baseline is written");
        println!("benches/instructions.json has the figures of {build}");
        return ExitCode::SUCCESS;
    }
    let Some(known) = all.get(&build) else {
        println!("no baseline of {build}; UCACHE_BASELINE=write makes this one");
        return ExitCode::SUCCESS;
    };
    let known: Counts = serde_json::from_value(known.clone()).expect("operations and numbers");
    let grown = grown(counts, &known);
    if grown.is_empty() {
        println!("no operation grew by more than 5 % ({build})");
        return ExitCode::SUCCESS;
    }
    println!("grew by more than 5 %:\n  {}", grown.join("\n  "));
    println!("if that is worth it: UCACHE_BASELINE=write cargo bench --bench instructions");
    ExitCode::FAILURE
}

/// What holds for every build, and that growth is noticed.
fn check(counts: &Counts) {
    assert_eq!(counts.len(), OPERATIONS.len() - 1);
    assert!(counts.values().all(|&n| n > 10.0), "{counts:?}");
    assert!(counts["get miss"] < counts["update"] && counts["exists"] < counts["update"], "{counts:?}");
    let mut slower = counts.clone();
    slower.insert("get hit".into(), counts["get hit"] * 1.06);
    assert_eq!(grown(&slower, counts).len(), 1);
    assert_eq!(grown(counts, counts), [""; 0]);
    let committed = baselines();
    assert!(
        committed.as_object().is_some_and(|all| !all.is_empty()),
        "benches/instructions.json holds nothing"
    );
}

fn main() -> ExitCode {
    if let Ok(rounds) = env::var(ROUNDS) {
        operate(rounds.parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    let is_bench = env::args().any(|argument| argument == "--bench");
    let counts = count(if is_bench { KEYS } else { 50 });
    for (name, instructions) in &counts {
        println!("{name:<12} {instructions:8.1} instructions");
    }
    if is_bench {
        return compare(&counts);
    }
    check(&counts);
    println!("test instructions ... ok");
    ExitCode::SUCCESS
}
