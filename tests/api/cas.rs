use std::{
    sync::Barrier,
    thread,
    time::{Duration, SystemTime},
};

use ucache::{Cache, Error, Eviction, Expires};

use super::{builder, cache, meet, process, within};

/// A cache that counts blocks.
fn blocks() -> Cache {
    Cache::builder("swap in blocks").items(100).blocks(64, 100).build().unwrap()
}

#[test]
fn only_the_expected_value_is_replaced() {
    for cache in [cache(), blocks()] {
        assert!(!cache.compare_and_swap("k", "old", "new").unwrap(), "no key, no value");
        assert!(!cache.contains("k"));
        cache.set("k", "old value").unwrap();
        for other in ["old valu", "old value ", "old valuf", "", "OLD VALUE"] {
            assert!(!cache.compare_and_swap("k", other, "new").unwrap(), "{other:?}");
        }
        assert!(cache.compare_and_swap("k", "old value", "new").unwrap());
        assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("new"));
        // Longer and shorter than before, and numbers, which are stored differently.
        let long = "l".repeat(400);
        assert!(cache.compare_and_swap("k", "new", &long).unwrap());
        assert!(cache.compare_and_swap("k", &long, 7_i64.to_ne_bytes()).unwrap());
        assert_eq!(cache.incr("k", 1).unwrap(), 8);
        assert!(cache.compare_and_swap("k", 8_i64.to_ne_bytes(), "s").unwrap());
        assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("s"));
    }
}

#[test]
fn a_swap_checks_its_arguments_before_it_looks() {
    let cache = builder().max_value_bytes(8).max_key_bytes(4).build().unwrap();
    cache.set("k", "v").unwrap();
    assert!(matches!(cache.compare_and_swap("", "v", "w"), Err(Error::EmptyKey)));
    assert!(matches!(cache.compare_and_swap("12345", "v", "w"), Err(Error::KeyTooLong { .. })));
    assert!(matches!(cache.compare_and_swap("k", "v", ""), Err(Error::EmptyValue)));
    let long = cache.compare_and_swap("k", "v", "123456789");
    assert!(matches!(long, Err(Error::ValueTooLong { len: 9, limit: 8 })));
    assert!(!cache.compare_and_swap("k", "an expected value of any length", "w").unwrap());
    assert_eq!(cache.get_str("k").unwrap().as_deref(), Some("v"));
}

#[test]
fn a_swap_sets_the_timeout_or_keeps_it() {
    let cache = cache();
    cache.set_with("k", "1", Expires::At(4_000_000_000)).unwrap();
    assert!(cache.compare_and_swap_keep_ttl("k", "1", "2").unwrap());
    assert_eq!(cache.expires("k"), Some(Expires::At(4_000_000_000)));
    assert!(cache.with_timeout(Duration::from_secs(50)).compare_and_swap("k", "2", "3").unwrap());
    let at = cache.expires("k").and_then(Expires::deadline).expect("it expires");
    let left = at.duration_since(SystemTime::now()).expect("later");
    assert!((40..=50).contains(&left.as_secs()), "{left:?}");
    assert!(cache.with_timeout(Expires::Never).compare_and_swap("k", "3", "4").unwrap());
    assert_eq!(cache.expires("k"), Some(Expires::Never));
    cache.set_with("k", "5", Duration::ZERO).unwrap();
    assert!(!cache.compare_and_swap("k", "5", "6").unwrap(), "what has expired is not there");
}

#[test]
fn only_the_expected_value_is_deleted() {
    let cache = cache();
    cache.set("lock", "me").unwrap();
    assert!(!cache.compare_and_delete("lock", "you").unwrap());
    assert!(cache.contains("lock"));
    assert!(cache.compare_and_delete("lock", "me").unwrap());
    assert!(!cache.compare_and_delete("lock", "me").unwrap());
    assert_eq!((cache.stats().deleted, cache.stats().items), (1, 0));
}

