//! Store files: acknowledged items are found again, whoever opens the file, however the last user
//! ended.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{fs, path::Path, sync::atomic::Ordering::SeqCst, time::Duration};

use engine_proc::{Child, Scratch, alone, in_children};
use engine_store::{ADD, KEYS, UPDATE, assert_filled, config, fill, len, place, put, rounds, seq};
use patience::within;
use ucache::{
    Error,
    engine::{Blocks, Config, Engine, Expires, Math, SetOptions, Touch},
};

#[test]
fn another_process_finds_everything() {
    let _alone = alone();
    let (_dir, path) = place();
    let soon = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() + 5000;
    Child::fork(|| {
        let engine = Engine::create(&config(&path)).expect("a new store");
        fill(&engine, 4);
        let at = SetOptions { expires: Expires::At(soon), ..UPDATE };
        engine.set(b"with a ttl", b"1", &at).expect("set");
        engine.set(b"expired", b"1", &SetOptions { expires: Expires::In(0), ..UPDATE }).expect("set");
        engine.set(b"hidden", b"1", &SetOptions { ungettable: true, ..UPDATE }).expect("set");
        engine.math(b"number", Math::Inc, 41, &UPDATE).expect("math");
        engine.set(b"deleted", b"1", &UPDATE).expect("set");
        engine.delete(b"deleted").expect("delete");
        engine.sweep().expect("sweep");
    })
    .join();
    for attach in [true, false, true] {
        Child::fork(|| {
            let open = || if attach { Engine::attach(&path) } else { Engine::create(&config(&path)) };
            let engine = open().expect("an existing store");
            assert_eq!((engine.config().capacity, engine.config().max_value), (2000, 200_000));
            assert_filled(&engine, 4);
            let read = |key: &[u8]| engine_value::get(&engine, key, Touch::No).expect("get");
            assert_eq!(read(b"with a ttl").expect("stored").0.expires_secs(), soon);
            assert!(read(b"expired").is_none());
            assert!(read(b"deleted").is_none());
            assert!(read(b"hidden").is_none() && engine.exists(b"hidden").is_some());
            assert_eq!(read(b"number").expect("stored").1, 41_i64.to_le_bytes());
            assert_eq!(engine.math(b"number", Math::Keep, 0, &UPDATE).expect("math"), 41);
            let stats = engine.stats();
            assert_eq!(stats.items, u64::from(KEYS) + 3);
            assert!(!stats.last_unclean, "it was closed cleanly");
            assert_eq!(stats.dropped_corrupt, 0);
        })
        .join();
    }
}

/// Two unrelated mappings of one store are one cache.
#[test]
fn attached_processes_share_one_cache() {
    let _alone = alone();
    let (_dir, path) = place();
    let engine = Engine::create(&config(&path)).expect("a new store");
    fill(&engine, 1);
    in_children(4, |worker| {
        let mine = Engine::attach(&path).expect("a store in use");
        assert_filled(&mine, 1);
        for _ in 0..5000 {
            mine.math(b"together", Math::Inc, 1, &UPDATE).expect("math");
        }
        put(&mine, 1000 + u32::try_from(worker).expect("few"), 9).expect("set");
    });
    let total = engine.math(b"together", Math::Keep, 0, &UPDATE).expect("math");
    assert_eq!(total, 20_000);
    for worker in 0..4 {
        assert_eq!(seq(&engine, 1000 + worker), Some(9), "what process {worker} stored");
    }
    engine.clear().expect("clear");
    Child::fork(|| {
        let mine = Engine::attach(&path).expect("a store in use");
        assert_eq!((mine.stats().items, seq(&mine, 5)), (0, None));
    })
    .join();
}

const OWN: u32 = 40;

/// A writer that will be killed: it opens the store itself and records the states of its keys.
fn write_until_killed(path: &Path, worker: u32, books: &Scratch) {
    let engine = Engine::create(&config(path)).expect("a store");
    let mut rng = fastrand::Rng::new();
    loop {
        let key = worker * OWN + rng.u32(0..OWN);
        let word = usize::try_from(key).expect("small") * 2;
        let next = books[word].load(SeqCst) + 1;
        books[word].store(next, SeqCst);
        put(&engine, key, u32::try_from(next).expect("32 bits")).expect("set");
        books[word + 1].store(next, SeqCst);
    }
}

