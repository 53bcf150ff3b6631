//! Store files from inside: what opening one makes of what the last users left.

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

/// A store of this policy with `old` items, whose stamps `f` changes; opened as a copy, as after a restart of the machine, and
/// given `new` more. Returns how many of both are there.
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
        e.region.word(e.shard_off(0) + crate::shm::layout::shard::QUEUED).store(0, Relaxed);
    });
    assert_eq!(old + new, 100);
    // What came last is the last in its queue.
    assert!(new >= 40, "{old} old, {new} new");
}
