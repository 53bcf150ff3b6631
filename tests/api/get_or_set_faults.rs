//! Get-or-set when the filler dies, is slow or forks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::Duration,
};

use ucache::Cache;

use super::{
    LONG, cache,
    process::{self, Child},
    within,
};

/// A lease longer than any test: only a death can end it.
fn patient(cache: &Cache) -> Cache {
    cache.with_fill_limits(60 * LONG, LONG)
}

/// A child that becomes the filler of `key` and stays it.
fn filler_for_ever(cache: &Cache, key: &str) -> Child {
    let child = Child::fork(|| {
        let value = cache.get_or_set_with(key, |_| -> Vec<u8> {
            cache.set("filling", "v").unwrap();
            loop {
                thread::sleep(LONG);
            }
        });
        value.is_ok()
    });
    within("the filler", || cache.contains("filling"));
    child
}

#[test]
fn a_killed_filler_is_replaced() {
    let cache = patient(&cache());
    filler_for_ever(&cache, "k").kill();
    assert_eq!(cache.get_or_set_with("k", |_| "v").unwrap(), b"v");
    assert_eq!(cache.get("k").unwrap(), Some(b"v".to_vec()), "a replacement, not a call without a turn");
}

#[test]
fn one_of_those_who_wait_replaces_a_killed_filler() {
    let cache = patient(&cache());
    for round in 0..5 {
        let key = format!("k{round}");
        cache.delete("filling").unwrap();
        let filler = filler_for_ever(&cache, &key);
        let waiters: Vec<_> = (0..3)
            .map(|me| {
                Child::fork(|| {
                    cache.incr("waiting", 1).unwrap();
                    let value = cache.get_or_set_with(&key, |_| {
                        cache.incr("calls", 1).unwrap();
                        format!("by {me}")
                    });
                    Some(value.unwrap()) == cache.get(&key).unwrap()
                })
            })
            .collect();
        within("the waiters", || cache.get_int("waiting").unwrap() == Some(3 * (round + 1)));
        thread::sleep(Duration::from_millis(20)); // most of them are asleep by now
        assert!(!cache.contains(&key) && cache.get(&key).unwrap().is_none());
        filler.kill();
        assert!(process::all_well(waiters), "round {round}");
        assert_eq!(cache.get_int("calls").unwrap(), Some(round + 1));
    }
}

#[test]
fn a_filler_that_takes_too_long_is_replaced() {
    let cache = cache().with_fill_limits(Duration::from_millis(50), LONG);
    let (filling, is_filling) = mpsc::channel();
    let (replaced, was_replaced) = mpsc::channel();
    let handle = cache.clone();
    thread::scope(|scope| {
        let slow = scope.spawn(move || {
            handle.get_or_set_with("k", |_| {
                filling.send(()).unwrap();
                was_replaced.recv_timeout(LONG).unwrap();
                "late"
            })
        });
        is_filling.recv_timeout(LONG).unwrap();
        assert_eq!(cache.get_or_set_with("k", |_| "in time").unwrap(), b"in time");
        replaced.send(()).unwrap();
        assert_eq!(slow.join().unwrap().unwrap(), b"late");
    });
    assert_eq!(cache.get("k").unwrap(), Some(b"in time".to_vec()), "the late value is not stored");
}

#[test]
fn who_loses_patience_goes_on_without_storing() {
    let cache = patient(&cache());
    let hasty = cache.with_fill_limits(60 * LONG, Duration::from_millis(20));
    let value = cache.get_or_set_with("k", |_| {
        let other = thread::scope(|scope| scope.spawn(|| hasty.get_or_set_with("k", |_| "own")).join());
        assert_eq!(other.unwrap().unwrap(), b"own");
        assert!(!cache.contains("k"));
        "the filler's"
    });
    assert_eq!(value.unwrap(), b"the filler's");
    assert_eq!(cache.get("k").unwrap(), Some(b"the filler's".to_vec()));
}

#[test]
fn a_child_of_the_filler_has_no_turn() {
    let cache = patient(&cache());
    let hasty = cache.with_fill_limits(60 * LONG, Duration::from_millis(20));
    let mut is_child = false;
    let value = catch_unwind(AssertUnwindSafe(|| {
        cache.get_or_set_with("k", |_| {
            let Some(child) = Child::split() else {
                // The child leaves the function by a panic, like a filler that gives up.
                is_child = true;
                panic!("as this test wants");
            };
            assert!(child.ended_well());
            // The lease was not the child's to release: others still wait.
            assert!(process::all_of(1, |_| hasty.get_or_set_with("k", |_| "other").is_ok()));
            assert!(!cache.contains("k"));
            "v"
        })
    }));
    if is_child {
        process::end(value.is_err());
    }
    assert_eq!(value.unwrap().unwrap(), b"v");
    assert_eq!(cache.get("k").unwrap(), Some(b"v".to_vec()));
}

#[test]
fn writes_and_deletes_go_on_during_a_fill() {
    let cache = patient(&cache());
    let value = cache.get_or_set_with("k", |_| {
        cache.set("k", "written meanwhile").unwrap();
        assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("written meanwhile"));
        "filled"
    });
    assert_eq!(value.unwrap(), b"filled");
    assert!(cache.contains("k"));

    let value = cache.get_or_set_with("l", |_| {
        cache.delete("l").unwrap();
        cache.clear().unwrap();
        "filled"
    });
    assert_eq!(value.unwrap(), b"filled");
    let again = cache.get_or_set_with("l", |_| "again").unwrap();
    assert!(again == b"filled" || again == b"again");
}

/// A panic outside of the cache leaves no shard to repair, though the cache is used while it
/// unwinds.
#[test]
fn a_panic_elsewhere_damages_nothing() {
    struct Leaves<'a>(&'a Cache);
    impl Drop for Leaves<'_> {
        fn drop(&mut self) {
            self.0.set("left", "v").unwrap();
            self.0.incr("n", 1).unwrap();
            self.0.delete("left").unwrap();
            assert!(self.0.get_or_set_with("own", |_| "v").is_ok());
        }
    }
    let cache = cache();
    let fails = || cache.get_or_set_with("k", |_| -> Vec<u8> { panic!("the function's own") });
    assert!(catch_unwind(AssertUnwindSafe(fails)).is_err());
    let unwinds = || {
        let _leaves = Leaves(&cache);
        panic!("the program's own")
    };
    assert!(catch_unwind(AssertUnwindSafe(unwinds)).is_err());
    assert_eq!(cache.get_or_set_with("k", |_| "v").unwrap(), b"v");
    for n in 0..50 {
        cache.set(format!("{n}"), "v").unwrap();
    }
    assert_eq!(cache.stats().repaired, 0);
}
