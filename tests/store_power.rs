//! Power failures: of everything written since the last sync, the disk has any 512-byte sectors in
//! any of the versions they had. 100,000 images with UCACHE_STORE_POWER=100000; every single sector
//! of 500 histories of crowded chains with UCACHE_STORE_SECTORS=500.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{
    cell::{Cell, RefCell},
    fs,
    path::Path,
};

use engine_proc::{alone, say};
use engine_store::{Copy, Tally, UPDATE, config, in_two, memory, rounds};
use engine_value::Stamp;
use ucache::engine::{Blocks, Config, Engine, Eviction, Math, Touch};

const KEYS: u32 = 48;
const SECTOR: usize = 512;
/// Keys of the chain histories: enough that some of the 70 buckets overflow with any secret.
const CROWD: u32 = 320;
/// Images made of one history.
const IMAGES: usize = 50;

thread_local! {
    /// What was in the file at the last `fsync` of this thread.
    static SYNCED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
    /// Whether the process ends in its next `fsync`.
    static DIES: Cell<bool> = const { Cell::new(false) };
}

/// The C library's, in whose place every caller in this process comes here: nothing older can be
/// on disk after it.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: std::ffi::c_int) -> std::ffi::c_int {
    if DIES.get() {
        // SAFETY: it only ends this process.
        unsafe { nix::libc::_exit(0) }
    }
    let synced = fs::read(format!("/proc/self/fd/{fd}")).ok();
    SYNCED.with(|cell| *cell.borrow_mut() = synced);
    // SAFETY: the system call of this name.
    unsafe { nix::libc::syscall(nix::libc::SYS_fsync, fd) as std::ffi::c_int }
}

/// The events before the power failure.
struct History {
    seed: u64,
    config: Config,
    keys: Vec<u32>,
    /// The file at the sync, and at moments after it.
    versions: Vec<Vec<u8>>,
    /// For each key, the oldest sequence number permitted: that of the sync, or the first after it.
    oldest: Vec<u32>,
    /// The keys stored at the sync and not changed since.
    untouched: Vec<u32>,
}

fn len(n: u32, seq: u32) -> usize {
    // Another size each time: blocks of other classes, and the same ones again.
    [16, 40, 200, 900, 9_000, 70_000][(n + seq * (n % 3)) as usize % 6]
}

fn key(n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    engine_value::key_bytes(n, &mut bytes);
    bytes
}

/// Whether it was stored: a full cache refuses.
fn put(engine: &Engine, n: u32, seq: u32) -> bool {
    let mut value = Vec::new();
    engine_value::write(Stamp { key: n, writer: 1, seq }, len(n, seq), &mut value);
    engine.set(&key(n), &value, &UPDATE).is_ok()
}

fn seq(engine: &Engine, n: u32, what: &str) -> Option<u32> {
    let (_, value) = engine_value::get(engine, &key(n), Touch::Yes).expect("get")?;
    Some(engine_value::read(n, &value).unwrap_or_else(|fault| panic!("{what}: key {n}: {fault:?}")).seq)
}

fn shape(n: u64, path: &Path) -> Config {
    let mut config = Config { max_value: 100_000, ..config(path) };
    match n % 4 {
        0 => config.capacity = 64,
        1 => config.capacity = 3000,
        2 => (config.capacity, config.eviction) = (32, Eviction::Lru),
        _ => (config.capacity, config.blocks) = (64, Some(Blocks { size: 64, count: 8000 })),
    }
    config
}

