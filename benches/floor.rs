//! How far the engine is from the memory: its reads and updates against a bare loop that computes a
//! hash, touches the same number of bucket and entry lines in shared memory and copies the value.
//! Ratios of one run: `cargo bench --bench floor`.
#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

#[path = "../tests/support/engine_proc.rs"]
mod engine_proc;
#[path = "support/floor.rs"]
mod floor;
#[path = "../tests/support/patience.rs"]
mod patience;
#[path = "support/processor.rs"]
mod processor;
#[path = "support/quiet.rs"]
mod quiet;
mod support;

use std::{hint::black_box, time::Instant};

use engine_proc::in_children;
use floor::Floor;
use support::{Into100, UPDATE, VALUE, config, fill, filled, key, median, time, time_of_calls, zipf};
use ucache::{
    Cache,
    engine::{Engine, HugePages, Touch},
};

const ROUNDS: usize = 7;

fn engine_gets(engine: &Engine, order: &[u32]) -> f64 {
    let mut sink = Into100([0; VALUE]);
    time(order, |n| {
        assert!(engine.get(&key(n), Touch::Yes, &mut sink).expect("get").is_some());
        black_box(&sink.0);
    })
}

fn floor_gets(floor: &Floor, order: &[u32]) -> f64 {
    let mut out = [0; VALUE];
    time(order, |n| {
        assert!(floor.get(&key(n), &mut out));
        black_box(&out);
    })
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
        bare[0].push(floor_gets(&floor, &order));
        ours[0].push(engine_gets(&engine, &order));
        let value = black_box([b'w'; VALUE]);
        bare[1].push(time(&order, |n| assert!(floor.update(&key(n), &value))));
        ours[1].push(time(&order, |n| {
            engine.set(&key(n), &value, &UPDATE).expect("set");
        }));
    }
    line(&format!("get, {count} keys"), &bare[0], &ours[0], 1.5);
    line(&format!("update, {count} keys"), &bare[1], &ours[1], 3.0);
}

/// Millions of gets per second of this many processes together.
fn total_rate(order: &[u32], processes: usize, gets: impl Fn(&[u32]) -> f64 + Sync) -> f64 {
    let (start, repeats) = (Instant::now(), 4);
    in_children(processes, |_| {
        for _ in 0..repeats {
            gets(order);
        }
    });
    let gets = f64::from(u32::try_from(order.len() * processes * repeats).expect("millions"));
    gets / start.elapsed().as_secs_f64() / 1e6
}

/// Gets of one process and of two at the same time; what the bare loop gains by the second is what
/// the machine has to give.
fn two_processes(count: u32) {
    let (floor, engine, order) = (Floor::new(count), filled(count), zipf(count, 6));
    let bare = |order: &[u32]| floor_gets(&floor, order);
    let ours = |order: &[u32]| engine_gets(&engine, order);
    let mut rates: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..ROUNDS {
        for processes in [1, 2] {
            rates[0][processes - 1].push(total_rate(&order, processes, bare));
            rates[1][processes - 1].push(total_rate(&order, processes, ours));
        }
    }
    for (whose, rates) in ["floor", "engine"].iter().zip(rates) {
        let [one, two] = rates.map(median);
        println!(
            "gets, {count} keys, {whose:<6} 1 process {one:.1} M/s  2 processes {two:.1} M/s  ratio {:.2}{}",
            two / one,
            if *whose == "engine" { " (goal 1.8)" } else { "" }
        );
    }
}

/// Gets with huge pages against those with small ones, or what the kernel would have to allow for
/// that.
fn huge(count: u32, asked: HugePages) {
    let make = |pages| {
        let mut config = config(count);
        config.huge_pages = pages;
        let engine = Engine::create(&config).expect("a cache");
        fill(&engine, count);
        engine
    };
    let (small, huge, order) = (make(HugePages::Off), make(asked), zipf(count, 8));
    if huge.config().huge_pages != asked || !huge.notes().is_empty() {
        println!(
            "get, {count} keys, {asked:?} huge pages: not measured: {}; \
             /sys/kernel/mm/transparent_hugepage/shmem_enabled has to be advise, within_size or always, \
             and for reserved ones vm.nr_hugepages {} or more",
            huge.notes().join("; "),
            huge.stats().reserved.div_ceil(2 << 20)
        );
        return;
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        times[0].push(engine_gets(&small, &order));
        times[1].push(engine_gets(&huge, &order));
    }
    let [small, huge] = times.map(median);
    println!(
        "get, {count} keys, {asked:?} huge pages: {huge:6.1} ns  small ones {small:6.1} ns  ratio {:5.2}",
        huge / small
    );
}

/// Reads and updates of many keys in one call against as many calls, a copy of each value in a
/// vector of its own.
fn batches(count: u32) {
    const CALL: usize = 100;
    let cache = Cache::builder("batches")
        .items(u64::from(count) * 3 / 2)
        .max_value_bytes(256)
        .build()
        .expect("a cache");
    for n in 0..count {
        cache.set(key(n), [b'v'; VALUE]).expect("update");
    }
    let order = zipf(count, 9);
    let (mut one, mut many) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        one[0].push(time(&order, |n| assert!(black_box(cache.get(key(n)).expect("get")).is_some())));
        many[0].push(time_of_calls(&order, CALL, |part| {
            let found = cache.get_many(part.iter().map(|&n| key(n))).expect("get_many");
            assert!(black_box(found).iter().all(Option::is_some));
        }));
        let value = black_box([b'w'; VALUE]);
        one[1].push(time(&order, |n| {
            cache.set(key(n), value).expect("update");
        }));
        many[1].push(time_of_calls(&order, CALL, |part| {
            cache.set_many(part.iter().map(|&n| (key(n), value))).expect("set_many");
        }));
    }
    for (what, (one, many)) in ["get", "update"].iter().zip(one.into_iter().zip(many)) {
        let (one, many) = (median(one), median(many));
        println!(
            "{what}_many of {CALL}, {count} keys: {many:6.1} ns a key  one by one {one:6.1} ns  ratio {:5.2}",
            many / one
        );
    }
}

fn main() {
    println!("{}", processor::Processor::here().line());
    let watch = quiet::Watch::begin();
    for count in [100_000, 1_000_000] {
        compare(count);
    }
    batches(100_000);
    batches(1_000_000);
    for asked in [HugePages::Advised, HugePages::Reserved] {
        huge(1_000_000, asked);
    }
    two_processes(100_000);
    // Every figure is the median of some rounds; how they differ is not kept.
    println!("{}", watch.end(1.0).line());
}
