//! The engine's copies against libc's `memcpy`, out of and into memory of 16 MiB, as values lie in
//! a cache: both sides take turns, in one process.
#![allow(dead_code, reason = "the bench uses its part")]

#[allow(unused_imports, reason = "its tests run with the library's")]
#[path = "../../src/shm/copy.rs"]
mod copy;

use std::hint::black_box;

use crate::support::{median, processor_time};

const SHARED: usize = 16 << 20;
const ROUNDS: usize = 31;
/// Bytes that a sample copies at least.
const SAMPLE: usize = 4 << 20;
/// A copy that is less than so many times as fast as `memcpy` fails.
const LEAST: f64 = 0.95;
/// Where private memory begins in its page: as `malloc` returns it, and far from the value's place.
const STARTS: [usize; 2] = [16, 2064];

fn sample(shared: &mut [u64], private: &mut [u8], len: usize, ours: bool, into: bool) -> f64 {
    let stride = len.next_multiple_of(4096) + 4096;
    let places = (SHARED / stride).max(1);
    let count = SAMPLE.div_ceil(len);
    let start = processor_time();
    for n in 0..count {
        // An entry's value begins 32 bytes into a span.
        let at = n * 7 % places * stride + 32;
        // SAFETY: `at + len` is within `shared`, whose words are aligned, and `private` has
        // `len` bytes; no other code uses them.
        unsafe {
            let shared = shared.as_mut_ptr().cast::<u8>().add(at);
            match (ours, into) {
                (true, false) => copy::load(shared, private.as_mut_ptr(), len),
                (true, true) => copy::store(private.as_ptr(), shared, len),
                (false, false) => shared.copy_to_nonoverlapping(private.as_mut_ptr(), len),
                (false, true) => shared.copy_from_nonoverlapping(private.as_ptr(), len),
            }
        }
        black_box(&mut *private);
    }
    (processor_time() - start).as_secs_f64() * 1e9 / count as f64
}

/// Prints a row for each length and direction; a row under 0.95 is marked.
#[allow(clippy::disallowed_macros, reason = "a bench prints its figures")]
pub(crate) fn table() {
    let mut shared = vec![1_u64; (SHARED + (8 << 20)) / 8];
    let from = shared.as_ptr().align_offset(4096);
    let shared = &mut shared[from..];
    let mut private = vec![1_u8; (4 << 20) + 8192];
    println!("| copy | bytes | memcpy, ns | engine, ns | times as fast | |\n|---|---|---|---|---|---|");
    for (into, len) in [false, true].into_iter().flat_map(|into| {
        [144, 200, 256, 1024, 4096, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20].map(|len| (into, len))
    }) {
        for start in STARTS {
            let start = start + private.as_ptr().align_offset(4096);
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..ROUNDS {
                for side in [round % 2, 1 - round % 2] {
                    let private = &mut private[start..start + len];
                    times[side].push(sample(shared, private, len, side == 1, into));
                }
            }
            let ratios = times[0].iter().zip(&times[1]).map(|(theirs, ours)| theirs / ours).collect();
            let (ratio, [theirs, ours]) = (median(ratios), times.map(median));
            println!(
                "| {} | {len} | {theirs:.0} | {ours:.0} | {ratio:.2} | {} |",
                if into { "into shared memory" } else { "out of shared memory" },
                if ratio < LEAST { "FAILED" } else { "" },
            );
        }
    }
}

/// Whether copies are what they should be: run where nothing is measured.
pub(crate) fn check() {
    let mut shared = vec![0_u64; 1 << 17];
    let private: Vec<u8> = (0..1 << 20).map(|n| (n * 31 / 7) as u8).collect();
    let mut back = vec![0_u8; 1 << 20];
    for len in [1, 100, 4096, 70_001, 1 << 20] {
        // SAFETY: all three have at least `len` bytes.
        unsafe {
            copy::store(private.as_ptr(), shared.as_mut_ptr().cast(), len);
            copy::load(shared.as_ptr().cast(), back.as_mut_ptr(), len);
        }
        assert_eq!(back[..len], private[..len], "{len}");
    }
}