#[test]
fn what_is_taken_is_gone() {
    let cache = cache();
    assert_eq!(cache.take("k").unwrap(), None);
    cache.set("k", vec![7; 50_000]).unwrap();
    assert_eq!(cache.take("k").unwrap(), Some(vec![7; 50_000]));
    assert!(!cache.contains("k"));
    cache.set_with("old", "v", Duration::ZERO).unwrap();
    assert_eq!(cache.take("old").unwrap(), None);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.deleted, stats.items), (1, 2, 1, 0));
}

#[test]
fn each_value_is_taken_once() {
    let cache = cache();
    let barrier = Barrier::new(4);
    let taken: usize = thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let (cache, barrier) = (&cache, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut taken = 0;
                    for round in 0..500 {
                        cache.add("token", format!("{round}")).unwrap();
                        taken += usize::from(cache.take("token").unwrap().is_some());
                    }
                    taken
                })
            })
            .collect();
        takers.into_iter().map(|t| t.join().unwrap()).sum()
    });
    let stats = cache.stats();
    assert_eq!(taken as u64, stats.stored - stats.items, "as many as were stored, and none twice");
    assert_eq!(stats.deleted, taken as u64);
}

#[test]
fn touch_moves_the_expiry_and_nothing_else() {
    let cache = cache();
    assert!(!cache.touch("k", Duration::from_secs(5)).unwrap());
    for value in [b"12345678".to_vec(), vec![b'v'; 60_000], b"v".to_vec()] {
        cache.set_with("k", &value, Duration::from_secs(100)).unwrap();
        assert!(cache.touch("k", Expires::At(4_000_000_000)).unwrap());
        assert_eq!(cache.expires("k"), Some(Expires::At(4_000_000_000)));
        assert!(cache.touch("k", Expires::Never).unwrap());
        assert_eq!(cache.expires("k"), Some(Expires::Never));
        assert_eq!(cache.get("k").unwrap(), Some(value));
    }
    assert_eq!(cache.keys().count(), 1);
    assert!(cache.touch("k", Duration::ZERO).unwrap());
    assert!(!cache.contains("k") && !cache.touch("k", Expires::Never).unwrap(), "the dead stay dead");
    // Not swept by its previous expiry.
    cache.set_with("long", "v", Duration::from_secs(1)).unwrap();
    cache.touch("long", Duration::from_secs(1000)).unwrap();
    cache.set_with("short", "v", Duration::from_secs(1)).unwrap();
    within("the short one's end", || !cache.contains("short"));
    cache.sweep().unwrap();
    assert!(cache.contains("long"));
}

#[test]
fn touch_is_a_use_and_looking_at_the_expiry_is_none() {
    let cache = builder().items(2).evict(Eviction::Lru).build().unwrap();
    cache.set("a", "v").unwrap();
    cache.set("b", "v").unwrap();
    assert!(cache.touch("a", Expires::Never).unwrap());
    assert!(cache.expires("b").is_some());
    assert_eq!((cache.stats().hits, cache.stats().misses), (0, 0));
    cache.set("c", "v").unwrap();
    assert!(cache.contains("a") && !cache.contains("b"));
}

#[test]
fn of_four_processes_no_change_is_lost() {
    let cache = cache();
    let good = process::all_of(4, |me| {
        meet(&cache, "start", 4);
        (0..200).all(|_| {
            let changed = cache.modify("list", |old| {
                let mut list = old.map(<[u8]>::to_vec).unwrap_or_default();
                list.push(b'0' + u8::try_from(me).unwrap());
                Some(list)
            });
            changed.unwrap().is_some()
        })
    });
    assert!(good);
    let list = cache.get("list").unwrap().unwrap();
    for me in 0..4_u8 {
        assert_eq!(list.iter().filter(|&&b| b == b'0' + me).count(), 200);
    }
}

#[test]
fn modify_may_leave_all_as_it_is() {
    let cache = cache();
    assert_eq!(cache.modify("k", |_| None).unwrap(), None);
    assert!(!cache.contains("k"));
    cache.set_with("k", "v", Expires::At(4_000_000_000)).unwrap();
    assert_eq!(cache.modify("k", |_| None).unwrap(), Some(b"v".to_vec()));
    assert_eq!(cache.modify("k", |old| Some([old.unwrap(), b"w"].concat())).unwrap(), Some(b"vw".to_vec()));
    assert_eq!(cache.expires("k"), Some(Expires::At(4_000_000_000)), "the timeout runs on");
    // Somebody else writes in between: the change is made again, on what is there now.
    let mut calls = 0;
    let end = cache.modify("k", |old| {
        calls += 1;
        if calls == 1 {
            cache.set("k", "other").unwrap();
        }
        Some([old.unwrap(), b"!"].concat())
    });
    assert_eq!((end.unwrap(), calls), (Some(b"other!".to_vec()), 2));
}

