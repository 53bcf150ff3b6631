//! Thousands of clears: entries keep only the low bits of their generation, and an untouched entry
//! must not become valid again when those bits repeat.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use nix::sys::signal::{Signal, raise};
use ucache::{
    Error,
    engine::{Config, Engine, Expires, SetOptions, Store, Touch},
};

use crate::{
    engine_proc::{Child, HANG, alone, say},
    engine_value::{self, Hook},
};

const CLEARS: u64 = 10_000;
const KEYS: u32 = 100;
const UPDATE: SetOptions = SetOptions::set(Expires::Never);

fn filled(config: &Config) -> std::sync::Arc<Engine> {
    let engine = Engine::create(config).expect("a cache");
    assert!(engine.stats().shards > 3, "too few shards to tell: {}", engine.stats().shards);
    for n in 0..KEYS {
        engine.set(&n.to_le_bytes(), b"from before the clears", &UPDATE).expect("set");
    }
    engine
}

fn config() -> Config {
    Config { lock_timeout: Duration::from_millis(50), ..Config::new("many", 100_000) }
}

fn in_store(test: impl Fn(&Config)) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Some(Store { path: dir.path().join("store"), delete_unusable: false });
    test(&Config { store, ..config() });
}

/// Old values that can be read, and counts of walks that return any.
fn revived(engine: &Engine) -> Vec<u32> {
    (0..KEYS)
        .filter(|n| engine_value::get(engine, &n.to_le_bytes(), Touch::No).expect("get").is_some())
        .collect()
}

fn idle_shards(config: &Config) {
    let engine = filled(config);
    for clear in 1..=CLEARS {
        engine.clear().expect("clear");
        assert_eq!(revived(&engine), [0; 0], "after {clear} clears");
    }
    assert!(engine_value::all_items(&engine).is_empty());
    engine.sweep().expect("sweep");
    assert_eq!(engine.stats().items, 0);
}

#[test]
fn clears_with_idle_shards() {
    let _alone = alone();
    idle_shards(&config());
    in_store(idle_shards);
}

/// While the holder of a shard is stopped, clears may be refused before the generation bits repeat,
/// without any effect.
fn stopped_holder(config: &Config) {
    let engine = filled(config);
    let holder = Child::fork(|| {
        let mut stop = Hook(|| raise(Signal::SIGSTOP).expect("raise"));
        engine.get_counted(&7_u32.to_le_bytes(), &mut stop).expect("get_counted");
    });
    holder.wait_stopped();
    let (mut done, mut refused) = (0, 0);
    while refused < 10 && done < CLEARS {
        // Most likely a key outside the held shard; if not, the next one is.
        let key = (KEYS + (done % 40) as u32).to_le_bytes();
        let stored = engine.set(&key, b"new", &UPDATE).is_ok();
        match engine.clear() {
            Ok(()) => {
                done += 1;
                assert!(engine.exists(&key).is_none(), "clear {done} left what was stored right before");
            }
            Err(Error::Timeout { .. }) => {
                refused += 1;
                assert!(!stored || engine.exists(&key).is_some(), "a refused clear removes nothing");
            }
            Err(e) => panic!("after {done} clears: {e}"),
        }
        assert_eq!(revived(&engine), [0; 0], "after {done} clears, {refused} refused");
    }
    say(&format!("{done} clears beside a stopped holder, then {refused} refused"));
    assert!(done > 2500, "refused after {done} clears already");
    holder.signal(Signal::SIGCONT);
    holder.join();
    while done < CLEARS {
        engine.clear().expect("nobody holds a lock");
        done += 1;
        assert_eq!(revived(&engine), [0; 0], "after {done} clears");
    }
}

#[test]
fn clears_with_a_stopped_holder() {
    let _alone = alone();
    stopped_holder(&config());
    in_store(stopped_holder);
}

#[test]
fn three_threads_that_only_clear() {
    let _alone = alone();
    // On a busy machine a thread may wait long for a processor while it holds a lock.
    let engine = filled(&Config { lock_timeout: HANG, ..config() });
    engine.clear().expect("clear");
    let (clears, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let only_clear = || {
            while clears.load(SeqCst) < CLEARS * 60 {
                engine.clear().expect("clear");
                clears.fetch_add(1, SeqCst);
            }
        };
        let all = [(); 3].map(|()| scope.spawn(only_clear));
        let reader = scope.spawn(|| {
            while !over.load(SeqCst) {
                assert_eq!(revived(&engine), [0; 0], "after {} clears", clears.load(SeqCst));
            }
        });
        let ended = all.map(|one| one.join());
        over.store(true, SeqCst);
        reader.join().expect("no panic");
        ended.into_iter().for_each(|end| end.expect("no panic"));
    });
    assert_eq!(revived(&engine), [0; 0]);
}
