//! A repair, an opening or a look that cannot have what it needs (memory, mappings, descriptors) makes nothing worse: it says
//! so, everything stored is there, and the next one does what it could not.

#[path = "support/engine_fail.rs"]
mod engine_fail;
#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_step.rs"]
mod engine_step;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;

use std::sync::{Arc, atomic::Ordering::SeqCst};

use engine_fail::{CALLS, errno_of, failing};
use engine_proc::{Child, Scratch, alone, say};
use engine_step::Stepped;
use engine_store::{KEYS, UPDATE, assert_filled, fill, memory};
use ucache::{
    Error, Result,
    engine::{Blocks, Config, Engine, Eviction, Expires, Fill, Math, Store},
};

/// The key that a dying writer is at; its neighbours are those of `engine_store`.
const AT: &[u8] = b"the key that a dying writer is at";

/// A kind of cache and where its store is, if it has one.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    eviction: Eviction,
    blocks: bool,
    store: Option<tempfile::TempDir>,
}

fn kinds() -> Vec<Kind> {
    let kind =
        |name, eviction, blocks, stored: bool| Kind { name, eviction, blocks, store: stored.then(memory) };
    vec![
        kind("plain", Eviction::None, false, false),
        kind("lru", Eviction::Lru, false, false),
        kind("s3fifo", Eviction::S3Fifo, false, false),
        kind("bitmap", Eviction::None, true, false),
        kind("store", Eviction::None, false, true),
        kind("store, lru", Eviction::Lru, false, true),
    ]
}

impl Kind {
    fn config(&self) -> Config {
        let mut config = Config::new(self.name, 2000);
        config.max_value = 200_000;
        config.eviction = self.eviction;
        config.blocks = self.blocks.then_some(Blocks { size: 1024, count: 8000 });
        config.store =
            self.store.as_ref().map(|dir| Store { path: dir.path().join("store"), delete_unusable: false });
        config
    }

