//! What an item really costs: resident shared memory of caches with items of several sizes, of
//! empty caches, and what is left when the items are gone. `cargo bench --bench resident`;
//! `make bench PART=memory` has uWSGI's beside it.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

mod support;

use std::fs;

use support::{UPDATE, key};
use ucache::engine::{Config, Engine};

/// Bytes of a key (at least 16), bytes of a value, items.
const SHAPES: [(usize, usize, u32); 3] = [(16, 100, 1_000_000), (16, 1000, 300_000), (30, 64, 1_000_000)];

/// Resident shared memory of this process, bytes.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find(|line| line.starts_with("RssShmem:")).expect("a Linux since 4.5");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of kB");
    kib * 1024.0
}

/// The key of a number, with this many bytes.
fn long_key(n: u32, length: usize) -> Vec<u8> {
    let mut bytes = key(n).to_vec();
    bytes.resize(length, b'p');
    bytes
}

fn measure(limits: &str, max_value: u64, (key, value, items): (usize, usize, u32)) {
    let name = format!("{key} + {value} bytes, {limits}");
    let payload = f64::from(u32::try_from(key + value).expect("small"));
    let before = resident();
    let mut config = Config::new("resident", u64::from(items));
    config.max_value = max_value;
    let engine = Engine::create(&config).expect("a cache");
    let mib = || (resident() - before) / f64::from(1 << 20);
    let empty = mib();
    for n in 0..items {
        engine.set(&long_key(n, key), &vec![b'r'; value], &UPDATE).expect("set");
    }
    let each = (resident() - before) / f64::from(items);
    println!(
        "{name}: {each:.1} bytes an item, {:.2} x payload (goal 1.4); empty cache {empty:.2} MiB; reserved {} MiB",
        each / payload,
        engine.stats().reserved >> 20
    );
    for n in 0..items {
        assert!(engine.delete(&long_key(n, key)).expect("delete"));
    }
    println!("{name}: after deleting everything {:.2} MiB", mib());
    engine.clear().expect("clear");
    engine.sweep().expect("sweep");
    println!("{name}: after clear and sweep {:.2} MiB", mib());
}

fn main() {
    for shape in SHAPES {
        let tight = u64::try_from(shape.1).expect("small");
        measure("tight limits", tight, shape);
        measure("default limits", 65_535, shape);
    }
}
