//! What a cache takes for what it holds: resident memory and disk over payload, for several histories, numbers of
//! shards, in memory and in a store; and whether they are within 1.6 times the payload and 1 MB.
//! `cargo bench --bench footprint`; an argument runs the histories with such a name.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

#[path = "support/mixes.rs"]
mod mixes;

use std::{os::unix::fs::MetadataExt, time::Instant};

use mixes::{History, resident};

fn main() {
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-')).unwrap_or_default();
    println!(
        "{:10} {:>7} {:>6} {:6} {:>10} {:>6} {:>6} {:>6} {:>5} {:>5} {:>7} {:>7} {:>7}",
        "history",
        "items",
        "shards",
        "kind",
        "payload",
        "res/p",
        "heap/p",
        "disk/p",
        "res",
        "disk",
        "refused",
        "evicted",
        "sweep"
    );
    for history in History::ALL.into_iter().filter(|history| format!("{history:?}").contains(&only)) {
        for items in [4_000, 8_192, 131_072] {
            for stored in [false, true] {
                measure(history, items, stored);
            }
        }
    }
    if only.is_empty() {
        measure(History::Fixed, 1_000_000, false);
        measure(History::Wandering, 400_000, false);
    }
    large_value();
}

fn measure(history: History, items: u32, stored: bool) {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = dir.path().join("store");
    let before = resident();
    let engine = mixes::cache(history, items, stored.then_some(path.as_path()));
    let refused = mixes::run(history, &engine, items, &mut fastrand::Rng::with_seed(7));
    let start = Instant::now();
    engine.sweep().expect("sweep");
    let swept = start.elapsed();
    let taken = resident() - before;
    let disk = std::fs::metadata(&path).map_or(0, |m| m.blocks() * 512);
    let payload = engine.inspect(false, |_, _| ()).expect("inspect").bytes;
    let stats = engine.stats();
    println!(
        "{:10} {items:>7} {:>6} {:6} {:>10} {:>6.2} {:>6.2} {:>6.2} {:>5} {:>5} {:>7} {:>7} {:>5}ms",
        format!("{history:?}"),
        stats.shards,
        if stored { "store" } else { "memory" },
        payload,
        taken as f64 / payload as f64,
        stats.bytes as f64 / payload as f64,
        disk as f64 / payload as f64,
        within(taken, payload),
        within(disk, payload),
        refused,
        stats.evicted,
        swept.as_millis()
    );
}

/// Whether so many bytes are within the bound of any history.
fn within(bytes: u64, payload: u64) -> &'static str {
    if bytes * 10 <= payload * 16 + 10_000_000 { "ok" } else { "over" }
}

/// One value of 200 KB in a full store that evicts.
fn large_value() {
    use ucache::engine::{Config, Engine, Eviction, Expires, SetOptions, Store};
    const SET: SetOptions = SetOptions::set(Expires::Never);
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let mut config = Config::new("large", 30_000);
    config.eviction = Eviction::Lru;
    config.max_value = 600_000;
    config.store = Some(Store { path: dir.path().join("store"), delete_unusable: false });
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..30_000_u32 {
        engine.set(&n.to_le_bytes(), &vec![b's'; 100 + n as usize % 800], &SET).expect("set");
    }
    let full = std::fs::metadata(dir.path().join("store")).expect("the store").len();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, full, full).expect("a limit");
    for len in [200_000, 500_000] {
        let (before, start) = (engine.stats().evicted, Instant::now());
        let done = engine.set(b"large", &vec![b'l'; len], &SET);
        println!(
            "a value of {len} bytes: {:?}, {} of 30,000 items evicted, {} us",
            done.map_err(|e| e.to_string()),
            engine.stats().evicted - before,
            start.elapsed().as_micros()
        );
    }
}
