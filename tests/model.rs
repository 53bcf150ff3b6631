//! The engine behaves like a naive cache: every answer, byte and counter, for any order of calls.

#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "model"]
mod model {
    pub(crate) mod lru;
    pub(crate) mod naive;
    pub(crate) mod ops;
    pub(crate) mod run;
}

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use proptest::{prelude::*, test_runner::Config as Cases};
use ucache::engine::{Blocks, Config, Engine, Eviction, Expires, SetOptions};

fn cases(default: u32) -> Cases {
    let cases = std::env::var("UCACHE_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    Cases { cases, failure_persistence: None, max_shrink_time: 60_000, ..Cases::default() }
}

proptest! {
    #![proptest_config(cases(1500))]

    /// A failed comparison names the first differing step; the script shown is the shortest found.
    #[test]
    fn answers_are_those_of_a_naive_cache((config, ops) in model::ops::script()) {
        let run = AssertUnwindSafe(|| model::run::Run::new(&config).all(&ops));
        if let Err(panic) = catch_unwind(run) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            prop_assert!(false, "{}", text.unwrap_or_default());
        }
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn lru_order_is_exact(capacity in 1..4097_u64, seed in any::<u64>()) {
        model::lru::order_is_exact(capacity, 6000, seed);
    }
}

#[test]
fn lru_order_is_exact_at_the_bounds() {
    for capacity in [1, 2, 3, 7, 8, 9, 63, 64, 65, 4095, 4096] {
        model::lru::order_is_exact(capacity, 20_000, capacity);
    }
}

const ADD: SetOptions = SetOptions::add(Expires::Never);

const UPDATE: SetOptions = SetOptions::set(Expires::Never);

/// Fills to the last item, with any number of shards: one more is refused, and a deletion makes
/// space for exactly one.
#[test]
fn large_caches_hold_exactly_their_capacity() {
    for capacity in [4097_u32, 5000, 20_011, 100_000] {
        let engine = Engine::create(&Config::new("large", u64::from(capacity))).expect("a cache");
        for round in 0..3 {
            for n in 0..capacity {
                engine.set(&(n + round).to_le_bytes(), &n.to_le_bytes(), &ADD).unwrap_or_else(|error| {
                    panic!("item {n} of {capacity}, round {round}: {error}");
                });
            }
            assert_eq!(engine.stats().items, u64::from(capacity));
            let more = engine.set(b"one more", b"x", &ADD);
            assert!(
                matches!(more, Err(ucache::Error::Full { limit }) if limit == u64::from(capacity)),
                "{more:?}"
            );
            assert!(engine.delete(&round.to_le_bytes()).expect("delete"), "key {round}");
            engine.set(b"one more", b"x", &ADD).expect("the place of the deleted item");
            assert!(engine.delete(b"one more").expect("delete"));
            for n in 1..capacity {
                assert!(engine.delete(&(n + round).to_le_bytes()).expect("delete"), "key {}", n + round);
            }
            assert_eq!(engine.stats().items, 0, "round {round}");
        }
    }
}

/// The order of sampled eviction is limited by the kernel's tick, which may stop for a while when
/// the machine is idle.
fn a_tick_passes() {
    let tick = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).expect("the clock");
    let before = tick();
    while tick() == before {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sampled eviction: never more than the capacity, never fewer after the first filling, and
/// recently used items stay.
#[test]
fn large_lru_caches_evict_one_for_one() {
    let capacity = 20_000_u32;
    let mut config = Config::new("sampled", u64::from(capacity));
    config.eviction = Eviction::Lru;
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..capacity {
        engine.set(&n.to_le_bytes(), b"old", &ADD).expect("set");
    }
    a_tick_passes();
    let hot: Vec<u32> = (0..100).map(|n| n * 199).collect();
    for key in &hot {
        engine_value::get(&engine, &key.to_le_bytes(), ucache::engine::Touch::Yes).expect("get");
    }
    for n in 0..capacity / 2 {
        engine.set(&(capacity + n).to_le_bytes(), b"new", &ADD).expect("an old item makes room");
        assert_eq!(engine.stats().items, u64::from(capacity), "after {n} evictions");
    }
    assert_eq!(engine.stats().evicted, u64::from(capacity / 2));
    let kept = hot.iter().filter(|key| engine.exists(&key.to_le_bytes()).is_some()).count();
    // 99.8 on average, rarely 95; random victims would leave 60.
    assert!(kept >= 90, "{kept} of 100 items that were used lately were kept");
    let new = (0..capacity / 2).filter(|n| engine.exists(&(capacity + n).to_le_bytes()).is_some()).count();
    assert!(new > 9900, "{new} of the 10,000 newest items are there");
}

/// One large value evicts just enough small ones for the blocks it needs.
#[test]
fn one_value_may_push_out_many() {
    let mut config = Config::new("push", 4000);
    config.eviction = Eviction::Lru;
    config.blocks = Some(Blocks { size: 1, count: 4000 });
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..4000_u32 {
        engine.set(&n.to_le_bytes(), b"x", &ADD).expect("set");
    }
    assert_eq!(engine.set(b"large", &[1; 1000], &ADD).expect("set"), ucache::engine::Stored::Inserted);
    let stats = engine.stats();
    assert_eq!((stats.items, stats.blocks_used, stats.evicted), (3001, 4000, 1000));
    assert!((0..1000_u32).all(|n| engine.exists(&n.to_le_bytes()).is_none()), "the oldest go");
}

/// Values of every size in turn: memory freed by small ones is used for large ones, and vice versa.
#[test]
fn every_size_finds_space_in_turn() {
    for (eviction, blocks) in
        [(Eviction::Lru, None), (Eviction::Lru, Some(Blocks { size: 1000, count: 164 }))]
    {
        let mut config = Config::new("sizes", 82);
        config.eviction = eviction;
        config.max_value = 20_000;
        config.blocks = blocks;
        let engine = Engine::create(&config).expect("a cache");
        let mut rng = fastrand::Rng::with_seed(3);
        for n in 0..60_000_u32 {
            let len = 1 + usize::try_from(n % 20_000).expect("small");
            let len = if n % 3 == 0 { len } else { rng.usize(1..=len) };
            let done = engine.set(&(n % 120).to_le_bytes(), &vec![7; len], &UPDATE);
            assert!(done.is_ok(), "store {n}, of {len} bytes: {done:?}");
        }
        assert_eq!(engine.stats().no_space, 0);
    }
}

/// No item survives a clear, however many clears come before the next access.
#[test]
fn no_number_of_clears_brings_an_item_back() {
    let engine = Engine::create(&Config::new("clears", 20_000)).expect("a cache");
    for round in 0..3 {
        for n in 0..300_u32 {
            engine.set(&n.to_le_bytes(), b"old", &ADD).expect("set");
        }
        for clear in 1..=9000_u32 {
            engine.clear().expect("clear");
            if clear.is_multiple_of(512) || clear == 1 {
                let alive = (0..300_u32).filter(|n| engine.exists(&n.to_le_bytes()).is_some()).count();
                assert_eq!((alive, engine.stats().items), (0, 0), "round {round}: after {clear} clears");
            }
        }
    }
}

/// A TTL that ends while the program watches: readable before, a miss from that second on, without
/// any sweep.
#[test]
fn expiry_is_exact_without_a_sweeper() {
    let engine = Engine::create(&Config::new("ttl", 8)).expect("a cache");
    let end = unix_now() + 2;
    let options = SetOptions { expires: Expires::At(end), ..ADD };
    engine.set(b"short", b"lived", &options).expect("set");
    let mut reads = 0;
    loop {
        let before = unix_now();
        let hit = engine_value::get(&engine, b"short", ucache::engine::Touch::No).expect("get").is_some();
        let after = unix_now();
        if after < end {
            assert!(hit, "gone at {after}, expires at {end}");
            reads += 1;
        }
        if before >= end {
            assert!(!hit, "read at {before}, expired at {end}");
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(reads > 0, "no read before the expiry");
    assert_eq!(engine.set(b"short", b"again", &ADD).expect("set"), ucache::engine::Stored::Inserted);
}

/// Unix time, seconds.
pub(crate) fn unix_now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}
