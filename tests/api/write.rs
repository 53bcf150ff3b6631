use std::{sync::Barrier, thread, time::Duration};

use ucache::{Cache, Error, Eviction, Expires, Stored};

use super::{builder, cache, meet, process};

#[test]
fn add_keeps_set_stores_replace_replaces() {
    let cache = cache();
    assert!(cache.add("k", "first").unwrap());
    assert!(!cache.add("k", "second").unwrap());
    assert_eq!(cache.get("k").unwrap(), Some(b"first".to_vec()));
    assert_eq!(cache.set("k", "third").unwrap(), Stored::Updated);
    assert_eq!(cache.get("k").unwrap(), Some(b"third".to_vec()));
    assert_eq!(cache.set("new", "v").unwrap(), Stored::Inserted);
    assert_eq!(cache.set_keep_ttl("new", "w").unwrap(), Stored::Updated);
    assert_eq!(cache.set_keep_ttl("newer", "v").unwrap(), Stored::Inserted);
    assert_eq!(cache.get("new").unwrap(), Some(b"w".to_vec()));
    assert!(cache.replace("new", "x").unwrap());
    assert!(!cache.replace("newest", "x").unwrap() && !cache.contains("newest"));
    assert_eq!(cache.get("new").unwrap(), Some(b"x".to_vec()));
    assert_eq!((cache.stats().stored, cache.stats().items), (6, 3));
}

#[test]
fn what_has_expired_or_is_being_filled_is_not_replaced() {
    let cache = cache();
    cache.set_with("k", "old", Duration::ZERO).unwrap();
    assert!(!cache.replace("k", "new").unwrap());
    cache.set("k", "old").unwrap();
    cache.clear().unwrap();
    assert!(!cache.replace("k", "new").unwrap());
    let filled = cache.get_or_set_with("k", |_| {
        assert!(!cache.replace("k", "new").unwrap());
        assert_eq!(cache.append("k", "new").unwrap(), None);
        "filled"
    });
    assert_eq!(filled.unwrap(), b"filled");
    assert_eq!(cache.get("k").unwrap(), Some(b"filled".to_vec()), "the filler's turn was left alone");
}

/// Caches whose entries are written in different ways.
fn kinds() -> [Cache; 4] {
    let cache = |name: &str| Cache::builder(format!("joined {name}")).items(100);
    [
        cache("plain").build().unwrap(),
        cache("blocks").blocks(20_000, 8).build().unwrap(),
        cache("lru").evict(Eviction::Lru).build().unwrap(),
        cache("s3fifo").evict(Eviction::S3Fifo).build().unwrap(),
    ]
}

#[test]
fn append_and_prepend_add_to_what_is_there() {
    for cache in kinds() {
        assert_eq!(cache.append("k", "v").unwrap(), None);
        assert_eq!(cache.prepend("k", "v").unwrap(), None);
        assert!(!cache.contains("k"), "a missing key stays missing");
        cache.set_with("k", "middle", Expires::At(4_000_000_000)).unwrap();
        assert_eq!(cache.append("k", " end").unwrap(), Some(10));
        assert_eq!(cache.prepend("k", "start ").unwrap(), Some(16));
        assert_eq!(cache.append("k", "").unwrap(), Some(16), "nothing is added");
        assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("start middle end"));
        let long = vec![b'x'; 60_000];
        assert_eq!(cache.append("k", &long).unwrap(), Some(60_016));
        assert_eq!(cache.get("k").unwrap(), Some([&b"start middle end"[..], &long].concat()));
        assert_eq!(cache.expires("k"), Some(Expires::At(4_000_000_000)), "the timeout runs on");
        cache.incr("n", 1).unwrap();
        assert_eq!(cache.append("n", "!").unwrap(), Some(9));
        assert_eq!(cache.get("n").unwrap(), Some([&1_i64.to_ne_bytes()[..], b"!"].concat()));
        assert_eq!(cache.stats().items, 2);
    }
}

