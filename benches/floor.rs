//! How far the engine is from the memory: its reads and updates against a bare loop that computes a hash, touches
//! the same number of bucket and entry lines in shared memory and copies the value. Ratios of one run:
//! `cargo bench --bench floor`.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

#[path = "../tests/support/engine_proc.rs"]
mod engine_proc;
mod support;

use std::{
    hint::black_box,
    sync::atomic::{
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
    time::Instant,
};

use engine_proc::{Scratch, in_children};
use support::{Into100, UPDATE, VALUE, filled, key, median, time, zipf};
use ucache::engine::{Engine, Touch};

const ROUNDS: usize = 7;
/// Words of an entry: two of header, two of key, the value.
const ENTRY: usize = 4 + VALUE.div_ceil(8);

/// Buckets of one version word and seven slots, then the entries: the least that can be called a cache.
struct Floor {
    words: Scratch,
    buckets: usize,
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

fn hash(key: &[u8; 16]) -> u64 {
    let wide = u128::from(word(&key[..8]) ^ 0x2d35_8dcc_aa6c_78a5)
        * u128::from(word(&key[8..]) ^ 0x8bb8_4b93_962e_acc9);
    let folded = u64::try_from(wide >> 64).expect("64 bits")
        ^ u64::try_from(wide & u128::from(u64::MAX)).expect("64 bits");
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Floor {
    fn new(count: u32) -> Self {
        let count = usize::try_from(count).expect("a count");
        let buckets = (count * 2 / 7).next_power_of_two();
        let words = Scratch::new(buckets * 8 + count * ENTRY);
        let floor = Self { words, buckets };
        for n in 0..count {
            let key = key(u32::try_from(n).expect("a number"));
            let (base, tag) = floor.place(&key);
            let at = floor.buckets * 8 + n * ENTRY;
            for (slot, part) in [VALUE, 0, 0, 0].into_iter().enumerate() {
                floor.words[at + slot].store(u64::try_from(part).expect("small"), Relaxed);
            }
            floor.words[at + 2].store(word(&key[..8]), Relaxed);
            floor.words[at + 3].store(word(&key[8..]), Relaxed);
            // A full bucket lets its key go: the loop then touches one line fewer, in few cases.
            if let Some(free) = (1..8).find(|slot| floor.words[base + slot].load(Relaxed) == 0) {
                floor.words[base + free].store(tag << 48 | u64::try_from(at).expect("an index"), Release);
            }
        }
        floor
    }

    fn place(&self, key: &[u8; 16]) -> (usize, u64) {
        let hash = hash(key);
        let bucket = usize::try_from(hash).expect("64 bits") & (self.buckets - 1);
        (bucket * 8, hash >> 48)
    }

    fn find(&self, key: &[u8; 16]) -> Option<usize> {
        let (base, tag) = self.place(key);
        (1..8).find_map(|slot| {
            let word = self.words[base + slot].load(Acquire);
            let at = usize::try_from(word & ((1 << 48) - 1)).expect("an index");
            let same = word >> 48 == tag
                && word != 0
                && self.words[at + 2].load(Relaxed) == self::word(&key[..8])
                && self.words[at + 3].load(Relaxed) == self::word(&key[8..]);
            same.then_some(at)
        })
    }

    fn get(&self, key: &[u8; 16], out: &mut [u8; VALUE]) -> bool {
        let version = &self.words[self.place(key).0];
        let before = version.load(Acquire);
        let Some(at) = self.find(key) else { return false };
        for (part, chunk) in out.chunks_mut(8).enumerate() {
            let bytes = self.words[at + 4 + part].load(Relaxed).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        fence(Acquire);
        version.load(Relaxed) == before
    }

    /// Overwrites in place: not safe against a crash, the least an update can cost.
    fn update(&self, key: &[u8; 16], value: &[u8; VALUE]) {
        let version = &self.words[self.place(key).0];
        version.fetch_add(1, SeqCst);
        if let Some(at) = self.find(key) {
            for (part, chunk) in value.chunks(8).enumerate() {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                self.words[at + 4 + part].store(u64::from_le_bytes(bytes), Relaxed);
            }
        }
        version.fetch_add(1, Release);
    }
}

fn engine_gets(engine: &Engine, order: &[u32]) -> f64 {
    let mut sink = Into100([0; VALUE]);
    time(order, |n| assert!(engine.get(&key(n), Touch::Yes, &mut sink).expect("get").is_some()))
}

fn line(what: &str, floor: &[f64], engine: &[f64], goal: f64) {
    let (floor, engine) = (median(floor.to_vec()), median(engine.to_vec()));
    println!(
        "{what:<22} floor {floor:6.1} ns  engine {engine:6.1} ns  ratio {:5.2} (goal {goal})",
        engine / floor
    );
}

fn compare(count: u32) {
    let (floor, engine, order) = (Floor::new(count), filled(count), zipf(count, 5));
    let (mut bare, mut ours) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        let mut out = [0; VALUE];
        bare[0].push(time(&order, |n| {
            black_box(floor.get(&key(n), &mut out));
            black_box(&out);
        }));
        ours[0].push(engine_gets(&engine, &order));
        bare[1].push(time(&order, |n| floor.update(&key(n), &[b'w'; VALUE])));
        ours[1].push(time(&order, |n| {
            engine.set(&key(n), &[b'w'; VALUE], &UPDATE).expect("set");
        }));
    }
    line(&format!("get, {count} keys"), &bare[0], &ours[0], 1.5);
    line(&format!("update, {count} keys"), &bare[1], &ours[1], 3.0);
}

/// Millions of gets a second of so many processes together.
fn total_rate(engine: &Engine, order: &[u32], processes: usize) -> f64 {
    let (start, repeats) = (Instant::now(), 4);
    in_children(processes, |_| {
        for _ in 0..repeats {
            engine_gets(engine, order);
        }
    });
    let gets = f64::from(u32::try_from(order.len() * processes * repeats).expect("millions"));
    gets / start.elapsed().as_secs_f64() / 1e6
}

fn main() {
    for count in [100_000, 1_000_000] {
        compare(count);
    }
    let (engine, order) = (filled(100_000), zipf(100_000, 6));
    let rates: Vec<(f64, f64)> =
        (0..ROUNDS).map(|_| (total_rate(&engine, &order, 1), total_rate(&engine, &order, 2))).collect();
    let one = median(rates.iter().map(|r| r.0).collect());
    let two = median(rates.iter().map(|r| r.1).collect());
    println!(
        "gets, 100000 keys      1 process {one:.1} M/s  2 processes {two:.1} M/s  ratio {:.2} (goal 1.8)",
        two / one
    );
}
