//! A process is killed after every instruction of an operation that changes the cache: whoever comes next finds the
//! old value or the new one, everything else as it was, and no item, block or byte missing.
//!
//! `every_state_of_a_store` looks at each state of the region that an operation goes through, as an opener would find
//! it. `survivors_repair_at_once` kills the operation in a live region, `a_dying_repair_is_done_again` kills the repair
//! as well.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_step.rs"]
mod engine_step;
#[path = "support/engine_value.rs"]
mod engine_value;

use std::{fs, path::Path, sync::Arc, time::Duration};

use engine_proc::{alone, say};
use engine_step::Stepped;
use ucache::engine::{
    Blocks, Config, Cursor, Engine, Eviction, Expires, Math, Mode, SetOptions, Store, Touch,
};

const UPDATE: SetOptions =
    SetOptions { mode: Mode::Update, expires: Expires::Never, keep_ttl: false, ungettable: false };
const ADD: SetOptions = SetOptions { mode: Mode::Add, ..UPDATE };

/// Items beside the one that the operation is about, and the capacity.
const OTHERS: u32 = 8;
const CAPACITY: u64 = 10;

fn other(n: u32) -> (Vec<u8>, Vec<u8>) {
    let byte = u8::try_from(n).expect("few");
    (format!("other {n}").into_bytes(), vec![byte; 100 + usize::try_from(n).expect("few") * 40])
}

/// One operation on the key "x", and what the key may hold when it is cut short.
struct Case {
    name: &'static str,
    config: fn(&mut Config),
    before: Option<&'static [u8]>,
    run: fn(&Engine),
    after: Option<&'static [u8]>,
    /// The others may be gone: it evicts or clears.
    takes_others: bool,
}

const OLD: &[u8] = &[b'o'; 70];
const NEW: &[u8] = &[b'n'; 90];
const LONG: &[u8] = &[b'l'; 1100];
const FIVE: &[u8] = &5_i64.to_le_bytes();
const SIX: &[u8] = &6_i64.to_le_bytes();

fn nothing(_: &mut Config) {}
fn lru(config: &mut Config) {
    config.eviction = Eviction::Lru;
    config.capacity = u64::from(OTHERS);
}
fn lru_with_x(config: &mut Config) {
    config.eviction = Eviction::Lru;
}
fn blocks(config: &mut Config) {
    config.blocks = Some(Blocks { size: 64, count: 300 });
}

const CASES: [Case; 10] = [
    Case {
        name: "insert",
        config: nothing,
        before: None,
        run: |e| drop(e.set(b"x", NEW, &ADD)),
        after: Some(NEW),
        takes_others: false,
    },
    Case {
        name: "update",
        config: nothing,
        before: Some(OLD),
        run: |e| drop(e.set(b"x", NEW, &UPDATE)),
        after: Some(NEW),
        takes_others: false,
    },
    Case {
        name: "update, longer",
        config: lru_with_x,
        before: Some(OLD),
        run: |e| drop(e.set(b"x", LONG, &UPDATE)),
        after: Some(LONG),
        takes_others: false,
    },
    Case {
        name: "update, blocks",
        config: blocks,
        before: Some(OLD),
        run: |e| drop(e.set(b"x", LONG, &UPDATE)),
        after: Some(LONG),
        takes_others: false,
    },
    Case {
        name: "delete",
        config: nothing,
        before: Some(OLD),
        run: |e| drop(e.delete(b"x")),
        after: None,
        takes_others: false,
    },
    Case {
        name: "delete, blocks",
        config: blocks,
        before: Some(LONG),
        run: |e| drop(e.delete(b"x")),
        after: None,
        takes_others: false,
    },
    Case {
        name: "math, new",
        config: nothing,
        before: None,
        run: |e| drop(e.math(b"x", Math::Inc, 5, &UPDATE)),
        after: Some(FIVE),
        takes_others: false,
    },
    Case {
        name: "math",
        config: nothing,
        before: Some(FIVE),
        run: |e| drop(e.math(b"x", Math::Inc, 1, &UPDATE)),
        after: Some(SIX),
        takes_others: false,
    },
    Case {
        name: "evicting insert",
        config: lru,
        before: None,
        run: |e| drop(e.set(b"x", NEW, &ADD)),
        after: Some(NEW),
        takes_others: true,
    },
    Case {
        name: "clear and sweep",
        config: nothing,
        before: Some(OLD),
        run: |e| {
            let _ = e.clear();
            let _ = e.sweep();
        },
        after: None,
        takes_others: true,
    },
];

