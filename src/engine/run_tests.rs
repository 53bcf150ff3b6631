//! Runs of spans that go from one shard to another: no rebuild takes one for its own, and none is lost.

use std::sync::Arc;

use super::{
    tests::{UPDATE, get, key},
    *,
};
use crate::shm::{
    layout::{SPAN, SPAN_META},
    span,
    sync::*,
};

const LARGE: usize = 50_000;

/// A cache with a key of each of two shards.
fn cache() -> (Arc<Engine>, [Vec<u8>; 2]) {
    let e = Engine::create(&Config { max_value: 100_000, ..Config::new("runs", 10_000) }).unwrap();
    let one = |no: u64| (0..).map(key).find(|key| e.shard_of_hash(e.hash(key)) == no).unwrap();
    let keys = [one(0), one(1)];
    (e, keys)
}

/// Rebuilds a shard as after a death.
fn rebuild(e: &Engine, no: u64) {
    e.region.shard(no).set_dirty(true);
    drop(e.lock(no).unwrap());
    assert!(!e.region.shard(no).is_dirty());
}

fn faults(e: &Engine, repair: bool) -> u64 {
    let found = e.inspect(repair, |_, _| ()).unwrap();
    assert_eq!((found.damaged, found.dropped), (0, 0), "{found:?}");
    found.heap
}

fn spans(e: &Engine) -> (u64, u64) {
    (span::in_use(&e.region), span::frontier(&e.region))
}

#[test]
fn a_run_belongs_to_the_shard_of_its_head() {
    let (e, keys) = cache();
    let n = (LARGE as u64).div_ceil(SPAN);
    e.set(&keys[0], &[1; LARGE], &UPDATE).unwrap();
    assert!(e.delete(&keys[0]).unwrap());
    for no in [0, 1] {
        rebuild(&e, no);
        assert_eq!((spans(&e), faults(&e, false)), ((0, n), 0), "kept, and nobody's");
    }
    e.set(&keys[1], &[2; LARGE], &UPDATE).unwrap();
    // The bodies' words still say that they are the first shard's.
    for no in [0, 1, 0] {
        rebuild(&e, no);
        assert_eq!((spans(&e), faults(&e, false)), ((n, n), 0));
        assert_eq!(get(&e, &keys[1]).unwrap(), [2; LARGE]);
    }
    // A death before the value can be reached leaves the run to the second shard's rebuild.
    let home = e.home_of(e.hash(&keys[1]));
    e.each_slot(home, |bucket, slot, _| {
        e.slot(bucket, slot).store(0, Relaxed);
        true
    });
    rebuild(&e, 0);
    assert_eq!(spans(&e), (n, n));
    rebuild(&e, 1);
    assert_eq!((spans(&e), span::dirty(&e.region), faults(&e, false)), ((0, n), n, 0));
}

#[test]
fn a_sweep_gives_the_kept_run_back() {
    let (e, keys) = cache();
    e.set(&keys[0], &[1; LARGE], &UPDATE).unwrap();
    let run = (e.layout.data, e.layout.data + LARGE as u64 / SPAN * SPAN);
    assert!(e.delete(&keys[0]).unwrap());
    assert_eq!(e.region.resident(run.0, run.1).unwrap(), run.1 - run.0);
    e.sweep().unwrap();
    assert_eq!((span::dirty(&e.region), e.region.resident(run.0, run.1).unwrap()), (0, 0));
}

#[test]
fn a_body_without_a_head_is_found_and_freed() {
    let (e, keys) = cache();
    for key in &keys {
        e.set(key, &[1; LARGE], &UPDATE).unwrap();
    }
    assert!(e.delete(&keys[1]).unwrap());
    e.sweep().unwrap();
    let (before, lost) = (spans(&e), span::frontier(&e.region) - 2);
    let word = e.region.word(e.layout.span_table + lost * SPAN_META);
    // Of a block that ends before, and of one that is not there.
    for head in [0, lost - 1] {
        word.store(4 | 1 << 16 | head << 32, Relaxed);
        assert_eq!(faults(&e, true), 1);
        assert_eq!((spans(&e), faults(&e, false)), (before, 0));
    }
}
