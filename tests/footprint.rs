//! Memory follows the data: work and pages after a death, a clear and a sweep in a cache for very
//! many items that holds few; memory for what any history leaves; and little evicted for a value
//! that finds no room.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "../benches/support/mixes.rs"]
mod mixes;
#[path = "support/patience.rs"]
mod patience;

use std::time::{Duration, Instant};

use engine_proc::{Child, alone, say};
use mixes::{History, resident};
use ucache::engine::{Config, Cursor, Engine, Expires, SetOptions};

const SET: SetOptions = SetOptions::set(Expires::Never);
const MANY: u64 = 100_000_000;
const FEW: u32 = 100;
const MIB: u64 = 1 << 20;

/// What this thread has had of the processor: other tests may run.
fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into()
}

/// A hundred items in a cache for very many.
fn nearly_empty() -> std::sync::Arc<Engine> {
    let mut config = Config::new("many", MANY);
    config.max_value = 1000;
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..FEW {
        engine.set(&n.to_le_bytes(), &[1; 100], &SET).expect("set");
    }
    engine
}

#[test]
fn a_death_costs_what_the_shard_holds() {
    let _alone = alone();
    let engine = nearly_empty();
    let mut deaths = 0;
    while deaths < 5 {
        let before = engine.stats().owner_dead;
        let writer = Child::fork(|| {
            loop {
                for n in 0..FEW {
                    engine.set(&n.to_le_bytes(), &[2; 100], &SET).expect("set");
                }
            }
        });
        std::thread::sleep(Duration::from_micros(2000 + fastrand::u64(0..500)));
        writer.kill();
        let (pages, start) = (resident(), Instant::now());
        for n in 0..FEW {
            engine.set(&n.to_le_bytes(), &[3; 100], &SET).expect("set");
        }
        if engine.stats().owner_dead > before {
            let (took, more) = (start.elapsed(), resident().saturating_sub(pages));
            say(&format!("a death: {took:?}, {more} bytes more"));
            assert!(took < Duration::from_millis(50), "the repair took {took:?}");
            assert!(more <= MIB, "the repair took {more} bytes of memory");
            deaths += 1;
        }
    }
    assert_eq!(engine.stats().items, u64::from(FEW));
}

#[test]
fn a_clear_a_sweep_and_a_walk_cost_what_there_is() {
    let _alone = alone();
    let engine = nearly_empty();
    let (pages, start) = (resident(), cpu_time());
    let mut cursor = Cursor::default();
    let mut met = 0;
    while engine.walk_ref(&mut cursor).is_some() {
        met += 1;
    }
    assert_eq!(met, FEW);
    assert_eq!(engine.inspect(false, |_, _| ()).expect("inspect").items, u64::from(FEW));
    engine.clear().expect("clear");
    engine.sweep().expect("sweep");
    let (took, more) = (cpu_time() - start, resident().saturating_sub(pages));
    say(&format!("a walk, a look, a clear and a sweep: {took:?}, {more} bytes more"));
    assert!(took < Duration::from_millis(500), "they took {took:?}");
    assert!(more <= 4 * MIB, "they took {more} bytes of memory");
    assert_eq!(engine.stats().items, 0);
}

/// The largest overhead of an entry: its header, the padding of key and value, and its part of the
/// index.
const EACH: u64 = 16 + 14 + 64;

