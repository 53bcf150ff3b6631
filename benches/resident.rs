//! What an item really costs: resident shared memory of a cache with a million items of 16 + 100 bytes, and what is
//! left of it when they are gone. `cargo bench --bench resident`.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

mod support;

use std::fs;

use support::{UPDATE, VALUE, key};
use ucache::engine::{Config, Engine};

const ITEMS: u32 = 1_000_000;

/// Resident shared memory of this process, bytes.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find(|line| line.starts_with("RssShmem:")).expect("a Linux since 4.5");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of kB");
    kib * 1024.0
}

fn main() {
    let payload = f64::from(u32::try_from(16 + VALUE).expect("small"));
    for (name, blocksize) in [("tight limits", 256), ("default limits", 65_535)] {
        let before = resident();
        let mut config = Config::new("resident", u64::from(ITEMS));
        config.max_value = blocksize;
        let engine = Engine::create(&config).expect("a cache");
        let empty = resident() - before;
        for n in 0..ITEMS {
            engine.set(&key(n), &[b'r'; VALUE], &UPDATE).expect("set");
        }
        let each = (resident() - before) / f64::from(ITEMS);
        println!(
            "{name}: {each:.1} bytes an item, {:.2} x payload (goal 1.4); empty cache {:.0} KiB; reserved {} MiB",
            each / payload,
            empty / 1024.0,
            engine.stats().reserved >> 20
        );
        engine.clear().expect("clear");
        engine.sweep().expect("sweep");
        println!("{name}: after clear and sweep {:.1} MiB", (resident() - before) / f64::from(1 << 20));
    }
}