#[test]
fn a_store_swaps_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let cache = builder().store(&path).build().unwrap();
    let other = Cache::attach(&path).unwrap();
    cache.set("k", "v").unwrap();
    assert!(other.compare_and_swap("k", "v", "w").unwrap());
    assert!(other.touch("k", Expires::Never).unwrap());
    assert_eq!(cache.take("k").unwrap(), Some(b"w".to_vec()));
    assert!(!other.contains("k"));
    cache.incr("n", 1).unwrap();
    assert!(other.compare_and_swap("n", 1_i64.to_ne_bytes(), 5_i64.to_ne_bytes()).unwrap());
    assert_eq!(cache.incr("n", 1).unwrap(), 6);
}

/// Kills at random moments of swaps, takes, touches, appends and changes: the store stays whole,
/// value by value and inside.
#[test]
fn killed_in_the_middle_they_leave_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let cache = builder().items(30).timeout(Expires::Never).store(&path).build().unwrap();
    // A value says whose it is, in all of its bytes.
    let value = |key: u8, n: usize| vec![b'a' + key; [8, 300, 40_000][n % 3]];
    let name = |key: u8| format!("key {key}");
    for round in 0..150 {
        let child = process::Child::fork(|| {
            for n in round.. {
                let key = u8::try_from(n % 20).unwrap();
                let (old, new) = (value(key, n), value(key, n + 1));
                cache.add(name(key), &old).unwrap();
                match (n + n / 20) % 6 {
                    0 => drop(cache.compare_and_swap(name(key), &old, &new).unwrap()),
                    1 => drop(cache.take(name(key)).unwrap()),
                    2 => drop(cache.touch(name(key), Expires::At(4_000_000_000 + n as u64)).unwrap()),
                    // Refused when the value has become too long.
                    3 => drop(cache.append(name(key), [b'a' + key; 8])),
                    4 => drop(cache.prepend(name(key), [b'a' + key; 300])),
                    _ => drop(cache.modify(name(key), |_| Some(new.clone())).unwrap()),
                }
            }
            true
        });
        thread::sleep(Duration::from_micros(500 + 37 * round as u64));
        child.kill();
        for entry in cache.entries() {
            let key: u8 = std::str::from_utf8(&entry.key[4..]).unwrap().parse().unwrap();
            assert!(entry.value.iter().all(|&b| b == b'a' + key), "{:?}", entry.key);
        }
        // Writes to every shard, so that leftovers of the dead process are found and repaired.
        cache.set(format!("probe {round}"), "v").unwrap();
        cache.delete(format!("probe {round}")).unwrap();
    }
    let engine = ucache::engine::Engine::attach(&path).unwrap();
    let found = engine.inspect(false, |_, _| {}).unwrap();
    assert_eq!((found.damaged, found.loose), (0, 0), "{found:?}");
    assert_eq!(found.items, cache.keys().count() as u64);
    assert_eq!(cache.stats().dropped_corrupt, 0);
}

/// An ungettable item stored from C exists, but has no value to change.
#[test]
fn what_cannot_be_read_cannot_be_modified() {
    use ucache::engine::{Engine, SetOptions};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let cache = Cache::builder("ungettable").items(10).store(&path).build().unwrap();
    let options = SetOptions::add(Expires::Never).ungettable();
    Engine::attach(&path).unwrap().set(b"k", b"hidden", &options).unwrap();
    let mut calls = 0;
    let changed = cache.modify("k", |old| {
        calls += 1;
        assert_eq!((old, calls), (None, 1));
        Some(b"v".to_vec())
    });
    assert!(matches!(changed, Err(Error::Exists)), "{changed:?}");
}
