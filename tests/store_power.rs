//! The power fails: of everything written since the last sync the disk has any 512-byte sectors in any of the versions
//! they had. 100,000 images with UCACHE_STORE_POWER=100000.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;

use std::{cell::RefCell, fs, path::Path};

use engine_proc::{alone, say};
use engine_store::{Copy, Tally, UPDATE, config, in_two, memory, rounds};
use engine_value::Stamp;
use ucache::engine::{Blocks, Config, Engine, Eviction, Math, Touch};

const KEYS: u32 = 48;
const SECTOR: usize = 512;
/// Images made of one history.
const IMAGES: usize = 50;

/// What happened before the power failed.
struct History {
    seed: u64,
    config: Config,
    /// The file at the sync, and at moments after it.
    versions: Vec<Vec<u8>>,
    /// Of each key, the oldest sequence that may be found: that of the sync, or the first after it.
    oldest: Vec<u32>,
    /// The keys that were stored at the sync and that nobody touched since.
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
        let mut step = |rng: &mut fastrand::Rng, keys: &mut Vec<u32>| {
            last += 1;
            let n = rng.u32(0..KEYS);
            match rng.u8(0..40) {
                0 if rng.bool() => {
                    keys.clear();
                    engine.clear().expect("clear");
                }
                1 => assert_eq!(engine.sweep().expect("sweep"), 0),
                2..10 => {
                    keys.retain(|&key| key != n);
                    engine.delete(&key(n)).expect("delete");
                }
                10..12 => drop(engine.math(b"number", Math::Inc, 1, &UPDATE)),
                _ => {
                    keys.retain(|&key| key != n);
                    put(&engine, n, last);
                }
            }
            last
        };
        let before = (0..rng.usize(0..300)).map(|_| step(&mut rng, &mut Vec::new())).last().unwrap_or(0);
        engine.sync().expect("sync");
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
            }
            versions.push(fs::read(&path).expect("read"));
        }
        drop(engine);
        fs::remove_file(&path).expect("remove");
        Self { seed, config, versions, oldest, untouched }
    }

    /// What the disk may have.
    fn image(&self, rng: &mut fastrand::Rng) -> Vec<u8> {
        let pick = |rng: &mut fastrand::Rng| &self.versions[rng.usize(0..self.versions.len())];
        let mut image = pick(rng).clone();
        // A page is written as a whole, as a rule; here often torn, or every sector for itself.
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
        // The machine was started again.
        image[128] ^= 1;
        image
    }
}

const FOUND: usize = 0;
const DROPPED: usize = 1;
const UNTOUCHED: usize = 2;
const LOST: usize = 3;

fn check(history: &History, copy: &Copy, tally: &Tally, what: &str) {
    let mut config = history.config.clone();
    config.store = engine_store::config(&copy.path).store;
    let engine = Engine::create(&config).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut found = 0;
    tally.add(UNTOUCHED, history.untouched.len());
    for n in 0..KEYS {
        let seq = seq(&engine, n, what);
        tally.add(LOST, usize::from(seq.is_none() && history.untouched.contains(&n)));
        if let Some(seq) = seq {
            found += 1;
            let oldest = history.oldest[n as usize];
            assert!(seq >= oldest, "{what}: key {n} has {seq}, the last sync {oldest}");
        }
    }
    tally.add(FOUND, found);
    tally.add(DROPPED, engine.stats().dropped_corrupt as usize);
    // It is whole: everything can be stored, is found, and nothing is counted that is not there.
    for n in 0..KEYS.min(30) {
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

#[test]
fn after_a_power_failure_values_are_whole_and_not_older_than_the_last_sync() {
    let _alone = alone();
    let dir = memory();
    let images = rounds("UCACHE_STORE_POWER", 4000);
    let base = u64::from(fastrand::u32(..)) << 24;
    let history: RefCell<Option<History>> = RefCell::new(None);
    let setup = |half| Copy::new(dir.path(), half, Vec::new());
    let tally = in_two(images, setup, |n, copy, tally| {
        let seed = base + (n / 2 / IMAGES * 2 + n % 2) as u64;
        let mut history = history.borrow_mut();
        if history.as_ref().is_none_or(|h| h.seed != seed) {
            *history = Some(History::new(seed, dir.path()));
        }
        let history = history.as_ref().expect("made above");
        let image = history.image(&mut fastrand::Rng::with_seed(seed ^ (n as u64) << 32));
        copy.become_all(&image);
        check(history, copy, tally, &format!("history {seed} image {n}"));
    });
    let found = tally.get(FOUND);
    say(&format!(
        "{images} images, all opened, {found} items found, {} dropped as damaged; of {} untouched since the sync {} lost",
        tally.get(DROPPED),
        tally.get(UNTOUCHED),
        tally.get(LOST)
    ));
    assert!(tally.get(LOST) * 100 <= tally.get(UNTOUCHED), "what nobody touched since the sync was lost");
    assert!(found > images as u64 * 4, "{found} items found: nothing was shown");
}

/// How long the first opening after a failure takes, when every checksum is looked at: UCACHE_STORE_OPEN=1000000 for a
/// million items.
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
    for (what, path) in [("a copy, all checked", &copy), ("the same file, rebuilt", &path)] {
        let start = std::time::Instant::now();
        let engine = Engine::create(&large(path)).expect("the store");
        say(&format!("{what}: {items} items in {:?}", start.elapsed()));
        assert_eq!((engine.stats().items, engine.stats().dropped_corrupt), (items, 0), "{what}");
    }
}