fn assert_books(engine: &Engine, books: &Scratch, what: &str) {
    for (key, words) in books.chunks(2).enumerate() {
        let (begun, done) = (words[0].load(SeqCst), words[1].load(SeqCst));
        let is = seq(engine, u32::try_from(key).expect("small")).map_or(0, u64::from);
        assert!(
            is == begun || is == done,
            "{what}: key {key} has {is}, {done} was acknowledged, {begun} begun"
        );
        words[0].store(is, SeqCst);
        words[1].store(is, SeqCst);
    }
}

/// SIGKILL for all users at once, then: the same file, and a copy of it (which was not repaired in
/// place). 2,000 rounds with UCACHE_STORE_ROUNDS=2000.
#[test]
fn everything_acknowledged_survives_the_death_of_all_users() {
    let _alone = alone();
    let (dir, path) = place();
    let workers = 3;
    let books = Scratch::new(usize::try_from(workers * OWN * 2).expect("small"));
    let mut rng = fastrand::Rng::new();
    for round in 0..rounds("UCACHE_STORE_ROUNDS", 120) {
        let all: Vec<Child> =
            (0..workers).map(|worker| Child::fork(|| write_until_killed(&path, worker, &books))).collect();
        let before: u64 = books.iter().map(|word| word.load(SeqCst)).sum();
        within("some stores", || books.iter().map(|w| w.load(SeqCst)).sum::<u64>() > before + 100);
        std::thread::sleep(Duration::from_micros(rng.u64(0..3000)));
        for child in all {
            assert!(child.kill(), "round {round}: a writer ended by itself");
        }
        let copy = dir.path().join("copy");
        fs::copy(&path, &copy).expect("a copy");
        {
            let copied = Engine::create(&config(&copy)).expect("the copy of a store whose users died");
            let stats = copied.stats();
            assert!(stats.last_unclean, "round {round}: it was not closed cleanly");
            assert_eq!(stats.dropped_corrupt, 0, "round {round}: every entry was whole");
            for key in 0..workers * OWN {
                let done = books[usize::try_from(key).expect("small") * 2 + 1].load(SeqCst);
                assert!(u64::from(seq(&copied, key).unwrap_or(0)) >= done, "round {round}: copy: key {key}");
            }
        }
        fs::remove_file(&copy).expect("remove");
        let engine = Engine::create(&config(&path)).expect("a store whose users died");
        assert!(engine.stats().last_unclean, "round {round}: it was not closed cleanly");
        assert_books(&engine, &books, &format!("round {round}"));
        assert_eq!(
            engine.stats().items,
            u64::try_from(engine_value::all_items(&engine).len()).expect("a length")
        );
    }
    let engine = Engine::attach(&path).expect("a store closed cleanly");
    assert!(!engine.stats().last_unclean);
}

/// A copy made while the store is being written has no consistent state, but never a wrong value.
#[test]
fn a_copy_of_a_store_in_use_opens_and_is_never_wrong() {
    let _alone = alone();
    let (dir, path) = place();
    let books = Scratch::new(usize::try_from(OWN * 4).expect("small"));
    let workers: Vec<Child> =
        (0..2).map(|worker| Child::fork(|| write_until_killed(&path, worker, &books))).collect();
    within("some stores", || books.iter().map(|w| w.load(SeqCst)).sum::<u64>() > 500);
    let mut found = 0;
    for round in 0..20 {
        let copy = dir.path().join(format!("copy {round}"));
        fs::copy(&path, &copy).expect("a copy");
        let engine = Engine::create(&config(&copy)).expect("a copy of a store in use");
        found += (0..OWN * 2).filter(|&key| seq(&engine, key).is_some()).count();
        fill(&engine, 77);
        assert_filled(&engine, 77);
    }
    workers.into_iter().for_each(|child| assert!(child.kill()));
    assert!(found > 0, "no copy held any item");
}

