use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use ucache::{Cache, Error, Expires, Stored};

use super::{LONG, builder, cache, meet, process, within};

const HOUR: Duration = Duration::from_secs(3600);

fn never(key: &str) -> Vec<u8> {
    panic!("{key} is fresh")
}

/// A handle whose values are stale at once, and served for another hour.
fn old(cache: &Cache) -> Cache {
    cache.with_timeout(Duration::ZERO).with_fill_limits(60 * LONG, LONG)
}

#[test]
fn a_fresh_value_is_served_as_it_is() {
    let cache = cache().with_timeout(HOUR);
    assert_eq!(cache.get_or_refresh_with("k", HOUR, |_| "1").unwrap(), b"1");
    assert_eq!(cache.get_or_refresh_with("k", HOUR, never).unwrap(), b"1");
    let for_ever = cache.with_timeout(Expires::Never);
    assert_eq!(for_ever.get_or_refresh_with("for ever", HOUR, |_| "2").unwrap(), b"2");
    assert_eq!(for_ever.get_or_refresh_with("for ever", HOUR, never).unwrap(), b"2");
    assert_eq!(for_ever.expires("for ever"), Some(Expires::Never));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses), (2, 2));
}

#[test]
fn an_old_value_is_computed_anew() {
    let cache = old(&cache());
    for n in ["1", "2", "3"] {
        assert_eq!(cache.get_or_refresh_with("k", HOUR, |_| n).unwrap(), n.as_bytes());
        assert_eq!(cache.get_str("k").unwrap().as_deref(), Some(n), "for who reads otherwise it is there");
    }
    assert_eq!(cache.keys().count(), 1, "the mark of the refresh is gone, and was never a key");
    assert_eq!(cache.stats().items, 1);
    // After both times it is a miss for all readers.
    assert_eq!(cache.get_or_refresh_with("gone", Duration::ZERO, |_| "4").unwrap(), b"4");
    assert!(!cache.contains("gone"));
}

#[test]
fn while_one_refreshes_the_others_are_served() {
    let cache = old(&cache());
    cache.get_or_refresh_with("k", HOUR, |_| "old").unwrap();
    let (calls, barrier) = (AtomicU32::new(0), Barrier::new(4));
    let (begun, begins) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (cache, calls) = (&cache, &calls);
        let refresher = scope.spawn(move || {
            cache.get_or_refresh_with("k", HOUR, |_| {
                calls.fetch_add(1, Ordering::Relaxed);
                begun.send(()).unwrap();
                ends.recv().unwrap();
                "new"
            })
        });
        begins.recv().unwrap();
        let others = [0; 4].map(|_| {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..50 {
                    assert_eq!(cache.get_or_refresh_with("k", HOUR, never).unwrap(), b"old");
                }
            })
        });
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(cache.get_or_refresh_with("k", HOUR, never).unwrap(), b"old");
        assert_eq!(cache.keys().count(), 1);
        end.send(()).unwrap();
        assert_eq!(refresher.join().unwrap().unwrap(), b"new");
    });
    assert_eq!(calls.into_inner(), 1);
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("new"));
}

#[test]
fn a_panic_or_a_failure_leaves_the_old_value_and_the_turn_to_the_next() {
    let cache = old(&cache());
    cache.get_or_refresh_with("k", HOUR, |_| "old").unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        cache.get_or_refresh_with("k", HOUR, |_| -> Vec<u8> { panic!("as this test wants") })
    }));
    assert!(outcome.is_err());
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("old"));
    let failed: Result<_, Box<dyn std::error::Error>> =
        cache.get_or_try_refresh_with("k", HOUR, |_| Err::<String, _>("down".into()));
    assert_eq!(failed.unwrap_err().to_string(), "down");
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("old"));
    assert_eq!(cache.get_or_refresh_with("k", HOUR, |_| "new").unwrap(), b"new");
    assert_eq!(cache.stats().items, 1);
}

#[test]
fn a_refresher_that_dies_is_replaced() {
    let cache = old(&cache());
    cache.get_or_refresh_with("k", HOUR, |_| "old").unwrap();
    let child = process::Child::fork(|| {
        let _ = cache.get_or_refresh_with("k", HOUR, |_| {
            cache.set_with("begun", "1", Expires::Never).unwrap();
            meet(&cache, "never comes", 2);
            "new"
        });
        true
    });
    within("the refresh", || cache.contains("begun"));
    assert_eq!(cache.get_or_refresh_with("k", HOUR, never).unwrap(), b"old");
    child.kill();
    assert_eq!(cache.get_or_refresh_with("k", HOUR, |_| "mine").unwrap(), b"mine");
}

#[test]
fn what_cannot_be_marked_or_stored_is_computed_all_the_same() {
    // No space for the mark: a key of 9 bytes is too long, or no item is free.
    for builder in [builder().max_key_bytes(4), builder().items(1)] {
        let cache = old(&builder.max_value_bytes(8).build().unwrap());
        cache.get_or_refresh_with("k", HOUR, |_| "1").unwrap();
        assert_eq!(cache.get_or_refresh_with("k", HOUR, |_| "2").unwrap(), b"2");
        assert_eq!(cache.get_or_refresh_with("k", HOUR, |_| "123456789").unwrap(), b"123456789");
        assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("2"));
        assert!(matches!(cache.get_or_refresh_with("", HOUR, never), Err(Error::EmptyKey)));
        drop(cache);
    }
}

/// A value computed from old data never replaces one written since.
#[test]
fn whoever_writes_during_a_refresh_wins() {
    let all = cache();
    let cache = old(&all);
    let writes: [&dyn Fn(); 3] = [
        &|| assert_eq!(all.set("k", "newest").unwrap(), Stored::Updated),
        &|| assert!(all.delete("k").unwrap()),
        &|| all.clear().unwrap(),
    ];
    for writes in writes {
        assert_eq!(cache.get_or_refresh_with("k", HOUR, |_| "1").unwrap(), b"1");
        let mut left = None;
        let computed = cache.get_or_refresh_with("k", HOUR, |_| {
            writes();
            left = all.get("k").unwrap();
            "2"
        });
        assert_eq!(computed.unwrap(), b"2", "the caller's own");
        assert_eq!(all.get("k").unwrap(), left);
        all.clear().unwrap();
    }
}
