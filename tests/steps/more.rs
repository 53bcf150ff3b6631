//! More interrupted operations: conditional writes, and caches with an order of use.

use std::time::Duration;

use ucache::engine::{Config, Engine, Eviction, Expires, SetOptions, Side, Swap, Touch};

use super::cases::{
    ADD, Case, Held, Lens, Others, Run, UPDATE, X, base, blocks, case, deleting, key, lru, other_len,
    setting, value,
};
use crate::engine_value::{self, Bytes};

const HOUR: Duration = Duration::from_secs(3600);

fn s3fifo(capacity: u64) -> Config {
    Config { eviction: Eviction::S3Fifo, ..base(capacity) }
}

fn sieve(capacity: u64) -> Config {
    Config { eviction: Eviction::Sieve, ..base(capacity) }
}

/// X's value for another, if it is the one expected.
fn swapping(expected: Vec<u8>, new: Option<(Vec<u8>, Option<Expires>)>) -> Run {
    let x = key(X);
    Box::new(move |e| {
        let swap = new.as_ref().map_or(Swap::Nothing, |(value, expires)| Swap::Value(value, *expires));
        drop(e.swap(&x, &expected, &swap));
    })
}

/// Compare-and-swap, take, another expiry, the lease to refresh.
pub(crate) fn swaps_and_refreshes(l: &Lens) -> Vec<Case> {
    use Held::{Nothing, Value};
    let (old, new) = (Value(1, l.other), Value(2, l.short));
    let there = || value(X, 1, l.other);
    let put = |expires| Some((value(X, 2, l.short), expires));
    let take = || -> Run {
        let x = key(X);
        Box::new(move |e| drop(e.take_out(&x, &mut Bytes::default())))
    };
    let expire = |expires| -> Run {
        let x = key(X);
        Box::new(move |e| drop(e.expire(&x, expires)))
    };
    let refresh = |end: bool| -> Run {
        let x = key(X);
        Box::new(move |e| {
            if let Ok(Some(token)) = e.begin_refresh(&x, HOUR)
                && end
            {
                let _ = e.set(&x, &value(X, 1, 70), &ADD);
                let _ = e.end_refresh(&x, token);
            }
        })
    };
    let mut few = Case { refresh: true, ..case("refresh: begin", base(12), old, old, refresh(false)) };
    few.expires = Expires::In(3600);
    let mut all = vec![
        case("swap", base(10), old, new, swapping(there(), put(None))),
        case("swap, LRU, another expiry", lru(10), old, new, swapping(there(), put(Some(Expires::In(3600))))),
        case("swap, bitmap", blocks(10, 64, 2000), old, new, swapping(there(), put(None))),
        case("swap for nothing", base(10), old, Nothing, swapping(there(), None)),
        case("swap of another value", base(10), old, old, swapping(value(X, 7, l.other), put(None))),
        case("take", base(10), old, Nothing, take()),
        case("take, bitmap", blocks(10, 64, 2000), Value(1, l.middle), Nothing, take()),
        case("take of a missing key", base(10), Nothing, Nothing, take()),
        case("expire: later", base(10), old, old, expire(Expires::In(3600))),
        case("expire: at once", base(10), old, Nothing, expire(Expires::In(0))),
        case("expire, LRU, as it was", lru(10), old, old, expire(Expires::Never)),
        few,
        Case { refresh: true, ..case("refresh: begin and end", base(12), old, old, refresh(true)) },
    ];
    // These have an expiry that the swap keeps, or replaces.
    for at in [0, 2, 3, 10] {
        all[at].expires = Expires::In(3600);
    }
    all
}

/// What needs an existing key: replace, append, prepend.
pub(crate) fn replaces_and_joins(l: &Lens) -> Vec<Case> {
    use Held::{Bytes, Nothing, Value};
    let replacing = || setting(2, l.short, SetOptions::replace(Expires::Never));
    let joining = |side, len: usize| -> Run {
        let x = key(X);
        Box::new(move |e| drop(e.join(&x, &vec![b'x'; len], side)))
    };
    let (old, new) = (Bytes(b'x', l.other), Bytes(b'x', l.other + l.middle));
    let mut all = vec![
        case("append", base(10), old, new, joining(Side::Back, l.middle)),
        case("prepend, LRU", lru(10), old, new, joining(Side::Front, l.middle)),
        case("append, bitmap", blocks(10, 64, 2000), old, new, joining(Side::Back, l.middle)),
        case("append to a missing key", base(10), Nothing, Nothing, joining(Side::Back, l.middle)),
        case("replace", base(10), Value(1, l.other), Value(2, l.short), replacing()),
        case("replace of a missing key", base(10), Nothing, Nothing, replacing()),
    ];
    all[0].expires = Expires::In(3600);
    all
}

