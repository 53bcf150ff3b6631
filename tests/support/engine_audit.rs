//! Compares the cache with the expected content after the load: nothing lost, nothing extra,
//! nothing leaked.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::sync::atomic::Ordering::SeqCst;

use ucache::{
    Error,
    engine::{Engine, Eviction, Item, Touch},
};

use crate::{
    engine_proc::say,
    engine_rig::{ADD, COUNTERS, Load, Rig, Tally, owned_keys, present, seq_of},
    engine_value,
    patience::within,
};

/// Memory that a used cache may keep beyond a fresh one: one or two spans.
const SLACK_BYTES: u64 = 128 << 10;

/// Fills the empty cache with short values and empties it again; returns the bytes in use while it
/// was full.
pub(crate) fn fill_and_clear(engine: &Engine, load: &Load) -> u64 {
    let capacity = load.config.capacity;
    for n in 0..capacity {
        let done = engine.set(format!("fill {n}").as_bytes(), &[b'f'; 100], &ADD);
        assert!(done.is_ok(), "{}: item {n} of {capacity} does not fit: {done:?}", load.name);
    }
    if load.config.eviction == Eviction::None {
        let more = engine.set(b"one more", b"x", &ADD);
        assert!(
            matches!(more, Err(Error::Full { .. } | Error::OutOfBlocks { .. })),
            "one too many: {more:?}"
        );
    }
    let stats = engine.stats();
    assert_eq!(stats.items, capacity, "{}: items when full", load.name);
    engine.clear().expect("clear");
    engine.sweep().expect("sweep");
    assert_eq!(engine.stats().items, 0, "{}: items after a clear", load.name);
    assert_eq!(engine.stats().blocks_used, 0, "{}: blocks after a clear", load.name);
    stats.bytes
}

/// Runs all checks, those that disturb the cache least first. `kills` relaxes the checks that a
/// death can affect.
pub(crate) fn audit(rig: &Rig, kills: bool) {
    rig.assert_clean();
    owned(rig);
    if !rig.load.may_miss {
        counters(rig, kills);
    }
    let items = settled(rig);
    if let Some(blocks) = rig.load.config.blocks {
        let used: u64 = items.iter().map(|item| item.value_len.div_ceil(blocks.size)).sum();
        assert_eq!(rig.engine.stats().blocks_used, used, "{}: blocks in use", rig.load.name);
    }
    for item in &items {
        assert!(
            rig.engine.delete(&item.key).expect("delete"),
            "{}: {item:?} cannot be deleted",
            rig.load.name
        );
    }
    let stats = rig.engine.stats();
    assert_eq!((stats.items, stats.blocks_used), (0, 0), "{}: after deleting everything", rig.load.name);
    // Shards keep an empty span of each size for their next store until a sweep frees it.
    rig.engine.sweep().expect("sweep");
    assert_eq!(rig.engine.stats().bytes, 0, "{}: memory in use without items", rig.load.name);
    let bytes = fill_and_clear(&rig.engine, &rig.load);
    say(&format!("{} bytes {} fresh {}", rig.report(), bytes, rig.full_bytes));
    assert!(bytes <= rig.full_bytes + SLACK_BYTES, "{}: memory has leaked: {bytes}", rig.load.name);
}

/// Waits until abandoned placeholders expire: then a walk meets exactly the items counted.
fn settled(rig: &Rig) -> Vec<Item> {
    let mut items = Vec::new();
    within("a walk to meet as many items as are counted", || {
        rig.engine.sweep().expect("sweep");
        items = engine_value::all_items(&rig.engine);
        u64::try_from(items.len()).ok() == Some(rig.engine.stats().items)
    });
    items
}

fn owned(rig: &Rig) {
    let mut bytes = Vec::new();
    for key in 0..owned_keys(rig.load.workers) {
        engine_value::key_bytes(key, &mut bytes);
        let (intent, acked) = rig.words(key);
        let (intent, acked) = (intent.load(SeqCst), acked.load(SeqCst));
        let found = engine_value::get(&rig.engine, &bytes, Touch::No).expect("get");
        let seq =
            found.map(|(_, value)| engine_value::read(key, &value).expect("a whole value of its key").seq);
        let fits = |state| match seq {
            None => !present(state) || rig.load.may_miss,
            Some(seq) => present(state) && seq == seq_of(state),
        };
        let name = rig.load.name;
        assert!(
            fits(acked) || fits(intent),
            "{name}: key {key} has {seq:?}: {acked:#x} done, {intent:#x} begun"
        );
    }
}

fn counters(rig: &Rig, kills: bool) {
    let read = |key: &[u8]| {
        let found = engine_value::get(&rig.engine, key, Touch::No).expect("get");
        found.map_or(0, |(_, value)| u64::from_le_bytes(value.try_into().expect("a number")))
    };
    let total: u64 = (0..COUNTERS).map(|n| read(&rig.counter_key(n))).sum();
    let (left, right) = (read(b"left"), read(b"right"));
    let pairs =
        [(total, Tally::Increments, Tally::IncrementsBegun), (left, Tally::Exclusive, Tally::ExclusiveBegun)];
    for (value, done, begun) in pairs {
        let (done_count, begun_count) = (rig.sum(done), rig.sum(begun));
        let name = rig.load.name;
        assert!(
            (done_count..=begun_count).contains(&value),
            "{name}: {done:?}: {value}, done {done_count}, begun {begun_count}"
        );
        assert!(kills || done_count == begun_count, "{name}: {done:?}: {done_count} of {begun_count} begun");
    }
    assert!(
        left == right || (kills && left == right + 1),
        "{}: exclusive: {left} and {right}",
        rig.load.name
    );
}
