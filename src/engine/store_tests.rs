//! Tests of store files through the engine's internals: opening in various states.

use super::{
    tests::{ADD, UPDATE, get, key},
    *,
};
use crate::{
    Error,
    shm::{layout::header, sync::*},
};

fn stored(path: &std::path::Path) -> Option<Store> {
    Some(Store { path: path.to_owned(), delete_unusable: false })
}

#[test]
fn a_store_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store { path: dir.path().join("c.store"), delete_unusable: false };
    let config = Config { store: Some(store.clone()), ..Config::new("c", 500) };
    let e = Engine::create(&config).unwrap();
    for i in 0..500 {
        e.set(&key(i), &vec![i as u8; 1 + i as usize * 100], &ADD).unwrap();
    }
    e.math(b"never", Math::Inc, 1, &UPDATE).unwrap_err();
    drop(e);
    for _ in 0..2 {
        let e = Engine::attach(&store.path).unwrap();
        for i in 0..500 {
            assert_eq!(get(&e, &key(i)).unwrap(), vec![i as u8; 1 + i as usize * 100], "{i}");
        }
        assert!(!e.stats().last_unclean);
        assert_eq!((e.stats().items, e.stats().dropped_corrupt), (500, 0));
        assert!(matches!(e.set(b"more", b"x", &ADD), Err(Error::Full { .. })));
    }
    let other = Engine::create(&Config { capacity: 499, ..config });
    assert!(other.unwrap_err().to_string().contains("made to hold 500 items, 499"));
}

/// A store of this policy with `old` items, whose stamps `f` changes; opened as a copy, as after a
/// restart of the machine, and given `new` more. Returns how many of both are there.
fn moved(policy: Eviction, capacity: u64, new: u64, f: impl Fn(&Engine)) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let config = Config { store: stored(&path), eviction: policy, ..Config::new("c", capacity) };
    let e = Engine::create(&config).unwrap();
    (0..capacity).for_each(|i| _ = e.set(&key(i), b"old", &ADD).unwrap());
    f(&e);
    drop(e);
    std::fs::copy(&path, &copy).unwrap();
    let e = Engine::create(&Config { store: stored(&copy), ..config }).unwrap();
    (capacity..capacity + new).for_each(|i| _ = e.set(&key(i), b"new", &UPDATE).unwrap());
    let there = |range: std::ops::Range<u64>| range.filter(|&i| e.exists(&key(i)).is_some()).count() as u64;
    (there(0..capacity), there(capacity..capacity + new))
}

fn each_stamp(e: &Engine, f: impl Fn(u64) -> u64) {
    for bucket in 0..e.buckets {
        for slot in 1..=crate::shm::layout::SLOTS {
            let stamp = e.stamp(bucket, slot);
            if stamp != u64::MAX {
                e.set_stamp(bucket, slot, f(stamp));
            }
        }
    }
}

#[test]
fn what_was_used_before_a_restart_of_the_machine_is_older_than_what_comes_after() {
    // A machine that had been up for a year longer.
    let year = (365 * 24 * 3600 * 1000) << 20;
    let (old, new) = moved(Eviction::Lru, 20_000, 5_000, |e| each_stamp(e, |stamp| stamp + year));
    assert!(old >= 15_000 && new > 4_900, "{old} old, {new} new");
}

#[test]
fn exact_order_goes_on_where_the_stamps_are() {
    for damaged in [0, u64::MAX - 5] {
        let (old, new) = moved(Eviction::Lru, 100, 50, |e| {
            // The header on disk is older than the stamps, or damaged.
            e.region.word(header::LRU_CLOCK).store(damaged, Relaxed);
        });
        assert_eq!((old, new), (50, 50));
    }
}

#[test]
fn queues_go_on_where_the_places_are() {
    let (old, new) = moved(Eviction::S3Fifo, 100, 50, |e| {
        e.region.shard(0).word(crate::shm::layout::shard::QUEUED).store(0, Relaxed);
    });
    assert_eq!(old + new, 100);
    // The item stored last is the last in its queue.
    assert!(new >= 40, "{old} old, {new} new");
}

