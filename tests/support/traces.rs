//! Request traces for judging eviction, and reference implementations of policies from their
//! papers.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::atomic::{AtomicU32, Ordering},
};

use fastrand::Rng;
use ucache::{Cache, Eviction};

/// A named sequence of requested keys.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// Its name.
    pub(crate) name: String,
    /// The keys, in order.
    pub(crate) keys: Vec<u32>,
    /// Number of distinct keys, of which cache sizes are fractions.
    pub(crate) objects: u32,
}

/// Cumulative shares of `n` keys whose popularity falls with their rank to the power of `skew`.
fn zipf(n: u32, skew: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut shares: Vec<f64> = (1..=n)
        .map(|rank| {
            sum += f64::from(rank).powf(-skew);
            sum
        })
        .collect();
    shares.iter_mut().for_each(|s| *s /= sum);
    shares
}

fn draw(shares: &[f64], rng: &mut Rng) -> u32 {
    let at = rng.f64();
    shares.partition_point(|&share| share < at) as u32
}

/// Four kinds of requests for `objects` keys, the same in every run.
pub(crate) fn synthetic(objects: u32, length: usize) -> Vec<Trace> {
    let shares = zipf(objects, 0.99);
    let flat = zipf(objects, 0.8);
    let mut rng = Rng::with_seed(20_151_016);
    let named = |name: &str, keys| Trace { name: name.to_owned(), keys, objects };
    let mut scanned = Vec::with_capacity(length);
    let mut next = objects;
    while scanned.len() < length {
        if rng.u32(0..1000) == 0 {
            // A scan of keys that are requested once.
            let run = rng.u32(100..300);
            scanned.extend(next..next + run);
            next += run;
        } else {
            scanned.push(draw(&shares, &mut rng));
        }
    }
    let shift = (objects as usize * 2 / 5).max(1);
    vec![
        named("zipf 0.99", (0..length).map(|_| draw(&shares, &mut rng)).collect()),
        named("zipf 0.8", (0..length).map(|_| draw(&flat, &mut rng)).collect()),
        named("zipf 0.99 with scans", scanned),
        named(
            "zipf 0.99, popularity reshuffled",
            (0..length)
                .map(|i| {
                    let era = (i / shift) as u64;
                    let mixed = (u64::from(draw(&shares, &mut rng)) + era * 1_000_003)
                        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                        .rotate_left(31)
                        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
                    ((mixed >> 33) % u64::from(objects)) as u32
                })
                .collect(),
        ),
        named("loop", (0..length).map(|i| i as u32 % (objects / 8)).collect()),
    ]
}

/// The requests of a real web application (see `tests/traces/README.md`).
pub(crate) fn public() -> Trace {
    let bytes = include_bytes!("../traces/web12");
    let keys: Vec<_> = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]).into()).collect();
    let objects = keys.iter().max().map_or(0, |last: &u32| last + 1);
    Trace { name: "Web12 (cache2k)".to_owned(), keys, objects }
}

/// The share of `keys` that hit; `ask` looks a key up and stores it on a miss.
pub(crate) fn hit_ratio(keys: &[u32], mut ask: impl FnMut(u32) -> bool) -> f64 {
    let hits = keys.iter().filter(|&&key| ask(key)).count();
    hits as f64 / keys.len() as f64
}

/// The hit ratio of ucache itself; each miss is followed by a store, as in an application.
pub(crate) fn measured(keys: &[u32], capacity: usize, policy: Eviction) -> f64 {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("judged {}", MADE.fetch_add(1, Ordering::Relaxed));
    let cache = Cache::builder(name).items(capacity as u64).evict(policy).build().expect("a cache");
    let ratio = hit_ratio(keys, |key| {
        let key = key.to_ne_bytes();
        let hit = cache.get_into(key, &mut [0; 8]).expect("a read").is_some();
        if !hit {
            cache.set(key, b"value").expect("evicts rather than refuses");
        }
        hit
    });
    assert!(cache.stats().items <= capacity as u64);
    ratio
}

/// Exact LRU: evicts the least recently used key.
pub(crate) fn exact_lru(keys: &[u32], capacity: usize) -> f64 {
    let mut used: HashMap<u32, u64> = HashMap::new();
    let mut order: BTreeMap<u64, u32> = BTreeMap::new();
    let mut now = 0;
    hit_ratio(keys, |key| {
        now += 1;
        let before = used.insert(key, now);
        order.insert(now, key);
        if let Some(before) = before {
            order.remove(&before);
        } else if used.len() > capacity
            && let Some((_, oldest)) = order.pop_first()
        {
            used.remove(&oldest);
        }
        before.is_some()
    })
}

/// S3-FIFO (Yang et al., SOSP 2023) with explicit queues: small 10 %, promotion after one more use.
pub(crate) fn exact_s3fifo(keys: &[u32], capacity: usize) -> f64 {
    let mut uses: HashMap<u32, u8> = HashMap::new();
    let (mut small, mut main, mut ghosts) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
    let mut is_ghost: HashSet<u32> = HashSet::new();
    hit_ratio(keys, |key| {
        if let Some(n) = uses.get_mut(&key) {
            *n = (*n + 1).min(3);
            return true;
        }
        while uses.len() >= capacity {
            let from_small = small.len() > capacity / 10 || main.is_empty();
            let Some(first) = (if from_small { small.pop_front() } else { main.pop_front() }) else { break };
            let left = uses[&first];
            if left > 0 {
                uses.insert(first, if from_small { 0 } else { left - 1 });
                main.push_back(first);
                continue;
            }
            uses.remove(&first);
            if from_small && is_ghost.insert(first) {
                ghosts.push_back(first);
                if ghosts.len() > capacity {
                    ghosts.pop_front().map(|g| is_ghost.remove(&g));
                }
            }
        }
        uses.insert(key, 0);
        if is_ghost.remove(&key) {
            main.push_back(key)
        } else {
            small.push_back(key)
        }
        false
    })
}

/// SIEVE (Zhang et al., NSDI 2024) as an explicit queue: the hand moves from the oldest to the
/// newest.
pub(crate) fn exact_sieve(keys: &[u32], capacity: usize) -> f64 {
    let mut visited: HashMap<u32, (bool, u64)> = HashMap::new();
    let mut order: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut hand, mut born) = (0, 0);
    hit_ratio(keys, |key| {
        if let Some((seen, _)) = visited.get_mut(&key) {
            *seen = true;
            return true;
        }
        while visited.len() >= capacity {
            let next =
                order.range(hand..).next().or_else(|| order.iter().next()).map(|(at, key)| (*at, *key));
            let Some((at, key)) = next else { break };
            hand = at + 1;
            match visited.get_mut(&key) {
                Some((seen, _)) if *seen => *seen = false,
                _ => {
                    visited.remove(&key);
                    order.remove(&at);
                }
            }
        }
        born += 1;
        visited.insert(key, (false, born));
        order.insert(born, key);
        false
    })
}
