use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use tempfile::TempDir;
use ucache::{Cache, Error, Eviction, Expires};

use super::{
    builder, cache, meet,
    process::{self, Child},
    within,
};

fn store() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory for the store");
    let path = dir.path().join("cache.ucache");
    (dir, path)
}

#[test]
fn what_is_stored_outlives_the_cache() {
    let (_dir, path) = store();
    for round in 1..=5 {
        let cache = builder().store(&path).build().unwrap();
        assert_eq!(cache.incr("rounds", 1).unwrap(), round);
        assert_eq!(cache.get_int("rounds").unwrap(), Some(round));
        assert!(cache.add(format!("key {round}"), vec![7; 3000]).unwrap());
        cache.sync().unwrap();
        assert!(format!("{cache:?}").contains("cache.ucache"));
    }
    let cache = Cache::attach(&path).unwrap();
    assert_eq!(cache.keys().count(), 6);
    assert_eq!(cache.get("key 3").unwrap(), Some(vec![7; 3000]));
    drop(cache);
    // Unless a child forked by another test has it open, too.
    within("a clean end", || !Cache::attach(&path).unwrap().stats().last_unclean);
}

#[test]
fn an_attached_cache_has_the_limits_of_its_file() {
    let (_dir, path) = store();
    let made = builder().items(3).max_key_bytes(5).max_value_bytes(7).timeout(Expires::Never).store(&path);
    let made = made.build().unwrap();
    let cache = Cache::attach(&path).unwrap();
    assert_eq!(cache.name(), made.name());
    assert_eq!(cache.timeout(), Expires::In(300));
    assert_eq!(cache.stats().capacity, 3);
    assert!(matches!(cache.set("123456", "v"), Err(Error::KeyTooLong { len: 6, limit: 5 })));
    assert!(matches!(cache.set("12345", "12345678"), Err(Error::ValueTooLong { len: 8, limit: 7 })));
}