impl History {
    fn new(seed: u64, dir: &Path) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let path = dir.join(format!("history {seed}"));
        let config = shape(seed, &path);
        let engine = Engine::create(&config).expect("a store");
        let mut last = 0;
        let mut step = |rng: &mut fastrand::Rng, untouched: &mut Vec<u32>| {
            last += 1;
            let n = rng.u32(0..KEYS);
            match rng.u8(0..40) {
                0 if rng.bool() => {
                    untouched.clear();
                    engine.clear().expect("clear");
                }
                1 => assert_eq!(engine.sweep().expect("sweep"), 0),
                2..10 => {
                    untouched.retain(|&key| key != n);
                    engine.delete(&key(n)).expect("delete");
                }
                10..12 => drop(engine.math(b"number", Math::Inc, 1, &UPDATE)),
                _ => {
                    untouched.retain(|&key| key != n);
                    put(&engine, n, last);
                }
            }
            last
        };
        let before = (0..rng.usize(0..300)).map(|_| step(&mut rng, &mut Vec::new())).last().unwrap_or(0);
        engine.sync().expect("sync");
        SYNCED.take();
        let at_sync: Vec<Option<u32>> = (0..KEYS).map(|n| seq(&engine, n, "at the sync")).collect();
        let oldest = at_sync.iter().map(|seq| seq.unwrap_or(before + 1)).collect();
        let mut untouched: Vec<u32> = (0..KEYS).filter(|&n| at_sync[n as usize].is_some()).collect();
        if config.eviction == Eviction::Lru {
            untouched.clear();
        }
        let mut versions = vec![fs::read(&path).expect("read")];
        for _ in 0..rng.usize(1..6) {
            for _ in 0..rng.usize(1..if seed % 8 < 4 { 60 } else { 8 }) {
                step(&mut rng, &mut untouched);
                // A sweep that moved entries has synced.
                if let Some(synced) = SYNCED.take() {
                    versions = vec![synced, fs::read(&path).expect("read")];
                }
            }
            versions.push(fs::read(&path).expect("read"));
        }
        drop(engine);
        fs::remove_file(&path).expect("remove");
        Self { seed, config, keys: (0..KEYS).collect(), versions, oldest, untouched }
    }

    /// Chains that only grow after the sync, that only shrink, or that take each other's buckets.
    fn of_chains(seed: u64, dir: &Path) -> Self {
        let path = dir.join(format!("history {seed}"));
        let config = Config { capacity: CROWD.into(), max_value: 10_000, ..config(&path) };
        let engine = Engine::create(&config).expect("a store");
        let (stored, deleted, added) = [(220, 0, 100), (CROWD, 200, 0), (CROWD, 150, 150)][seed as usize % 3];
        for n in 0..stored {
            assert!(put(&engine, n * 6, 1), "there is room");
        }
        engine.sync().expect("sync");
        let first = fs::read(&path).expect("read");
        for n in 0..deleted {
            assert!(engine.delete(&key(n * 6)).expect("delete"));
        }
        // Keys whose values all have one size.
        let new = |n| (CROWD + n) * 6;
        for n in 0..added {
            assert!(put(&engine, new(n), 2), "there is room");
        }
        let versions = vec![first, fs::read(&path).expect("read")];
        drop(engine);
        fs::remove_file(&path).expect("remove");
        let keys: Vec<u32> = (0..stored).map(|n| n * 6).chain((0..added).map(new)).collect();
        let (oldest, untouched) = (vec![1; keys.len()], keys[deleted as usize..stored as usize].to_vec());
        Self { seed, config, keys, versions, oldest, untouched }
    }

    /// A sweep that moves entries, before its own sync (odd seeds) and after it.
    fn of_moves(seed: u64, dir: &Path) -> Self {
        let path = dir.join(format!("history {seed}"));
        let config = Config { capacity: 4000, max_value: 10_000, ..config(&path) };
        let engine = Engine::create(&config).expect("a store");
        let mut rng = fastrand::Rng::with_seed(seed);
        let passing = |n: u32| format!("passing {n}").into_bytes();
        let mut number = 0;
        for n in 0..CROWD {
            assert!(put(&engine, n * 6, 1), "there is room");
            for _ in 0..rng.u32(4..10) {
                engine.set(&passing(number), &vec![7; rng.usize(8..900)], &UPDATE).expect("set");
                number += 1;
            }
        }
        (0..number).for_each(|n| assert!(engine.delete(&passing(n)).expect("delete")));
        engine.sync().expect("sync");
        let first = fs::read(&path).expect("read");
        SYNCED.take();
        engine.sweep().expect("sweep");
        assert!(engine.stats().moved > 50, "{:?}", engine.stats());
        let synced = SYNCED.take().expect("a sweep that moved syncs");
        let versions = if seed % 2 == 1 {
            vec![first, synced]
        } else {
            let swept = fs::read(&path).expect("read");
            // What was given back is used again.
            (0..50).for_each(|n| assert!(put(&engine, (CROWD + n) * 6, 2), "there is room"));
            vec![synced, swept, fs::read(&path).expect("read")]
        };
        drop(engine);
        fs::remove_file(&path).expect("remove");
        let keys: Vec<u32> = (0..CROWD).map(|n| n * 6).collect();
        Self { seed, config, untouched: keys.clone(), oldest: vec![1; keys.len()], keys, versions }
    }

    /// A possible content of the disk.
    fn image(&self, rng: &mut fastrand::Rng) -> Vec<u8> {
        let pick = |rng: &mut fastrand::Rng| &self.versions[rng.usize(0..self.versions.len())];
        let mut image = pick(rng).clone();
        // A page is usually written as a whole; here often torn, or every sector on its own.
        let unit = [SECTOR, SECTOR, 4096][rng.usize(0..3)];
        let share = rng.u8(1..=10);
        for at in (0..image.len()).step_by(unit) {
            let differs = self.versions.iter().any(|v| v.get(at..at + unit) != image.get(at..at + unit));
            if differs && rng.u8(0..10) < share {
                let end = (at + unit).min(image.len());
                let from = pick(rng);
                let there = from.len().clamp(at, end);
                image[at..there].copy_from_slice(from.get(at..there).unwrap_or_default());
                image[there..end].fill(0);
            }
        }
        started_again(image)
    }

    /// The sectors that differ between the sync and the end.
    fn changed(&self) -> Vec<usize> {
        let (first, last) = (&self.versions[0], &self.versions[self.versions.len() - 1]);
        let of = |version: &[u8], n: usize| version.get(n * SECTOR..(n + 1) * SECTOR).map(<[u8]>::to_vec);
        (0..first.len().min(last.len()) / SECTOR).filter(|&n| of(first, n) != of(last, n)).collect()
    }

    /// One sector is early (all others as at the sync), or late.
    fn with_one_sector(&self, sector: usize, early: bool) -> Vec<u8> {
        let ends = [&self.versions[0], &self.versions[self.versions.len() - 1]];
        let (others, one) = if early { (ends[0], ends[1]) } else { (ends[1], ends[0]) };
        let mut image = others.clone();
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        image[range.clone()].copy_from_slice(&one[range]);
        started_again(image)
    }
}

