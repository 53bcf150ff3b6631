//! Everything at once, for as long as is asked for: caches of all shapes, values whose sizes wander, caches that are nearly full
//! or always full, clears, sweeps, stops, kills, limits on descriptors and file sizes, reopened stores, and a wall clock that
//! is set. What the processes saw is judged as a history, window by window.
//!
//! `UCACHE_SOAK_MINUTES=60` goes on for so long (`make soak MINUTES=60`), `UCACHE_SEED` repeats a run's choices.

#[path = "../support/clock_steps.rs"]
mod clock_steps;
#[path = "../support/engine_proc.rs"]
mod engine_proc;
#[path = "../support/engine_value.rs"]
mod engine_value;
#[path = "../support/history.rs"]
mod history;
#[path = "../support/history_actor.rs"]
mod history_actor;
#[path = "../support/history_log.rs"]
mod history_log;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use clock_steps::beside_such_a_clock;
use engine_proc::{Child, alone, die_of_signals, say, seed};
use fastrand::Rng;
use history::{Checker, Rules};
use history_actor::{
    Crowd, Habits,
    Kind::{self, *},
};
use history_log::Log;
use nix::sys::signal::{SigHandler, Signal, signal};
use ucache::engine::{Blocks, Config, Engine, Eviction, Store};

/// Operations of a window's first process that ends it.
const QUOTA: usize = 2000;
/// Windows of one cache.
const WINDOWS: u64 = 8;
const EVERYTHING: [Kind; 20] = [
    Get,
    Get,
    Exists,
    Add,
    Update,
    Update,
    UpdateKeepTtl,
    SetNumber,
    Expire,
    Swap,
    SwapTtl,
    CompareAndDelete,
    Take,
    Delete,
    Incr,
    IncrTtl,
    Mul,
    NewNumber,
    Fill,
    Refresh,
];
const UPKEEP: [Kind; 4] = [Clear, Sweep, Update, Get];

/// One cache and how it is used.
struct Shape {
    config: Config,
    rules: Rules,
    habits: Habits,
}

/// What happened so far.
#[derive(Default)]
struct Sum {
    caches: u64,
    judged: usize,
    clears: u64,
    kills: u64,
    stops: u64,
    limits: u64,
    repaired: u64,
    dead_owners: u64,
}

/// A shape at random. With few keys a history says more, with many a cache is fuller.
fn shape(rng: &mut Rng, dir: &Path, clock_steps: bool) -> Shape {
    let keys = *rng.choice(&[3, 12, 60]).expect("some");
    let eviction = *rng.choice(&[Eviction::None, Eviction::Lru, Eviction::S3Fifo]).expect("some");
    // Always full, nearly full, or with several shards.
    let capacity = *rng.choice(&[u64::from(keys) * 3 / 4 + 1, u64::from(keys) + 2, 8192]).expect("some");
    let mut config = Config::new("soak", capacity);
    config.eviction = eviction;
    config.max_value = 200_000;
    config.lock_timeout = Duration::from_millis(rng.u64(20..500));
    config.blocks = rng.bool().then(|| Blocks { size: 64, count: capacity * 8 + 4000 });
    config.store =
        rng.bool().then(|| Store { path: dir.join(format!("store{}", rng.u64(..))), delete_unusable: false });
    let mut habits = Habits::new(keys, rng.u64(..));
    habits.short_ttl = rng.bool();
    habits.strict = false;
    Shape { config, rules: Rules { evicts: eviction != Eviction::None, clock_steps }, habits }
}

/// Lowers a limit of a process, and raises it again after a moment.
fn limit(rng: &mut Rng, children: &[Option<Child>]) -> bool {
    let Some(child) = &children[rng.usize(0..children.len())] else { return false };
    let which = *rng.choice(&[libc::RLIMIT_NOFILE, libc::RLIMIT_FSIZE]).expect("some");
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: two places for a limit each; the process is a child of this one, which may have ended.
    unsafe {
        if libc::prlimit(child.pid().as_raw(), which, std::ptr::null(), &raw mut before) != 0 {
            return false;
        }
        let low = libc::rlimit { rlim_cur: 3, rlim_max: before.rlim_max };
        libc::prlimit(child.pid().as_raw(), which, &raw const low, std::ptr::null_mut());
        std::thread::sleep(Duration::from_micros(rng.u64(100..3000)));
        libc::prlimit(child.pid().as_raw(), which, &raw const before, std::ptr::null_mut());
    }
    true
}

/// What is done to the processes of a window, again and again until it ends.
fn trouble(
    crowd: &mut Crowd<'_>,
    children: &mut [Option<Child>],
    rng: &mut Rng,
    kills: &mut u8,
    sum: &mut Sum,
) {
    std::thread::sleep(Duration::from_micros(rng.u64(0..2000)));
    match rng.u8(0..10) {
        0..2 if *kills > 0 => {
            *kills -= 1;
            sum.kills += 1;
            crowd.kill(rng.usize(0..children.len()), children);
        }
        2..6 => {
            sum.stops += 1;
            crowd.stop_over_a_clear(rng, children);
        }
        6..8 => sum.limits += u64::from(limit(rng, children)),
        _ => {}
    }
}

