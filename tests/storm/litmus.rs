//! Litmus tests of memory orders between threads, thousands of times: no thread may see the first
//! store last.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

use ucache::{
    Error,
    engine::{Config, Engine, Eviction, Expires, Math, SetOptions, Touch},
};

use crate::{
    engine_proc::{alone, say},
    engine_value::{self, Stamp},
};

const UPDATE: SetOptions = SetOptions::set(Expires::Never);
const ROUNDS: u32 = 60_000;

fn cache() -> std::sync::Arc<Engine> {
    Engine::create(&Config::new("litmus", 64)).expect("a cache")
}

fn seq(engine: &Engine, key: u32) -> Option<u32> {
    let found = engine_value::get(engine, &key.to_le_bytes(), Touch::No).expect("get")?;
    Some(engine_value::read(key, &found.1).unwrap_or_else(|fault| panic!("key {key}: {fault:?}")).seq)
}

fn put(engine: &Engine, key: u32, seq: u32, len: usize, value: &mut Vec<u8>) {
    engine_value::write(Stamp { key, writer: 1, seq }, len, value);
    engine.set(&key.to_le_bytes(), value, &UPDATE).expect("set");
}

/// Runs `write` once while `read` runs repeatedly in two other threads; returns the number of
/// reads.
fn beside(write: impl FnOnce() + Send, read: impl Fn() + Sync) -> u64 {
    let (over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    read();
                    reads.fetch_add(1, Relaxed);
                }
            });
        }
        write();
        over.store(true, Relaxed);
    });
    reads.load(Relaxed)
}

/// A, then B: a thread that sees the new B sees the new A.
#[test]
fn stores_are_seen_in_their_order() {
    let _alone = alone();
    let engine = cache();
    let mut value = Vec::new();
    put(&engine, 1, 0, 64, &mut value);
    put(&engine, 2, 0, 64, &mut value);
    let reads = beside(
        || {
            for n in 1..=ROUNDS {
                put(&engine, 1, n, 16 + n as usize % 90, &mut value);
                put(&engine, 2, n, 16 + n as usize % 70, &mut value);
            }
        },
        || {
            let b = seq(&engine, 2).expect("B is never deleted");
            let a = seq(&engine, 1).expect("A is never deleted");
            assert!(a >= b, "B {b} was seen before A {a}");
        },
    );
    say(&format!("litmus, two keys: {ROUNDS} rounds, {reads} reads"));
}

/// One key's values never go back, and every value is whole, while its blocks are reused for other
/// keys at once. The values are long, so that most copies run concurrently with a writer.
#[test]
fn values_never_go_back() {
    const LEN: usize = 16_000;
    let _alone = alone();
    let engine = cache();
    let mut value = Vec::new();
    put(&engine, 1, 0, LEN, &mut value);
    let last = AtomicU64::new(0);
    let reads = beside(
        || {
            for n in 1..=ROUNDS / 3 {
                put(&engine, 1, n, LEN, &mut value);
                // The block that was just freed.
                put(&engine, 2 + n % 3, n, LEN, &mut value);
                engine.delete(&(2 + (n + 1) % 3).to_le_bytes()).expect("delete");
                last.store(n.into(), Relaxed);
            }
        },
        || {
            let acknowledged = last.load(Relaxed);
            let first = seq(&engine, 1).expect("never deleted");
            let second = seq(&engine, 1).expect("never deleted");
            assert!(
                first <= second && u64::from(first) >= acknowledged,
                "{first}, then {second}, after {acknowledged}"
            );
            for key in 2..5 {
                let _ = seq(&engine, key);
            }
        },
    );
    say(&format!("litmus, one key: {} rounds, {reads} reads", ROUNDS / 3));
}

/// An evicted item whose memory the new value takes at once is read whole or missed.
#[test]
fn what_is_evicted_is_whole_to_its_end() {
    const LEN: usize = 8000;
    // Just more than the limit of exact order.
    const ITEMS: u32 = 4200;
    let _alone = alone();
    let config =
        Config { eviction: Eviction::Lru, max_value: LEN as u64, ..Config::new("evicted", ITEMS.into()) };
    let engine = Engine::create(&config).expect("a cache");
    let mut value = Vec::new();
    (0..ITEMS).for_each(|n| put(&engine, n, n, LEN, &mut value));
    let last = AtomicU64::new(ITEMS.into());
    let reads = beside(
        || {
            for n in ITEMS..ITEMS + ROUNDS {
                put(&engine, n, n, LEN, &mut value);
                last.store(n.into(), Relaxed);
            }
        },
        || {
            // Some that are about to be evicted, and some already evicted.
            let first = last.load(Relaxed) as u32 - ITEMS;
            for key in (first..first + ITEMS / 4).step_by(7) {
                assert!(seq(&engine, key).is_none_or(|seq| seq == key), "another key's value");
            }
        },
    );
    assert_eq!(engine.stats().evicted, u64::from(ROUNDS));
    say(&format!("litmus, eviction: {ROUNDS} rounds, {reads} reads"));
}

/// What a sweep moves is found all the time, and whole: also where its old memory is used again at
/// once.
#[test]
fn what_is_moved_is_found_and_whole() {
    const LEN: usize = 3000;
    const KEPT: u32 = 60;
    const BETWEEN: u32 = 8;
    let _alone = alone();
    let config = Config { max_value: LEN as u64, ..Config::new("moved", 1000) };
    let engine = Engine::create(&config).expect("a cache");
    let mut value = Vec::new();
    let reads = beside(
        || {
            for round in 0..100 {
                for n in 0..KEPT {
                    put(&engine, n, round, LEN, &mut value);
                    for i in 0..BETWEEN {
                        put(&engine, 1000 + n * BETWEEN + i, round, LEN - 100 * i as usize, &mut value);
                    }
                }
                for n in 0..KEPT * BETWEEN {
                    assert!(engine.delete(&(1000 + n).to_le_bytes()).expect("delete"));
                }
                match engine.sweep() {
                    // A reader that was stopped holds the lock longer than a sweep waits.
                    Ok(_) | Err(Error::Timeout { .. }) => {}
                    Err(error) => panic!("sweep: {error}"),
                }
            }
        },
        || {
            for key in 0..KEPT {
                // Before the first round there is none.
                let first = seq(&engine, key);
                assert!(first.is_none() || seq(&engine, key) >= first, "key {key}");
            }
        },
    );
    assert!(engine.stats().moved > 500, "{:?}", engine.stats());
    say(&format!("litmus, relocation: {} entries moved, {reads} reads", engine.stats().moved));
}

/// After a clear nothing older is visible, even to a reader in the middle of it; numbers only grow.
#[test]
fn a_clear_is_never_undone() {
    let _alone = alone();
    let engine = cache();
    let mut value = Vec::new();
    let cleared = AtomicU64::new(0);
    let reads = beside(
        || {
            for n in 1..=ROUNDS / 3 {
                put(&engine, 1, n, 100, &mut value);
                engine.clear().expect("clear");
                cleared.store(n.into(), Relaxed);
                engine.math(b"count", Math::Inc, 1, &UPDATE).expect("math");
            }
        },
        || {
            let gone = cleared.load(Relaxed);
            if let Some(seq) = seq(&engine, 1) {
                assert!(u64::from(seq) > gone, "value {seq} after clear {gone}");
            }
        },
    );
    say(&format!("litmus, clear: {} rounds, {reads} reads", ROUNDS / 3));
}
