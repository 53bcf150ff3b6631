use std::time::Duration;

use ucache::{Cache, Error, Eviction};

use super::builder;

#[test]
fn settings_out_of_range_are_named() {
    let refused = |builder: ucache::Builder| match builder.build() {
        Err(Error::InvalidOption { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Cache::builder("no items")), "items");
    assert_eq!(refused(builder().items(0)), "items");
    assert_eq!(refused(builder().items(u64::MAX)), "items");
    assert_eq!(refused(builder().max_key_bytes(0)), "keysize");
    assert_eq!(refused(builder().max_key_bytes(65_536)), "keysize");
    assert_eq!(refused(builder().max_value_bytes(0)), "blocksize");
    assert_eq!(refused(builder().max_value_bytes(1 << 32)), "blocksize");
    assert_eq!(refused(builder().blocks(0, 64)), "blocks");
    assert_eq!(refused(builder().blocks(200, 0)), "blocksize");
    assert_eq!(refused(builder().lock_timeout(Duration::ZERO)), "lock_timeout");
    assert_eq!(refused(builder().lock_timeout(Duration::MAX)), "lock_timeout");
    assert_eq!(refused(builder().store_delete(true)), "store_delete");
    for name in ["", "a@b", "a\0b", &"n".repeat(256)] {
        assert_eq!(refused(Cache::builder(name).items(10)), "name");
    }
}

#[test]
fn one_item_is_a_cache() {
    let cache = builder().items(1).build().unwrap();
    assert!(cache.add("a", "1").unwrap());
    assert!(matches!(cache.set("b", "2"), Err(Error::Full { limit: 1 })));
    cache.set("a", "3").unwrap();
    assert_eq!(cache.get("a").unwrap(), Some(b"3".to_vec()));
    assert_eq!(cache.stats().rejected_full, 1);
}

#[test]
fn blocks_count_beside_items() {
    let cache = builder().blocks(4, 10).build().unwrap();
    cache.set("three", [0; 21]).unwrap();
    let error = cache.set("two", [0; 11]).unwrap_err();
    assert!(matches!(error, Error::OutOfBlocks { need: 2, limit: 4 }), "{error}");
    cache.set("one", [0; 10]).unwrap();
    assert_eq!(cache.stats().blocks_used, 4);
    cache.delete("three").unwrap();
    cache.set("two", [0; 11]).unwrap();
}

#[test]
fn lru_evicts_in_exact_order() {
    let cache = builder().items(3).evict(Eviction::Lru).build().unwrap();
    for key in ["a", "b", "c"] {
        cache.set(key, "v").unwrap();
    }
    cache.get("a").unwrap();
    cache.set("b", "w").unwrap();
    assert!(cache.contains("c"), "looking is no use of it");
    cache.set("d", "v").unwrap();
    assert!(!cache.contains("c"));
    cache.set("e", "v").unwrap();
    assert!(!cache.contains("a"));
    cache.set("f", "v").unwrap();
    assert!(!cache.contains("b"));
    assert_eq!(cache.stats().evicted, 3);
}

#[test]
fn a_full_cache_makes_room_of_what_expired() {
    for sweep in [Duration::ZERO, Duration::from_secs(1000)] {
        let cache = builder().items(3).sweep_on_full(sweep).build().unwrap();
        for key in ["a", "b", "c"] {
            cache.set_with(key, "v", Duration::ZERO).unwrap();
        }
        assert!(cache.add("d", "v").unwrap(), "{sweep:?}");
        assert_eq!(cache.keys().collect::<Vec<_>>(), [b"d"]);
        // And again, without waiting for the interval.
        for key in ["e", "f"] {
            cache.set_with(key, "v", Duration::ZERO).unwrap();
        }
        assert!(cache.add("g", "v").unwrap(), "{sweep:?}");
    }
}

#[test]
fn clear_on_full_makes_room_of_everything() {
    let cache = builder().items(3).clear_on_full(true).build().unwrap();
    for key in ["a", "b", "c", "d"] {
        assert!(cache.add(key, "v").unwrap());
    }
    assert_eq!(cache.keys().collect::<Vec<_>>(), [b"d"]);
    assert_eq!(cache.stats().cleared, 1);
}

#[test]
fn math_starts_where_told() {
    let cache = builder().math_initial(-10).build().unwrap();
    assert_eq!(cache.incr("i", 1).unwrap(), -9);
    assert_eq!(cache.decr("d", 1).unwrap(), -11);
    assert_eq!(cache.mul("m", 3).unwrap(), -30);
    assert_eq!(cache.div("q", 3).unwrap(), -3);
    assert_eq!(cache.incr("i", 1).unwrap(), -8);
}

#[test]
fn last_modified_is_kept_on_demand() {
    let cache = builder().build().unwrap();
    cache.set("k", "v").unwrap();
    assert_eq!(cache.stats().last_modified, 0);
    drop(cache);
    let cache = builder().last_modified(true).build().unwrap();
    assert_eq!(cache.stats().last_modified, 0);
    cache.set("k", "v").unwrap();
    assert!(cache.stats().last_modified > 1_700_000_000);
}

#[test]
fn large_limits_cost_little() {
    let cache = builder().items(1_000_000).max_value_bytes(1 << 26).build().unwrap();
    assert!(resident_of_the_largest_mapping() < 4 << 20, "an empty cache occupies memory");
    let value = vec![42; 1 << 26];
    cache.set("large", &value).unwrap();
    assert!(resident_of_the_largest_mapping() < (64 + 4) << 20, "more than the value occupies memory");
    assert_eq!(cache.get("large").unwrap(), Some(value));
    assert_eq!(cache.stats().capacity, 1_000_000);
}

/// Resident bytes of this process's largest mapping. Other tests of this program create smaller
/// caches.
fn resident_of_the_largest_mapping() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let bytes = |line: &str, field: &str| -> Option<u64> {
        Some(line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().unwrap() << 10)
    };
    let sizes = maps.lines().filter_map(|line| bytes(line, "Size:"));
    let resident = maps.lines().filter_map(|line| bytes(line, "Rss:"));
    let (size, resident) = sizes.zip(resident).max().unwrap();
    assert!(size > 1 << 40, "the cache reserves addresses for its limits: {size}");
    resident
}
