//! Operations interrupted after each of their instructions, and the permitted content of the cache
//! afterwards.

use std::time::Duration;

use fastrand::Rng;
use ucache::engine::{Blocks, Config, Engine, Eviction, Expires, Fill, Math, SetOptions, Swap, Touch};

use crate::engine_value::{self, Bytes, Stamp};

pub(crate) const UPDATE: SetOptions = SetOptions::set(Expires::Never);
pub(crate) const ADD: SetOptions = SetOptions::add(Expires::Never);

/// The key that each operation uses; the others count from 1.
pub(crate) const X: u32 = 0;

/// The value of X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    /// A self-describing value: sequence number and length.
    Value(u32, usize),
    Number(i64),
    /// One byte, again and again: what something is added to.
    Bytes(u8, usize),
}

/// Permitted changes of the other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    Stay,
    /// At most this many of the oldest are gone.
    Evicted(u32),
    /// At most this many are gone, whichever.
    Sampled(u32),
    /// All are gone, at once.
    Cleared,
}

pub(crate) type Run = Box<dyn Fn(&Engine)>;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    /// Items beside X.
    pub(crate) items: u32,
    pub(crate) before: Held,
    pub(crate) expires: Expires,
    pub(crate) run: Run,
    pub(crate) after: Held,
    pub(crate) others: Others,
    /// It leaves a placeholder for X, or may.
    pub(crate) lease: bool,
    /// It leaves the mark of a refresh of X, or may.
    pub(crate) refresh: bool,
    /// Many items beside the others came and went before it.
    pub(crate) sparse: bool,
    /// There are as many items beside the others as there is memory for.
    pub(crate) crowded: bool,
    /// Bytes are copied one per instruction: a case on its own as long as all others.
    pub(crate) long: bool,
}

/// The lengths of one round of cases.
pub(crate) struct Lens {
    pub(crate) short: usize,
    pub(crate) other: usize,
    pub(crate) middle: usize,
    pub(crate) large: usize,
}

impl Lens {
    /// 8 bytes to 60 KB; the first round is always the same.
    pub(crate) fn of_round(round: u64, rng: &mut Rng) -> Self {
        if round == 0 {
            return Self { short: 90, other: 70, middle: 1100, large: 60_000 };
        }
        let short = if rng.bool() { 8 } else { rng.usize(16..500) };
        let large = rng.usize(33_000..=60_000);
        Self { short, other: rng.usize(16..500), middle: rng.usize(513..9000), large }
    }
}

/// Bytes of a value that has spans of its own, as few as possible.
const RUN: usize = 17_000;

pub(crate) fn key(number: u32) -> Vec<u8> {
    let mut key = Vec::new();
    engine_value::key_bytes(number, &mut key);
    key
}

pub(crate) fn value(key: u32, seq: u32, len: usize) -> Vec<u8> {
    let mut value = Vec::new();
    engine_value::write(Stamp { key, writer: 1, seq }, len, &mut value);
    value
}

/// Length of another key's value.
pub(crate) fn other_len(number: u32) -> usize {
    16 + usize::try_from(number % 13).expect("small") * 40
}

pub(crate) fn setting(seq: u32, len: usize, options: SetOptions) -> Run {
    let (key, value) = (key(X), value(X, seq, len));
    Box::new(move |e| drop(e.set(&key, &value, &options)))
}

/// The same twice: the second time in the block that the shard has kept.
fn twice(run: Run, between: fn(&Engine)) -> Run {
    Box::new(move |e| {
        run(e);
        between(e);
        run(e);
    })
}

fn math(op: Math, operand: i64) -> Run {
    let key = key(X);
    Box::new(move |e| drop(e.math(&key, op, operand, &UPDATE)))
}

fn filling(end: impl Fn(&Engine, &[u8], ucache::engine::FillToken) + 'static) -> Run {
    let key = key(X);
    Box::new(move |e| {
        let hour = Duration::from_secs(3600);
        if let Ok(Fill::Filler(token)) = e.begin_fill(&key, hour, Duration::ZERO, &mut Bytes::default()) {
            end(e, &key, token);
        }
    })
}

