//! Soak test of the footprint: values whose sizes wander for as long as wanted, while a few items of each size stay. What
//! the cache takes follows what it holds, and does not grow with time.
//!
//! `UCACHE_SOAK_MINUTES=60` sets the duration (`make soak LOAD=sizes MINUTES=60`), `UCACHE_SEED` repeats a run.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/patience.rs"]
mod patience;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use engine_proc::{Child, alone, say, seed};
use fastrand::Rng;
use ucache::engine::{Config, Engine, Eviction, Expires, SetOptions, Store};

const SET: SetOptions = SetOptions::set(Expires::Never);
/// Bytes of keys and values that a cache holds at a time, about.
const PAYLOAD: f64 = 2e6;
const KEY: usize = 16;
/// Items that it has room for.
const LIMIT: u64 = 32_768;
/// Bytes of the index for each of them, at most.
const INDEX: u64 = 16;
/// Free bytes with blocks on disk that a store keeps.
const SPARE: u64 = 256 << 10;
/// Bytes of values in the middle, at least and at most.
const SIZES: (f64, f64) = (100.0, 4_000.0);
/// Rounds in which sizes rise from the least to the greatest and fall again.
const CYCLE: u32 = 12;
/// Cycles at least: some for each part of the run that is compared.
const CYCLES: u32 = 6;
/// Of so many items one stays as it is for four cycles.
const SURVIVOR: u32 = 100;
const WRITERS: u32 = 2;

/// Bytes of a value in the middle, in a round.
fn middle(round: u32) -> f64 {
    let at = f64::from(round % CYCLE) / f64::from(CYCLE / 2);
    let risen = if at <= 1.0 { at } else { 2.0 - at };
    SIZES.0 * (SIZES.1 / SIZES.0).powf(risen)
}

/// Items of values of so many bytes that a cache holds.
fn items(size: f64) -> u32 {
    (PAYLOAD / (size + KEY as f64)) as u32
}

/// What a writer does in a round: its keys get values of this round's sizes, and those that are too many go.
fn write(engine: &Engine, writer: u32, round: u32, rng: &mut Rng) {
    let (size, begun) = (middle(round), round / CYCLE);
    let stays = |n: u32| n.is_multiple_of(SURVIVOR) && !(begun + n / SURVIVOR).is_multiple_of(4);
    let mut keys: Vec<_> = (0..items(SIZES.0)).filter(|n| n % WRITERS == writer).collect();
    rng.shuffle(&mut keys);
    for n in keys {
        let key = format!("{n:0KEY$}");
        if stays(n) && engine.exists(key.as_bytes()).is_some() {
            continue;
        }
        if n < items(size) {
            let value = vec![b'v'; (size * (0.5 + rng.f64())) as usize];
            engine.set(key.as_bytes(), &value, &SET).expect("set");
        } else {
            engine.delete(key.as_bytes()).expect("delete");
        }
    }
}

/// A cache, and what it took of its payload, at most, in each cycle.
struct Watched {
    name: &'static str,
    engine: Arc<Engine>,
    /// Bytes on disk before the first item.
    empty: u64,
    most: Vec<f64>,
}

impl Watched {
    fn new(name: &'static str, eviction: Eviction, store: Option<Store>) -> Self {
        let mut config = Config::new("sizes", LIMIT);
        config.max_value = 8_192;
        // A busy machine may stop a writer for a while.
        config.lock_timeout = engine_proc::HANG;
        (config.eviction, config.store) = (eviction, store);
        let engine = Engine::create(&config).expect("a cache");
        Self { name, empty: engine.memory().disk, engine, most: Vec::new() }
    }

    /// A round of all writers at once, then quiet and one sweep.
    fn round(&mut self, round: u32, rng: &mut Rng) {
        let children: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let mut rng = rng.fork();
                Child::fork(|| write(&self.engine, writer, round, &mut rng))
            })
            .collect();
        children.into_iter().for_each(Child::join);
        self.engine.sweep().expect("sweep");
        let m = self.engine.memory();
        // Of a store's file the kernel decides what is in memory.
        let taken = if m.disk == 0 { m.resident } else { m.disk };
        let allowed = m.payload * 8 / 5 + (1 << 20);
        assert!(taken <= allowed, "{}, round {round}: {taken} bytes, {allowed} allowed: {m:?}", self.name);
        let used = m.extents + m.large_blocks + m.leaving + m.idle;
        let tables = self.empty + LIMIT * INDEX + (used + m.holes) / 256;
        let most = used + tables + SPARE;
        assert!(
            m.disk <= most,
            "{}, round {round}: {} bytes on disk, {most} allowed: {m:?}",
            self.name,
            m.disk
        );
        if round.is_multiple_of(CYCLE) {
            self.most.push(0.0);
        }
        let most = self.most.last_mut().expect("a cycle");
        *most = most.max(taken as f64 / m.payload as f64);
    }

    /// Compares what was taken in the last third of the run with the third before.
    fn judge(&self) {
        let third = self.most.len() / 3;
        let most = |cycles: &[f64]| cycles.iter().copied().fold(0.0, f64::max);
        let (middle, last) = (most(&self.most[third..2 * third]), most(&self.most[2 * third..]));
        let moved = self.engine.stats().moved;
        say(&format!(
            "{}: {} cycles, {moved} entries moved; at most {middle:.2} times the payload, then {last:.2}",
            self.name,
            self.most.len()
        ));
        assert!(last <= middle * 1.1, "{}: the footprint grows: {:.2?}", self.name, self.most);
        let found = self.engine.inspect(false, |_, _| ()).expect("inspect");
        assert_eq!((found.damaged, found.loose, found.heap), (0, 0, 0), "{:?}", found.reasons);
        assert_eq!(self.engine.stats().evicted, 0, "{}: evicted in vain", self.name);
    }
}

#[test]
fn the_footprint_stays_flat() {
    let _alone = alone();
    let minutes = std::env::var("UCACHE_SOAK_MINUTES")
        .map_or(0.1, |text| text.parse().expect("UCACHE_SOAK_MINUTES: a number"));
    let (time, start) = (Duration::from_secs_f64(minutes * 60.0), Instant::now());
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let mut rng = Rng::with_seed(seed());
    let store = Store { path: dir.path().join("store"), delete_unusable: false };
    let mut caches = [
        Watched::new("memory", Eviction::None, None),
        Watched::new("memory, S3-FIFO", Eviction::S3Fifo, None),
        Watched::new("store", Eviction::None, Some(store)),
    ];
    let mut round = 0;
    while round < CYCLES * CYCLE || start.elapsed() < time || !round.is_multiple_of(CYCLE) {
        caches.iter_mut().for_each(|cache| cache.round(round, &mut rng));
        round += 1;
    }
    caches.iter().for_each(Watched::judge);
}