#[test]
fn memory_is_bounded_by_the_data_after_any_history() {
    let _alone = alone();
    let mut rng = fastrand::Rng::with_seed(engine_proc::seed());
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for (history, stored) in History::ALL.into_iter().flat_map(|history| [(history, false), (history, true)])
    {
        for items in [4_000, 8_192, 32_768] {
            let path = dir.path().join(format!("{history:?} {items}"));
            let engine = mixes::cache(history, items, stored.then_some(path.as_path()));
            assert_eq!(mixes::run(history, &engine, items, &mut rng), 0, "{history:?}: refused");
            engine.sweep().expect("sweep");
            let found = engine.inspect(false, |_, _| ()).expect("inspect");
            assert_eq!((found.damaged, found.heap), (0, 0), "{history:?}: {:?}", found.reasons);
            let (taken, shards) = (engine.stats().bytes, engine.stats().shards);
            let bound = (found.bytes + found.items * EACH) * 8 / 5 + shards * 8192;
            assert!(
                taken <= bound,
                "{history:?} of {items}, store {stored}: {taken} bytes for {} in {shards} shards",
                found.bytes
            );
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Any operations in a small cache, then quiet and sweeps.
#[test]
fn random_operations_leave_little_waste() {
    let _alone = alone();
    let mut rng = fastrand::Rng::with_seed(engine_proc::seed());
    for round in 0..20 {
        let mut config = Config::new("random", 2_000);
        config.max_value = 40_000;
        let engine = Engine::create(&config).expect("a cache");
        let mut largest = 8;
        for _ in 0..rng.u32(1_000..30_000) {
            if rng.u32(0..1_000) == 0 {
                largest = [8, 60, 300, 2_000, 20_000, 40_000][rng.usize(0..6)];
            }
            let key = rng.u32(0..1_500).to_le_bytes();
            match rng.u8(0..10) {
                0..6 => drop(engine.set(&key, &vec![1; rng.usize(1..=largest)], &SET).expect("set")),
                6..9 => _ = engine.delete(&key).expect("delete"),
                _ => _ = engine.expire(&key, Expires::Never).expect("expire"),
            }
        }
        engine.sweep().expect("sweep");
        let found = engine.inspect(false, |_, _| ()).expect("inspect");
        assert_eq!((found.damaged, found.loose, found.heap), (0, 0, 0), "{:?}", found.reasons);
        let (taken, shards) = (engine.stats().bytes, engine.stats().shards);
        let bound = (found.bytes + found.items * EACH) * 8 / 5 + shards * 8192;
        assert!(taken <= bound, "round {round}: {taken} bytes for {} in {shards} shards", found.bytes);
    }
}

/// What is said of the memory is what there is, after any history.
#[test]
fn the_figures_of_memory_add_up() {
    let _alone = alone();
    let mut rng = fastrand::Rng::with_seed(engine_proc::seed());
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for (history, stored) in History::ALL.into_iter().flat_map(|history| [(history, false), (history, true)])
    {
        let path = dir.path().join(format!("{history:?}"));
        let before = resident();
        let engine = mixes::cache(history, 8_192, stored.then_some(path.as_path()));
        mixes::run(history, &engine, 8_192, &mut rng);
        engine.sweep().expect("sweep");
        let (m, sample, what) = (engine.memory(), engine.memory_sample(), history);
        let found = engine.inspect(false, |_, _| ()).expect("inspect");
        let sum = |of: fn(&ucache::SizeClass) -> u64| m.classes.iter().map(of).sum::<u64>();
        assert_eq!((m.payload, sum(|c| c.items)), (found.bytes, found.items), "{what:?}: {m:?}");
        assert_eq!(m.extents + m.large_blocks + m.leaving, engine.stats().bytes, "{what:?}: {m:?}");
        assert_eq!(m.entries + m.fragmentation, engine.stats().bytes, "{what:?}: {m:?}");
        let unused = sum(|c| c.free) + m.gaps + m.unused_ends + m.leaving;
        // What large blocks have beyond their entries is a part of a span each. Extents that are
        // being emptied may have entries.
        let at_least = unused - m.leaving;
        assert!(
            (at_least..=unused + m.large_block_count * 4096).contains(&m.fragmentation),
            "{what:?}: {m:?}"
        );
        assert_eq!(sample, m, "{what:?}: a small cache is looked at as a whole");
        let taken = resident() - before;
        assert!(m.resident.abs_diff(taken) <= taken / 20 + MIB / 4, "{what:?}: {taken} bytes, but {m:?}");
        let disk = std::fs::metadata(&path).map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m) * 512);
        assert_eq!(m.disk, disk, "{what:?}");
        let _ = std::fs::remove_file(path);
    }
}

/// A sample of a larger cache tells nearly the same; and a look beside writers tells something
/// possible.
#[test]
fn a_sample_of_memory_is_near_the_whole() {
    let _alone = alone();
    let mut config = Config::new("sampled", 200_000);
    config.max_value = 100_000;
    let engine = Engine::create(&config).expect("a cache");
    let value = [1_u8; 100_000];
    let store = |n: u32, round: u32| {
        let len = if n.is_multiple_of(1_000) { 60_000 } else { 50 + ((n * 7919 + round) % 1_000) as usize };
        engine.set(&n.to_le_bytes(), &value[..len], &SET).expect("set");
    };
    (0..200_000).for_each(|n| store(n, 0));
    (0..200_000_u32)
        .filter(|n| n % 3 == 0)
        .for_each(|n| _ = engine.delete(&n.to_le_bytes()).expect("delete"));
    let (whole, sample) = (engine.memory(), engine.memory_sample());
    assert!(sample.sampled && !whole.sampled);
    assert_eq!(sample.large_blocks, whole.large_blocks);
    for (name, of) in [
        ("payload", (|m| m.payload) as fn(&ucache::Memory) -> u64),
        ("entries", |m| m.entries),
        ("fragmentation", |m| m.fragmentation),
        ("resident", |m| m.resident),
    ] {
        let (is, near) = (of(&whole), of(&sample));
        say(&format!("{name}: {is}, by a sample {near}"));
        assert!(is.abs_diff(near) <= is / 20, "{name}: {is}, by a sample {near}");
    }
    let most = whole.payload * 2;
    let writers: Vec<_> =
        (0..2_u32).map(|w| Child::fork(|| (0..100_000).for_each(|n| store(n * 2 + w, n)))).collect();
    for round in 0..10 {
        let m = if round % 2 == 0 { engine.memory() } else { engine.memory_sample() };
        assert!((whole.payload / 4..most).contains(&m.payload), "{m:?}");
    }
    writers.into_iter().for_each(Child::join);
    let found = engine.inspect(false, |_, _| ()).expect("inspect");
    assert_eq!((found.damaged, found.heap), (0, 0), "{:?}", found.reasons);
    assert_eq!(engine.memory().payload, found.bytes);
}

/// What is asked of a history: bytes over payload, at most, in thousandths; resident ones in memory and in a store, and
/// on the store's disk. With 1.6 goes a megabyte.
const BOUNDS: [(History, u32, [u64; 3]); 10] = [
    (History::Fixed, 131_072, [1450, 1470, 1480]),
    (History::Kilobyte, 131_072, [1065, 1075, 1120]),
    (History::Bimodal, 131_072, [1600; 3]),
    (History::Spread, 131_072, [1600; 3]),
    (History::Wandering, 8_192, [1600; 3]),
    (History::Survivors, 8_192, [1600; 3]),
    (History::Shrinking, 8_192, [1600; 3]),
    (History::Churn, 131_072, [1600; 3]),
    (History::Pages, 131_072, [1300, 1300, 1400]),
    (History::Large, 8_192, [1600; 3]),
];

/// Every page counts here, those of index and tables among them, and every block on disk.
#[test]
fn resident_memory_and_disk_follow_the_data() {
    let _alone = alone();
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let small = BOUNDS.map(|(history, ..)| (history, 4_000, [1600; 3]));
    for (history, items, [memory, store, disk]) in BOUNDS.into_iter().chain(small) {
        for stored in [false, true] {
            let path = dir.path().join(format!("{history:?} {items}"));
            let before = resident();
            let engine = mixes::cache(history, items, stored.then_some(path.as_path()));
            assert_eq!(
                mixes::run(history, &engine, items, &mut fastrand::Rng::with_seed(7)),
                0,
                "{history:?}"
            );
            engine.sweep().expect("sweep");
            let taken = resident() - before;
            let payload = engine.inspect(false, |_, _| ()).expect("inspect").bytes;
            let within = |what: &str, bytes: u64, most: u64| {
                let more = if most == 1600 { 1_000_000 } else { 0 };
                let text =
                    format!("{history:?} of {items}, store {stored}: {bytes} bytes {what} for {payload}");
                say(&text);
                assert!(bytes <= payload * most / 1000 + more, "{text}");
            };
            within("resident", taken, if stored { store } else { memory });
            if stored {
                within("on disk", blocks(&path), disk);
            }
            drop(engine);
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Bytes that a file has on disk.
fn blocks(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map(|m| std::os::unix::fs::MetadataExt::blocks(&m) * 512).expect("stat")
}

/// A store that could hold very many items has nothing on disk for those that it does not hold.
#[test]
fn the_disk_of_a_store_does_not_follow_its_limits() {
    let _alone = alone();
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = dir.path().join("store");
    for eviction in [ucache::engine::Eviction::None, ucache::engine::Eviction::Lru] {
        let mut config = Config::new("few", 1_000_000);
        config.max_value = 1_000;
        config.eviction = eviction;
        config.store = Some(ucache::engine::Store { path: path.clone(), delete_unusable: false });
        let engine = Engine::create(&config).expect("a store");
        for n in 0..20_u32 {
            engine.set(&n.to_le_bytes(), &[1; 100], &SET).expect("set");
            // A miss must not take any, either.
            (0..50).for_each(|m| assert!(engine.exists(&(n * 50 + m + 1000).to_le_bytes()).is_none()));
        }
        engine.sweep().expect("sweep");
        assert!(blocks(&path) <= MIB, "{} bytes on disk for 20 items", blocks(&path));
        drop(engine);
        let engine = Engine::create(&config).expect("the store");
        assert!(blocks(&path) <= MIB, "{} bytes on disk when opened again", blocks(&path));
        let mut cursor = Cursor::default();
        assert_eq!(std::iter::from_fn(|| engine.walk(&mut cursor)).count(), 20);
        drop(engine);
        std::fs::remove_file(&path).expect("remove");
    }
}

/// Stores values of all sizes, larger ones as time goes by, over each other and as new keys; returns, at the first refusal
/// for space, the bytes of keys and values.
fn fill_until_refused(engine: &Engine, keys: u32, largest: usize, rng: &mut fastrand::Rng) -> Option<u64> {
    let steps = keys as usize * 8;
    for step in 0..steps {
        let least = largest * step / steps;
        let key = rng.u32(0..keys).to_le_bytes();
        match engine.set(&key, &vec![1; rng.usize(least.max(1)..=largest)], &SET) {
            Ok(_) => {}
            Err(ucache::Error::NoSpace { .. }) => {
                return Some(engine.inspect(false, |_, _| ()).expect("inspect").bytes);
            }
            Err(e) => panic!("{e}"),
        }
    }
    None
}

/// Where all items have their largest values, their limits are used up; before four fifths of that, nothing is refused
/// for space.
#[test]
fn space_is_refused_only_when_the_limits_are_nearly_used_up() {
    let _alone = alone();
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let mut rng = fastrand::Rng::with_seed(engine_proc::seed());
    for (keys, largest) in [(400, 60_000), (4_000, 4_000), (20_000, 300)] {
        for stored in [false, true] {
            let mut config = Config::new("space", u64::from(keys));
            (config.max_key, config.max_value) = (4, largest as u64);
            let path = dir.path().join("store");
            config.store =
                stored.then(|| ucache::engine::Store { path: path.clone(), delete_unusable: false });
            let engine = Engine::create(&config).expect("a cache");
            let promised = u64::from(keys) * (4 + largest as u64);
            let refused = fill_until_refused(&engine, keys, largest, &mut rng);
            say(&format!("{largest}, store {stored}: refused at {refused:?} of {promised}"));
            assert!(refused.is_none_or(|live| live * 5 >= promised * 4), "{refused:?} of {promised}");
            drop(engine);
            let _ = std::fs::remove_file(path);
        }
    }
}

/// On a full disk a store is used up before anything is refused, too.
#[test]
fn a_full_disk_is_used_up() {
    let _alone = alone();
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let mut config = Config::new("disk", 100_000);
    config.max_value = 2_000;
    let path = dir.path().join("store");
    config.store = Some(ucache::engine::Store { path: path.clone(), delete_unusable: false });
    let engine = Engine::create(&config).expect("a store");
    let room = 40 * MIB;
    let full = std::fs::metadata(&path).expect("the store").len() + room;
    let seed = engine_proc::seed();
    Child::fork(|| {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, full, full)
            .expect("a limit");
        let mut rng = fastrand::Rng::with_seed(seed);
        let live = fill_until_refused(&engine, 80_000, 2_000, &mut rng)
            .expect("the disk is full before all is stored");
        say(&format!("{live} bytes of {room} on the disk"));
        assert!(live * 5 >= room * 4, "{live} bytes stored in {room}");
    })
    .join();
}

/// A store's disk follows its data, too, also where it is opened again; and it can grow again.
#[test]
fn the_disk_of_a_store_follows_its_data() {
    let _alone = alone();
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = dir.path().join("store");
    let mut config = Config::new("stored", 20_000);
    config.max_value = 2_000;
    config.store = Some(ucache::engine::Store { path: path.clone(), delete_unusable: false });
    let disk =
        || std::fs::metadata(&path).map(|m| std::os::unix::fs::MetadataExt::blocks(&m) * 512).expect("stat");
    let mut engine = Engine::create(&config).expect("a store");
    let (empty, mut least) = (disk(), u64::MAX);
    let value = |n: u32, round: usize| vec![n as u8; 900 + (n as usize * 37 + round) % 1000];
    for round in 0..3 {
        for n in 0..20_000_u32 {
            engine.set(&n.to_le_bytes(), &value(n, round), &SET).expect("set");
        }
        let full = disk();
        assert!(full > empty + 25 * MIB, "{full} bytes on disk");
        for n in (0..20_000_u32).filter(|n| n % 10 != 0) {
            assert!(engine.delete(&n.to_le_bytes()).expect("delete"));
        }
        engine.sweep().expect("sweep");
        assert!(
            engine.stats().moved > 100 && engine.stats().compacted_bytes > 100_000,
            "{:?}",
            engine.stats()
        );
        let payload = engine.inspect(false, |_, _| ()).expect("inspect").bytes;
        least = disk().min(least);
        say(&format!("{empty} bytes when empty, {full} when full, {} for {payload}", disk()));
        assert!(disk() - empty <= payload * 8 / 5 + MIB, "{} bytes on disk for {payload}", disk());
        if round == 1 {
            drop(engine);
            engine = Engine::create(&config).expect("the store");
            assert!(disk() <= least + MIB, "opening took {} bytes", disk());
        }
        let found = engine.inspect(false, |_, _| ()).expect("inspect");
        assert_eq!((found.items, found.damaged, found.heap), (2_000, 0, 0), "{:?}", found.reasons);
    }
}

/// Whatever the limits: what nobody used takes no memory.
#[test]
fn an_empty_cache_is_small() {
    let _alone = alone();
    for eviction in [ucache::engine::Eviction::None, ucache::engine::Eviction::Lru] {
        let before = resident();
        let mut config = Config::new("empty", MANY * 2);
        config.max_value = 1 << 20;
        config.eviction = eviction;
        let engine = Engine::create(&config).expect("a cache");
        engine.sweep().expect("sweep");
        assert_eq!((engine.stats().items, engine.stats().bytes), (0, 0));
        let taken = resident() - before;
        say(&format!("{taken} bytes for no item in {} shards", engine.stats().shards));
        assert!(taken <= 300 << 10, "{taken} bytes in {} shards", engine.stats().shards);
    }
}

#[test]
fn a_large_value_evicts_little_more_than_its_bytes() {
    let _alone = alone();
    let mut config = Config::new("large", 30_000);
    config.eviction = ucache::engine::Eviction::Lru;
    config.max_value = 600_000;
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = dir.path().join("store");
    config.store = Some(ucache::engine::Store { path: path.clone(), delete_unusable: false });
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..20_000_u32 {
        engine.set(&n.to_le_bytes(), &vec![1; 100 + n as usize % 800], &SET).expect("set");
    }
    let full = std::fs::metadata(&path).expect("the store").len();
    let limit = |most| {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, most, full.max(most))
    };
    Child::fork(|| {
        limit(full).expect("a limit");
        for n in 0..20_u32 {
            let (before, start) = (engine.stats().evicted, Instant::now());
            let len = 200_000 + n as usize * 10_000;
            let stored = engine.set(format!("large {n}").as_bytes(), &vec![2; len], &SET);
            let evicted = engine.stats().evicted - before;
            say(&format!("{len} bytes: stored {}, {evicted} evicted, {:?}", stored.is_ok(), start.elapsed()));
            assert!(evicted * 500 <= 2 * len as u64 + 2 * 65_536, "{evicted} items for {len} bytes");
        }
    })
    .join();
}