pub(crate) fn deleting() -> Run {
    let key = key(X);
    Box::new(move |e| drop(e.delete(&key)))
}

pub(crate) fn base(capacity: u64) -> Config {
    let mut config = Config::new("steps", capacity);
    config.max_key = 512;
    config.max_value = 65_536;
    // A stepped child that holds a lock is not dead yet.
    config.lock_timeout = Duration::from_secs(20);
    config
}

pub(crate) fn lru(capacity: u64) -> Config {
    Config { eviction: Eviction::Lru, ..base(capacity) }
}

pub(crate) fn blocks(capacity: u64, size: u64, count: u64) -> Config {
    Config { blocks: Some(Blocks { size, count }), ..base(capacity) }
}

pub(crate) fn case(name: &'static str, config: Config, before: Held, after: Held, run: Run) -> Case {
    let (expires, others) = (Expires::Never, Others::Stay);
    let (lease, refresh, long) = (false, false, false);
    let (sparse, crowded) = (false, false);
    let items = 8;
    Case { name, config, items, before, expires, run, after, others, lease, refresh, sparse, crowded, long }
}

/// Reads, which leave no traces, and stores.
pub(crate) fn reads_and_stores(l: &Lens) -> Vec<Case> {
    use Held::{Nothing, Value};
    let (old, new) = (Value(1, l.other), Value(2, l.short));
    let set = |seq, len| setting(seq, len, UPDATE);
    let x = key(X);
    let get = |touch| -> Run {
        let x = x.clone();
        Box::new(move |e| drop(engine_value::get(e, &x, touch)))
    };
    let x2 = x.clone();
    let mut cases = vec![
        case("get, a hit", base(10), old, old, get(Touch::No)),
        case("get, a hit that counts as a use", lru(10), old, old, get(Touch::Yes)),
        case("get, a miss", base(10), Nothing, Nothing, get(Touch::No)),
        case(
            "get, counted",
            base(10),
            old,
            old,
            Box::new(move |e| drop(e.get_counted(&x, &mut Bytes::default()))),
        ),
        case("exists", base(10), old, old, Box::new(move |e| assert!(e.exists(&x2).is_some()))),
        case("walk", base(10), old, old, Box::new(|e| drop(engine_value::all_items(e)))),
        case("insert", base(10), Nothing, new, set(2, l.short)),
        case("add of a key that is there", base(10), old, old, setting(2, l.short, ADD)),
        case("update", base(10), old, new, set(2, l.short)),
        case("update, same length", base(10), old, Value(2, l.other), set(2, l.other)),
        case("update, LRU, longer", lru(10), old, Value(2, l.middle), set(2, l.middle)),
        case("update, shorter", base(10), Value(1, l.middle), Value(2, 8), set(2, 8)),
        case("insert, bitmap", blocks(10, 64, 2000), Nothing, Value(2, l.middle), set(2, l.middle)),
        case("update, bitmap", blocks(10, 64, 2000), old, Value(2, l.middle), set(2, l.middle)),
        case("update, bitmap, shorter", blocks(10, 64, 2000), Value(1, l.middle), Value(2, 8), set(2, 8)),
        case("insert of a large value", base(10), Nothing, Value(2, l.large), set(2, l.large)),
        case("update of a large value", base(10), Value(1, l.large), new, set(2, l.short)),
        // Whole spans: the first update leaves the old value's, the second one takes them or breaks them up.
        case("updates in the kept run", base(10), Value(1, RUN), Value(2, RUN), twice(set(2, RUN), |_| {})),
        case(
            "updates beside the kept run",
            base(10),
            Value(1, RUN),
            Value(2, RUN + 4096),
            twice(set(2, RUN + 4096), |_| {}),
        ),
        case("updates that take turns", base(10), old, Value(2, l.other), twice(set(2, l.other), |_| {})),
        case(
            "insert where one went",
            base(10),
            Nothing,
            new,
            twice(set(2, l.short), |e| drop(e.delete(&key(X)))),
        ),
    ];
    cases[15].long = true;
    cases
}

