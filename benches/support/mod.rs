//! What the benches share: keys, values, a skewed order of accesses, medians.
#![allow(dead_code, reason = "every bench uses its own part")]

use std::{sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};
use ucache::{
    engine::{Config, Engine, Expires, SetOptions, Sink},
    shm::SharedBytes,
};

/// Bytes of a value; keys have 16.
pub(crate) const VALUE: usize = 100;
pub(crate) const UPDATE: SetOptions = SetOptions::set(Expires::Never);

/// The key of a number: 16 bytes, the last 8 of them mixed.
pub(crate) fn key(n: u32) -> [u8; 16] {
    let mut out = [b'k'; 16];
    out[..8].copy_from_slice(&u64::from(n).to_le_bytes());
    out[8..].copy_from_slice(&(u64::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    out
}

/// Takes the value into a buffer of exactly its length.
pub(crate) struct Into100(pub(crate) [u8; VALUE]);

impl Sink for Into100 {
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        if src.len() != VALUE {
            return false;
        }
        src.copy_to_slice(&mut self.0);
        true
    }
}

/// Takes any value; keeps its memory from one read to the next.
pub(crate) struct IntoVec<'a>(pub(crate) &'a mut Vec<u8>);

impl Sink for IntoVec<'_> {
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        self.0.clear();
        src.copy_to_vec(self.0);
        true
    }
}

/// Room for `count` keys, and half as many again.
pub(crate) fn config(count: u32) -> Config {
    let mut config = Config::new("bench", u64::from(count) * 3 / 2);
    config.max_key = 64;
    config.max_value = 256;
    config
}

/// Stores keys 0 to `count`.
pub(crate) fn fill(engine: &Engine, count: u32) {
    for n in 0..count {
        engine.set(&key(n), &[b'v'; VALUE], &UPDATE).expect("set");
    }
}

/// A cache with `count` keys, and room for half as many again.
pub(crate) fn filled(count: u32) -> Arc<Engine> {
    let engine = Engine::create(&config(count)).expect("a cache");
    fill(&engine, count);
    engine
}

/// A million key numbers below `count`, Zipf-distributed with exponent 0.99, the popular ones
/// spread over all keys.
pub(crate) fn zipf(count: u32, seed: u64) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += f64::from(rank).powf(-0.99);
            sum
        })
        .collect();
    let mut ranks: Vec<u32> = (0..count).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut ranks);
    (0..1 << 20)
        .map(|_| {
            let at = cumulative.partition_point(|&c| c < rng.f64() * sum);
            ranks[at.min(ranks.len() - 1)]
        })
        .collect()
}

/// Nanoseconds of processor time per call of `body` over all of `order`: what other programs take
/// does not count.
pub(crate) fn time(order: &[u32], mut body: impl FnMut(u32)) -> f64 {
    time_of(order, || order.iter().for_each(|&n| body(n)))
}

/// The same per number, where a call of `body` gets so many of them.
pub(crate) fn time_of_calls(order: &[u32], numbers: usize, body: impl FnMut(&[u32])) -> f64 {
    time_of(order, || order.chunks(numbers).for_each(body))
}

fn time_of(order: &[u32], work: impl FnOnce()) -> f64 {
    let start = processor_time();
    work();
    let nanos = (processor_time() - start).as_secs_f64() * 1e9;
    nanos / f64::from(u32::try_from(order.len()).expect("a million"))
}

pub(crate) fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into()
}

pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
