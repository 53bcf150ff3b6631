//! Tests of the key walk.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;
use crate::capi::host::{create, env::Definition};

/// All keys with the number of times each was returned; every item is checked.
fn walk(cache: &'static Cache) -> BTreeMap<Vec<u8>, u32> {
    let mut met = BTreeMap::new();
    let (mut position, mut item) = (0, ptr::null_mut());
    loop {
        // SAFETY: a cache of this library, and two variables.
        let next = unsafe { uwsgi_cache_keys(cache.view.as_ptr(), &raw mut position, &raw mut item) };
        if next.is_null() {
            assert_eq!(position, END);
            return met;
        }
        assert!(ptr::eq(next, item) && next.addr().is_multiple_of(8));
        // SAFETY: the item last returned by the walk, with its key and a NUL.
        let (key, hash, nul) =
            unsafe { (key_of(next), (*next).hash, *next.add(1).cast::<u8>().add(key_of(next).len())) };
        assert_eq!((hash, nul), (cache.settings.hash.hash(key).into(), 0), "{key:?}");
        *met.entry(key.to_vec()).or_default() += 1;
    }
}

#[test]
fn stable_items_are_returned_once_while_chains_change() {
    let definition = b"name=walked,items=3000,keysize=300,blocksize=100".to_vec();
    let cache = create::create(&Definition::Cache2(definition)).expect("a small cache");
    // Keys of many lengths, some adjacent.
    let stay = |n: usize| format!("{n}-{}", "s".repeat(n * n % 250)).into_bytes();
    for n in 0..300 {
        cache.store(&stay(n), b"v", 0, 0).expect("stored");
    }
    assert_eq!(walk(cache), (0..300).map(|n| (stay(n), 1)).collect());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..2000).cycle() {
                let key = format!("churn {n}");
                cache.store(key.as_bytes(), b"v", 0, 0).expect("stored");
                cache.store(&stay(n % 300), &vec![b'y'; 1 + n % 90], 0, 2).expect("stored");
                cache.tier.delete(key.as_bytes()).expect("deleted");
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for _ in 0..200 {
            let met = walk(cache);
            let strange = met.keys().find(|key| !key.starts_with(b"churn ") && !key.contains(&b'-'));
            let missed = (0..300).map(stay).find(|key| met.get(key) != Some(&1));
            if strange.is_some() || missed.is_some() {
                done.store(true, Ordering::Relaxed);
                panic!("never stored: {strange:?}; not met once: {missed:?}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