/// Changes the boot recorded in the header.
fn started_again(mut image: Vec<u8>) -> Vec<u8> {
    image[128] ^= 1;
    image
}

const FOUND: usize = 0;
const DROPPED: usize = 1;
const UNTOUCHED: usize = 2;
const LOST: usize = 3;
const IMAGES_SEEN: usize = 4;

fn check(history: &History, copy: &Copy, tally: &Tally, what: &str) {
    let mut config = history.config.clone();
    config.store = engine_store::config(&copy.path).store;
    let engine = Engine::create(&config).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut found = 0;
    tally.add(UNTOUCHED, history.untouched.len());
    for (&n, &oldest) in history.keys.iter().zip(&history.oldest) {
        let seq = seq(&engine, n, what);
        if seq.is_none() && history.untouched.contains(&n) {
            tally.add(LOST, 1);
            say(&format!("{what}: key {n} is lost, which nobody touched since the sync"));
        }
        if let Some(seq) = seq {
            found += 1;
            assert!(seq >= oldest, "{what}: key {n} has {seq}, the last sync {oldest}");
        }
    }
    tally.add(FOUND, found);
    tally.add(DROPPED, engine.stats().dropped_corrupt as usize);
    // It is intact: everything can be stored and is found, and nothing else is counted.
    for n in 0..30 {
        let stored = put(&engine, n, 1 << 20);
        let seq = seq(&engine, n, what);
        assert!(seq == Some(1 << 20) || !stored, "{what}: key {n} has {seq:?} after it was stored");
    }
    let items = engine_value::all_items(&engine).len() as u64;
    assert_eq!(engine.stats().items, items, "{what}: items");
    engine.clear().expect("clear");
    engine.sweep().expect("sweep");
    assert_eq!((engine.stats().items, engine.stats().blocks_used), (0, 0), "{what}: after a clear");
}

