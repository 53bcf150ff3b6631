//! The state that survivors of a death must find: at once, after the repair, and when they use the
//! cache up.

use std::{
    cell::Cell,
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ucache::{
    Error,
    engine::{Blocks, Engine, Eviction, Fill, Item, Touch},
};

use super::cases::{ADD, Case, Held, Others, X, key, other_len};
use crate::engine_value::{self, Bytes};

/// Runs all checks; `dead` = locks that the dead process held.
pub(crate) fn audit(case: &Case, engine: &Engine, dead: u32, at: &str) {
    let what = format!("{}: {at}", case.name);
    let before = engine.stats();
    // Readers do not repair.
    let first = answers(case, engine, &what);
    engine.sweep().unwrap_or_else(|error| panic!("{what}: the repair: {error}"));
    let again = answers(case, engine, &what);
    assert_eq!(first, again, "{what}: the repair changed what readers get");
    let stats = engine.stats();
    assert_eq!(stats.dropped_corrupt, before.dropped_corrupt, "{what}: entries dropped");
    if case.lease && first.0 == Held::Nothing {
        nobody_fills(engine, &what);
    }
    if case.refresh {
        nobody_refreshes(engine, &what);
    }
    let items = walked(engine, &what);
    clean(engine, &what);
    emptied(engine, &items, &what);
    if let Some(blocks) = engine.config().blocks {
        all_blocks(engine, blocks, &what);
    }
    filled(engine, &what);
    engine.clear().and_then(|()| engine.sweep()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(engine.stats().items, 0, "{what}: after a clear");
    // Whichever lock it was, it has been used by now.
    engine.exclusive_begin().unwrap_or_else(|error| panic!("{what}: {error}"));
    engine.exclusive_end();
    let noticed = engine.stats().owner_dead - before.owner_dead;
    assert!(noticed >= u64::from(dead), "{what}: {dead} locks of a dead owner, {noticed} noticed");
}

/// Blocks, bins, extents and spans are in order, and no two entries share a byte.
fn clean(engine: &Engine, what: &str) {
    let found = engine.inspect(false, |_, _| ()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((found.damaged, found.loose, found.heap), (0, 0, 0), "{what}: {:?}", found.reasons);
}

/// The value of X, its expiry, and the other keys found; every value is whole and belongs to its
/// key.
fn answers(case: &Case, engine: &Engine, what: &str) -> (Held, u64, BTreeSet<u32>) {
    let until = Cell::new(0);
    let get = |number| {
        let (meta, value) = engine_value::get(engine, &key(number), Touch::No).expect("get")?;
        until.set(meta.expires_secs());
        Some(value)
    };
    let stamp = |number, value: &[u8]| {
        engine_value::read(number, value).unwrap_or_else(|fault| panic!("{what}: key {number}: {fault:?}"))
    };
    let number = matches!(case.before, Held::Number(_)) || matches!(case.after, Held::Number(_));
    let plain = matches!(case.before, Held::Bytes(..));
    let x = match get(X) {
        None => Held::Nothing,
        Some(bytes) if number => {
            Held::Number(i64::from_ne_bytes(bytes.try_into().unwrap_or_else(|b| panic!("{what}: {b:?}"))))
        }
        Some(bytes) if plain => {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{what}: X holds {bytes:?}");
            Held::Bytes(bytes[0], bytes.len())
        }
        Some(bytes) => Held::Value(stamp(X, &bytes).seq, bytes.len()),
    };
    // A cache that clears itself when full is empty in between.
    assert!(
        x == case.before || x == case.after || (case.others == Others::Cleared && x == Held::Nothing),
        "{what}: X holds {x:?}"
    );
    assert_eq!(engine.exists(&key(X)).is_some(), x != Held::Nothing, "{what}: exists and get of X");
    let x_until = until.get();
    // All expiries here are an hour away, or never.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(x_until == 0 || (now..=now + 3600).contains(&x_until), "{what}: X ends at {x_until}, now {now}");
    let mut there = BTreeSet::new();
    for number in 1..=case.items {
        let Some(bytes) = get(number) else { continue };
        assert_eq!(until.get(), 0, "{what}: key {number} has an expiry");
        assert_eq!((stamp(number, &bytes).seq, bytes.len()), (1, other_len(number)), "{what}: key {number}");
        there.insert(number);
    }
    let gone = case.items - u32::try_from(there.len()).expect("few");
    let fine = match case.others {
        Others::Stay => gone == 0,
        // In order: the oldest are gone, and no more of them than necessary.
        Others::Evicted(most) => gone <= most && (gone + 1..=case.items).all(|n| there.contains(&n)),
        Others::Sampled(most) => gone <= most,
        Others::Cleared => gone == 0 || gone == case.items,
    };
    assert!(fine, "{what}: of {} others these are there: {there:?}", case.items);
    (x, x_until, there)
}

/// The filler is dead: the next caller becomes the filler, without waiting.
fn nobody_fills(engine: &Engine, what: &str) {
    let begun = engine.begin_fill(&key(X), Duration::from_secs(3600), Duration::ZERO, &mut Bytes::default());
    let Ok(Fill::Filler(token)) = begun else { panic!("{what}: a dead filler's lease lives on: {begun:?}") };
    engine.abandon_fill(&key(X), token).expect("abandon_fill");
}

/// The refreshing process is dead: the next caller refreshes, without waiting.
fn nobody_refreshes(engine: &Engine, what: &str) {
    let begun = engine.begin_refresh(&key(X), Duration::from_secs(3600)).expect("begin_refresh");
    let Some(token) = begun else { panic!("{what}: the right of a dead process to refresh lives on") };
    let second = engine.begin_refresh(&key(X), Duration::from_secs(3600)).expect("begin_refresh");
    assert!(second.is_none(), "{what}: two refresh at once");
    engine.end_refresh(&key(X), token).expect("end_refresh");
}

/// The items of a walk: as many as are counted, each once, in no more blocks than are counted.
fn walked(engine: &Engine, what: &str) -> Vec<Item> {
    let items = engine_value::all_items(engine);
    let stats = engine.stats();
    assert_eq!(stats.items, items.len() as u64, "{what}: items counted");
    let keys: BTreeSet<_> = items.iter().map(|item| &item.key).collect();
    let ids: BTreeSet<_> = items.iter().map(|item| item.id).collect();
    assert_eq!((keys.len(), ids.len()), (items.len(), items.len()), "{what}: a key or a number twice");
    if let Some(blocks) = engine.config().blocks {
        let used: u64 = items.iter().map(|item| item.value_len.div_ceil(blocks.size)).sum();
        assert_eq!(stats.blocks_used, used, "{what}: blocks counted");
    }
    items
}

/// Everything can be deleted, and then nothing is in use: no item, block or span has leaked.
fn emptied(engine: &Engine, items: &[Item], what: &str) {
    for item in items {
        assert_eq!(engine.exists(&item.key), Some(item.id), "{what}: {item:?}");
        assert!(engine.delete(&item.key).expect("delete"), "{what}: {item:?}");
    }
    engine.sweep().unwrap_or_else(|error| panic!("{what}: {error}"));
    let stats = engine.stats();
    assert_eq!((stats.items, stats.blocks_used, stats.bytes), (0, 0, 0), "{what}: in use by nothing");
}

/// Every block is available: one or more values use them all up.
fn all_blocks(engine: &Engine, blocks: Blocks, what: &str) {
    let values = (blocks.count * blocks.size).div_ceil(engine.config().max_value).max(2);
    let each = blocks.count / values;
    for n in 0..values {
        let used = if n + 1 == values { blocks.count - each * n } else { each };
        let long = vec![7; usize::try_from(used * blocks.size).expect("small")];
        let done = engine.set(format!("all {n}").as_bytes(), &long, &ADD);
        assert!(done.is_ok(), "{what}: {used} blocks of {}: {done:?}", blocks.count);
    }
    assert_eq!(engine.stats().blocks_used, blocks.count, "{what}: all blocks");
    let more = engine.set(b"one more", b"x", &ADD);
    assert_eq!(more.is_ok(), engine.config().eviction != Eviction::None, "{what}: one more: {more:?}");
    engine.clear().and_then(|()| engine.sweep()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(engine.stats().blocks_used, 0, "{what}: blocks after a clear");
}

/// The cache holds exactly as many items as it should; then it is cleared.
fn filled(engine: &Engine, what: &str) {
    let config = engine.config();
    // Only a part of the larger caches: another test checks that the number of items is exact.
    let all = config.capacity.min(100);
    for n in 0..all {
        let done = engine.set(format!("fill {n}").as_bytes(), &[1; 40], &ADD);
        assert!(done.is_ok(), "{what}: item {n} of {all}: {done:?}");
    }
    if all == config.capacity && config.eviction == Eviction::None && !config.clear_on_full {
        let more = engine.set(b"one more", b"x", &ADD);
        assert!(matches!(more, Err(Error::Full { .. })), "{what}: one more: {more:?}");
    }
    assert_eq!(engine.stats().items, all, "{what}: items when full");
    for n in 0..all {
        let found = engine_value::get(engine, format!("fill {n}").as_bytes(), Touch::No).expect("get");
        assert_eq!(found.map(|(_, value)| value), Some(vec![1; 40]), "{what}: item {n}");
    }
    if all == config.capacity && config.eviction != Eviction::None {
        let more = engine.set(b"one more", b"x", &ADD);
        assert!(more.is_ok(), "{what}: one more: {more:?}");
        assert_eq!(engine.stats().items, all, "{what}: items after an eviction");
    }
}
