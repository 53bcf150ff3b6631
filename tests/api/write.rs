use std::{sync::Barrier, thread};

use ucache::{Error, Stored};

use super::{builder, cache, meet, process};

#[test]
fn set_keeps_and_update_replaces() {
    let cache = cache();
    assert!(cache.set("k", "first").unwrap());
    assert!(!cache.set("k", "second").unwrap());
    assert_eq!(cache.get("k").unwrap(), Some(b"first".to_vec()));
    assert_eq!(cache.update("k", "third").unwrap(), Stored::Updated);
    assert_eq!(cache.get("k").unwrap(), Some(b"third".to_vec()));
    assert_eq!(cache.update("new", "v").unwrap(), Stored::Inserted);
    assert_eq!(cache.update_keep_ttl("new", "w").unwrap(), Stored::Updated);
    assert_eq!(cache.update_keep_ttl("newer", "v").unwrap(), Stored::Inserted);
    assert_eq!(cache.get("new").unwrap(), Some(b"w".to_vec()));
}

#[test]
fn values_shrink_and_grow() {
    let cache = cache();
    for len in [1_usize, 8, 65_535, 9, 7, 4096, 1, 65_535] {
        let value = vec![len.to_le_bytes()[0]; len];
        cache.update("k", &value).unwrap();
        assert_eq!(cache.get("k").unwrap(), Some(value));
    }
    assert_eq!(cache.stats().items, 1);
}

#[test]
fn refusals_name_the_limit_and_change_nothing() {
    let cache = builder().max_key_bytes(8).max_value_bytes(16).build().unwrap();
    cache.set("k", "kept").unwrap();
    let long = [b'x'; 17];
    assert!(matches!(cache.set("", "v"), Err(Error::EmptyKey)));
    assert!(matches!(cache.update("123456789", "v"), Err(Error::KeyTooLong { len: 9, limit: 8 })));
    assert!(matches!(cache.update("k", ""), Err(Error::EmptyValue)));
    assert!(matches!(cache.update("k", long), Err(Error::ValueTooLong { len: 17, limit: 16 })));
    assert!(matches!(cache.update_keep_ttl("k", long), Err(Error::ValueTooLong { .. })));
    assert!(matches!(cache.incr("", 1), Err(Error::EmptyKey)));
    assert!(matches!(cache.incr("123456789", 1), Err(Error::KeyTooLong { .. })));
    assert_eq!(cache.keys().collect::<Vec<_>>(), [b"k"]);
    assert_eq!(cache.get("k").unwrap(), Some(b"kept".to_vec()));
    assert!(cache.stats().rejected_limit >= 5);

    cache.set("12345678", [b'x'; 16]).expect("just fits");
}

#[test]
fn delete_tells_whether_it_was_there() {
    let cache = cache();
    cache.set("k", "v").unwrap();
    assert!(cache.delete("k").unwrap());
    assert!(!cache.delete("k").unwrap());
    assert!(cache.set("k", "again").unwrap());
}

#[test]
fn arithmetic() {
    let cache = cache();
    assert_eq!(cache.incr("n", 40).unwrap(), 40);
    assert_eq!(cache.decr("n", -2).unwrap(), 42);
    assert_eq!(cache.mul("n", -3).unwrap(), -126);
    assert_eq!(cache.div("n", 4).unwrap(), -31);
    assert_eq!(cache.get_int("n").unwrap(), Some(-31));
    assert_eq!(cache.div("n", 0).unwrap(), 0);
    assert_eq!(cache.decr("missing", 5).unwrap(), -5);
    assert_eq!(cache.mul("missing too", 5).unwrap(), 0);
    assert_eq!(cache.incr("extreme", i64::MAX).unwrap(), i64::MAX);
    assert_eq!(cache.incr("extreme", 1).unwrap(), i64::MIN);
    assert_eq!(cache.div("extreme", -1).unwrap(), i64::MIN);
}

#[test]
fn arithmetic_on_text_is_refused() {
    let cache = cache();
    for text in ["5", "hello world!"] {
        cache.update("k", text).unwrap();
        let error = cache.incr("k", 1).unwrap_err();
        assert!(matches!(error, Error::NotANumber { len } if len == text.len() as u64), "{error}");
        assert!(matches!(cache.div("k", 0), Err(Error::NotANumber { .. })));
        assert_eq!(cache.get_str("k").unwrap().as_deref(), Some(text));
    }
}

#[test]
fn clear_leaves_nothing_and_goes_on() {
    let cache = cache();
    for round in 0..50 {
        for key in 0..100_u32 {
            assert!(cache.set(key.to_le_bytes(), "v").unwrap(), "round {round} key {key}");
        }
        assert!(matches!(cache.set("one more", "v"), Err(Error::Full { limit: 100 })));
        cache.clear().unwrap();
        assert_eq!(cache.keys().next(), None);
        assert!(!cache.contains(7_u32.to_le_bytes()));
    }
    assert_eq!(cache.stats().cleared, 50);
}

#[test]
fn of_many_threads_one_sets() {
    let cache = cache();
    let barrier = Barrier::new(4);
    for round in 0..200_i32 {
        let key = round.to_le_bytes();
        let won: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|i: u8| {
                    let (cache, barrier) = (&cache, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        cache.set(key, [i]).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
        assert!(cache.delete(key).unwrap());
    }
}

#[test]
fn no_increment_of_any_thread_or_process_is_lost() {
    let cache = cache();
    let good = process::all_of(4, |_| {
        meet(&cache, "start", 4);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        cache.incr("n", 3).unwrap();
                        cache.decr("n", 1).unwrap();
                    }
                });
            }
        });
        true
    });
    assert!(good);
    assert_eq!(cache.get_int("n").unwrap(), Some(4 * 2 * 2000 * 2));
}

#[test]
fn of_many_processes_one_sets() {
    let cache = cache();
    let good = process::all_of(4, |me| {
        (0..90).all(|round: i64| {
            meet(&cache, "round", (round + 1) * 4);
            if cache.set(format!("key {round}"), me.to_ne_bytes()).unwrap() {
                cache.incr("won", 1).unwrap();
            }
            meet(&cache, "done", (round + 1) * 4);
            cache.get_int("won").unwrap() == Some(round + 1)
        })
    });
    assert!(good);
    assert_eq!(cache.get_int("won").unwrap(), Some(90));
}
