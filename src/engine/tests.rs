//! Tests of the engine's internals.

use super::*;
use crate::{
    Error,
    shm::{
        layout::{SPAN, header, shard},
        span,
        sync::*,
    },
};

pub(super) const ADD: SetOptions = SetOptions::add(Expires::Never);
pub(super) const UPDATE: SetOptions = SetOptions::set(Expires::Never);

pub(super) fn get(e: &Engine, key: &[u8]) -> Option<Vec<u8>> {
    let mut b = Vec::new();
    e.get(key, Touch::Yes, &mut b).unwrap().map(|_| b)
}

#[test]
fn an_unseen_read_leaves_no_trace() {
    let e = Engine::create(&Config { eviction: Eviction::Lru, ..Config::new("unseen", 2) }).unwrap();
    e.set(b"oldest", b"v", &SetOptions { ungettable: true, ..ADD }).unwrap();
    e.set(b"newer", b"v", &ADD).unwrap();
    let mut value = Vec::new();
    assert!(e.get(b"oldest", Touch::Unseen, &mut value).unwrap().is_some() && value == b"v");
    assert!(e.get(b"nothing", Touch::Unseen, &mut value).unwrap().is_none());
    assert_eq!((e.stats().hits, e.stats().misses), (0, 0));
    e.set(b"newest", b"v", &ADD).unwrap();
    assert!(
        e.exists(b"oldest").is_none() && e.exists(b"newer").is_some(),
        "the read must not count as a use"
    );
}

pub(super) fn key(i: u64) -> Vec<u8> {
    format!("key:{i:012}").into_bytes()
}

#[test]
fn a_value_comes_back() {
    let e = Engine::create(&Config::new("c", 100)).unwrap();
    assert_eq!(e.set(b"k", b"value", &ADD).unwrap(), Stored::Inserted);
    assert_eq!(e.set(b"k", b"other", &ADD).unwrap(), Stored::Kept);
    assert_eq!(get(&e, b"k").unwrap(), b"value");
    assert_eq!(e.set(b"k", b"another", &UPDATE).unwrap(), Stored::Updated);
    assert_eq!(get(&e, b"k").unwrap(), b"another");
    assert!(e.exists(b"k").is_some() && e.exists(b"q").is_none());
    assert!(e.delete(b"k").unwrap() && !e.delete(b"k").unwrap());
    assert_eq!(get(&e, b"k"), None);
    let s = e.stats();
    assert_eq!((s.items, s.hits, s.misses, s.stored, s.deleted), (0, 2, 1, 2, 1));
}

#[test]
fn an_empty_key_is_a_miss() {
    let e = Engine::create(&Config::new("c", 100)).unwrap();
    // Freed blocks have headers without a key: no lookup may find them.
    for i in 0..100 {
        e.set(&key(i), b"value", &ADD).unwrap();
        assert!(i % 3 == 0 || e.delete(&key(i)).unwrap());
    }
    assert_eq!((get(&e, b""), e.exists(b""), e.delete(b"").unwrap()), (None, None, false));
    assert_eq!(e.stats().misses, 1);
    assert!(matches!(e.set(b"", b"value", &ADD), Err(Error::EmptyKey)));
}

#[test]
fn capacity_is_exact_and_comes_back() {
    for capacity in [1, 2, 7, 63, 64, 65, 1000, 5000] {
        let e = Engine::create(&Config::new("c", capacity)).unwrap();
        for round in 0..3 {
            for i in 0..capacity {
                assert_eq!(
                    e.set(&key(i), &i.to_ne_bytes(), &ADD).unwrap(),
                    Stored::Inserted,
                    "{capacity} {i} {round}"
                );
            }
            assert!(matches!(e.set(b"one more", b"x", &ADD), Err(Error::Full { .. })));
            assert_eq!(e.stats().items, capacity);
            for i in 0..capacity {
                assert_eq!(get(&e, &key(i)).unwrap(), i.to_ne_bytes());
            }
            match round {
                0 => (0..capacity).for_each(|i| assert!(e.delete(&key(i)).unwrap())),
                1 => e.clear().unwrap(),
                _ => (0..capacity).for_each(|i| {
                    let id = e.exists(&key(i)).unwrap();
                    assert!(e.delete_id(id).unwrap() && !e.delete_id(id).unwrap(), "{i}");
                }),
            }
            assert_eq!(e.stats().items, 0);
            e.sweep().unwrap();
            assert_eq!(e.stats().bytes, 0);
        }
    }
}