fn engine(case: &Case, store: Option<&Path>) -> (Config, Arc<Engine>) {
    let mut config = Config::new("steps", CAPACITY);
    (case.config)(&mut config);
    // A stepped child that holds the lock is not dead yet.
    config.lock_timeout = Duration::from_secs(20);
    config.store = store.map(|path| Store { path: path.to_owned(), delete_unusable: false });
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..OTHERS {
        let (key, value) = other(n);
        engine.set(&key, &value, &ADD).expect("set");
    }
    if let Some(value) = case.before {
        engine.set(b"x", value, &ADD).expect("set");
    }
    (config, engine)
}

/// Forks a child that stands before `operation`. It has read once: what each process does only once is done.
fn stepped(engine: &Engine, operation: impl FnOnce(&Engine)) -> Stepped {
    Stepped::new(|| drop(read(engine, b"warm up")), || operation(engine))
}

/// How many instructions `operation` takes.
fn length(engine: &Engine, operation: impl FnOnce(&Engine)) -> u64 {
    let mut stepped = stepped(engine, operation);
    while stepped.step() {}
    let steps = stepped.steps;
    stepped.kill();
    steps
}

fn read(engine: &Engine, key: &[u8]) -> Option<Vec<u8>> {
    engine_value::get(engine, key, Touch::No).expect("get").map(|(_, value)| value)
}

