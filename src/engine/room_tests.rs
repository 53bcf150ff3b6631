//! Where a chain has no slot left: as little as possible is evicted, and the rest of the cache stays.

use std::sync::Arc;

use super::{
    tests::{ADD, UPDATE, get, key},
    *,
};
use crate::{
    error::Error,
    os::clock,
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
        let one = |name: &str, full: bool| {
            let mut keys = (0..).map(|n| format!("{name} {n}"));
            keys.find(|key| is_crowded(&e, key.as_bytes()) == full).unwrap()
        };
        e.set(one("new", false).as_bytes(), b"new", &ADD).unwrap();
        assert_eq!(e.stats().items, ITEMS - 99);
        let key = one("newer", true);
        match e.set(key.as_bytes(), b"new", &ADD) {
            Err(Error::NoSpace { .. }) => assert!(!clear_on_full && e.stats().items == ITEMS - 99),
            Ok(_) => assert!(clear_on_full && e.stats().items == 1),
            Err(other) => panic!("{other}"),
        }
    }
}

/// A writer died after it had removed an item and before it returned the right to it: the first key of the clock's next
/// tick finds the right, whatever shard it belongs to.
#[test]
fn what_a_death_holds_of_the_limit_is_found() {
    let e = Engine::create(&Config::new("full", ITEMS)).unwrap();
    (0..ITEMS).for_each(|n| _ = e.set(&key(n), b"value", &ADD).unwrap());
    let refused = |n: u64| matches!(e.set(&key(n), b"new", &ADD), Err(Error::Full { .. }));
    let shard_of = |n: u64| e.shard_of_hash(e.hash(&key(n)));
    for no in 0..e.geo.shards {
        assert!(refused(ITEMS + no));
        let gone = (no * 100..ITEMS).find(|&n| shard_of(n) == no && e.exists(&key(n)).is_some()).unwrap();
        assert!(e.delete(&key(gone)).unwrap());
        let cells = e.region.shard(no);
        cells.word(at::ITEMS).fetch_add(1, Relaxed);
        cells.set_dirty(true);
        let tick = clock::coarse_millis();
        while clock::coarse_millis() == tick {
            std::thread::yield_now();
        }
        let new = (2 * ITEMS + no * 100..).find(|&n| shard_of(n) == (no + 1) % e.geo.shards).unwrap();
        e.set(&key(new), b"new", &ADD).unwrap();
        assert_eq!(e.stats().items, ITEMS);
    }
    assert!(refused(4 * ITEMS));
}

/// Ghosts take memory for the items that their shards have, not for those that they might have.
#[test]
fn ghosts_follow_the_data() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store { path: dir.path().join("store"), delete_unusable: false };
    for store in [None, Some(store)] {
        let blocks = Some(Blocks { size: 64, count: 4_000 });
        let config = Config { blocks, store, eviction: Eviction::S3Fifo, ..Config::new("few", 1_000_000) };
        let mut e = Engine::create(&config).unwrap();
        assert!(e.memory().disk < 1 << 20, "{:?}", e.memory());
        let resident = |e: &Engine| e.region.resident(e.layout.ghosts, e.layout.hits).unwrap();
        (0..4_000).for_each(|n| _ = e.set(&key(n), b"v", &ADD).unwrap());
        assert!(resident(&e) < 16 << 10, "nothing was evicted yet");
        (4_000..16_000).for_each(|n| _ = e.set(&key(n), b"v", &ADD).unwrap());
        assert_eq!((e.stats().items, e.stats().evicted), (4_000, 12_000));
        assert!(resident(&e) < 512 << 10, "{} bytes of {}", resident(&e), e.layout.hits - e.layout.ghosts);
        if config.store.is_some() {
            drop(e);
            e = Engine::create(&config).unwrap();
            (16_000..18_000).for_each(|n| _ = e.set(&key(n), b"v", &ADD).unwrap());
            assert_eq!((e.stats().items, e.inspect(false, |_, _| ()).unwrap().damaged), (4_000, 0));
        }
    }
}

/// A key that left the small queue enters the main queue when it returns, also where the limit of items is far.
#[test]
fn a_ghost_returns_to_the_main_queue() {
    let blocks = Some(Blocks { size: 64, count: 400 });
    let config = Config { blocks, eviction: Eviction::S3Fifo, ..Config::new("few", 100_000) };
    let e = Engine::create(&config).unwrap();
    (0..800).for_each(|n| _ = e.set(&key(n), b"v", &ADD).unwrap());
    let gone: Vec<_> = (0..800).filter(|&n| e.exists(&key(n)).is_none()).collect();
    let is_ghost = |n: u64| {
        let hash = e.hash(&key(n));
        e.is_ghost(&e.lock(e.shard_of_hash(hash)).unwrap(), hash)
    };
    let ghosts = gone.iter().filter(|&&n| is_ghost(n)).count();
    assert!(ghosts * 2 > gone.len(), "{ghosts} of {} are known", gone.len());
    assert!((10_000..11_000).all(|n| !is_ghost(n)), "never stored");
}