#[test]
fn lru_evicts_in_order() {
    let config = Config { eviction: Eviction::Lru, ..Config::new("c", 3) };
    let e = Engine::create(&config).unwrap();
    for k in [b"a", b"b", b"c"] {
        e.set(k, b"x", &ADD).unwrap();
    }
    get(&e, b"a");
    e.set(b"d", b"x", &ADD).unwrap();
    assert!(e.exists(b"b").is_none() && e.exists(b"a").is_some() && e.exists(b"c").is_some());
    e.set(b"c", b"y", &UPDATE).unwrap();
    e.set(b"e", b"x", &ADD).unwrap();
    assert!(e.exists(b"a").is_none() && e.exists(b"c").is_some());
    assert_eq!(e.stats().evicted, 2);
}

#[test]
fn updates_of_large_values_need_memory_for_one_more() {
    let e = Engine::create(&Config { max_value: 1 << 20, ..Config::new("large", 15) }).unwrap();
    let value = vec![b'v'; 1 << 20];
    let spans = value.len() as u64 / SPAN + 1;
    for i in 0..10 {
        e.set(&key(i), &value, &ADD).unwrap();
    }
    for i in 0..300 {
        e.set(&key(i * 7 % 10), &value, &UPDATE).unwrap();
    }
    assert_eq!((span::in_use(&e.region), span::frontier(&e.region)), (10 * spans, 11 * spans));
    // A wrong hint must do no harm.
    for wrong in [u64::MAX, 1, 5, 11 * spans, 11 * spans + 1] {
        e.region.word(header::LAST_RUN).store(wrong, Relaxed);
        e.set(&key(3), &value, &UPDATE).unwrap();
        assert!((0..10).all(|i| get(&e, &key(i)).is_some_and(|v| v == value)), "{wrong}");
    }
}

#[test]
fn s3fifo_holds_the_limit_and_keeps_what_is_used_twice() {
    for capacity in [1, 10, 100, 5000] {
        let config = Config { eviction: Eviction::S3Fifo, ..Config::new("c", capacity) };
        let e = Engine::create(&config).unwrap();
        let hot = capacity / 2;
        for i in 0..hot {
            e.set(&key(i), b"x", &ADD).unwrap();
        }
        // Items read between the writes of a long scan stay.
        let mut hits = 0;
        for i in 0..capacity * 10 {
            hits += u64::from(hot > 0 && get(&e, &key(i % hot)).is_some());
            e.set(&key(1_000_000 + i), b"x", &ADD).unwrap();
        }
        assert!(hot == 0 || hits * 10 >= capacity * 10 * 8, "{hits} of {} reads hit", capacity * 10);
        let s = e.stats();
        assert_eq!((s.items, s.evicted), (capacity, hot + capacity * 9), "{capacity}");
        assert!(hot == 0 || hits * 10 >= capacity * 10 * 8, "{capacity}: {hits} hits");
        let kept = (0..hot).filter(|&i| e.exists(&key(i)).is_some()).count() as u64;
        assert!(kept * 10 >= hot * 8, "{kept} of {hot} are left");
    }
}

#[test]
fn s3fifo_counts_its_small_queue() {
    let config = Config { eviction: Eviction::S3Fifo, ..Config::new("c", 3000) };
    let e = Engine::create(&config).unwrap();
    let count = |no: u64| {
        let first = no * e.homes_per_shard;
        let mut small = 0;
        for home in first..first + e.homes_per_shard {
            e.each_slot(home, |bucket, slot, _| {
                small += e.policy_rebuild_item(bucket, slot);
                true
            });
        }
        small
    };
    let check = || {
        for no in 0..e.geo.shards {
            let counted = e.region.shard(no).word(shard::SMALL).load(Relaxed);
            assert_eq!(counted, count(no), "shard {no}");
        }
    };
    for i in 0..20_000u64 {
        let k = key(i.wrapping_mul(2_654_435_761) >> 7 & 0x1FFF);
        match i % 7 {
            0..4 => drop(e.set(&k, b"x", &UPDATE).unwrap()),
            4 | 5 => drop(get(&e, &k)),
            _ => drop(e.delete(&k).unwrap()),
        }
        if i % 1000 == 0 {
            check();
        }
        if i == 12_000 {
            e.clear().unwrap();
            e.sweep().unwrap();
        }
    }
    // A count left wrong by a death is corrected.
    e.region.shard(0).word(shard::SMALL).store(77_777, Relaxed);
    e.region.shard(0).set_dirty(true);
    e.sweep().unwrap();
    drop(e.lock(0).unwrap());
    check();
}

