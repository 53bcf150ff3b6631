//! Numbers that change without the lock: whatever ends an entry ends the life of its number first,
//! so that an exchange which comes late changes nothing.

use super::{tests::UPDATE, *};
use crate::shm::sync::*;

const KEY: &[u8] = b"number";

fn number(n: i64) -> [u8; 8] {
    n.to_ne_bytes()
}

fn cache(items: u64, eviction: Eviction) -> Arc<Engine> {
    let e = Engine::create(&Config { eviction, ..Config::new("numbers", items) }).unwrap();
    e.set(KEY, &number(5), &UPDATE).unwrap();
    e
}

fn get(e: &Engine, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    e.get(key, Touch::No, &mut value).unwrap().map(|_| value)
}

/// Where the number lies, and its life.
fn place(e: &Engine, key: &[u8]) -> (u64, u64) {
    let hashed = e.hash_key(key);
    let f = e.lookup(hashed.home, hashed.tag(), key).expect("it is stored");
    (f.off, e.number_at(f.off, key.len() as u64).life())
}

/// The exchange of a thread that was stopped right before it: `true` = it changed something.
fn comes_late(e: &Engine, (off, life): (u64, u64)) -> bool {
    e.number_at(off, KEY.len() as u64).change(life, |n| n + 1).is_some()
}

fn incr(e: &Engine, key: &[u8]) -> i64 {
    e.math(key, Math::Inc, 1, &UPDATE).unwrap()
}

#[test]
fn arithmetic_takes_no_lock() {
    let e = cache(10, Eviction::Lru);
    if !e.region.has_lives() {
        return;
    }
    let (before, guard) = (place(&e, KEY), e.lock(0).unwrap());
    assert_eq!((incr(&e, KEY), e.math(KEY, Math::Mul, 7, &UPDATE).unwrap()), (6, 42));
    guard.release();
    assert_eq!((place(&e, KEY), get(&e, KEY)), (before, Some(number(42).to_vec())));
    assert!(comes_late(&e, before), "in its life nothing is late");
}

