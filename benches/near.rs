//! Copies of a server's values: what a hit, a miss and a write cost beside a local cache and a
//! server without copies, how soon another machine sees a change, and how many changes an owner
//! applies. One machine: two regions of one process, a server on a unix socket.

#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

#[path = "../tests/support/backend.rs"]
mod backend;
#[path = "../tests/support/patience.rs"]
mod patience;

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use backend::Server;
use ucache::{Backend, Cache, Eviction, Expires};

const VALUE: [u8; 100] = [b'v'; 100];
/// Keys of the hits.
const KEYS: usize = 1000;

fn machine(name: &str, server: &Server, near: bool) -> Cache {
    let backend = Backend::url(server.url()).prefix("p:").near(near).timeout(Duration::from_secs(20));
    Cache::builder(name).items(100_000).timeout(Expires::Never).backend(backend).build().expect("a cache")
}

/// Median of several rounds, nanoseconds an operation.
fn time(name: &str, count: usize, mut operation: impl FnMut(usize)) -> f64 {
    let mut rounds: Vec<_> = (0..7)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(&mut operation);
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<44} {:>12.1} ns", rounds[3]);
    rounds[3]
}

/// Plain `GET`s over one socket, as a client without a cache sends them.
fn plain_get(server: &Server, count: usize) -> f64 {
    let stream = UnixStream::connect(server.socket()).expect("it listens");
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    time("server: GET", count, |n| {
        let key = format!("p:k{}", n % KEYS);
        let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        reader.get_mut().write_all(request.as_bytes()).expect("sent");
        line.clear();
        reader.read_until(b'\n', &mut line).expect("a length");
        line.clear();
        reader.read_until(b'\n', &mut line).expect("a value");
    })
}

/// Least of many rounds in which the caches take turns, nanoseconds a hit: what else the machine
/// does disturbs all alike.
fn taking_turns<const N: usize>(
    count: usize,
    caches: [&Cache; N],
    mut read: impl FnMut(&Cache, usize),
) -> [f64; N] {
    let mut least = [f64::MAX; N];
    for _ in 0..100 {
        for (cache, least) in caches.iter().zip(&mut least) {
            let start = Instant::now();
            (0..count).for_each(|n| read(cache, n));
            *least = least.min(start.elapsed().as_nanos() as f64 / count as f64);
        }
    }
    least
}

fn hits(server: &Server, count: usize) {
    let local = |name: &str, evict| {
        let c = Cache::builder(name).items(100_000).timeout(Expires::Never).evict(evict);
        c.build().expect("a cache")
    };
    let (plain, local) = (local("plain", Eviction::None), local("local", Eviction::S3Fifo));
    let (near, far) = (machine("near", server, true), machine("far", server, false));
    let keys: Vec<_> = (0..KEYS).map(|n| format!("k{n}")).collect();
    for key in &keys {
        plain.set(key, VALUE).expect("set");
        local.set(key, VALUE).expect("set");
        near.set(key, VALUE).expect("set");
    }
    // The messages of the writes are through.
    thread::sleep(Duration::from_millis(500));
    keys.iter().for_each(|key| _ = near.get(key).expect("get"));
    let mut buffer = [0; 200];
    let mut read = |cache: &Cache, n: usize| {
        black_box(cache.get_into(&keys[n % KEYS], &mut buffer).expect("get").expect("a value"));
    };
    let before = near.near_stats().expect("it has a backend").hits;
    let [of_plain, of_local, of_near] = taking_turns(count, [&plain, &local, &near], &mut read);
    assert!(near.near_stats().expect("it has a backend").hits - before >= 90 * count as u64);
    println!("local cache that does not evict: hit {of_plain:>20.1} ns");
    println!("local cache, S3-FIFO as copies: hit  {of_local:>20.1} ns");
    println!("copies: hit                          {of_near:>20.1} ns");
    let get = plain_get(server, count);
    let of_far = time("near=0: read (GET, PTTL)", count, |n| read(&far, n));
    time("near=0: write", count, |n| _ = far.set(&keys[n % KEYS], VALUE).expect("set"));
    time("copies: write", count, |n| _ = near.set(&keys[n % KEYS], VALUE).expect("set"));
    // Each of these keys is read once.
    (0..8 * count).for_each(|n| _ = far.set(format!("m{n}"), VALUE).expect("set"));
    let mut next = 0;
    let miss = time("copies: miss", count, |_| {
        black_box(near.get(format!("m{next}")).expect("get").expect("a value"));
        next += 1;
    });
    println!(
        "a hit of a copy: {:.2} of a local hit's speed ({:.2} of one without eviction), {:.0} times a GET",
        of_local / of_near,
        of_plain / of_near,
        get / of_near
    );
    println!("a miss: {:.1} us more than near=0", (miss - of_far) / 1000.0);
}

/// From the writer's OK to the other machine's miss.
fn latency(server: &Server, count: usize) {
    let [writer, reader] = ["writer", "reader"].map(|name| machine(name, server, true));
    reader.set("k", "0").expect("set");
    thread::sleep(Duration::from_millis(300));
    let mut took = Vec::new();
    for n in 0..count {
        let value = n.to_string();
        while reader.get("k").expect("get").is_none()
            || reader.near_stats().expect("it has a backend").hits == 0
        {}
        writer.set("k", &value).expect("set");
        let start = Instant::now();
        while reader.get("k").expect("get").is_none_or(|now| now != value.as_bytes()) {}
        took.push(start.elapsed());
    }
    took.sort();
    println!("a change is seen elsewhere after: p50 {:?}, p99 {:?}", took[count / 2], took[count * 99 / 100]);
}

/// Processor time of this process's owners so far, microseconds.
fn owners() -> f64 {
    let mut nanos = 0_u64;
    for task in std::fs::read_dir("/proc/self/task").expect("threads are listed").flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == "ucache-owner" {
            nanos += read("schedstat").split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    nanos as f64 / 1000.0
}

/// Changes that one owner applies, and whether the beat keeps up.
fn changes(server: &Server, count: usize) {
    let c = machine("changes", server, true);
    c.set("k", "v").expect("set");
    thread::sleep(Duration::from_millis(300));
    let heard = || {
        let stats = c.near_stats().expect("it has a backend");
        stats.invalidated + stats.invalidated_absent
    };
    let (before, start, used) = (heard(), Instant::now(), owners());
    let mut oldest = 0;
    let mut stream = UnixStream::connect(server.socket()).expect("it listens");
    let replies = stream.try_clone().expect("a copy");
    let drain = thread::spawn(move || BufReader::new(replies).lines().take(count).count());
    let batch: Vec<u8> = (0..1000)
        .flat_map(|n| format!("*3\r\n$3\r\nSET\r\n$5\r\np:{n:03}\r\n$1\r\nv\r\n").into_bytes())
        .collect();
    for _ in 0..count / 1000 {
        stream.write_all(&batch).expect("sent");
        oldest = oldest.max(c.near_stats().expect("it has a backend").silence_ms);
    }
    drain.join().expect("all replies");
    while heard() - before < count as u64 / 2 && start.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(20));
    let (n, took) = (heard() - before, start.elapsed());
    println!(
        "{count} changes, {n} messages' keys applied in {took:?}: {:.0} a second; the beat was {oldest} ms old at most",
        n as f64 / took.as_secs_f64()
    );
    println!("a change takes {:.2} us of the owner's processor time", (owners() - used) / n as f64);
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "quick" || arg == "--test");
    let count = if quick { 200 } else { 20_000 };
    let server = Server::start();
    hits(&server, count);
    latency(&server, count / 10);
    changes(&server, count * 50);
}
