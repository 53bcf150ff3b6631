//! Failing system calls: each call made for a store, at its first, second, ... time, until a run
//! has no such call.

#[path = "support/engine_fail.rs"]
mod engine_fail;
#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use engine_fail::{CALLS, aside, call, exhaust, failing, seen, without};
use engine_proc::{Child, alone, say};
use engine_store::{ADD, UPDATE, assert_filled, config, fill, memory};
use patience::within;
use ucache::{
    Error,
    engine::{Config, Engine, Touch},
};

/// Creating a store fails cleanly, and the next attempt succeeds.
#[test]
fn creation() {
    let _alone = alone();
    exhaust("creation", |what| {
        let dir = aside(memory);
        let path = dir.path().join("store");
        let first = Engine::create(&config(&path));
        let again = first.unwrap_or_else(|e| {
            assert!(matches!(e, Error::Os { .. } | Error::Store { .. }), "{what}: {e:?}");
            aside(|| Engine::create(&config(&path))).unwrap_or_else(|e| panic!("{what}: again: {e}"))
        });
        fill_once(&again, what);
        aside(|| drop(dir));
    });
}

fn fill_once(engine: &Engine, what: &str) {
    // The first write checks whether this process may lock; if that fails, so does the write, and
    // the next one checks again. A file system that has refused a part of the index is asked again
    // after a second.
    let set = || engine.set(b"k", b"v", &UPDATE);
    match set() {
        Err(Error::Os { call, .. }) if call.contains("/ns/") => set(),
        Err(Error::NoSpace { .. }) => aside(|| {
            let refused = |_: &u32| matches!(set(), Err(Error::NoSpace { .. }));
            (0..1000).take_while(refused).for_each(|_| std::thread::sleep(Duration::from_millis(10)));
            set()
        }),
        first => first,
    }
    .unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(engine_value::get(engine, b"k", Touch::No).expect("get").is_some(), "{what}");
}

/// A file system without holes: what a sweep cannot give back is used again.
#[test]
fn what_cannot_be_given_back_is_used_again() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let engine = Engine::create(&config(&path)).expect("a store");
    let key = |n: u32| n.to_le_bytes();
    let value = |n: u32, round: u8| vec![n as u8 ^ round; 4000 + n as usize % 900];
    for n in 0..1500 {
        engine.set(&key(n), &value(n, 0), &ADD).expect("set");
    }
    let disk = || fs::metadata(&path).expect("stat").blocks();
    let mut full = disk();
    for round in 1..4 {
        for n in (0..1500).filter(|n| n % 8 != 0) {
            assert!(engine.delete(&key(n)).expect("delete"));
        }
        without(call("fallocate"), libc::EOPNOTSUPP, || engine.sweep().expect("sweep"));
        assert!(engine.stats().moved > 20, "{:?}", engine.stats());
        // What is moved may need pages that were never used.
        assert!((full..=full + full / 10).contains(&disk()), "no hole was punched: {full}, {}", disk());
        full = disk();
        without(call("fallocate"), libc::ENOSPC, || {
            for n in (0..1400).filter(|n| n % 8 != 0) {
                engine.set(&key(n), &value(n, round), &ADD).expect("the place of what was deleted");
            }
        });
        for n in 0..1400 {
            let expected = value(n, if n % 8 == 0 { 0 } else { round });
            let found = engine_value::get(&engine, &key(n), Touch::No).expect("get");
            assert_eq!(found.map(|(_, value)| value), Some(expected), "key {n}, round {round}");
        }
        for n in (1400..1500).filter(|n| n % 8 != 0) {
            engine.set(&key(n), &value(n, round), &ADD).expect("set");
        }
    }
}

/// Opening a store, or moving it to other settings, fails cleanly or not at all; everything is
/// stored afterwards.
#[test]
fn opening_and_moving() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    fill(&Engine::create(&config(&path)).expect("a store"), 1);
    let copy = dir.path().join("copy");
    for capacity in [2000, 2001] {
        exhaust(&format!("opening for {capacity}"), |what| {
            let old =
                aside(|| fs::copy(&path, &copy).and_then(|_| fs::metadata(&copy))).expect("a copy").ino();
            let wanted = Config { capacity, ..config(&copy) };
            // The first one to fail is the one chosen by the loop; the second opening has none.
            let first = Engine::create(&wanted).map(|engine| assert_filled(&engine, 1));
            if let Err(e) = first {
                assert!(matches!(e, Error::Os { .. } | Error::Store { .. }), "{what}: {e:?}");
                let now = aside(|| fs::metadata(&copy)).expect("the store").ino();
                assert_eq!(now, old, "{what}: it took the store's place, and failed: {e}");
                let again =
                    aside(|| Engine::create(&wanted)).unwrap_or_else(|e| panic!("{what}: again: {e}"));
                assert_filled(&again, 1);
            }
            let left = aside(|| (fs::remove_file(&copy), dir.path().join("copy.new").exists()));
            assert!(left.0.is_ok() && !left.1, "{what}: something was left");
        });
    }
}

/// A failed opening is not a user that closed the store: how the last one left it is still
/// reported.
#[test]
fn an_opening_that_fails_closes_nothing() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    exhaust("opening of a store that was left by a death", |what| {
        aside(|| {
            Child::fork(|| {
                let engine = Engine::create(&config(&path)).expect("a store");
                fill(&engine, 1);
                // SAFETY: ends this process without marking a clean end.
                unsafe { libc::_exit(0) };
            })
            .join();
        });
        let engine = Engine::create(&config(&path)).or_else(|_| aside(|| Engine::create(&config(&path))));
        let engine = engine.unwrap_or_else(|e| panic!("{what}: again: {e}"));
        assert!(engine.stats().last_unclean, "{what}");
        assert_filled(&engine, 1);
        // A mapping that stays is a user that stays.
        aside(|| drop(engine));
    });
}