/// Such a copy written back over the same file, in the same boot: device, inode and boot match, the
/// bytes do not.
#[test]
fn a_copy_put_back_into_the_same_file_is_not_believed() {
    let _alone = alone();
    let (dir, path) = place();
    let value = *b"a value that is found in the file";
    let engine = Engine::create(&config(&path)).expect("a store");
    fill(&engine, 1);
    engine.set(b"damaged", &value, &UPDATE).expect("set");
    drop(engine);
    let mut bytes = fs::read(&path).expect("the store");
    let at = bytes.windows(value.len()).position(|w| w == value).expect("the value is there");
    bytes[at] ^= 1;
    let ino = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("stat"));
    let before = ino(&path);
    for round in 0..2 {
        fs::write(&path, &bytes).expect("put back");
        assert_eq!(ino(&path), before, "the same file");
        let engine = Engine::create(&config(&path)).expect("the store");
        assert_eq!((engine.exists(b"damaged"), engine.dropped_at_opening()), (None, 1), "round {round}");
        assert_filled(&engine, 1);
    }
    // Made while somebody writes, with holes where there were zeros. What a store has no spans for yet has no table either.
    let holes = |path: &Path| {
        let meta = fs::metadata(path).expect("stat");
        meta.len().saturating_sub(std::os::unix::fs::MetadataExt::blocks(&meta) * 512)
    };
    let fresh = dir.path().join("fresh");
    drop(Engine::create(&config(&fresh)).expect("a new store"));
    let holes_when_new = holes(&fresh);
    let backup = dir.path().join("backup");
    for round in 0..rounds("UCACHE_STORE_ROUNDS", 20) {
        let books = Scratch::new(usize::try_from(OWN * 2).expect("small"));
        let writer = Child::fork(|| write_until_killed(&path, 0, &books));
        within("some stores", || books.iter().map(|w| w.load(SeqCst)).sum::<u64>() > 200);
        let copied = std::process::Command::new("cp").arg("--sparse=always").args([&path, &backup]).status();
        assert!(copied.expect("cp runs").success());
        assert!(writer.kill());
        let copied = std::process::Command::new("cp").arg("--sparse=always").args([&backup, &path]).status();
        assert!(copied.expect("cp runs").success());
        assert_eq!(ino(&path), before, "the same file");
        let engine = Engine::create(&config(&path)).expect("a copy of a store in use");
        assert!(holes(&path) <= holes_when_new, "round {round}: it has holes");
        // Each value is whole, or not there; and what a later clear has not cleared does not come back with it.
        let found = (0..OWN).filter(|&key| seq(&engine, key).is_some()).count() as u64;
        assert!(found <= u64::from(OWN));
        engine.clear().expect("clear");
        assert_eq!((0..OWN).filter(|&key| seq(&engine, key).is_some()).count(), 0, "round {round}");
    }
}

#[test]
fn limits_may_change_when_nobody_else_is_there() {
    let _alone = alone();
    let (_dir, path) = place();
    let with = |max_key: u64| Config { max_key, ..config(&path) };
    {
        let engine = Engine::create(&with(2048)).expect("a new store");
        fill(&engine, 1);
        let long = engine.set(&[b'k'; 4000], b"x", &ADD);
        assert!(matches!(long, Err(Error::KeyTooLong { len: 4000, limit: 2048 })), "{long:?}");
    }
    {
        let engine = Engine::create(&with(4000)).expect("longer keys");
        assert_filled(&engine, 1);
        engine.set(&[b'k'; 4000], b"x", &ADD).expect("a longer key");
        // In use: the limits in force stay, and the opener is told.
        Child::fork(|| {
            let other = Engine::create(&with(3000)).expect("a store in use");
            assert_eq!(other.config().max_key, 4000);
            assert_filled(&other, 1);
            other.set(&[b'l'; 3500], b"x", &ADD).expect("a key of the limits in force");
        })
        .join();
        assert_filled(&engine, 1);
    }
    let engine = Engine::create(&with(600)).expect("shorter keys, but none that is stored");
    assert_filled(&engine, 1);
    assert!(
        engine_value::get(&engine, &[b'k'; 4000], Touch::No).expect("get").is_some(),
        "what is stored stays"
    );
    assert!(matches!(engine.set(&[b'k'; 601], b"x", &ADD), Err(Error::KeyTooLong { limit: 600, .. })));
}

