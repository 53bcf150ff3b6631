//! The longest write while much memory goes back to the kernel: 3 GB of large values are deleted,
//! and small ones are stored beside it by another process. The writes that find much free memory
//! give it back, a piece each.
//!
//! ```text
//! cargo bench --bench longest
//! ```

#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

use std::time::{Duration, Instant};

use ucache::engine::{Config, Engine, Expires, SetOptions};

const SET: SetOptions = SetOptions::set(Expires::Never);
const LARGE: u64 = 1 << 20;
const VALUES: u64 = 3 << 10;

/// Small writes for a while: how many, the longest, and one in ten thousand.
fn small_writes(e: &Engine, from: u64, until: impl Fn(Duration) -> bool) -> (usize, Duration, Duration) {
    let begin = Instant::now();
    let mut times = Vec::with_capacity(1 << 22);
    while until(begin.elapsed()) && times.len() < times.capacity() {
        let key = from + times.len() as u64 % 1000;
        let start = Instant::now();
        e.set(&key.to_le_bytes(), b"a small value", &SET).expect("set");
        times.push(start.elapsed());
    }
    times.sort_unstable();
    (times.len(), times[times.len() - 1], times[times.len() - 1 - times.len() / 10_000])
}

fn main() {
    // `cargo test` runs benches without arguments of `cargo bench`: nothing to measure there.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let config = Config { max_value: LARGE, ..Config::new("longest", 100_000) };
    let e = Engine::create(&config).expect("a cache");
    let second = |passed: Duration| passed < Duration::from_secs(2);
    let print = |what: &str, (n, longest, p9999): (usize, Duration, Duration)| {
        println!("{what}: {n} writes, longest {longest:?}, 99.99 % within {p9999:?}");
    };
    print("alone", small_writes(&e, 1 << 40, second));
    let value = vec![1; LARGE as usize];
    let store = || {
        for n in 0..VALUES {
            e.set(&n.to_le_bytes(), &value, &SET).expect("set");
        }
    };
    let delete = || (0..VALUES).for_each(|n| assert!(e.delete(&n.to_le_bytes()).expect("delete")));
    store();
    print("beside 3 GB", small_writes(&e, 1 << 40, second));
    let start = Instant::now();
    delete();
    println!("3 GB deleted in {:?}", start.elapsed());
    print("while 3 GB go back, by these writes", small_writes(&e, 1 << 40, second));
    store();
    delete();
    let swept = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let start = Instant::now();
            e.sweep().expect("sweep");
            start.elapsed()
        });
        print("while 3 GB go back, by a sweep", small_writes(&e, 1 << 41, second));
        sweeper.join().expect("the sweeper")
    });
    println!("the sweep took {swept:?}");
}