#[test]
fn sampled_lru_holds_the_limit() {
    let config = Config { eviction: Eviction::Lru, ..Config::new("c", 5000) };
    let e = Engine::create(&config).unwrap();
    for i in 0..20_000 {
        e.set(&key(i), b"x", &ADD).unwrap();
    }
    assert_eq!((e.stats().items, e.stats().evicted), (5000, 15_000));
}

/// The first item of an emptied shard does not expire: the expiry of those before it is forgotten,
/// the next one is noted.
#[test]
fn the_expiry_of_an_emptied_shard_hides_no_later_one() {
    let e = Engine::create(&Config::new("emptied", 2)).unwrap();
    let past = |second| SetOptions::set(Expires::At(second));
    e.set(b"gone", b"v", &past(1)).unwrap();
    assert_eq!(e.sweep().unwrap(), 1);
    e.set(b"gone", b"v", &past(1)).unwrap();
    assert!(!e.delete(b"gone").unwrap(), "it has expired, and is removed");
    e.sweep().unwrap();
    e.set(b"stays", b"v", &SetOptions::set(Expires::Never)).unwrap();
    e.set(b"expires", b"v", &past(2)).unwrap();
    e.set(b"new", b"v", &SetOptions::set(Expires::Never)).expect("the place of the expired item");
}

#[test]
fn expired_items_are_misses_and_make_room() {
    let e = Engine::create(&Config::new("c", 2)).unwrap();
    let gone = SetOptions { expires: Expires::In(0), ..ADD };
    e.set(b"a", b"1", &gone).unwrap();
    e.set(b"b", b"2", &ADD).unwrap();
    assert_eq!(get(&e, b"a"), None);
    assert_eq!(e.stats().items, 2);
    e.set(b"c", b"3", &ADD).unwrap();
    assert_eq!((e.stats().items, e.stats().expired), (2, 1));
}

#[test]
fn numbers() {
    let e = Engine::create(&Config { math_initial: 10, ..Config::new("c", 10) }).unwrap();
    assert_eq!(e.math(b"n", Math::Inc, 5, &UPDATE).unwrap(), 15);
    assert_eq!(e.math(b"n", Math::Mul, 3, &UPDATE).unwrap(), 45);
    assert_eq!(e.math(b"n", Math::Div, 0, &UPDATE).unwrap(), 0);
    assert_eq!(e.math(b"n", Math::Dec, i64::MIN, &UPDATE).unwrap(), i64::MIN);
    assert_eq!(e.math(b"n", Math::Div, -1, &UPDATE).unwrap(), i64::MIN);
    assert!(matches!(e.math(b"n", Math::Inc, 1, &ADD), Err(Error::Exists)));
    e.set(b"t", b"text", &ADD).unwrap();
    assert!(matches!(e.math(b"t", Math::Inc, 1, &UPDATE), Err(Error::NotANumber { len: 4 })));
}

#[test]
fn blocks_limit_and_come_back() {
    let blocks = Some(Blocks { size: 1, count: 4 });
    let e = Engine::create(&Config { blocks, max_value: 4, ..Config::new("c", 4) }).unwrap();
    e.set(b"k", b"HE", &UPDATE).unwrap();
    assert!(matches!(e.set(b"k", b"HELL", &UPDATE), Err(Error::OutOfBlocks { .. })));
    assert_eq!(get(&e, b"k").unwrap(), b"HE");
    assert!(e.delete(b"k").unwrap());
    e.set(b"k", b"HELL", &UPDATE).unwrap();
    e.set(b"k", b"HEAP", &UPDATE).unwrap();
    assert!(e.set(b"l", b"x", &UPDATE).is_err());
    assert_eq!(e.stats().blocks_used, 4);
}