/// Sets the wall clock of all that were started with the shim.
fn set_clock(rng: &mut Rng) {
    if let Some(clock) = std::env::var_os("UCACHE_CLOCK") {
        let hours = *rng.choice(&[-2_i64, -1, 1, 2]).expect("some");
        fs::write(clock, (hours * 3600).to_ne_bytes()).expect("the clock's file");
    }
}

fn footprint(engine: &Engine) -> String {
    let stats = engine.stats();
    let disk = engine
        .config()
        .store
        .as_ref()
        .and_then(|s| fs::metadata(&s.path).ok())
        .map_or(0, |m| m.blocks() * 512);
    format!(
        "{} items, {} KiB in spans, {} KiB on disk, evicted {}, full {}, no space {}, timeouts {}",
        stats.items,
        stats.bytes >> 10,
        disk >> 10,
        stats.evicted,
        stats.full,
        stats.no_space,
        stats.timeouts
    )
}

/// Some windows on one cache, opened anew from time to time if it is a store.
fn one_cache(rng: &mut Rng, shape: &Shape, sum: &mut Sum) {
    let (config, rules, mut habits) = (&shape.config, shape.rules, shape.habits);
    let log = Log::new(6, QUOTA * 2);
    let mut engine = Engine::create(config).expect("a cache");
    let mut checker = Checker::new(rules);
    for _ in 0..WINDOWS {
        habits.max_len = *rng.choice(&[100, 1000, 20_000, 150_000]).expect("some");
        habits.seed = rng.u64(..);
        set_clock(rng);
        if config.store.is_some() && rng.u8(0..3) == 0 {
            drop(engine);
            engine = Engine::create(config).expect("the store");
        }
        let mut crowd = Crowd::new(&engine, &log, rules, habits);
        crowd.checker = checker;
        let mut kills = rng.u8(0..3);
        let kinds: [&[Kind]; 6] = [&EVERYTHING, &EVERYTHING, &EVERYTHING, &EVERYTHING, &UPKEEP, &[Clear]];
        crowd.window(&kinds, QUOTA, |crowd, children| trouble(crowd, children, rng, &mut kills, sum));
        sum.judged += crowd.judged;
        let faults = crowd.faults.join("\n");
        checker = crowd.checker;
        assert!(faults.is_empty(), "{config:?}\n{faults}");
    }
    sum.caches += 1;
    sum.add(&engine);
    say(&format!(
        "{:?}, {} items, blocks {}: {}",
        config.eviction,
        config.capacity,
        config.blocks.is_some(),
        footprint(&engine)
    ));
    engine.clear().expect("nobody is stopped any more");
    engine.sweep().expect("nobody is stopped any more");
    assert_eq!(engine.stats().items, 0);
}

impl Sum {
    fn add(&mut self, engine: &Arc<Engine>) {
        let stats = engine.stats();
        self.clears += stats.cleared;
        self.repaired += stats.repaired;
        self.dead_owners += stats.owner_dead;
    }
}

fn minutes() -> f64 {
    std::env::var("UCACHE_SOAK_MINUTES")
        .map_or(0.2, |text| text.parse().expect("UCACHE_SOAK_MINUTES: a number"))
}

fn soak(time: Duration) {
    let seed = seed();
    die_of_signals();
    // A limit that somebody lowers between a process's look at it and its growth of a file is out of anybody's hands.
    // SAFETY: no handler of this program's runs.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("signal");
    let dir = tempfile::tempdir().expect("a directory");
    let (mut rng, mut sum, start) = (Rng::with_seed(seed), Sum::default(), Instant::now());
    let clock_steps = std::env::var_os("UCACHE_CLOCK").is_some();
    while start.elapsed() < time {
        let shape = shape(&mut rng, dir.path(), clock_steps);
        one_cache(&mut rng, &shape, &mut sum);
        if let Some(store) = &shape.config.store {
            fs::remove_file(&store.path).expect("the store");
        }
    }
    let Sum { caches, judged, clears, kills, stops, limits, repaired, dead_owners } = sum;
    say(&format!(
        "{caches} caches, {judged} operations judged, {clears} clears, {kills} kills, {stops} stops, {limits} limits, \
         {dead_owners} dead lock holders, {repaired} repairs: no violation"
    ));
    assert!(judged > 1000 && clears > 0 && stops > 0, "hardly anything happened");
}

#[test]
fn everything_at_once() {
    let _alone = alone();
    soak(Duration::from_secs_f64(minutes() * 30.0));
}

/// The same in processes whose wall clock is set between the windows: this very test, again, with another clock.
#[test]
fn everything_at_once_while_the_clock_is_set() {
    let _alone = alone();
    if std::env::var_os("UCACHE_CLOCK").is_some() {
        return soak(Duration::from_secs_f64(minutes() * 30.0));
    }
    let (mut again, _dir) = beside_such_a_clock("everything_at_once_while_the_clock_is_set", 3600);
    let done = again.status().expect("this very program");
    assert!(done.success(), "{done}");
}
