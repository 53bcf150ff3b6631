use std::{thread, time::Duration};

use ucache::{Cache, Error};

use super::{builder, cache, process::Child, within};

#[test]
fn stats_count_what_happens() {
    let cache = builder().items(2).build().unwrap();
    assert_eq!((cache.stats().items, cache.stats().capacity), (0, 2));
    cache.add("a", "1").unwrap();
    cache.add("a", "2").unwrap();
    cache.set("a", "3").unwrap();
    cache.set("b", "1").unwrap();
    cache.set("c", "1").unwrap_err();
    for key in ["a", "b", "b", "c"] {
        let _ = cache.get(key).unwrap();
    }
    assert!(cache.contains("a") && !cache.contains("c"), "counts neither way");
    cache.delete("b").unwrap();
    let stats = cache.stats();
    assert_eq!((stats.items, stats.hits, stats.misses), (1, 3, 1));
    assert_eq!((stats.stored, stats.deleted, stats.rejected_full), (3, 1, 1));
}

#[test]
fn stats_are_those_of_all_processes() {
    let cache = cache();
    cache.set("k", "v").unwrap();
    for _ in 0..3 {
        let child = Child::fork(|| {
            (0..100).all(|_| cache.get("k").unwrap().is_some() && cache.get("l").unwrap().is_none())
        });
        assert!(child.ended_well());
    }
    assert_eq!((cache.stats().hits, cache.stats().misses), (300, 300));
}

#[test]
fn sweep_reclaims_what_expired_and_only_that() {
    let cache = cache();
    for n in 0..50_u8 {
        cache.set_with([n], "v", Duration::ZERO).unwrap();
    }
    cache.set("stays", "v").unwrap();
    assert_eq!(cache.sweep().unwrap(), 50);
    assert_eq!(cache.sweep().unwrap(), 0);
    let stats = cache.stats();
    assert_eq!((stats.items, stats.expired), (1, 50));
    assert!(cache.contains("stays"));
}

#[test]
fn a_sweeper_sweeps_until_it_is_dropped() {
    let cache = cache();
    let sweeper = cache.sweeper(Duration::from_millis(1)).unwrap();
    for n in 0..50_u8 {
        cache.set_with([n], "v", Duration::ZERO).unwrap();
    }
    within("the sweeper", || cache.stats().items == 0);
    drop(sweeper);
    cache.set_with("k", "v", Duration::ZERO).unwrap();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(cache.stats().items, 1);

    let asleep = cache.sweeper(Duration::MAX).unwrap();
    drop(asleep); // ends although it would have slept forever
}

#[test]
fn a_sweeper_keeps_the_cache() {
    let sweeper = cache().sweeper(Duration::from_millis(1)).unwrap();
    let name = thread::current().name().unwrap().to_owned();
    assert!(Cache::open(&name).is_ok());
    drop(sweeper);
    assert!(matches!(Cache::open(&name), Err(Error::NoSuchCache(_))));
}

#[test]
fn a_child_can_drop_the_sweeper_it_does_not_have() {
    let cache = cache();
    let mut sweeper = Some(cache.sweeper(Duration::from_millis(1)).unwrap());
    let child = Child::fork(|| {
        sweeper = None; // the child's copy
        true
    });
    assert!(child.ended_well());
    cache.set_with("k", "v", Duration::ZERO).unwrap();
    within("the parent's sweeper", || cache.stats().items == 0);
    drop(sweeper);
}

#[test]
fn a_sweeper_without_a_pause_is_refused() {
    let error = cache().sweeper(Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { option: "interval", .. }), "{error}");
}

#[test]
fn sync_of_memory_is_nothing() {
    cache().sync().unwrap();
}