#[test]
fn a_rebuild_keeps_items_and_repairs_the_rest() {
    let config = Config { eviction: Eviction::Lru, ..Config::new("c", 2000) };
    let e = Engine::create(&config).unwrap();
    for i in 0..2000 {
        e.set(&key(i), &vec![i as u8; 1 + i as usize * 30], &ADD).unwrap();
    }
    for i in (0..2000).step_by(3) {
        e.delete(&key(i)).unwrap();
    }
    let before = e.stats();
    // As if somebody had died with the right to an item, a block taken, a bucket taken out, and
    // half the lists written.
    for bytes in [500, 500_000] {
        crate::shm::slab::alloc(&e.region, e.region.shard(0), crate::shm::slab::wanted(bytes)).unwrap();
    }
    e.region.shard(0).word(shard::ITEMS).fetch_sub(77, Relaxed);
    e.region.shard(0).word(shard::EXTENTS).store(0, Relaxed);
    e.region.word(e.layout.bins).store(8, Relaxed);
    e.region.shard(0).set_dirty(true);
    for i in 0..2000 {
        let want = (i % 3 != 0).then(|| vec![i as u8; 1 + i as usize * 30]);
        assert_eq!(get(&e, &key(i)), want, "{i}");
        if i % 3 == 0 {
            e.set(&key(i), &vec![i as u8; 1 + i as usize * 30], &ADD).unwrap();
        }
    }
    let after = e.stats();
    assert_eq!((after.items, after.repaired, after.dropped_corrupt, after.evicted), (2000, 1, 0, 0));
    (0..2000).for_each(|i| assert!(e.delete(&key(i)).unwrap()));
    e.sweep().unwrap();
    assert_eq!((before.items, e.stats().items, e.stats().bytes), (1333, 0, 0));
    (0..2000).for_each(|i| assert_eq!(e.set(&key(i), b"x", &ADD).unwrap(), Stored::Inserted));
}

#[test]
fn walking_meets_every_item_once() {
    let e = Engine::create(&Config::new("c", 3000)).unwrap();
    (0..3000).for_each(|i| assert_eq!(e.set(&key(i), b"x", &ADD).unwrap(), Stored::Inserted));
    let mut keys = Vec::new();
    let mut cursor = Cursor::default();
    while let Some(item) = e.walk(&mut cursor) {
        assert_eq!(e.exists(&item.key), Some(item.id));
        keys.push(item.key);
    }
    keys.sort();
    assert_eq!(keys, (0..3000).map(key).collect::<Vec<_>>());
}

#[test]
fn a_hash_and_its_bucket_have_the_same_shard() {
    for capacity in [1, 511, 5_000, 100_003, 1_000_000] {
        let e = Engine::create(&Config::new("c", capacity)).unwrap();
        // The edges of every bucket's part of the range, and their neighbours.
        for home in 0..=e.geo.homes {
            let edge = (home << 32).div_ceil(e.geo.homes);
            for high in [edge.saturating_sub(1), edge] {
                let hash = high.min(u64::from(u32::MAX)) << 32;
                assert_eq!(e.shard_of_hash(hash), e.shard_of(e.home_of(hash)), "{capacity} {high:x}");
            }
        }
    }
}

#[test]
fn small_values_of_every_size_fill_a_cache_to_its_limit() {
    for (capacity, lru) in [(2_999, false), (6_000, true), (40_000, false)] {
        let mut c = Config::new("c", capacity);
        (c.max_key, c.max_value) = (16, 64);
        c.eviction = if lru { Eviction::Lru } else { Eviction::None };
        let e = Engine::create(&c).unwrap();
        // Rounds with other sizes for the same keys: every size class is used in every shard.
        for round in 0..5 {
            for i in 0..capacity {
                let len = 1 + (i * 7 + round * 13) as usize % 64;
                e.set(&i.to_ne_bytes(), &vec![1; len], &UPDATE).unwrap();
            }
        }
        let s = e.stats();
        assert_eq!((s.items, s.full, s.evicted), (capacity, 0, 0));
    }
}

/// Fails if it is called under a shard's lock (an error-checking mutex tells its owner).
struct Unlocked<'e> {
    engine: &'e Engine,
    other: Vec<u8>,
    calls: u32,
}

impl Sink for Unlocked<'_> {
    fn take(&mut self, _: &crate::shm::SharedBytes<'_>) -> bool {
        self.calls += 1;
        self.engine.delete(&self.other).is_ok()
    }
}

#[test]
fn take_out_copies_without_the_lock() {
    let e = Engine::create(&Config::new("c", 100)).unwrap();
    e.set(b"key", &[7; 100], &UPDATE).unwrap();
    let mut sink = Unlocked { engine: &e, other: b"another key".to_vec(), calls: 0 };
    assert!(e.take_out(b"key", &mut sink).unwrap());
    assert_eq!((sink.calls, e.exists(b"key")), (1, None));
}