#[test]
fn blocks_are_counted_anew_at_every_opening() {
    let _alone = alone();
    let (_dir, path) = place();
    let blocks = |size, count| Config { blocks: Some(Blocks { size, count }), ..config(&path) };
    let used =
        |size: u64| (0..KEYS).map(|key| u64::try_from(len(key)).expect("small").div_ceil(size)).sum::<u64>();
    {
        let engine = Engine::create(&blocks(64, 20_000)).expect("a new store");
        fill(&engine, 1);
        assert_eq!(engine.stats().blocks_used, used(64));
    }
    for size in [64, 100, 1000] {
        let engine = Engine::create(&blocks(size, 30_000)).expect("other blocks");
        assert_eq!(engine.stats().blocks_used, used(size), "blocks of {size} bytes");
        assert_filled(&engine, 1);
    }
}

#[test]
fn eight_processes_open_a_new_store_at_once() {
    let _alone = alone();
    let (dir, _) = place();
    for round in 0..40 {
        let path = dir.path().join(format!("store {round}"));
        let ready = Scratch::new(2);
        in_children(8, |worker| {
            ready[0].fetch_add(1, SeqCst);
            while ready[0].load(SeqCst) < 8 {
                std::hint::spin_loop();
            }
            let engine = Engine::create(&config(&path)).expect("a store that others open too");
            put(&engine, u32::try_from(worker).expect("few"), 1).expect("set");
            ready[1].fetch_add(1, SeqCst);
            within("the others", || ready[1].load(SeqCst) == 8);
            for key in 0..8 {
                assert_eq!(seq(&engine, key), Some(1), "round {round}: process {worker} misses key {key}");
            }
            assert_eq!(engine.stats().items, 8, "round {round}");
        });
        let engine = Engine::attach(&path).expect("the store");
        assert_eq!(engine.stats().items, 8, "round {round}");
    }
}

/// Concurrent opening and closing: no process sees a half-created store or loses an item.
#[test]
fn open_and_close_race() {
    let _alone = alone();
    let (_dir, path) = place();
    drop(Engine::create(&config(&path)).expect("a store"));
    in_children(6, |worker| {
        let key = u32::try_from(worker).expect("few");
        for round in 1..=60 {
            let engine = if round % 2 == 0 { Engine::create(&config(&path)) } else { Engine::attach(&path) };
            let engine = engine.expect("a store that others open and close");
            assert_eq!(seq(&engine, key), (round > 1).then_some(round - 1), "process {worker}");
            put(&engine, key, round).expect("set");
        }
    });
    let engine = Engine::attach(&path).expect("the store");
    (0..6).for_each(|key| assert_eq!(seq(&engine, key), Some(60)));
    assert!(!engine.stats().last_unclean, "all were closed cleanly");
}

/// A program that has closed its standard streams prints all the same: not into its store.
#[test]
fn nothing_is_printed_into_a_store() {
    let _alone = alone();
    let (_dir, path) = place();
    for round in 0..2 {
        Child::fork(|| {
            for stream in 0..3 {
                nix::unistd::close(stream).expect("it was open");
            }
            let engine = Engine::create(&config(&path)).expect("the store");
            for stream in 0..3 {
                // SAFETY: a buffer of one byte that outlives the call.
                let written = unsafe { libc::write(stream, b"x".as_ptr().cast(), 1) };
                assert_eq!(written, -1, "{stream} is open");
            }
            fill(&engine, 3 + round);
        })
        .join();
    }
    assert_filled(&Engine::attach(&path).expect("the store"), 4);
}
