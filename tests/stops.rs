//! A process is stopped at any instruction of any operation: it delays only users of the lock it
//! holds, of one shard at most.
//!
//! A child runs an operation and is stopped after some of its instructions. Meanwhile every other
//! operation runs on keys of every shard. Those of one shard may time out. All others succeed,
//! without sleeping: the kernel counts how often a thread gave up its processor, which does not
//! depend on how busy the machine is.
//!
//! `UCACHE_STOPS=1000` stops each operation that often, instead of eight times.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_step.rs"]
mod engine_step;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use engine_proc::{Child, Scratch, alone, say, seed};
use engine_step::Stepped;
use engine_value::{Bytes, Hook};
use patience::within;
use ucache::{
    Error, Result,
    engine::{Blocks, Config, Engine, Eviction, Expires, Fill, Math, SetOptions, Swap, Touch},
};

const SET: SetOptions = SetOptions::set(Expires::Never);
const EXPIRED: SetOptions = SetOptions { expires: Expires::At(1), ..SET };
/// Above the limit of exact LRU, so that there are several shards.
const CAPACITY: u64 = 5000;
/// Keys per shard whose shard is known.
const KNOWN: usize = 12;
const BLOCK: u64 = 64;

/// The fill of the cache before the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Full,
    /// Every second item has expired, in each shard.
    FullAndDue,
}

struct Case {
    engine: Arc<Engine>,
    eviction: Eviction,
    state: State,
    /// Known keys, by shard.
    groups: Vec<Vec<u32>>,
}

fn key(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

impl Case {
    fn new(eviction: Eviction, blocks: bool, state: State) -> Self {
        let mut config = Config::new("stops", CAPACITY);
        config.eviction = eviction;
        config.max_value = 300_000;
        config.lock_timeout = Duration::from_millis(5);
        config.blocks = blocks.then_some(Blocks { size: BLOCK, count: CAPACITY });
        let engine = Engine::create(&config).expect("a cache");
        let groups = groups(&engine);
        let case = Self { engine, eviction, state, groups };
        case.fill();
        case
    }

    /// Brings the cache into its state.
    fn fill(&self) {
        let e = &self.engine;
        e.clear().expect("clear");
        e.sweep().expect("sweep");
        let wanted = match self.state {
            State::Empty => 0,
            State::Full | State::FullAndDue => CAPACITY,
        };
        for n in 0..u32::try_from(wanted).expect("few") {
            let due = self.state == State::FullAndDue && n % 2 == 0;
            let stored = e.set(&key(1_000_000 + n), b"12345678", if due { &EXPIRED } else { &SET });
            stored.expect("an item");
        }
    }

    fn refuses_new_keys(&self) -> bool {
        self.eviction == Eviction::None && matches!(self.state, State::Full | State::FullAndDue)
    }

    /// While a process is stopped: returns which group, if any, cannot be written; all else works
    /// at once.
    fn check(&self, round: usize, what: &str) -> bool {
        let e = &*self.engine;
        let mut held = Vec::new();
        for (no, keys) in self.groups.iter().enumerate() {
            match e.delete(&key(keys[round % KNOWN])) {
                Ok(_) => {}
                Err(Error::Timeout { .. }) => held.push(no),
                Err(other) => panic!("{what}: {other}"),
            }
        }
        assert!(held.len() <= 1, "{what}: {held:?} cannot be written");
        let timeouts = e.stats().timeouts;
        for (no, keys) in self.groups.iter().enumerate() {
            let key = key(keys[round % KNOWN]);
            let mut value = Bytes::default();
            e.get(&key, Touch::Yes, &mut value).expect("get");
            let _ = e.exists(&key);
            if held.contains(&no) {
                continue;
            }
            let sleeps = sleeps();
            for (name, result) in self.others(&key) {
                assert!(result.is_ok(), "{what}: {name}: {result:?}");
            }
            assert_eq!(crate::sleeps(), sleeps, "{what}: somebody waited");
        }
        assert_eq!(e.stats().timeouts, timeouts, "{what}");
        e.sweep().unwrap_or_else(|e| panic!("{what}: sweep: {e}"));
        !held.is_empty()
    }

    /// Operations on a key of a shard that is not held.
    fn others(&self, key: &[u8]) -> Vec<(&'static str, Result<()>)> {
        let e = &*self.engine;
        if self.refuses_new_keys() {
            return vec![("delete", e.delete(key).map(drop))];
        }
        vec![
            ("set", e.set(key, b"a new value", &SET).map(drop)),
            (
                "update",
                e.set(key, &[1; 500][..if e.config().blocks.is_some() { 60 } else { 500 }], &SET).map(drop),
            ),
            ("expire", e.expire(key, Expires::In(1000)).map(drop)),
            ("swap", e.swap(key, b"x", &Swap::Nothing).map(drop)),
            ("delete", e.delete(key).map(drop)),
            ("incr", e.math(key, Math::Inc, 1, &SET).map(drop)),
        ]
    }
}

/// How often this thread gave up its processor to wait.
fn sleeps() -> i64 {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD)
        .expect("getrusage")
        .voluntary_context_switches()
}