#[test]
fn what_is_added_is_within_the_limits() {
    let cache = builder().max_key_bytes(4).max_value_bytes(8).build().unwrap();
    cache.set("k", "12345").unwrap();
    assert!(matches!(cache.append("", "1"), Err(Error::EmptyKey)));
    assert!(matches!(cache.prepend("12345", "1"), Err(Error::KeyTooLong { len: 5, limit: 4 })));
    assert!(matches!(cache.append("k", "6789"), Err(Error::ValueTooLong { len: 9, limit: 8 })));
    assert!(matches!(cache.prepend("k", [b'x'; 9]), Err(Error::ValueTooLong { len: 9, limit: 8 })));
    assert_eq!(cache.stats().rejected_limit, 4);
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("12345"));
    assert_eq!(cache.append("k", "678").unwrap(), Some(8));
    let blocks = Cache::builder("joined in few blocks").items(9).blocks(4, 2).build().unwrap();
    blocks.set("k", "123").unwrap();
    assert!(matches!(blocks.append("k", "456789"), Err(Error::ValueTooLong { len: 9, limit: 8 })));
    assert!(matches!(blocks.append("k", "456"), Err(Error::OutOfBlocks { need: 3, limit: 4 })));
    assert_eq!(blocks.append("k", "4").unwrap(), Some(4), "no more blocks than before");
}

#[test]
fn append_is_a_use() {
    let cache = builder().items(2).evict(Eviction::Lru).build().unwrap();
    cache.set_many([("a", "v"), ("b", "v")]).unwrap();
    cache.append("a", "w").unwrap();
    cache.set("c", "v").unwrap();
    assert!(cache.contains("a") && !cache.contains("b"));
}

#[test]
fn nothing_added_by_any_process_is_lost() {
    let cache = cache();
    cache.set("list", "|").unwrap();
    let good = process::all_of(4, |me| {
        meet(&cache, "start", 4);
        let mine = [b'0' + u8::try_from(me).unwrap()];
        (0..400).all(|n| {
            let len = if n % 2 == 0 { cache.append("list", mine) } else { cache.prepend("list", mine) };
            len.unwrap().is_some()
        })
    });
    assert!(good);
    let list = cache.get("list").unwrap().unwrap();
    assert_eq!(list.len(), 1 + 4 * 400);
    assert_eq!(list[800], b'|', "as many on one side as on the other");
    for me in b'0'..b'4' {
        assert_eq!(list.iter().filter(|&&b| b == me).count(), 400);
    }
}

#[test]
fn values_shrink_and_grow() {
    let cache = cache();
    for len in [1_usize, 8, 65_535, 9, 7, 4096, 1, 65_535] {
        let value = vec![len.to_le_bytes()[0]; len];
        cache.set("k", &value).unwrap();
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
    assert!(matches!(cache.set("123456789", "v"), Err(Error::KeyTooLong { len: 9, limit: 8 })));
    assert!(matches!(cache.set("k", ""), Err(Error::EmptyValue)));
    assert!(matches!(cache.set("k", long), Err(Error::ValueTooLong { len: 17, limit: 16 })));
    assert!(matches!(cache.set_keep_ttl("k", long), Err(Error::ValueTooLong { .. })));
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
    assert!(cache.add("k", "again").unwrap());
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
        cache.set("k", text).unwrap();
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
            assert!(cache.add(key.to_le_bytes(), "v").unwrap(), "round {round} key {key}");
        }
        assert!(matches!(cache.set("one more", "v"), Err(Error::Full { limit: 100 })));
        cache.clear().unwrap();
        assert_eq!(cache.keys().next(), None);
        assert!(!cache.contains(7_u32.to_le_bytes()));
    }
    assert_eq!(cache.stats().cleared, 50);
}

#[test]
fn of_many_threads_one_adds() {
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
                        cache.add(key, [i]).unwrap()
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
fn of_many_processes_one_adds() {
    let cache = cache();
    let good = process::all_of(4, |me| {
        (0..90).all(|round: i64| {
            meet(&cache, "round", (round + 1) * 4);
            if cache.add(format!("key {round}"), me.to_ne_bytes()).unwrap() {
                cache.incr("won", 1).unwrap();
            }
            meet(&cache, "done", (round + 1) * 4);
            cache.get_int("won").unwrap() == Some(round + 1)
        })
    });
    assert!(good);
    assert_eq!(cache.get_int("won").unwrap(), Some(90));
}
