//! The histories, done to a cache of the engine in this process.
#![allow(dead_code, reason = "the bench and the test use their own part")]

#[path = "histories.rs"]
mod histories;

use std::{fs, path::Path, sync::Arc};

use fastrand::Rng;
pub(crate) use histories::History;
use ucache::engine::{Config, Engine, Eviction, Expires, SetOptions, Store};

const SET: SetOptions = SetOptions::set(Expires::Never);

/// A cache for a history, in a store at `path` or in memory.
pub(crate) fn cache(history: History, items: u32, path: Option<&Path>) -> Arc<Engine> {
    let mut config = Config::new("mix", u64::from(items));
    config.max_key = 64;
    config.max_value = history.largest().into();
    config.store = path.map(|path| Store { path: path.to_owned(), delete_unusable: false });
    if items <= 4096 {
        config.eviction = Eviction::Lru;
    }
    Engine::create(&config).expect("a cache")
}

/// Does a history to it; returns how many writes were refused.
pub(crate) fn run(history: History, engine: &Engine, items: u32, rng: &mut Rng) -> u64 {
    let mut refused = 0;
    history.each(items, rng, |n, length| match length {
        Some(length) => {
            let value = vec![b'v'; length as usize];
            refused += u64::from(engine.set(&histories::key(n), &value, &SET).is_err());
        }
        None => _ = engine.delete(&histories::key(n)).expect("delete"),
    });
    refused
}

/// Resident shared memory of this process, bytes.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find(|line| line.starts_with("RssShmem:")).expect("a Linux since 4.5");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number of kB") * 1024
}