/// A copy is not trusted, also after an interrupted opening of it.
#[test]
fn an_opening_that_fails_proves_nothing() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let value = *b"a value that is found in the file";
    let engine = Engine::create(&config(&path)).expect("a store");
    engine.set(b"damaged", &value, &UPDATE).expect("set");
    drop(engine);
    let mut bytes = fs::read(&path).expect("the store");
    let at = bytes.windows(value.len()).position(|w| w == value).expect("the value is there");
    bytes[at] ^= 1;
    exhaust("opening of a damaged copy", |what| {
        let copy = dir.path().join("copy");
        aside(|| fs::write(&copy, &bytes)).expect("a copy");
        let engine = Engine::create(&config(&copy)).or_else(|_| aside(|| Engine::create(&config(&copy))));
        let engine = engine.unwrap_or_else(|e| panic!("{what}: again: {e}"));
        assert_eq!((engine.exists(b"damaged"), engine.stats().dropped_corrupt), (None, 1), "{what}");
        drop(engine);
        aside(|| fs::remove_file(&copy)).expect("the copy");
    });
}

/// Storing while the disk is full or broken: an error and a counter, and everything else continues.
#[test]
fn storing() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let mut refused = 0;
    for errno in [libc::ENOSPC, libc::EDQUOT, libc::EIO] {
        let engine = Engine::create(&config(&path)).expect("a store");
        fill(&engine, 1);
        let before = fs::metadata(&path).expect("stat").len();
        for n in 0..200_u32 {
            // Growing is tried generously, then minimally; a failure is not repeated for a while.
            let key = format!("large {n}");
            let (stored, _) =
                failing(call("fallocate"), 1, errno, || engine.set(key.as_bytes(), &[7; 190_000], &ADD));
            if let Err(e) = stored {
                assert!(matches!(e, Error::NoSpace { .. }), "{e:?}");
                refused += 1;
            }
        }
        assert_filled(&engine, 1);
        assert!(fs::metadata(&path).expect("stat").len() > before, "it grew when it could");
        let stats = engine.stats();
        assert_eq!(stats.no_space, refused, "each refusal is counted");
        refused = 0;
        drop(engine);
        let engine = Engine::create(&config(&path)).expect("the store");
        assert_filled(&engine, 1);
        assert_eq!(engine.stats().dropped_corrupt, 0);
        drop(engine);
        fs::remove_file(&path).expect("remove");
    }
}

/// A full disk is tried twice (generously and minimally), and again after a second: a refused item
/// costs no system call.
#[test]
fn a_full_disk_is_not_asked_for_each_item() {
    let _alone = alone();
    let dir = memory();
    let engine = Engine::create(&config(&dir.path().join("store"))).expect("a store");
    fill(&engine, 1);
    let large = |n: u32| engine.set(format!("large {n}").as_bytes(), &[7; 190_000], &ADD);
    // Space allocated already is used up first.
    let start = Instant::now();
    let (before, mut refused) = (seen("fallocate"), 0);
    without(call("fallocate"), libc::ENOSPC, || {
        for n in 0..1000 {
            refused += usize::from(matches!(large(n), Err(Error::NoSpace { .. })));
        }
    });
    let (asked, seconds) = (seen("fallocate") - before, start.elapsed().as_secs() as usize);
    say(&format!("{refused} refused items, {asked} calls of fallocate"));
    assert!(refused > 900, "{refused} refused");
    // Two sizes of memory, and a part of the index.
    assert!(asked >= 2 && asked <= 3 * (seconds + 1), "{asked} calls for {refused} items in {seconds} s");
    assert_filled(&engine, 1);
    // The disk has space again: that is noticed.
    within("the store grows again", || large(2000).is_ok());
}

/// A failed sync returns an error, once; the cache continues and the next one succeeds.
#[test]
fn syncing() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let engine = Engine::create(&config(&path)).expect("a store");
    fill(&engine, 1);
    for call in ["msync", "fsync"].map(call) {
        for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT] {
            let (synced, failed) = failing(call, 1, errno, || engine.sync());
            assert!(failed && matches!(synced, Err(Error::Os { .. })), "{}: {synced:?}", CALLS[call]);
            engine.sync().expect("the next one");
            fill(&engine, 2);
            assert_filled(&engine, 2);
        }
    }
}

/// No request writes to the disk: `msync` and `fsync` are called by `sync` alone, and then both.
#[test]
fn requests_do_not_sync() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let engine = Engine::create(&config(&path)).expect("a store");
    let before = (seen("msync"), seen("fsync"));
    for round in 1..4 {
        fill(&engine, round);
        assert_filled(&engine, round);
        engine.math(b"n", ucache::engine::Math::Inc, 1, &UPDATE).expect("math");
        engine.exists(b"n").expect("there");
        engine.delete(b"n").expect("delete");
        engine_value::all_items(&engine);
        engine.clear().expect("clear");
        engine.sweep().expect("sweep");
        engine.stats();
    }
    assert_eq!((seen("msync"), seen("fsync")), before);
    engine.sync().expect("sync");
    assert_eq!((seen("msync"), seen("fsync")), (before.0 + 1, before.1 + 1));
    drop(engine);
    assert_eq!((seen("msync"), seen("fsync")), (before.0 + 1, before.1 + 1), "closing does not sync either");
}
