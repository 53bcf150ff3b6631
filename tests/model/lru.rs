//! Exact LRU: a list by last use, for caches too large for the naive model.

use std::collections::{BTreeMap, HashMap};

use fastrand::Rng;
use ucache::engine::{Config, Engine, Eviction, Expires, Math, SetOptions, Touch};

use crate::engine_value;

const UPDATE: SetOptions = SetOptions::set(Expires::Never);
const KEEP: SetOptions = SetOptions { keep_ttl: true, ..UPDATE };

#[derive(Debug, Default)]
struct Uses {
    clock: u64,
    last: HashMap<u32, u64>,
    order: BTreeMap<u64, u32>,
}

impl Uses {
    fn touch(&mut self, key: u32) {
        self.forget(key);
        self.clock += 1;
        self.last.insert(key, self.clock);
        self.order.insert(self.clock, key);
    }

    fn forget(&mut self, key: u32) {
        if let Some(time) = self.last.remove(&key) {
            self.order.remove(&time);
        }
    }

    fn oldest(&mut self) -> Option<u32> {
        let (_, key) = self.order.pop_first()?;
        self.last.remove(&key);
        Some(key)
    }
}

/// Random uses of about twice as many keys as the cache holds; after each store the victim must be
/// the oldest.
pub(crate) fn order_is_exact(capacity: u64, steps: usize, seed: u64) {
    let mut config = Config::new("lru", capacity);
    config.eviction = Eviction::Lru;
    let engine = Engine::create(&config).expect("a cache");
    assert_eq!(engine.stats().shards, 1, "exact order needs one shard");
    let mut rng = Rng::with_seed(seed);
    let mut uses = Uses::default();
    let universe = u32::try_from(capacity * 2 + 3).expect("a small cache");
    for step in 0..steps {
        let key = rng.u32(0..universe);
        use_key(&engine, &mut uses, key, rng.u8(0..10), step);
        assert_eq!(engine.stats().items, u64::try_from(uses.last.len()).expect("a length"), "step {step}");
    }
    drain(&engine, &mut uses, universe);
}

fn use_key(engine: &Engine, uses: &mut Uses, key: u32, how: u8, step: usize) {
    let bytes = key.to_le_bytes();
    let known = uses.last.contains_key(&key);
    match how {
        0..=2 => {
            let hit = engine_value::get(engine, &bytes, Touch::Yes).expect("get").is_some();
            assert_eq!(hit, known, "step {step}: get of {key}");
            if known {
                uses.touch(key);
            }
        }
        3 => {
            let hit = engine_value::get(engine, &bytes, Touch::No).expect("get").is_some();
            assert_eq!(hit, known, "step {step}: peek at {key}");
            assert_eq!(engine.exists(&bytes).is_some(), known, "step {step}: exists of {key}");
        }
        4 if known => {
            engine.set(&bytes, b"kept age", &KEEP).expect("set");
            engine.math(&bytes, Math::Inc, 1, &KEEP).expect("math");
        }
        5 => {
            assert_eq!(engine.delete(&bytes).expect("delete"), known, "step {step}: delete of {key}");
            uses.forget(key);
        }
        _ => store(engine, uses, key, step),
    }
}

fn store(engine: &Engine, uses: &mut Uses, key: u32, step: usize) {
    let full = u64::try_from(uses.last.len()).expect("a length") == engine.config().capacity;
    let victim = if full && !uses.last.contains_key(&key) { uses.oldest() } else { None };
    engine.set(&key.to_le_bytes(), &u64::from(key).to_le_bytes(), &UPDATE).expect("set");
    uses.touch(key);
    if let Some(victim) = victim {
        let gone = engine.exists(&victim.to_le_bytes()).is_none();
        assert!(gone, "step {step}: {victim} is the least recently used, but still there");
    }
}

/// Evicts everything by storing new keys, in the order of their last use.
fn drain(engine: &Engine, uses: &mut Uses, universe: u32) {
    let capacity = u32::try_from(engine.config().capacity).expect("a small cache");
    for n in 0..capacity {
        store(engine, uses, universe + n, usize::MAX);
    }
    for n in 0..capacity {
        let key = (universe + n).to_le_bytes();
        assert!(engine.exists(&key).is_some(), "new key {n} is gone");
    }
}