#[test]
fn a_sieve_store_keeps_its_policy_and_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sieve.store");
    let config = |eviction| Config { store: stored(&path), eviction, ..Config::new("sieve", 100) };
    let e = Engine::create(&config(Eviction::Sieve)).unwrap();
    (0..100).for_each(|i| assert_eq!(e.set(&key(i), b"v", &ADD).unwrap(), Stored::Inserted));
    (0..50).for_each(|i| drop(get(&e, &key(i)).unwrap()));
    drop(e);
    assert_eq!(Engine::attach(&path).unwrap().config().eviction, Eviction::Sieve);
    let e = Engine::create(&config(Eviction::Sieve)).unwrap();
    (100..150).for_each(|i| assert_eq!(e.set(&key(i), b"v", &ADD).unwrap(), Stored::Inserted));
    let kept = |from: u64| (from..from + 50).filter(|&i| e.exists(&key(i)).is_some()).count();
    assert_eq!((kept(0), kept(50), kept(100)), (50, 0, 50), "what was visited stays");
    drop(e);
    // Another policy has another layout: the items move.
    let e = Engine::create(&config(Eviction::Lru)).unwrap();
    assert_eq!((e.stats().items, e.config().eviction), (100, Eviction::Lru));
}

/// A search behind the data, or before it, would not end.
#[test]
fn in_a_damaged_extent_no_orphan_is_looked_for() {
    let e = Engine::create(&Config::new("c", 10)).unwrap();
    e.set(b"key", b"value", &ADD).unwrap();
    let places = || {
        let mut places = Vec::new();
        for no in 0..e.geo.shards {
            crate::shm::slab::each_spans(&e.region, no, |from, end, _| places.push((from, end)));
        }
        assert!(places.iter().all(|&(from, end)| e.layout.data <= from && from < end));
        places
    };
    assert_eq!(places().first().map(|&(from, _)| from), Some(e.layout.data), "the item's extent");
    // Two bits of the code in the word of its first span: who owns it can still be read.
    e.region.word(e.layout.span_table).fetch_xor(3 << 40, SeqCst);
    assert!(places().is_empty(), "{:?}", places());
}

/// After a power failure a page of the index may be on disk, and the bit that says so may not: the
/// data in the file counts. A copy has data everywhere.
#[test]
fn an_index_is_found_by_its_data() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let config = Config { store: stored(&path), ..Config::new("c", 20_000) };
    let e = Engine::create(&config).unwrap();
    // Some chains are longer than a bucket: at first 5.5 items have one.
    (0..20_000).for_each(|i| _ = e.set(&key(i), b"value", &ADD).unwrap());
    (0..20_000).filter(|i| i % 50 != 0).for_each(|i| assert!(e.delete(&key(i)).unwrap()));
    e.sync().unwrap();
    let ids: Vec<_> = (0..20_000).step_by(50).map(|i| e.exists(&key(i)).unwrap()).collect();
    assert!(ids.iter().any(|id| u64::from(id.0.get()) > e.geo.homes * 7), "no chain is long");
    let (runs, end) = (e.layout.runs, e.layout.ghosts);
    drop(e);
    std::fs::copy(&path, &copy).unwrap();
    for path in [path, copy] {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; (end - runs) as usize], runs).unwrap();
        file.write_all_at(&[0; 8], header::OVERFLOW_READY).unwrap();
        let e = Engine::attach(&path).unwrap();
        for (i, id) in (0..20_000).step_by(50).zip(&ids) {
            assert_eq!(e.exists(&key(i)), Some(*id), "{i}");
        }
        let found = e.inspect(false, |_, _| ()).unwrap();
        assert_eq!((found.items, found.damaged, found.loose), (400, 0, 0), "{:?}", found.reasons);
    }
}

/// A page of the table of spans is lost: what its spans had goes, and they are free again.
#[test]
fn lost_words_of_spans_are_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let config = Config { store: stored(&path), ..Config::new("c", 1000) };
    let e = Engine::create(&config).unwrap();
    let fill = |e: &Engine| (0..300).for_each(|i| _ = e.set(&key(i), &[1; 3000], &UPDATE).unwrap());
    fill(&e);
    let (table, size) = (e.layout.span_table as usize, e.stats().bytes);
    drop(e);
    let whole = std::fs::read(&path).unwrap();
    for byte in [0xff, 0x5a] {
        let mut damaged = whole.clone();
        damaged[table..table + 4096].fill(byte);
        std::fs::write(&path, &damaged).unwrap();
        let e = Engine::attach(&path).unwrap();
        assert!(e.inspect(true, |_, _| ()).unwrap().heap > 0);
        let again = e.inspect(false, |_, _| ()).unwrap();
        assert_eq!((again.damaged, again.heap), (0, 0), "{:?}", again.reasons);
        fill(&e);
        e.sweep().unwrap();
        let now = e.stats().bytes;
        assert!(now <= size + size / 8, "{now} bytes, {size} before");
    }
}