/// Opens and checks images of histories that `make` makes of a seed and a directory, some of each.
fn opened_images(images: usize, dir: &Path, make: fn(u64, &Path) -> History) -> Tally {
    let base = u64::from(fastrand::u32(..)) << 24;
    let history: RefCell<Option<History>> = RefCell::new(None);
    let setup = |half| Copy::new(dir, half, Vec::new());
    in_two(images, setup, |n, copy, tally| {
        let seed = base + (n / 2 / IMAGES * 2 + n % 2) as u64;
        let mut history = history.borrow_mut();
        if history.as_ref().is_none_or(|h| h.seed != seed) {
            *history = Some(make(seed, dir));
        }
        let history = history.as_ref().expect("made above");
        copy.become_all(&history.image(&mut fastrand::Rng::with_seed(seed ^ (n as u64) << 32)));
        check(history, copy, tally, &format!("history {seed} image {n}"));
    })
}

#[test]
fn after_a_power_failure_values_are_whole_and_not_older_than_the_last_sync() {
    let _alone = alone();
    let dir = memory();
    let images = rounds("UCACHE_STORE_POWER", 4000);
    let tally = opened_images(images, dir.path(), History::new);
    let found = tally.get(FOUND);
    say(&format!(
        "{images} images, all opened, {found} items found, {} dropped as damaged; of {} untouched since the sync {} lost",
        tally.get(DROPPED),
        tally.get(UNTOUCHED),
        tally.get(LOST)
    ));
    assert_eq!(tally.get(LOST), 0, "what nobody touched since the sync was lost");
    assert!(found > images as u64 * 4, "{found} items found: nothing was shown");
}

/// Few buckets, so that items of other keys move and chains grow and shrink: of the sectors written
/// since the sync exactly one is on disk, or all but one.
#[test]
fn one_sector_too_early_or_too_late_costs_nothing_that_was_synced() {
    let _alone = alone();
    let dir = memory();
    let histories = rounds("UCACHE_STORE_SECTORS", 3);
    let base = u64::from(fastrand::u32(..)) << 24;
    let setup = |half| Copy::new(dir.path(), half, Vec::new());
    let tally = in_two(histories, setup, |n, copy, tally| {
        let history = History::of_chains(base + n as u64, dir.path());
        for sector in history.changed() {
            for early in [true, false] {
                tally.add(IMAGES_SEEN, 1);
                copy.become_all(&history.with_one_sector(sector, early));
                check(
                    &history,
                    copy,
                    tally,
                    &format!("history {} sector {sector} early {early}", history.seed),
                );
            }
        }
    });
    say(&format!(
        "{histories} histories, {} images with one sector too early or too late, {} items found, {} dropped as damaged; of \
         {} untouched since the sync {} lost",
        tally.get(IMAGES_SEEN),
        tally.get(FOUND),
        tally.get(DROPPED),
        tally.get(UNTOUCHED),
        tally.get(LOST)
    ));
    assert_eq!(tally.get(LOST), 0, "what nobody touched since the sync was lost");
    assert!(tally.get(UNTOUCHED) > histories as u64 * 1000, "nothing was shown");
}

