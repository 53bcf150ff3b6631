//! Each kind of operation concurrent with clears, in anonymous memory and in a store.

use fastrand::Rng;
use ucache::engine::{Config, Engine, Eviction, Store};

use crate::{
    engine_proc::{alone, say, seed},
    history::Rules,
    history_actor::{
        Crowd, Habits,
        Kind::{self, *},
    },
    history_log::Log,
};

const KEYS: u32 = 3;
const QUOTA: usize = 6000;
const ROOM: usize = 20_000;

/// Operations raced with clears; each list belongs to one process.
const RACES: [(&str, [&[Kind]; 2]); 13] = [
    ("set", [&[Set, SetNumber], &[Set, Get]]),
    ("add", [&[Add, Get], &[Add, Delete]]),
    ("replace", [&[Replace, Delete], &[Replace, Add]]),
    ("set that keeps the expiry", [&[SetKeepTtl, Set], &[SetKeepTtl, Get]]),
    ("expire", [&[Expire, Set], &[Expire, Get]]),
    ("expire of numbers", [&[Expire, SetNumber], &[Expire, Get]]),
    ("swap", [&[Swap, Set], &[SwapTtl, Swap]]),
    ("take", [&[Take, Set], &[Take, CompareAndDelete, Add]]),
    ("incr", [&[Incr, Mul], &[Incr, Get]]),
    ("incr with an expiry", [&[IncrTtl, Get], &[IncrTtl, NewNumber, Incr]]),
    ("end of a fill", [&[Fill, Delete], &[Fill, Get, Exists]]),
    ("refresh", [&[Refresh, Set], &[Refresh, Get]]),
    ("sweep", [&[Sweep, Set, Get], &[Expire, Incr, Set, Delete]]),
];
pub(crate) const ALL: [Kind; 19] = [
    Get,
    Exists,
    Add,
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

fn race(config: &Config, rules: Rules, habits: Habits, races: &[(&str, Vec<&[Kind]>)], windows: usize) {
    let writers = races.iter().map(|(_, kinds)| kinds.len()).max().expect("some");
    let log = Log::new(writers, ROOM);
    let mut faults = Vec::new();
    for (name, kinds) in races {
        // Each race starts with a new cache.
        let engine = Engine::create(config).expect("a cache");
        let (before, mut rng) = (engine.stats().cleared, Rng::with_seed(habits.seed));
        let mut crowd = Crowd::new(&engine, &log, rules, habits);
        for _ in 0..windows {
            crowd.window(kinds, QUOTA, |crowd, all| crowd.stop_over_a_clear(&mut rng, all));
        }
        let clears = engine.stats().cleared - before;
        say(&format!("{}: {name}: {} operations judged, {clears} clears", config.name, crowd.judged));
        assert!(
            clears > 0 && crowd.judged as u64 > clears,
            "{name}: no operations were concurrent with the clears"
        );
        faults.extend(crowd.faults.into_iter().map(|text| format!("{name}: {text}")));
        engine.clear().expect("clear");
    }
    assert!(faults.is_empty(), "{}: {} faults\n{}", config.name, faults.len(), faults.join("\n"));
}

/// Races of each kind, with a third process that clears.
fn each_kind(config: &Config) {
    let races: Vec<(&str, Vec<&[Kind]>)> =
        RACES.iter().map(|(name, two)| (*name, vec![two[0], two[1], &[Clear] as &[Kind]])).collect();
    race(config, Rules::default(), Habits::new(KEYS, seed()), &races, 2);
}

#[test]
fn each_kind_beside_clears() {
    let _alone = alone();
    each_kind(&Config::new("anonymous", 4096));
}

#[test]
fn each_kind_beside_clears_in_a_store() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config::new("store", 4096);
    config.store = Some(Store { path: dir.path().join("store"), delete_unusable: false });
    each_kind(&config);
}

/// All kinds in eight processes, one of which clears.
#[test]
fn all_kinds_together() {
    let _alone = alone();
    let kinds: Vec<&[Kind]> = (0..8).map(|n| if n == 7 { &[Clear] as &[Kind] } else { &ALL }).collect();
    let mut habits = Habits::new(KEYS, seed());
    habits.short_ttl = true;
    race(&Config::new("together", 4096), Rules::default(), habits, &[("all kinds", kinds)], 5);
}

/// A cache that is always full, so that stores evict items.
#[test]
fn eviction_beside_clears() {
    let _alone = alone();
    for eviction in [Eviction::Lru, Eviction::S3Fifo, Eviction::Sieve] {
        let mut config = Config::new("evicting", 20);
        config.eviction = eviction;
        let kinds: Vec<&[Kind]> = vec![&ALL, &ALL, &[Get, Get, Set], &[Clear]];
        let rules = Rules { evicts: true, ..Rules::default() };
        let mut habits = Habits::new(40, seed());
        habits.short_ttl = true;
        race(&config, rules, habits, &[("all kinds, evicting", kinds)], 2);
    }
}
