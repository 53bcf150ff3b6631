//! Where a chain has no slot left: as little as possible is evicted, and the rest of the cache stays.

use std::sync::Arc;

use super::{
    tests::{ADD, UPDATE, get, key},
    *,
};
use crate::{
    error::Error,
    shm::{layout::shard as at, sync::*},
};

const ITEMS: u64 = 8_192;

/// A full cache without unused overflow buckets, as after many long chains.
fn crowded(config: &Config) -> Arc<Engine> {
    let e = Engine::create(config).unwrap();
    (0..config.capacity).for_each(|n| _ = e.set(&key(n), b"value", &ADD).unwrap());
    for no in 0..e.geo.shards {
        let cells = e.region.shard(no);
        cells.word(at::OVERFLOW_FREE).store(0, Relaxed);
        cells.word(at::OVERFLOW_BUMP).store(e.geo.overflow, Relaxed);
    }
    e
}

/// Whether the chain of a key has no empty slot.
fn is_crowded(e: &Engine, key: &[u8]) -> bool {
    !e.has_free_slot(e.home_of(e.hash(key)))
}

#[test]
fn a_full_chain_costs_one_of_its_items() {
    for eviction in [Eviction::Lru, Eviction::S3Fifo, Eviction::Sieve] {
        for capacity in [1_000, ITEMS] {
            let e = crowded(&Config { eviction, ..Config::new("chain", capacity) });
            let mut crowded = 0;
            for n in 0..2_000 {
                let key = format!("new {n}");
                crowded += u64::from(is_crowded(&e, key.as_bytes()));
                let before = e.stats();
                e.set(key.as_bytes(), b"new", &UPDATE).unwrap();
                let after = e.stats();
                assert!(after.evicted <= before.evicted + 1, "{eviction:?}: {before:?}, then {after:?}");
                assert_eq!(after.items, capacity, "{eviction:?}");
                assert_eq!(get(&e, key.as_bytes()).unwrap(), b"new");
            }
            assert!(crowded > 20, "{crowded} keys of full chains");
        }
    }
}

#[test]
fn without_eviction_a_key_of_a_full_chain_is_refused() {
    for clear_on_full in [false, true] {
        let e = crowded(&Config { clear_on_full, ..Config::new("chain", ITEMS) });
        (0..100).for_each(|n| assert!(e.delete(&key(n)).unwrap()));
        let one = |full: bool| {
            let keys = (0..).map(|n| format!("new {n}"));
            keys.into_iter().find(|key| is_crowded(&e, key.as_bytes()) == full).unwrap()
        };
        e.set(one(false).as_bytes(), b"new", &ADD).unwrap();
        assert_eq!(e.stats().items, ITEMS - 99);
        let key = one(true);
        match e.set(key.as_bytes(), b"new", &ADD) {
            Err(Error::NoSpace { .. }) => assert!(!clear_on_full && e.stats().items == ITEMS - 99),
            Ok(_) => assert!(clear_on_full && e.stats().items == 1),
            Err(other) => panic!("{other}"),
        }
    }
}