/// Operations that remove items, and numbers.
pub(crate) fn deletes_and_numbers(l: &Lens) -> Vec<Case> {
    use Held::{Nothing, Number, Value};
    let old = Value(1, l.other);
    let x = key(X);
    let by_id: Run = Box::new(move |e| drop(e.exists(&x).map(|id| e.delete_id(id))));
    let mut sweep = case("sweep of an expired item", base(10), old, Nothing, Box::new(|e| drop(e.sweep())));
    sweep.expires = Expires::In(0);
    sweep.before = Nothing;
    let mut over =
        case("update of an expired item", base(10), Nothing, Value(2, l.short), setting(2, l.short, UPDATE));
    over.expires = Expires::In(0);
    let mut clear = case("clear", base(10), old, Nothing, Box::new(|e| drop(e.clear())));
    clear.others = Others::Cleared;
    // Half of the items go, and their neighbours are moved together.
    let mut move_together = case(
        "a sweep that moves",
        base(100),
        old,
        old,
        Box::new(|e| {
            drop(e.sweep());
        }),
    );
    move_together.sparse = true;
    let mut move_numbers =
        case("a sweep that moves a number", base(100), Number(5), Number(5), Box::new(|e| drop(e.sweep())));
    move_numbers.sparse = true;
    let x = key(X);
    let after_swap: Run = Box::new(move |e| {
        let _ = e.swap(&x, &9_i64.to_ne_bytes(), &Swap::Nothing);
        drop(e.math(&x, Math::Inc, 1, &UPDATE));
    });
    let x = key(X);
    let exclusive: Run = Box::new(move |e| {
        let _ = e.exclusive_begin();
        let _ = e.math(&x, Math::Inc, 1, &UPDATE);
        e.exclusive_end();
    });
    let mut both = case(
        "clear and sweep",
        base(10),
        old,
        Nothing,
        Box::new(|e| drop(e.clear().and_then(|()| e.sweep()))),
    );
    both.others = Others::Cleared;
    let mut reap = case(
        "a store reaps what a clear left",
        base(10),
        Nothing,
        Nothing,
        Box::new(|e| {
            let _ = e.clear();
            let _ = e.delete(b"no such key");
        }),
    );
    reap.others = Others::Cleared;
    vec![
        case("delete", base(10), old, Nothing, deleting()),
        case("delete by number", base(10), old, Nothing, by_id),
        case("delete, bitmap", blocks(10, 64, 2000), Value(1, l.middle), Nothing, deleting()),
        case("delete of a large value", base(10), Value(1, l.large), Nothing, deleting()),
        case("delete of a missing key", base(10), Nothing, Nothing, deleting()),
        case("incr", base(10), Number(5), Number(6), math(Math::Inc, 1)),
        case("mul, LRU", lru(10), Number(5), Number(50), math(Math::Mul, 10)),
        case("incr after a swap that fails", base(10), Number(5), Number(6), after_swap),
        case("incr in exclusive mode", base(10), Number(5), Number(6), exclusive),
        move_numbers,
        case("incr of a missing key", base(10), Nothing, Number(7), math(Math::Inc, 7)),
        sweep,
        move_together,
        over,
        clear,
        both,
        reap,
    ]
}