#[test]
fn take_out_returns_the_removed_value() {
    const ADDED: i64 = 20_000;
    let e = Engine::create(&Config::new("c", 100)).unwrap();
    let taken = std::thread::scope(|s| {
        let adders: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| (0..ADDED).for_each(|_| assert!(e.math(b"n", Math::Inc, 1, &UPDATE).is_ok())))
            })
            .collect();
        let mut taken = 0;
        while !adders.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let mut bytes = Vec::new();
            if e.take_out(b"n", &mut bytes).unwrap() {
                taken += i64::from_ne_bytes(bytes.try_into().unwrap());
            }
            let _ = e.expire(b"n", Expires::In(1000)).unwrap();
        }
        taken
    });
    let left = get(&e, b"n").map_or(0, |bytes| i64::from_ne_bytes(bytes.try_into().unwrap()));
    assert_eq!(taken + left, 2 * ADDED, "no increment is lost between the copy and the removal");
}

#[test]
fn every_shard_can_have_what_others_do_not_use() {
    let e = Engine::create(&Config::new("rights", 20_000)).unwrap();
    assert!(e.geo.shards > 8);
    let insert = |n: u32| assert_eq!(e.set(&n.to_le_bytes(), b"v", &ADD).unwrap(), Stored::Inserted);
    (0..20_000).for_each(insert);
    // Half of the shards get all new keys.
    (0..5_000u32).for_each(|n| assert!(e.delete(&n.to_le_bytes()).unwrap()));
    let chosen = |n: &u32| e.shard_of_hash(e.hash(&n.to_le_bytes())) < e.geo.shards / 2;
    (30_000..).filter(chosen).take(5_000).for_each(insert);
    assert_eq!((e.stats().items, e.stats().full), (20_000, 0));
    assert!(e.set(b"one more", b"v", &ADD).is_err());
    assert_eq!(e.stats().full, 1);
}

#[test]
fn an_id_is_a_place_that_stays() {
    // One chain.
    let e = Engine::create(&Config::new("places", 30)).unwrap();
    let home = |i: u64| e.home_of(e.hash(&key(i)));
    let keys: Vec<u64> = (0..).filter(|&i| home(i) == 0).take(24).collect();
    let id = |i: u64| e.exists(&key(i)).unwrap().0.get();
    let mut ids = Vec::new();
    for &i in &keys {
        e.set(&key(i), b"v", &ADD).unwrap();
        ids.push(id(i));
    }
    assert_eq!(ids[..7], [1, 2, 3, 4, 5, 6, 7]);
    keys.iter().for_each(|&i| _ = e.set(&key(i), &[7; 300], &UPDATE).unwrap());
    assert!(keys.iter().zip(&ids).all(|(&i, &want)| id(i) == want));
    // The last bucket goes when it is empty; those before it stay while something is behind them.
    let buckets = || std::iter::successors(Some(0), |&bucket| e.next(0, bucket)).count();
    assert_eq!(buckets(), 4);
    keys[7..21].iter().for_each(|&i| assert!(e.delete(&key(i)).unwrap()));
    assert!(buckets() == 4 && keys[21..].iter().zip(&ids[21..]).all(|(&i, &want)| id(i) == want));
    keys[21..].iter().for_each(|&i| assert!(e.delete(&key(i)).unwrap()));
    assert_eq!(buckets(), 1);
    keys[7..].iter().for_each(|&i| _ = e.set(&key(i), b"again", &ADD).unwrap());
    assert_eq!(e.inspect(false, |_, _| {}).unwrap().items, 24);
}

#[test]
fn an_item_is_gone_after_its_time() {
    let e = Engine::create(&Config::new("gone", 10)).unwrap();
    for millis in (1..10).cycle().take(60) {
        e.set(b"k", b"v", &SetOptions::set(Expires::InMillis(millis))).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        assert!(get(&e, b"k").is_none(), "{millis} ms");
    }
}

#[test]
fn an_expiry_is_exact_within_its_second() {
    let e = Engine::create(&Config::new("millis", 10)).unwrap();
    let before = crate::os::clock::unix_millis();
    e.set(b"k", b"v", &SetOptions::set(Expires::InMillis(50))).unwrap();
    let until = e.get(b"k", Touch::No, &mut Vec::new()).unwrap().expect("stored").expires_millis;
    assert!(until >= before + 50);
    let mut seen = false;
    loop {
        // In this order: a pause in between can only make the item end.
        let now = crate::os::clock::unix_millis();
        if get(&e, b"k").is_none() {
            break;
        }
        assert!(now < until, "served {} ms after its end", now - until);
        seen = true;
    }
    assert!(seen && crate::os::clock::unix_millis() >= until);
    assert_eq!(e.sweep().unwrap(), 1);
}