    /// Such a cache with the keys of `engine_store` and [`AT`] in it.
    fn filled(&self) -> Arc<Engine> {
        let engine = Engine::create(&self.config()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        fill(&engine, 1);
        engine.set(AT, &[1; 100], &UPDATE).expect("set");
        engine
    }
}

/// A change of [`AT`] that somebody dies in.
type Change = (&'static str, fn(&Engine) -> Result<()>);

const CHANGES: [Change; 2] = [
    ("a longer value", |e| e.set(AT, &[2; 3000], &UPDATE).map(drop)),
    ("a deletion", |e| e.delete(AT).map(drop)),
];

/// A process dies so many instructions into a change, as counted from where the operation begins.
fn die_in(engine: &Engine, change: &Change, at: u64) {
    let warm = || _ = engine.set(b"warm", b"x", &UPDATE).expect("set");
    let mut stepped = Stepped::new(warm, || change.1(engine).expect("the change"));
    while stepped.steps < at && stepped.step() {}
    stepped.kill();
}

/// Where to die in a change: places spread over it at which a lock is held.
fn places(engine: &Engine, change: &Change) -> Vec<u64> {
    let held = |at: &u64| {
        let before = engine.stats().owner_dead;
        engine.set(AT, &[1; 100], &UPDATE).expect("set");
        die_in(engine, change, *at);
        engine.set(AT, &[1; 100], &UPDATE).expect("set");
        engine.stats().owner_dead > before
    };
    let held: Vec<u64> = (1..60).map(|n| n * 40).filter(held).collect();
    assert!(held.len() > 3, "{}: a lock is held at {} places", change.0, held.len());
    held.iter().step_by(held.len() / 3).copied().collect()
}

/// What is done to a shard that a dead writer has left.
type Operation = (&'static str, fn(&Engine) -> Result<()>);

const OPERATIONS: [Operation; 8] = [
    ("set", |e| e.set(AT, &[3; 50], &UPDATE).map(drop)),
    ("delete", |e| e.delete(AT).map(drop)),
    ("math", |e| match e.math(AT, Math::Inc, 1, &UPDATE) {
        Err(Error::NotANumber { .. }) => Ok(()),
        other => other.map(drop),
    }),
    ("expire", |e| e.expire(AT, Expires::In(1000)).map(drop)),
    ("fill", |e| {
        let patience = std::time::Duration::from_secs(1);
        match e.begin_fill(AT, patience, patience, &mut Vec::new())? {
            Fill::Filler(token) => e.end_fill(AT, token, b"filled", Expires::Never).map(drop),
            _ => Ok(()),
        }
    }),
    ("sweep", |e| e.sweep().map(drop)),
    ("inspect", |e| e.inspect(false, |_, _| ()).map(|found| assert_eq!(found.damaged, 0, "{found:?}"))),
    ("exclusive", |e| e.exclusive_begin().map(|()| e.exclusive_end())),
];

/// Everything that was acknowledged is there for every way of reading, and nothing went.
fn assert_whole(engine: &Engine, what: &str) {
    assert_filled(engine, 1);
    let mut name = Vec::new();
    for key in 0..KEYS {
        engine_value::key_bytes(key, &mut name);
        assert!(engine.exists(&name).is_some(), "{what}: key {key}");
        let counted = engine.get_counted(&name, &mut Vec::new());
        assert!(matches!(counted, Ok(Some(_))), "{what}: key {key}: {counted:?}");
    }
    let met = engine_value::all_items(engine).len() as u32;
    assert!((KEYS..=KEYS + 2).contains(&met), "{what}: a walk meets {met} items");
    let stats = engine.stats();
    assert_eq!((stats.evicted, stats.dropped_corrupt, stats.full, stats.no_space), (0, 0, 0, 0), "{what}");
}

/// In another process: the operation with the `n`-th call of a kind failing. It may do without what it cannot have, or say
/// what failed. Tells whether it came to that.
fn with_a_failure(engine: &Engine, operation: &Operation, which: usize, n: usize, what: &str) -> bool {
    let came = Scratch::new(1);
    Child::fork(|| {
        let errno = errno_of(which, n);
        let (done, failed) = failing(which, n, errno, || operation.1(engine));
        came[0].store(u64::from(failed), SeqCst);
        match done {
            Ok(()) => {}
            Err(Error::Os { source, .. }) if failed => {
                assert_eq!(source.raw_os_error(), Some(errno), "{what}");
            }
            Err(e) => panic!("{what}: {e}"),
        }
        assert_whole(engine, what);
    })
    .join();
    came[0].load(SeqCst) == 1
}

/// A dead writer's shard, and whatever is asked for while it is repaired cannot be had: nothing is lost, what failed is told,
/// and the next process repairs.
#[test]
fn a_repair_that_fails_loses_nothing() {
    let _alone = alone();
    for (number, kind) in kinds().iter().enumerate() {
        let (engine, mut failures) = (kind.filled(), 0);
        let places = CHANGES.map(|change| places(&engine, &change));
        // A set in each kind of cache, and two of the others.
        for turn in 0..3 {
            let operation = &OPERATIONS[if turn == 0 { 0 } else { 1 + (2 * number + turn) % 7 }];
            let (change, places) = (&CHANGES[turn % 2], &places[turn % 2]);
            let at = places[(number + turn) % places.len()];
            for (which, call) in CALLS.iter().enumerate() {
                for n in 1.. {
                    let what = format!(
                        "{}: a death in {} after {at}, then {} with {call} {n} failing",
                        kind.name, change.0, operation.0
                    );
                    engine.set(AT, &[1; 100], &UPDATE).unwrap_or_else(|e| panic!("{what}: {e}"));
                    die_in(&engine, change, at);
                    if !with_a_failure(&engine, operation, which, n, &what) {
                        break;
                    }
                    failures += 1;
                    // This process repairs, if it was not done.
                    engine.set(AT, &[4; 60], &UPDATE).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_whole(&engine, &what);
                    let found = engine.inspect(false, |_, _| ()).expect("inspect");
                    assert_eq!((found.damaged, found.loose), (0, 0), "{what}: {found:?}");
                }
            }
        }
        say(&format!("{}: {failures} failures", kind.name));
        assert!(failures > 10, "{}: {failures} failures", kind.name);
    }
}