/// What survivors must find, at once and after they have used the cache.
fn check(case: &Case, engine: &Engine, at: &str) {
    let what = format!("{}: {at}", case.name);
    for round in 0..2 {
        let x = read(engine, b"x");
        let known = [case.before, case.after].iter().any(|state| state.map(<[u8]>::to_vec) == x);
        assert!(known, "{what}: x holds {x:?} (round {round})");
        for n in 0..OTHERS {
            let (key, value) = other(n);
            let found = read(engine, &key);
            assert!(
                found == Some(value) || (case.takes_others && found.is_none()),
                "{what}: item {n}: {found:?}"
            );
        }
        // A writer repairs what a dead one left; then all must still be so.
        engine.set(b"probe", b"p", &UPDATE).unwrap_or_else(|error| panic!("{what}: {error}"));
        engine.delete(b"probe").unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let mut cursor = Cursor::default();
    let items: Vec<_> = std::iter::from_fn(|| engine.walk(&mut cursor)).collect();
    let stats = engine.stats();
    assert_eq!(stats.items, u64::try_from(items.len()).expect("few"), "{what}: items counted");
    if let Some(blocks) = engine.config().blocks {
        let used: u64 = items.iter().map(|item| item.value_len.div_ceil(blocks.size)).sum();
        assert_eq!(stats.blocks_used, used, "{what}: blocks counted");
    }
    assert_eq!(stats.dropped_corrupt, 0, "{what}: entries dropped");
    for item in items {
        assert!(engine.delete(&item.key).expect("delete"), "{what}: {item:?}");
    }
    for n in 0..engine.config().capacity {
        let done = engine.set(format!("fill {n}").as_bytes(), &[1; 64], &ADD);
        assert!(done.is_ok(), "{what}: item {n} of {}: {done:?}", engine.config().capacity);
    }
}

#[test]
fn every_state_of_a_store() {
    let _alone = alone();
    // Memory, not a disk: thousands of stores are made and closed.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let mut states = 0;
    for (number, case) in CASES.iter().enumerate() {
        let path = dir.path().join(format!("store {number}"));
        let copy = dir.path().join("copy");
        let (mut config, engine) = engine(case, Some(&path));
        config.store = Some(Store { path: copy.clone(), delete_unusable: false });
        let mut stepped = stepped(&engine, case.run);
        let mut seen = fs::read(&path).expect("read");
        loop {
            let more = stepped.step();
            let now = fs::read(&path).expect("read");
            if now != seen || !more {
                seen = now;
                states += 1;
                fs::write(&copy, &seen).expect("write");
                let opened = Engine::create(&config);
                let opened = opened.unwrap_or_else(|e| panic!("{}: step {}: {e}", case.name, stepped.steps));
                check(case, &opened, &format!("step {}", stepped.steps));
                drop(opened);
                fs::remove_file(&copy).expect("remove");
            }
            if !more {
                break;
            }
        }
        say(&format!("{}: {} instructions", case.name, stepped.steps));
        assert_eq!(read(&engine, b"x").as_deref(), case.after, "{}: not cut short", case.name);
        stepped.kill();
    }
    say(&format!("{states} states of a store opened"));
    assert!(states > 100, "only {states} states: the operations were not stepped through");
}

/// So many kills of each operation, spread over all its instructions.
const KILLS: u64 = 24;

#[test]
fn survivors_repair_at_once() {
    let _alone = alone();
    let mut dead = 0;
    for case in &CASES {
        let (_, whole) = engine(case, None);
        let steps = length(&whole, case.run);
        for kill in 0..KILLS {
            let (_, engine) = engine(case, None);
            let mut stepped = stepped(&engine, case.run);
            let target = steps * kill / KILLS + fastrand::u64(0..=steps / KILLS);
            while stepped.steps < target && stepped.step() {}
            let at = format!("killed after {} of {steps} instructions", stepped.steps);
            stepped.kill();
            check(case, &engine, &at);
            dead += engine.stats().owner_dead;
        }
    }
    say(&format!("{dead} of {} kills hit a lock holder", KILLS * 10));
    assert!(dead > 20, "only {dead} kills hit a lock holder");
}

/// What a dead writer had reserved is not missing elsewhere: in a cache of many shards with one free item, a store in
/// whatever shard finds it.
#[test]
fn a_dead_writer_keeps_no_item() {
    let _alone = alone();
    const ITEMS: u32 = 6000;
    let engine = Engine::create(&Config::new("many", u64::from(ITEMS))).expect("a cache");
    assert!(engine.stats().shards > 1, "one shard shows nothing");
    for n in 1..ITEMS {
        engine.set(&n.to_le_bytes(), b"x", &ADD).expect("set");
    }
    for (name, operation) in [
        ("insert", (|e: &Engine| drop(e.set(b"x", NEW, &ADD))) as fn(&Engine)),
        ("delete", |e: &Engine| drop(e.delete(b"x"))),
    ] {
        let prepare = || {
            engine.delete(b"x").expect("delete");
            if name == "delete" {
                engine.set(b"x", OLD, &ADD).expect("set");
            }
        };
        prepare();
        let steps = length(&engine, operation);
        for kill in 0..3 * KILLS {
            prepare();
            let mut stepped = stepped(&engine, operation);
            let target = steps * kill / (3 * KILLS) + fastrand::u64(0..=steps / (3 * KILLS));
            while stepped.steps < target && stepped.step() {}
            let at = format!("{name}: killed after {} of {steps}", stepped.steps);
            stepped.kill();
            // Readers do not repair: this only tells how many items there may be.
            let there = engine.exists(b"x").is_some();
            let other = format!("other {kill}");
            let stored = engine.set(other.as_bytes(), b"x", &ADD);
            assert_eq!(stored.is_ok(), !there, "{at}: x is there: {there}, but {stored:?}");
            engine.delete(other.as_bytes()).expect("delete");
        }
        engine.delete(b"x").expect("delete");
    }
}

#[test]
fn a_dying_repair_is_done_again() {
    let _alone = alone();
    let mut dead = 0;
    for case in &CASES {
        let (_, whole) = engine(case, None);
        let steps = length(&whole, case.run);
        for _ in 0..KILLS / 2 {
            let (_, engine) = engine(case, None);
            let mut first = stepped(&engine, case.run);
            let target = fastrand::u64(steps / 4..=steps);
            while first.steps < target && first.step() {}
            let mut at = format!("killed after {} of {steps}", first.steps);
            first.kill();
            // The next writer repairs, and dies in the middle of it; and so does the third.
            for _ in 0..2 {
                let mut repair = stepped(&engine, |e| drop(e.delete(b"no such key")));
                let target = fastrand::u64(0..4000);
                while repair.steps < target && repair.step() {}
                at = format!("{at}, then after {}", repair.steps);
                repair.kill();
            }
            check(case, &engine, &at);
            dead += engine.stats().owner_dead;
        }
    }
    say(&format!("{dead} dead holders were noticed"));
    assert!(dead > 20, "only {dead} deaths hit a lock holder");
}
