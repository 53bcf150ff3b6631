//! Soak test with random load: caches of all shapes, nearly or always full, changing value sizes,
//! clears, sweeps, stops, kills, forks from threads, limits on descriptors, file sizes and address
//! space, reopened stores, and changes of the wall clock. The operations are judged as a history,
//! window by window.
//!
//! `UCACHE_SOAK_MINUTES=60` sets the duration (`make soak MINUTES=60`), `UCACHE_SEED` repeats a
//! run's random choices.

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
#[path = "../support/patience.rs"]
mod patience;

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
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigHandler, Signal, signal},
};
use ucache::{
    Error,
    engine::{Blocks, Config, Engine, Eviction, Store},
};

/// A window ends when one process has done this many operations.
const QUOTA: usize = 2000;
/// Windows per cache.
const WINDOWS: u64 = 8;
const EVERYTHING: [Kind; 21] = [
    Get,
    Get,
    Exists,
    Add,
    Set,
    Set,
    SetKeepTtl,
    Replace,
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
const UPKEEP: [Kind; 4] = [Clear, Sweep, Set, Get];

/// A cache and its load.
struct Shape {
    config: Config,
    rules: Rules,
    habits: Habits,
}

/// Totals of the run so far.
#[derive(Default)]
struct Sum {
    caches: u64,
    judged: usize,
    clears: u64,
    kills: u64,
    stops: u64,
    limits: u64,
    forks: u64,
    repaired: u64,
    dead_owners: u64,
}

/// A random shape. Few keys make a stricter history, many keys a fuller cache.
fn shape(rng: &mut Rng, dir: &Path, clock_steps: bool) -> Shape {
    let keys = *rng.choice(&[3, 12, 60]).expect("some");
    let eviction =
        *rng.choice(&[Eviction::None, Eviction::Lru, Eviction::S3Fifo, Eviction::Sieve]).expect("some");
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

/// Lowers a limit of a process for a moment.
fn limit(rng: &mut Rng, children: &[Option<Child>]) -> bool {
    let Some(child) = &children[rng.usize(0..children.len())] else { return false };
    let which = *rng.choice(&[libc::RLIMIT_NOFILE, libc::RLIMIT_FSIZE]).expect("some");
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid structs for the limits; the process is a child of this one, which may have
    // ended.
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

/// A thread forks while another thread of the process uses the cache. The child uses it, too,
/// possibly without the memory that a repair needs. The key is not part of the history.
fn fork_from_a_thread(crowd: &Crowd<'_>, without_memory: bool) {
    const KEY: &[u8] = b"no part of the history";
    let engine = crowd.engine;
    let child = move || {
        if without_memory {
            setrlimit(Resource::RLIMIT_AS, 3, getrlimit(Resource::RLIMIT_AS).expect("getrlimit").1)
                .expect("setrlimit");
        }
        for _ in 0..20 {
            assert!(engine.exists(KEY).is_none());
            match engine.delete(KEY) {
                Ok(false) | Err(Error::Timeout { .. }) => {}
                Err(Error::Os { .. }) if without_memory => {}
                other => panic!("{other:?}"),
            }
        }
    };
    std::thread::scope(|scope| {
        let forked = scope.spawn(move || Child::fork(child).join());
        while !forked.is_finished() {
            assert!(engine.exists(KEY).is_none());
            assert!(matches!(engine.delete(KEY), Ok(false) | Err(Error::Timeout { .. })));
        }
    });
}

/// Disturbs the processes of a window; called repeatedly until it ends.
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
        8 => {
            sum.forks += 1;
            fork_from_a_thread(crowd, rng.bool());
        }
        _ => {}
    }
}

/// Sets the wall clock of all processes started with the shim.
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

/// Some windows on one cache; a store is reopened from time to time.
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
    engine.clear().expect("no process is stopped any more");
    engine.sweep().expect("no process is stopped any more");
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
    // A process checks its file size limit before it grows a file; here the limit may be lowered in
    // between. SAFETY: ignoring the signal runs no handler.
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
    let Sum { caches, judged, clears, kills, stops, limits, forks, repaired, dead_owners } = sum;
    say(&format!(
        "{caches} caches, {judged} operations judged, {clears} clears, {kills} kills, {stops} stops, {limits} limits, \
         {forks} forks from a thread, {dead_owners} dead lock holders, {repaired} repairs: no violation"
    ));
    assert!(judged > 1000 && clears > 0 && stops > 0 && forks > 0, "too few events for a test");
}

#[test]
fn everything_at_once() {
    let _alone = alone();
    soak(Duration::from_secs_f64(minutes() * 30.0));
}

/// The same test, run again in a process whose wall clock is set between the windows.
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