/// What ends an entry, or its number's life.
type End = (&'static str, fn(&Engine));

const ENDS: [End; 16] = [
    ("a number in its place", |e| assert_eq!(e.set(KEY, &number(5), &UPDATE).unwrap(), Stored::Updated)),
    ("a longer value", |e| assert_eq!(e.set(KEY, &[5; 100], &UPDATE).unwrap(), Stored::Updated)),
    ("another expiry", |e| assert!(e.expire(KEY, Expires::In(100)).unwrap())),
    ("arithmetic with an expiry", |e| {
        let expires = SetOptions::set(Expires::In(100));
        assert_eq!(e.math(KEY, Math::Inc, 0, &expires).unwrap(), 5);
    }),
    ("delete", |e| assert!(e.delete(KEY).unwrap())),
    ("delete by id", |e| assert!(e.delete_id(e.exists(KEY).unwrap()).unwrap())),
    ("take", |e| assert!(e.take_out(KEY, &mut Vec::new()).unwrap())),
    ("append", |e| assert_eq!(e.join(KEY, b"more", Side::Back).unwrap(), Some(12))),
    ("swap", |e| assert!(e.swap(KEY, &number(5), &Swap::Value(&number(5), None)).unwrap())),
    ("swap that removes", |e| assert!(e.swap(KEY, &number(5), &Swap::Nothing).unwrap())),
    ("swap that fails", |e| assert!(!e.swap(KEY, &number(6), &Swap::Nothing).unwrap())),
    ("clear and sweep", |e| {
        e.clear().unwrap();
        e.sweep().unwrap();
    }),
    ("expiry and sweep", |e| {
        assert!(e.expire(KEY, Expires::At(1)).unwrap());
        e.sweep().unwrap();
    }),
    ("eviction for a new key", |e| {
        for n in 0..20u64 {
            e.set(&n.to_le_bytes(), &number(5), &UPDATE).unwrap();
        }
        assert!(e.exists(KEY).is_none());
    }),
    ("eviction", |e| {
        while e.exists(KEY).is_some() {
            assert!(e.evict(None, None).unwrap());
        }
    }),
    ("exclusive mode", |e| {
        e.exclusive_begin().unwrap();
        e.exclusive_end();
    }),
];

#[test]
fn what_ends_an_entry_ends_its_number_first() {
    for (what, end) in ENDS {
        let e = cache(10, Eviction::Lru);
        if !e.region.has_lives() {
            return;
        }
        let at = place(&e, KEY);
        assert!(at.1 != 0, "{what}");
        end(&e);
        // While its bytes may still be there, and when the memory is used again.
        assert!(!comes_late(&e, at), "{what}");
        for n in 100..105u64 {
            e.set(&n.to_le_bytes(), &number(5), &UPDATE).unwrap();
        }
        let bytes = || [0, 8, 16, 24, 32, 40, 48].map(|i| e.region.word(at.0 + i).load(Relaxed));
        let before = bytes();
        assert!(!comes_late(&e, at), "{what}");
        assert_eq!(bytes(), before, "{what}");
        let n = get(&e, KEY).and_then(|value| <[u8; 8]>::try_from(value).ok()).map(i64::from_ne_bytes);
        if n.is_some() || e.exists(KEY).is_none() {
            assert_eq!(incr(&e, KEY), n.unwrap_or(0) + 1, "{what}");
        }
    }
}

#[test]
fn a_number_that_moves_takes_its_value_along() {
    const ITEMS: u64 = 2000;
    let e = Engine::create(&Config::new("moved numbers", ITEMS)).unwrap();
    // Blocks of 48 and of 56 bytes.
    let key = |n| format!("key {n:04}{}", if n % 8 < 4 { "" } else { " longer" }).into_bytes();
    let keys: Vec<_> = (0..ITEMS).map(key).collect();
    for (key, n) in keys.iter().zip(0..) {
        e.set(key, &number(n), &UPDATE).unwrap();
    }
    let before: Vec<_> = keys.iter().map(|key| place(&e, key)).collect();
    for key in keys.iter().skip(1).step_by(2) {
        e.delete(key).unwrap();
    }
    let moved = || e.stats().moved;
    while e.sweep().is_ok() && moved() == 0 {}
    let mut moves = [0; 2];
    for ((key, n), (off, life)) in keys.iter().zip(0i64..).zip(before).step_by(2) {
        let now = place(&e, key);
        moves[usize::from(now.0 % 16 == off % 16)] += u64::from(now.0 != off);
        if now.0 != off && e.region.has_lives() {
            let late = e.number_at(off, key.len() as u64).change(life, |n| n + 1);
            assert!(late.is_none() && now.1 != life, "key {n}");
        }
        assert_eq!(incr(&e, key), n + 1, "key {n}");
    }
    assert!(moves[0] + moves[1] > 50 && moves[0] > 0, "{moves:?}: also to where it is aligned otherwise");
}

#[test]
fn no_two_numbers_have_the_same_life() {
    let e = Engine::create(&Config::new("lives", 5000)).unwrap();
    if !e.region.has_lives() {
        return;
    }
    let mut lives = std::collections::HashSet::new();
    for n in 0..5000u64 {
        let key = (n % 4000).to_le_bytes();
        e.set(&key, &number(1), &UPDATE).unwrap();
        assert!(lives.insert(place(&e, &key).1), "key {n}");
    }
}

#[test]
fn who_is_alone_meets_no_late_change() {
    let e = cache(10, Eviction::None);
    e.exclusive_begin().unwrap();
    e.set(b"new", &number(1), &UPDATE).unwrap();
    assert_eq!((incr(&e, KEY), place(&e, KEY).1, place(&e, b"new").1), (6, 0, 0));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| incr(&e, KEY));
        assert_eq!(get(&e, KEY), Some(number(6).to_vec()));
        e.exclusive_end();
        assert_eq!(other.join().unwrap(), 7);
    });
    assert_eq!((incr(&e, KEY), place(&e, KEY).1), (8, 0), "who took it once takes it again");
}
