//! A reader is stopped between two of its instructions while the entry that it reads is moved and
//! the old block goes to others. When it goes on it must return the value, whole.

use std::{path::Path, sync::Arc};

use ucache::engine::{Config, Engine, Eviction, Store};

use super::{
    cases::{ADD, UPDATE, X, key, value},
    readers::{assert_first, stopped},
};

const ITEMS: u32 = 800;
const LEN: usize = 200;

/// A cache of one shard whose extents are sparse: X and a few others are left in them.
fn sparse(path: Option<&Path>) -> Arc<Engine> {
    let mut config = Config { eviction: Eviction::Lru, ..Config::new("moved", 2 * u64::from(ITEMS)) };
    if let Some(path) = path {
        let _ = std::fs::remove_file(path);
        config.store = Some(Store { path: path.to_owned(), delete_unusable: false });
    }
    let engine = Engine::create(&config).expect("a cache");
    assert_eq!(engine.stats().shards, 1);
    let set = |n| engine.set(&key(n), &value(n, 1, LEN), &ADD).expect("set");
    (1..ITEMS / 2).for_each(|n| _ = set(n));
    set(X);
    (ITEMS / 2..ITEMS).for_each(|n| _ = set(n));
    (1..ITEMS).filter(|n| n % 25 != 0).for_each(|n| assert!(engine.delete(&key(n)).expect("delete")));
    engine
}

/// Moves what is left in the sparse extents, and gives their memory to others.
fn move_and_reuse(engine: &Engine) {
    let before = engine.stats().moved;
    engine.sweep().expect("sweep");
    assert!(engine.stats().moved > before, "nothing was moved");
    for n in ITEMS..2 * ITEMS - ITEMS / 25 - 2 {
        engine.set(&key(n), &value(n, 9, LEN), &UPDATE).expect("set");
    }
}

/// Stops readers at every `stride`-th instruction; returns how many there were.
pub(crate) fn beside_readers(path: Option<&Path>, stride: u64) -> u64 {
    let mut readers = 0;
    loop {
        let engine = sparse(path);
        let check = |found: Option<Vec<u8>>| {
            assert_first(X, LEN, &found.expect("X is there all the time"));
        };
        if !stopped(&engine, readers * stride, &key(X), check, || move_and_reuse(&engine)) {
            return readers;
        }
        readers += 1;
    }
}