/// Keys by shard: keys that cannot be written while a shard is held belong to that shard.
fn groups(e: &Engine) -> Vec<Vec<u32>> {
    let mut groups = Vec::new();
    let mut left: Vec<u32> = (0..u32::try_from(KNOWN).expect("few") * 16).collect();
    while let Some(&first) = left.first() {
        e.set(&key(first), b"held", &SET).expect("set");
        let holds = Scratch::new(1);
        let holder = Child::fork(|| {
            let hold = || {
                holds[0].store(1, SeqCst);
                std::thread::sleep(engine_proc::HANG);
            };
            let _ = e.get_counted(&key(first), &mut Hook(hold));
        });
        within("the holder", || holds[0].load(SeqCst) == 1);
        let (mine, others): (Vec<u32>, Vec<u32>) =
            left.iter().partition(|&&n| matches!(e.delete(&key(n)), Err(Error::Timeout { .. })));
        assert!(holder.kill());
        assert!(e.delete(&key(first)).expect("delete"));
        groups.push(mine);
        left = others;
    }
    assert!(groups.len() > 3 && groups.iter().all(|g| !g.is_empty()), "{groups:?}");
    groups.iter_mut().for_each(|group| {
        let known: Vec<u32> = group.iter().copied().cycle().take(KNOWN).collect();
        *group = known;
    });
    groups
}

/// The child's operation.
type Operation = (&'static str, fn(&Engine, &[u8]));

const OPERATIONS: [Operation; 12] = [
    ("set of a new key", |e, k| drop(e.set(k, b"new", &SET))),
    ("update", |e, k| {
        let _ = e.set(k, b"old", &SET);
        drop(e.set(k, b"a longer value than before", &SET));
    }),
    ("value of 200 KB", |e, k| drop(e.set(k, &vec![7; 200_000], &SET))),
    ("delete", |e, k| {
        let _ = e.set(k, b"old", &SET);
        drop(e.delete(k));
    }),
    ("incr with a TTL", |e, k| {
        let _ = e.math(k, Math::Inc, 1, &SET);
        drop(e.math(k, Math::Inc, 1, &SetOptions { expires: Expires::In(9), ..SET }));
    }),
    ("expire", |e, k| {
        let _ = e.set(k, b"old", &SET);
        drop(e.expire(k, Expires::In(1000)));
    }),
    ("take", |e, k| {
        let _ = e.set(k, b"old", &SET);
        drop(e.take_out(k, &mut Bytes::default()));
    }),
    ("fill", |e, k| {
        let long = Duration::from_secs(9);
        if let Ok(Fill::Filler(token)) = e.begin_fill(k, long, long, &mut Bytes::default()) {
            let _ = e.end_fill(k, token, b"filled", Expires::Never);
        }
    }),
    ("counted get", |e, k| {
        let _ = e.set(k, b"old", &SET);
        drop(e.get_counted(k, &mut Bytes::default()));
    }),
    ("sweep", |e, _| drop(e.sweep())),
    ("clear", |e, _| drop(e.clear())),
    ("clear and sweep", |e, _| {
        let _ = e.clear();
        drop(e.sweep());
    }),
];

/// Stops a child in the middle of an operation several times; returns how often it held a shard.
fn stop_in(case: &Case, (name, operation): Operation, stops: u64, rng: &mut fastrand::Rng) -> (u64, u64) {
    let what = format!("{:?} {:?} {name}", case.eviction, case.state);
    let of_a_shard = key(rng.choice(&case.groups).expect("groups")[rng.usize(..KNOWN)]);
    let length = {
        let mut dry = Stepped::new(|| {}, || operation(&case.engine, &of_a_shard));
        while dry.steps < LONGEST && dry.step() {}
        let length = dry.steps;
        dry.kill();
        length
    };
    case.fill();
    let mut child = Stepped::new(|| {}, || operation(&case.engine, &of_a_shard));
    let (mut done, mut held) = (0, 0);
    while done < stops {
        let run = rng.u64(1..=(2 * length / stops).max(2));
        for _ in 0..run {
            if !child.step() {
                child.kill();
                return (done, held);
            }
        }
        held += u64::from(case.check(done as usize, &format!("{what}, after {} instructions", child.steps)));
        done += 1;
    }
    child.kill();
    case.engine.delete(&of_a_shard).expect("the next one repairs");
    (done, held)
}

/// Maximum number of instructions to step through, twice. Few operations have more.
const LONGEST: u64 = 4_000;

fn matrix(eviction: Eviction, blocks: bool) {
    let _alone = alone();
    engine_step::pin();
    let stops = std::env::var("UCACHE_STOPS").map_or(8, |n| n.parse().expect("a number"));
    let mut rng = fastrand::Rng::with_seed(seed());
    let (mut done, mut held) = (0, 0);
    for state in [State::Empty, State::Full, State::FullAndDue] {
        let case = Case::new(eviction, blocks, state);
        for operation in OPERATIONS {
            let (d, h) = stop_in(&case, operation, stops, &mut rng);
            (done, held) = (done + d, held + h);
            case.fill();
        }
    }
    say(&format!("{eviction:?}, blocks {blocks}: {done} stops, {held} of them with a shard held"));
    assert!(done > 3 * 12 * stops / 3 && held > done / 20, "{done} stops, {held} held");
}

#[test]
fn without_eviction() {
    matrix(Eviction::None, false);
}

#[test]
fn with_lru() {
    matrix(Eviction::Lru, false);
}

#[test]
fn with_s3fifo() {
    matrix(Eviction::S3Fifo, false);
}

#[test]
fn with_sieve() {
    matrix(Eviction::Sieve, false);
}

#[test]
fn with_blocks() {
    matrix(Eviction::Lru, true);
}