#[test]
fn attaching_takes_no_name() {
    let (_dir, path) = store();
    drop(builder().store(&path).build().unwrap());
    let first = Cache::attach(&path).unwrap();
    let second = Cache::attach(&path).unwrap();
    assert!(matches!(Cache::open(first.name()), Err(Error::NoSuchCache(_))));
    first.set("k", "v").unwrap();
    assert!(second.contains("k"));
    let _named = cache();
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let (dir, path) = store();
    let missing = Cache::attach(&path).unwrap_err();
    assert!(matches!(missing, Error::Store { .. } | Error::Os { .. }), "{missing}");
    assert!(!path.exists(), "attach makes no file");
    let directory = Cache::attach(dir.path()).unwrap_err();
    assert!(matches!(directory, Error::Store { .. } | Error::Os { .. }), "{directory}");

    for content in [&b""[..], b"x", &[0xa5; 100_000]] {
        fs::write(&path, content).unwrap();
        let attached = Cache::attach(&path).unwrap_err();
        assert!(matches!(attached, Error::Store { .. }), "{attached}");
        assert_eq!(fs::read(&path).unwrap(), content);
        if !content.is_empty() {
            let built = builder().store(&path).build().unwrap_err();
            assert!(matches!(built, Error::Store { .. }), "{built}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        // A child that another test forked during these attempts has the file open until it ends.
        within("being the only user", || {
            let forced = builder().store(&path).store_delete(true).build();
            forced.is_ok_and(|cache| cache.add("k", "v").unwrap())
        });
        assert!(Cache::attach(&path).unwrap().contains("k"));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn limits_change_from_one_opening_to_the_next() {
    let (_dir, path) = store();
    let small = builder().max_value_bytes(8).store(&path).build().unwrap();
    small.set("a", "12345678").unwrap();
    assert!(matches!(small.set("b", "123456789"), Err(Error::ValueTooLong { len: 9, limit: 8 })));
    drop(small);
    // Children forked by other tests meanwhile are users of the store, too, until they end.
    within("being the only user", || {
        let large = builder().max_value_bytes(9).math_initial(10).store(&path).build().unwrap();
        assert_eq!(large.get("a").unwrap(), Some(b"12345678".to_vec()));
        match large.add("b", "123456789") {
            Ok(stored) => stored && large.incr("n", 1).unwrap() == 11,
            Err(Error::ValueTooLong { len: 9, limit: 8 }) => false,
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn a_layout_that_does_not_fit_is_refused_with_both_values() {
    let (_dir, path) = store();
    let first = builder().items(20).store(&path).build().unwrap();
    (0..20).for_each(|n| assert!(first.add(format!("k{n}"), "v").unwrap()));
    drop(first);
    let fewer = builder().items(19).store(&path).build().unwrap_err();
    let text = fewer.to_string();
    assert!(matches!(fewer, Error::Store { .. }) && text.contains("20") && text.contains("19"), "{text}");
    assert_eq!(Cache::attach(&path).unwrap().stats().capacity, 20, "left as it was");
}

#[test]
fn processes_that_attach_on_their_own_share_everything() {
    let (_dir, path) = store();
    let (ready, go) = io::pipe().unwrap();
    let mut go = Some(go);
    // Forked before the cache exists: only the path is inherited.
    let child = Child::fork(|| {
        go = None; // the child's copy: the pipe ends when the parent closes its own
        (&ready).read_to_end(&mut Vec::new()).unwrap();
        let cache = Cache::attach(&path).unwrap();
        let greeted = cache.get_str("from parent").unwrap().as_deref() == Some("hello");
        cache.set("from child", vec![9; 50_000]).unwrap();
        cache.incr("n", 5).unwrap();
        meet(&cache, "met", 2);
        greeted && !cache.contains("from parent")
    });
    let cache = builder().store(&path).build().unwrap();
    cache.set("from parent", "hello").unwrap();
    cache.incr("n", 2).unwrap();
    drop(go);
    within("the child's value", || cache.contains("from child"));
    assert_eq!(cache.get("from child").unwrap(), Some(vec![9; 50_000]));
    within("the child's increment", || cache.get_int("n").unwrap() == Some(7));
    assert!(cache.delete("from parent").unwrap());
    meet(&cache, "met", 2);
    assert!(child.ended_well());
}

#[test]
fn a_store_survives_the_kill_of_its_writers() {
    let (_dir, path) = store();
    for round in 0..10 {
        let child = Child::fork(|| {
            let cache = builder().items(1000).store(&path).build().unwrap();
            for n in 0_u64.. {
                let key = n % 500;
                cache.set_with(key.to_ne_bytes(), value(key, n), Expires::Never).unwrap();
                cache.set_with("n", n.to_ne_bytes(), Expires::Never).unwrap();
            }
            true
        });
        within("some writes", || {
            Cache::attach(&path).is_ok_and(|cache| cache.get_int_or("n", 0).unwrap() > 1000)
        });
        child.kill();
        let cache = builder().items(1000).store(&path).build().unwrap();
        assert_eq!(cache.keys().count(), 501, "round {round}");
        for key in 0..500_u64 {
            let found = cache.get(key.to_ne_bytes()).unwrap().expect("was stored before");
            assert_eq!(found, value(key, u64::from_ne_bytes(found[..8].try_into().unwrap())));
        }
        assert!(cache.delete("n").unwrap());
    }
}

/// A value that shows if it is torn or belongs to another key.
fn value(key: u64, n: u64) -> Vec<u8> {
    [n.to_ne_bytes(), key.to_ne_bytes()].concat().repeat(1 + (n % 60) as usize)
}

#[test]
fn many_processes_build_the_same_store_at_once() {
    let (_dir, path) = store();
    let good = process::all_of(4, |_| {
        (0..20).all(|_| {
            let cache = builder().timeout(Expires::Never).store(&path).build().unwrap();
            cache.incr("n", 1).is_ok()
        })
    });
    assert!(good);
    assert_eq!(Cache::attach(&path).unwrap().get_int("n").unwrap(), Some(80));
}

#[test]
fn a_full_lru_store_goes_on_evicting_after_a_restart() {
    let (_dir, path) = store();
    let lru =
        || builder().items(3).evict(Eviction::Lru).timeout(Expires::Never).store(&path).build().unwrap();
    let cache = lru();
    for key in ["a", "b", "c"] {
        cache.set(key, "v").unwrap();
    }
    cache.get("a").unwrap();
    drop(cache);
    let cache = lru();
    for key in ["d", "e"] {
        assert!(cache.add(key, "v").unwrap());
    }
    let left: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().filter(|key| cache.contains(key)).collect();
    assert_eq!(left, ["a", "d", "e"], "the least recently used went, by the order of before");
}

#[test]
fn what_expired_while_nobody_was_there_is_a_miss() {
    let (_dir, path) = store();
    let cache = builder().store(&path).build().unwrap();
    cache.set_with("short", "v", std::time::Duration::from_secs(1)).unwrap();
    cache.set_with("long", "v", Expires::Never).unwrap();
    drop(cache);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let cache = Cache::attach(&path).unwrap();
    assert_eq!(cache.stats().items, 2, "counted, though nobody has swept");
    assert_eq!(cache.get("short").unwrap(), None);
    assert_eq!(cache.get("long").unwrap(), Some(b"v".to_vec()));
    assert_eq!(cache.keys().count(), 1);
    cache.sweep().unwrap();
    assert_eq!(cache.stats().items, 1);
}
