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

use ucache::{Cache, Error, Expires};

use super::{LONG, builder, cache, meet, process, within};

/// Waits as long as a test may take, and never takes over from a live filler.
fn patient(cache: &Cache) -> Cache {
    cache.with_fill_limits(60 * LONG, LONG)
}

#[test]
fn a_missing_key_is_filled_once() {
    let cache = cache();
    let calls = AtomicU32::new(0);
    let fill = |key: &str| {
        calls.fetch_add(1, Ordering::Relaxed);
        format!("value of {key}")
    };
    for _ in 0..3 {
        assert_eq!(cache.get_or_set_with("k", fill).unwrap(), b"value of k");
    }
    assert_eq!(calls.into_inner(), 1);
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("value of k"));

    cache.set("there", "before").unwrap();
    assert_eq!(cache.get_or_set_with("there", fill_never).unwrap(), b"before");
}

fn fill_never(key: &str) -> Vec<u8> {
    panic!("{key} is stored")
}

#[test]
fn keys_and_values_of_many_types() {
    let cache = cache();
    assert_eq!(cache.get_or_set_with(&String::from("string"), |k| k.to_uppercase()).unwrap(), b"STRING");
    assert_eq!(cache.get_or_set_with(b"array", |k| k.len().to_string()).unwrap(), b"5");
    assert_eq!(cache.get_or_set_with(&[1_u8, 2][..], |k| [k[1], k[0]]).unwrap(), [2, 1]);
    assert_eq!(cache.get_or_set_with("str", |_| "text").unwrap(), b"text");
    cache.get_or_set_with("n", |_| 41_i64.to_ne_bytes()).unwrap();
    assert_eq!(cache.incr("n", 1).unwrap(), 42);
}

#[test]
fn what_was_filled_expires_as_the_handle_says() {
    let cache = cache();
    let at_once = cache.with_timeout(Duration::ZERO);
    assert_eq!(at_once.get_or_set_with("k", |_| "1").unwrap(), b"1");
    assert_eq!(at_once.get_or_set_with("k", |_| "2").unwrap(), b"2", "the first one has expired");
    let never = cache.with_timeout(Expires::Never);
    assert_eq!(never.get_or_set_with("k", |_| "3").unwrap(), b"3");
    assert_eq!(at_once.get_or_set_with("k", |_| "4").unwrap(), b"3");
}

#[test]
fn of_many_threads_one_fills() {
    let cache = patient(&cache());
    for round in 0..20 {
        let key = format!("k{round}");
        let (calls, barrier) = (AtomicU32::new(0), Barrier::new(8));
        thread::scope(|scope| {
            for me in 0..8 {
                let (cache, key, calls, barrier) = (&cache, key.as_str(), &calls, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let value = cache.get_or_set_with(key, |_| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(5));
                        format!("by {me}")
                    });
                    // Also another thread's value: all see the same.
                    assert_eq!(Some(value.unwrap()), cache.get(key).unwrap());
                });
            }
        });
        assert_eq!(calls.into_inner(), 1, "{key}");
    }
}

#[test]
fn of_four_processes_one_fills() {
    let cache = patient(&cache());
    let good = process::all_of(4, |me| {
        (0..20).all(|round: i64| {
            let key = format!("k{round}");
            meet(&cache, "start", (round + 1) * 4);
            let value = cache.get_or_set_with(&key, |_| {
                cache.incr("calls", 1).unwrap();
                thread::sleep(Duration::from_millis(5));
                format!("by {me}")
            });
            let same = Some(value.unwrap()) == cache.get(&key).unwrap();
            meet(&cache, "end", (round + 1) * 4);
            same
        })
    });
    assert!(good);
    assert_eq!(cache.get_int("calls").unwrap(), Some(20));
}

#[test]
fn a_fill_is_a_miss_for_each_caller_and_a_hit_for_who_waited() {
    let cache = patient(&builder().last_modified(true).build().unwrap());
    thread::scope(|scope| {
        cache.get_or_set_with("k", |_| {
            scope.spawn(|| cache.get_or_set_with("k", fill_never));
            within("the other caller", || cache.stats().misses == 2);
            thread::sleep(Duration::from_millis(100)); // it checks several more times
            "v"
        })
    })
    .unwrap();
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.stored), (1, 2, 1));
    assert!(stats.last_modified > 0);
}

#[test]
fn different_keys_do_not_wait_for_each_other() {
    let cache = patient(&cache());
    let outer = cache.get_or_set_with("outer", |_| {
        let inner = thread::scope(|scope| scope.spawn(|| cache.get_or_set_with("inner", |_| "in")).join());
        [b"out with ".to_vec(), inner.unwrap().unwrap()].concat()
    });
    assert_eq!(outer.unwrap(), b"out with in");
    assert_eq!(cache.keys().count(), 2);
}

#[test]
fn a_failure_is_returned_and_the_next_takes_over() {
    let cache = patient(&cache());
    let failed: Result<_, Box<dyn std::error::Error>> =
        cache.get_or_try_set_with("k", |key| Err::<String, _>(format!("no {key} today").into()));
    assert_eq!(failed.unwrap_err().to_string(), "no k today");
    assert!(!cache.contains("k"));
    assert_eq!(cache.keys().next(), None);

    let second: Result<_, Error> = cache.get_or_try_set_with("k", |_| Ok("v"));
    assert_eq!(second.unwrap(), b"v");
    assert!(cache.contains("k"));
}

#[test]
fn a_panic_goes_on_and_the_next_takes_over() {
    let cache = patient(&cache());
    let (waiting, waits) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                cache.get_or_set_with("k", |_| -> Vec<u8> {
                    waiting.send(()).unwrap();
                    thread::sleep(Duration::from_millis(20)); // lets the other thread start to wait
                    panic!("as this test wants")
                })
            }));
            assert!(outcome.is_err());
        });
        waits.recv().unwrap();
        assert_eq!(cache.get_or_set_with("k", |_| "v").unwrap(), b"v");
    });
    assert_eq!(cache.get("k").unwrap(), Some(b"v".to_vec()));
}

#[test]
fn a_bad_key_is_refused_without_a_call() {
    let cache = builder().max_key_bytes(4).build().unwrap();
    assert!(matches!(cache.get_or_set_with("", fill_never), Err(Error::EmptyKey)));
    let long = cache.get_or_set_with("12345", fill_never);
    assert!(matches!(long, Err(Error::KeyTooLong { len: 5, limit: 4 })));
}

#[test]
fn what_cannot_be_stored_is_returned_all_the_same() {
    let cache = patient(&builder().items(2).max_value_bytes(8).build().unwrap());
    for _ in 0..2 {
        // Twice: a refusal leaves nothing that the next caller would wait for.
        assert_eq!(cache.get_or_set_with("long", |_| "123456789").unwrap(), b"123456789");
        assert_eq!(cache.get_or_set_with("empty", |_| "").unwrap(), b"");
    }
    assert_eq!(cache.stats().rejected_limit, 4);
    assert_eq!(cache.keys().next(), None);
    assert_eq!(cache.get_or_set_with("long", |_| "short").unwrap(), b"short");
    assert!(cache.contains("long"));

    cache.set("second", "v").unwrap();
    for value in ["1", "2"] {
        assert_eq!(cache.get_or_set_with("third", |_| value).unwrap(), value.as_bytes());
    }
    assert!(!cache.contains("third"));
    assert!(cache.stats().rejected_full >= 1);
    cache.delete("second").unwrap();
    assert_eq!(cache.get_or_set_with("third", |_| "3").unwrap(), b"3");
    assert!(cache.contains("third"));
}