fn hit(touch: Touch) -> Run {
    let x = key(X);
    Box::new(move |e| drop(engine_value::get(e, &x, touch)))
}

/// Every other item is used: some often, so that they are requeued.
fn use_others(engine: &Engine, items: u32) {
    for number in 1..=items {
        for _ in 0..number % 3 {
            drop(engine_value::get(engine, &key(number), Touch::Yes));
        }
    }
}

/// Caches that evict: hits, and items moving through their queues.
pub(crate) fn queues(l: &Lens) -> Vec<Case> {
    use Held::{Nothing, Value};
    let (old, new) = (Value(1, l.other), Value(2, l.short));
    let counted = || -> Run {
        let x = key(X);
        Box::new(move |e| drop(e.get_counted(&x, &mut Bytes::default())))
    };
    let mut all = vec![
        case("hit, S3-FIFO", s3fifo(10), old, old, hit(Touch::Yes)),
        case("hit, counted, S3-FIFO", s3fifo(10), old, old, counted()),
        case("hit, counted, LRU", lru(10), old, old, counted()),
        case("hit, sampled LRU", lru(5000), old, old, hit(Touch::Yes)),
        case("insert, S3-FIFO", s3fifo(10), Nothing, new, setting(2, l.short, UPDATE)),
        case("update, S3-FIFO", s3fifo(10), old, new, setting(2, l.short, UPDATE)),
        case("delete, S3-FIFO", s3fifo(10), old, Nothing, deleting()),
        case("hit, SIEVE", sieve(10), old, old, hit(Touch::Yes)),
        case("insert, SIEVE", sieve(10), Nothing, new, setting(2, l.short, UPDATE)),
        case("update, SIEVE", sieve(10), old, new, setting(2, l.short, UPDATE)),
    ];
    let mut full = |name, config, items, before, after, run, most| {
        all.push(Case { items, others: Others::Sampled(most), ..case(name, config, before, after, run) });
    };
    full("evicting insert, S3-FIFO", s3fifo(8), 8, Nothing, new, setting(2, l.short, UPDATE), 1);
    let (x, bytes) = (key(X), value(X, 2, l.short));
    let after_uses: Run = Box::new(move |e| {
        use_others(e, 8);
        drop(e.set(&x, &bytes, &UPDATE));
    });
    full("hits and evicting insert, S3-FIFO", s3fifo(8), 8, Nothing, new, after_uses, 1);
    let (x, bytes) = (key(X), value(X, 2, l.short));
    let after_uses: Run = Box::new(move |e| {
        use_others(e, 8);
        drop(e.set(&x, &bytes, &UPDATE));
    });
    full("evicting insert, SIEVE", sieve(8), 8, Nothing, new, setting(2, l.short, UPDATE), 1);
    full("hits and evicting insert, SIEVE", sieve(8), 8, Nothing, new, after_uses, 1);
    // An item evicted from the small queue returns to the main one, because of the ghost list.
    let ghosts: Run = Box::new(|e| {
        for number in 100..104 {
            let _ = e.set(&key(number), &value(number, 1, 60), &ADD);
        }
        for number in 1..=8 {
            let _ = e.set(&key(number), &value(number, 1, other_len(number)), &ADD);
        }
    });
    full("ghosts come back, S3-FIFO", s3fifo(8), 8, Nothing, Nothing, ghosts, 8);
    let few = Config { eviction: Eviction::S3Fifo, ..blocks(60, 64, 60) };
    full("evicting insert, S3-FIFO, bitmap", few, 12, Nothing, Value(2, 1500), setting(2, 1500, UPDATE), 12);
    all
}

/// Evicting inserts into caches of many shards, which sample.
pub(crate) fn sampled(l: &Lens) -> Vec<Case> {
    let new = Held::Value(2, l.short);
    // Just more than the limit of exact order: each is read after each step.
    let items = 4200;
    let full = |name, config: Config| {
        let run = setting(2, l.short, UPDATE);
        Case { items, others: Others::Sampled(1), ..case(name, config, Held::Nothing, new, run) }
    };
    vec![
        full("evicting insert, sampled LRU", lru(u64::from(items))),
        full("evicting insert, sampled S3-FIFO", s3fifo(u64::from(items))),
        full("evicting insert, sampled SIEVE", sieve(u64::from(items))),
    ]
}
