//! A million keys that collide under the hashes of uWSGI's own cache, or under ucache's with a
//! secret other than the cache's: an operation takes as many instructions as with random keys.

use fastrand::Rng;
use ucache::engine::{Config, Engine, Expires, SetOptions, Touch};

use crate::{
    engine_proc::{alone, say},
    engine_step::{self, Stepped},
    engine_value,
    hash::Secret,
};

const KEYS: usize = 1_000_000;
/// Groups of keys whose operations are counted instruction by instruction, and keys in each: so many that the few in
/// second buckets of their chains, one key in ten, weigh the same in each sample.
const GROUPS: usize = 12;
const GROUP: usize = 8;
const UPDATE: SetOptions = SetOptions::set(Expires::Never);

fn djb33x(bytes: &[u8]) -> u32 {
    bytes.iter().fold(5381, |hash: u32, &byte| hash.wrapping_mul(33) ^ u32::from(byte))
}

/// Keys with the same hash: twenty positions with two choices each that lead to the same state.
fn djb33x_keys() -> Vec<Vec<u8>> {
    let mut state = 5381_u32;
    let mut choices = Vec::new();
    while choices.len() < 20 {
        let step = |a: u8, b: u8| (state.wrapping_mul(33) ^ u32::from(a)).wrapping_mul(33) ^ u32::from(b);
        let all = (33..127_u8).flat_map(|a| (33..127_u8).map(move |b| (a, b)));
        let mut met = std::collections::HashMap::new();
        let pair = all.filter_map(|(a, b)| met.insert(step(a, b), (a, b)).map(|old| (old, (a, b)))).next();
        let (one, other) = pair.expect("djb33x has two texts of two bytes for one state");
        choices.push((one, other));
        state = step(one.0, one.1);
    }
    let key = |n: usize| {
        let pick = |(place, (one, other)): (usize, &Choice)| {
            if n >> place & 1 == 1 { *one } else { *other }
        };
        choices.iter().enumerate().map(pick).flat_map(|(a, b)| [a, b]).collect()
    };
    (0..KEYS).map(key).collect()
}

/// A text of two bytes and another that leads to the same state.
type Choice = ((u8, u8), (u8, u8));

const M: u32 = 0x5bd1_e995;

fn murmur_mix(word: u32) -> u32 {
    let word = word.wrapping_mul(M);
    (word ^ word >> 24).wrapping_mul(M)
}

/// MurmurHash2 of 8 bytes, seed 0, before its last steps (which lose nothing).
fn murmur2_state(key: &[u8]) -> u32 {
    let word = |at: usize| u32::from_le_bytes(key[at..at + 4].try_into().expect("four bytes"));
    let first = 8_u32.wrapping_mul(M) ^ murmur_mix(word(0));
    first.wrapping_mul(M) ^ murmur_mix(word(4))
}

/// Every step can be undone: for each first half there is a second one that leads to the required
/// state.
fn murmur2_keys() -> Vec<Vec<u8>> {
    let mut inverse = M;
    while inverse.wrapping_mul(M) != 1 {
        inverse = inverse.wrapping_mul(2_u32.wrapping_sub(M.wrapping_mul(inverse)));
    }
    let unmix = |word: u32| {
        let word = word.wrapping_mul(inverse);
        (word ^ word >> 24).wrapping_mul(inverse)
    };
    let key = |n: usize| {
        let first = u32::try_from(n).expect("a million").wrapping_mul(2_654_435_761);
        let state = 8_u32.wrapping_mul(M) ^ murmur_mix(first);
        let second = unmix(0x1234_5678 ^ state.wrapping_mul(M));
        [first.to_le_bytes(), second.to_le_bytes()].concat()
    };
    (0..KEYS).map(key).collect()
}

/// Keys that all fall into one 64th of the index of a cache with this secret, and have one of 64
/// tags.
fn keys_for(secret: &Secret) -> Vec<Vec<u8>> {
    let picked = (0_u64..).filter(|n| secret.hash(&n.to_le_bytes()) >> 58 == 0);
    picked.take(KEYS).map(|n| n.to_le_bytes().to_vec()).collect()
}

/// Instructions of a read and of an update, on average and in the worst group, of keys spread over
/// a full cache.
fn cost(keys: &[Vec<u8>]) -> [f64; 4] {
    let mut config = Config::new("hostile", KEYS as u64);
    config.max_key = 64;
    config.max_value = 64;
    let engine = Engine::create(&config).expect("a cache");
    for key in keys {
        engine.set(key, b"12345678", &UPDATE).expect("set");
    }
    assert_eq!(engine.stats().items, KEYS as u64, "the keys differ");
    let some: Vec<&[u8]> =
        keys.iter().step_by(KEYS / GROUPS / GROUP).take(GROUPS * GROUP).map(Vec::as_slice).collect();
    let get = |key: &[u8]| drop(engine_value::get(&engine, key, Touch::No));
    let update = |key: &[u8]| drop(engine.set(key, b"12345678", &UPDATE));
    // Each shard has the block for its next update, so that none of those that count claims memory.
    some.iter().for_each(|key| update(key));
    let [reads, updates] = [&get as &dyn Fn(&[u8]), &update].map(|operation| {
        let count = |group: &[&[u8]]| {
            let mut child =
                Stepped::new(|| operation(some[0]), || group.iter().for_each(|key| operation(key)));
            while child.step() {}
            let steps = child.steps;
            child.kill();
            steps / GROUP as u64
        };
        some.chunks(GROUP).map(count).collect::<Vec<_>>()
    });
    let mean = |counts: &[u64]| counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let most = |counts: &[u64]| *counts.iter().max().expect("some") as f64;
    [mean(&reads), most(&reads), mean(&updates), most(&updates)]
}

#[test]
fn colliding_keys_cost_what_random_keys_cost() {
    let _alone = alone();
    engine_step::pin();
    let mut rng = Rng::new();
    let words = |rng: &mut Rng| [rng.u64(..) | 1, rng.u64(..) | 1, rng.u64(..) | 1, rng.u64(..) | 1];
    let (djb, murmur) = (djb33x_keys(), murmur2_keys());
    assert!(djb.iter().all(|key| djb33x(key) == djb33x(&djb[0])), "one hash");
    assert!(murmur.iter().all(|key| murmur2_state(key) == murmur2_state(&murmur[0])), "one hash");
    let own = keys_for(&Secret(words(&mut rng)));
    for (name, hostile) in [("djb33x", djb), ("murmur2", murmur), ("another secret", own)] {
        let len = hostile[0].len();
        let random: Vec<Vec<u8>> = (0..KEYS)
            .map(|n| {
                let mut key: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
                key[..4].copy_from_slice(&u32::try_from(n).expect("a million").to_le_bytes());
                key
            })
            .collect();
        let (bad, good) = (cost(&hostile), cost(&random));
        say(&format!(
            "{name}: instructions, mean and worst group, of a read {:.0} {:.0}, of an update {:.0} {:.0}; random keys: {:.0} {:.0}, {:.0} {:.0}",
            bad[0], bad[1], bad[2], bad[3], good[0], good[1], good[2], good[3]
        ));
        for (mean, at) in [("reads", 0), ("updates", 2)] {
            assert!(bad[at] < good[at] * 1.1 + 20.0, "{name}: {mean}: {} instead of {}", bad[at], good[at]);
            assert!(bad[at + 1] < good[at + 1] * 1.5, "{name}: the worst of {mean}: {}", bad[at + 1]);
        }
    }
}
