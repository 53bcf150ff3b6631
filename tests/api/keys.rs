use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ucache::engine::{Engine, Expires, SetOptions};

use super::{builder, cache, process::Child, within};

#[test]
fn every_key_comes_once() {
    let cache = builder().items(10_000).build().unwrap();
    let mut expected = BTreeSet::new();
    for n in 0..10_000_u32 {
        let key = format!("key {n}").into_bytes();
        cache.set(&key, "v").unwrap();
        expected.insert(key);
    }
    let keys: Vec<_> = cache.keys().collect();
    assert_eq!(keys.len(), 10_000);
    assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn an_empty_walk_stays_at_its_end() {
    let cache = cache();
    let mut keys = cache.keys();
    assert_eq!(keys.next(), None);
    cache.set("k", "v").unwrap();
    assert_eq!(keys.next(), None);
    assert_eq!(cache.keys().count(), 1);
}

#[test]
fn what_readers_may_not_see_is_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let cache = builder().store(dir.path().join("store")).build().unwrap();
    cache.set("k", "v").unwrap();
    // uWSGI's UNGETTABLE: items for the server's own use, which only C programs store.
    let c = Engine::attach(&dir.path().join("store")).unwrap();
    let hidden = SetOptions::add(Expires::Never).ungettable();
    c.set(b"hidden", b"v", &hidden).unwrap();

    assert_eq!(cache.keys().collect::<Vec<_>>(), [b"k"]);
    assert_eq!(cache.get("hidden").unwrap(), None);
    assert_eq!(cache.get_or_set_with("hidden", |_| "computed").unwrap(), b"computed");
    assert_eq!(cache.get("hidden").unwrap(), None, "it still belongs to who stored it");
}

#[test]
fn a_walk_outlives_its_handle_and_its_keys() {
    let cache = cache();
    for n in 0..50_u8 {
        cache.set([n], "v").unwrap();
    }
    let keys = cache.keys();
    for key in cache.keys() {
        assert!(cache.delete(&key).unwrap());
    }
    drop(cache);
    assert_eq!(keys.count(), 0);
}

#[test]
fn what_stays_comes_exactly_once_while_others_write() {
    let cache = builder().items(2000).build().unwrap();
    let stay = |n: u32| format!("stay {n}").into_bytes();
    for n in 0..300 {
        cache.set(stay(n), "v").unwrap();
    }
    let churn = |who: u32| {
        for n in (0..500).cycle() {
            let key = format!("churn {who} {n}");
            if !cache.delete(&key).unwrap() {
                cache.set(&key, vec![b'x'; 1 + n % 300]).unwrap();
            }
            cache.set(stay(n as u32 % 300), vec![b'y'; 1 + n % 200]).unwrap();
            cache.incr("writes", 1).unwrap();
            if cache.contains("stop") {
                return;
            }
        }
    };
    let other = Child::fork(|| {
        churn(0);
        true
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| churn(1));
        // The writers end even if a walk fails.
        scope.spawn(|| {
            within("the end of the walks", || stop.load(Ordering::Relaxed));
            cache.set("stop", "v").unwrap();
        });
        within("the writers", || cache.get_int_or("writes", 0).unwrap() > 100);
        let walks: Vec<Vec<Vec<u8>>> = (0..200).map(|_| cache.keys().collect()).collect();
        stop.store(true, Ordering::Relaxed);
        for (i, walk) in walks.into_iter().enumerate() {
            let mut times: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            for key in walk {
                let text = String::from_utf8(key.clone()).expect("our keys are text");
                let known = ["stay ", "churn ", "writes", "stop"].iter().any(|p| text.starts_with(p));
                assert!(known, "walk {i}: {text:?} was never stored");
                *times.entry(key).or_default() += 1;
            }
            for n in 0..300 {
                assert_eq!(times.get(&stay(n)), Some(&1), "walk {i}, stay {n}");
            }
        }
    });
    assert!(other.ended_well());
}