/// Full caches, chains of several buckets, many shards, placeholders, and exclusive mode.
pub(crate) fn full_caches_and_leases(l: &Lens) -> Vec<Case> {
    use Held::{Nothing, Value};
    let new = Value(2, l.short);
    let set = |len| setting(2, len, UPDATE);
    let mut all = Vec::new();
    let mut evict = |name, config: Config, items, after, run, others| {
        all.push(Case { items, others, ..case(name, config, Nothing, after, run) });
    };
    evict("refused: full", base(8), 8, Nothing, set(l.short), Others::Stay);
    evict("evicting insert", lru(8), 8, new, set(l.short), Others::Evicted(1));
    let few = Config { eviction: Eviction::Lru, ..blocks(60, 64, 60) };
    evict("evicting insert, bitmap", few, 12, Value(2, 1500), set(1500), Others::Evicted(12));
    let on_full = Config { clear_on_full: true, ..base(8) };
    evict("clear on full", on_full, 8, new, set(l.short), Others::Cleared);
    evict("insert into long chains", base(60), 59, new, set(l.short), Others::Stay);
    evict("evicting insert, long chains", lru(60), 60, new, set(l.short), Others::Evicted(1));
    let fifo = Config { eviction: Eviction::S3Fifo, ..base(60) };
    evict("evicting insert, S3-FIFO", fifo, 60, new, set(l.short), Others::Sampled(1));
    // The victim's block is too small for the item that takes its id.
    evict("evicting insert, larger value", lru(8), 8, Value(2, 1500), set(1500), Others::Evicted(1));
    // A store that cannot grow, and memory: what lies in the way of the value goes.
    let bytes = value(X, 2, 12_000);
    let crowded: Run = Box::new(move |e| without_growth(|| drop(e.set(&key(X), &bytes, &UPDATE))));
    let room = Config { max_value: 12_000, ..lru(CROWD.into()) };
    let room = case("a value that takes its neighbours' place", room, Nothing, Value(2, 12_000), crowded);
    all.push(Case { crowded: true, others: Others::Sampled(8), ..room });
    let leases = [
        ("fill: begin", Nothing, filling(|_, _, _| {})),
        ("fill: begin and abandon", Nothing, filling(|e, key, token| drop(e.abandon_fill(key, token)))),
        ("fill: begin and end", new, {
            let bytes = value(X, 2, l.short);
            filling(move |e, key, token| drop(e.end_fill(key, token, &bytes, Expires::Never)))
        }),
    ];
    for (name, after, run) in leases {
        all.push(Case { lease: true, ..case(name, base(10), Nothing, after, run) });
    }
    let bytes = value(X, 2, l.short);
    let alone: Run = Box::new(move |e| {
        if e.exclusive_begin().is_ok() {
            let _ = e.set(&key(X), &bytes, &UPDATE);
            e.exclusive_end();
        }
    });
    all.push(case("one thread alone", base(10), Value(1, l.other), new, alone));
    let bytes = value(X, 2, l.short);
    let many: Run = Box::new(move |e| drop(e.set(&key(X), &bytes, &UPDATE)));
    all.push(Case { items: 100, ..case("insert, several shards", base(2048), Nothing, new, many) });
    all
}

/// Items that are more than a new store has memory for.
const CROWD: u32 = 150;

/// Runs `f` while no file can grow.
fn without_growth(f: impl FnOnce()) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("a limit");
    setrlimit(Resource::RLIMIT_FSIZE, 1, hard).expect("a limit");
    f();
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard).expect("a limit");
}

/// A cache with the case's items.
pub(crate) fn prepare(case: &Case, engine: &Engine) {
    let passing = |number: u32, n: u32| format!("passing {number} {n}").into_bytes();
    for number in 1..=case.items {
        for n in (0..8).filter(|_| case.sparse) {
            engine.set(&passing(number, n), &[7; 600], &ADD).expect("set");
        }
        engine.set(&key(number), &value(number, 1, other_len(number)), &ADD).expect("set");
    }
    for number in (1..=case.items).filter(|_| case.sparse) {
        (0..8).for_each(|n| assert!(engine.delete(&passing(number, n)).expect("delete")));
    }
    if case.crowded {
        without_growth(|| {
            for n in (0..CROWD).take_while(|_| engine.stats().evicted == 0) {
                engine.set(&passing(0, n), &[7; 600], &ADD).expect("set");
            }
            // The next victims are the others, not the case's own.
            for number in 1..=case.items {
                let value = value(number, 1, other_len(number));
                engine.set(&key(number), &value, &UPDATE).expect("set");
            }
        });
    }
    let options = SetOptions { expires: case.expires, ..ADD };
    match case.before {
        Held::Value(seq, len) => {
            engine.set(&key(X), &value(X, seq, len), &options).expect("set");
        }
        Held::Number(n) => {
            engine.math(&key(X), Math::Inc, n, &ADD).expect("math");
        }
        Held::Bytes(byte, len) => {
            engine.set(&key(X), &vec![byte; len], &options).expect("set");
        }
        Held::Nothing if case.expires != Expires::Never => {
            engine.set(&key(X), &value(X, 1, 70), &options).expect("set");
        }
        Held::Nothing => {}
    }
}
