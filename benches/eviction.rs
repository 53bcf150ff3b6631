//! Hit ratios of the eviction policies, in percent, beside exact LRU, S3-FIFO and SIEVE, for caches
//! of 1 % and 10 % of the objects, on made-up traces and a public one.
//! `cargo bench --bench eviction`; `UCACHE_TRACE=file` adds a trace of your own, one key a line.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

#[path = "../tests/support/traces.rs"]
mod traces;

use std::collections::HashMap;

use traces::{Trace, exact_lru, exact_s3fifo, exact_sieve, measured, public, synthetic};
use ucache::Eviction;

/// The lines of a file as keys, numbered by their first use.
fn read(path: &str) -> Trace {
    let text = std::fs::read_to_string(path).expect("UCACHE_TRACE names a file, one key a line");
    let mut numbers = HashMap::new();
    let keys = text.lines().map(|line| {
        let next = numbers.len() as u32;
        *numbers.entry(line).or_insert(next)
    });
    let keys = keys.collect();
    Trace { name: path.to_owned(), keys, objects: numbers.len() as u32 }
}

fn main() {
    let mut traces = synthetic(200_000, 2_000_000);
    traces.push(public());
    traces.extend(std::env::var("UCACHE_TRACE").ok().map(|path| read(&path)));
    println!(
        "{:34} {:>4}  {:>6} {:>6}  {:>6} {:>6}  {:>6} {:>6}",
        "", "", "lru", "exact", "s3fifo", "exact", "sieve", "exact"
    );
    for trace in &traces {
        for percent in [1, 10] {
            let capacity = (trace.objects as usize * percent / 100).max(1);
            let keys = &trace.keys;
            let row = [
                measured(keys, capacity, Eviction::Lru),
                exact_lru(keys, capacity),
                measured(keys, capacity, Eviction::S3Fifo),
                exact_s3fifo(keys, capacity),
                measured(keys, capacity, Eviction::Sieve),
                exact_sieve(keys, capacity),
            ]
            .map(|ratio| ratio * 100.0);
            let [lru, exact, fifo, exact_fifo, sieve, exact_sieve] = row;
            println!(
                "{:34} {percent:3}%  {lru:6.2} {exact:6.2}  {fifo:6.2} {exact_fifo:6.2}  {sieve:6.2} {exact_sieve:6.2}",
                trace.name
            );
        }
    }
}