/// What a sweep moves is on disk at its old or its new place.
#[test]
fn what_a_sweep_moves_outlives_a_power_failure() {
    let _alone = alone();
    let dir = memory();
    let images = rounds("UCACHE_STORE_POWER", 4000) / 10;
    let tally = opened_images(images, dir.path(), History::of_moves);
    assert_eq!(tally.get(LOST), 0, "what nobody touched since the sync was lost");
    assert!(tally.get(UNTOUCHED) >= images as u64 * 300, "nothing was shown");
}

/// A sweeper dies while its sync runs; others delete and sync. What they deleted stays deleted, what
/// was moved is there.
#[test]
fn a_sweeper_that_dies_in_its_sync_leaves_nothing_that_comes_back() {
    let _alone = alone();
    let dir = memory();
    let path = dir.path().join("store");
    let config = Config { capacity: 4000, max_value: 10_000, ..config(&path) };
    let engine = Engine::create(&config).expect("a store");
    for n in 0..CROWD {
        assert!(put(&engine, n * 6, 1), "there is room");
        for i in 0..8 {
            engine.set(format!("passing {n} {i}").as_bytes(), &[7; 700], &UPDATE).expect("set");
        }
    }
    for (n, i) in (0..CROWD).flat_map(|n| (0..8).map(move |i| (n, i))) {
        assert!(engine.delete(format!("passing {n} {i}").as_bytes()).expect("delete"));
    }
    engine.sync().expect("sync");
    engine_proc::Child::fork(|| {
        DIES.set(true);
        engine.sweep().expect("sweep");
        panic!("the sweep has not synced");
    })
    .join();
    assert!(engine.stats().moved > 50, "{:?}", engine.stats());
    (0..CROWD).for_each(|n| assert_eq!(seq(&engine, n * 6, "after the death"), Some(1), "key {n}"));
    let reopened = |what: &str, deleted: u32| {
        let copy = dir.path().join("copy");
        fs::write(&copy, started_again(fs::read(&path).expect("read"))).expect("write");
        let opened = Engine::create(&Config { store: engine_store::config(&copy).store, ..config.clone() });
        let opened = opened.expect("the copy");
        for n in 0..CROWD {
            let there = seq(&opened, n * 6, what);
            assert_eq!(there, (n >= deleted).then_some(1), "{what}: key {n}");
        }
    };
    reopened("nothing was deleted", 0);
    (0..CROWD / 2).for_each(|n| assert!(engine.delete(&key(n * 6)).expect("delete")));
    engine.sync().expect("sync");
    reopened("a half was deleted", CROWD / 2);
    engine.sweep().expect("sweep");
    reopened("after another sweep", CROWD / 2);
}

/// The duration of the first opening after a failure, with every checksum verified:
/// UCACHE_STORE_OPEN=1000000 for a million items.
#[test]
fn opening_after_a_failure_finds_everything() {
    let _alone = alone();
    let dir = memory();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let items = rounds("UCACHE_STORE_OPEN", 20_000) as u64;
    let large = |path: &Path| Config { capacity: items, max_value: 1000, ..config(path) };
    {
        let engine = Engine::create(&large(&path)).expect("a store");
        for n in 0..items {
            engine.set(format!("{n:016}").as_bytes(), &[n as u8; 100], &UPDATE).expect("set");
        }
    }
    fs::copy(&path, &copy).expect("a copy");
    for (what, path) in [("a copy", &copy), ("the same file", &path)] {
        let start = std::time::Instant::now();
        let engine = Engine::create(&large(path)).expect("the store");
        say(&format!("{what}: {items} items in {:?}", start.elapsed()));
        assert_eq!((engine.stats().items, engine.stats().dropped_corrupt), (items, 0), "{what}");
    }
}
