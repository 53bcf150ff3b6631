//! Histories with deaths: the operation of a killed process was done completely or not at all;
//! cleared items stay cleared, also through recovery, a reopening, and the move to a new store.

use std::{path::Path, time::Duration};

use fastrand::Rng;
use ucache::engine::{Blocks, Config, Engine, Eviction, Store};

use crate::{
    beside::ALL,
    engine_proc::{Child, alone, die_of_signals, seed},
    history::Rules,
    history_actor::{
        Crowd, Habits,
        Kind::{self, Clear},
    },
    history_log::Log,
};

const WINDOWS: u64 = 20;
const QUOTA: usize = 4000;
const CLEARER: [Kind; 6] = [Clear, Clear, Clear, Clear, Kind::Sweep, Kind::Set];

/// Large enough that nothing is refused; only a hang lasts longer than the timeout.
fn patient(name: &str) -> Config {
    Config { lock_timeout: Duration::from_secs(30), ..Config::new(name, 4096) }
}

/// One window of `crowd` in which up to two of five processes are killed, possibly one while it
/// clears.
fn deadly_window(crowd: &mut Crowd<'_>, rng: &mut Rng) {
    let mut victims = rng.u8(1..3);
    let kinds: [&[Kind]; 5] = [&ALL, &ALL, &ALL, &CLEARER, &ALL];
    crowd.window(&kinds, QUOTA, |crowd, children: &mut [Option<Child>]| {
        std::thread::sleep(Duration::from_micros(rng.u64(0..3000)));
        if victims > 0 {
            victims -= 1;
            crowd.kill(rng.usize(0..children.len()), children);
        }
    });
}

fn deadly(config: &Config, rules: Rules, keys: u32) {
    let _alone = alone();
    die_of_signals();
    let habits = Habits::new(keys, seed());
    let mut rng = Rng::with_seed(habits.seed);
    let engine = Engine::create(config).expect("a cache");
    let log = Log::new(5, QUOTA * 2);
    let mut crowd = Crowd::new(&engine, &log, rules, habits);
    for _ in 0..WINDOWS {
        deadly_window(&mut crowd, &mut rng);
    }
    crowd.tell(&config.name);
}

#[test]
fn deaths_beside_clears() {
    deadly(&patient("deaths"), Rules::default(), 4);
}

#[test]
fn deaths_where_items_are_evicted() {
    let rules = Rules { evicts: true, ..Rules::default() };
    deadly(&Config { eviction: Eviction::Lru, capacity: 12, ..patient("deaths-lru") }, rules, 24);
}

#[test]
fn deaths_where_blocks_are_counted() {
    let blocks = Some(Blocks { size: 64, count: 4096 * 4 });
    deadly(&Config { blocks, ..patient("deaths-blocks") }, Rules::default(), 4);
}

fn on(path: &Path, capacity: u64) -> Config {
    let store = Some(Store { path: path.to_owned(), delete_unusable: false });
    Config { store, capacity, ..patient("deaths-store") }
}

/// Each window reopens the store: unchanged, or with another number of items, which moves them to a
/// new file.
#[test]
fn deaths_and_reopenings_of_a_store() {
    let _alone = alone();
    die_of_signals();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let habits = Habits::new(4, seed());
    let mut rng = Rng::with_seed(habits.seed);
    let log = Log::new(5, QUOTA * 2);
    let mut kept = None;
    let mut moved = 0;
    for window in 0..WINDOWS {
        let engine = Engine::create(&on(&path, 4096 + window / 2)).expect("the store");
        moved += u64::from(engine.notes().iter().any(|note| note.contains("moved")));
        let mut crowd = Crowd::new(&engine, &log, Rules::default(), habits);
        if let Some(checker) = kept.take() {
            crowd.checker = checker;
        }
        deadly_window(&mut crowd, &mut rng);
        assert!(crowd.faults.is_empty(), "window {window}: {}", crowd.faults.join("\n"));
        kept = Some(crowd.checker);
    }
    assert!(moved > WINDOWS / 3, "the items were moved {moved} times only");
}
