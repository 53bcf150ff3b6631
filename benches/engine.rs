//! Micro-benchmarks of the engine, by criterion: `cargo bench --bench engine`.
#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

#[path = "support/copies.rs"]
mod copies;
mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{Into100, IntoVec, UPDATE, VALUE, filled, key, zipf};
use ucache::engine::{Config, Cursor, Engine, Math, Touch};

fn hits(c: &mut Criterion) {
    let mut group = c.benchmark_group("get hit");
    for count in [1000, 100_000, 1_000_000] {
        let (engine, order) = (filled(count), zipf(count, 1));
        let keys: Vec<_> = order.iter().map(|&n| key(n)).collect();
        let mut sink = Into100([0; VALUE]);
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let found = engine.get(next.next().expect("endless"), Touch::Yes, &mut sink);
                assert!(found.expect("get").is_some());
                black_box(&sink.0);
            });
        });
    }
    group.finish();
}

fn reads(c: &mut Criterion) {
    let count = 100_000;
    let (engine, order) = (filled(count), zipf(count, 2));
    let keys: Vec<_> = order.iter().map(|&n| key(n)).collect();
    let absent: Vec<_> = order.iter().map(|&n| key(n + count)).collect();
    let mut sink = Into100([0; VALUE]);
    let mut next = absent.iter().cycle();
    c.bench_function("get miss", |b| {
        b.iter(|| {
            assert!(engine.get(next.next().expect("endless"), Touch::Yes, &mut sink).expect("get").is_none())
        });
    });
    let mut next = keys.iter().cycle();
    c.bench_function("exists", |b| {
        b.iter(|| assert!(engine.exists(next.next().expect("endless")).is_some()));
    });
    let mut next = keys.iter().cycle();
    c.bench_function("get counted", |b| {
        b.iter(|| engine.get_counted(next.next().expect("endless"), &mut sink).expect("get_counted"));
    });
}

fn writes(c: &mut Criterion) {
    let mut group = c.benchmark_group("update");
    for count in [100_000, 1_000_000] {
        let (engine, order) = (filled(count), zipf(count, 3));
        let mut next = order.iter().map(|&n| key(n)).cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| engine.set(&next.next().expect("endless"), &[b'u'; VALUE], &UPDATE).expect("set"));
        });
    }
    group.finish();
    let engine = filled(100_000);
    let mut n = 0;
    c.bench_function("insert and delete", |b| {
        b.iter(|| {
            n += 1;
            let key = key(1_000_000 + n % 40_000);
            engine.set(&key, &[b'i'; VALUE], &UPDATE).expect("set");
            assert!(engine.delete(&key).expect("delete"));
        });
    });
    c.bench_function("increment", |b| {
        b.iter(|| engine.math(b"counter", Math::Inc, 1, &UPDATE).expect("math"));
    });
}

/// The steps of an operation, each isolated by what differs between two: a miss is hash and bucket;
/// its time over length of key is the hash, that of hits over length of value the copy, that of
/// updates allocation and publishing.
fn steps(c: &mut Criterion) {
    let mut config = Config::new("steps", 10_000);
    config.max_value = 1 << 20;
    let engine = Engine::create(&config).expect("a cache");
    let mut group = c.benchmark_group("hash and bucket, key bytes");
    for length in [8, 16, 32, 64, 200] {
        let absent = vec![b'a'; length];
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| assert!(engine.exists(black_box(&absent)).is_none()));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("lookup and copy, value bytes");
    for length in [8, 100, 1000, 4096, 65_536, 1 << 20] {
        engine.set(b"copied", &vec![b'c'; length], &UPDATE).expect("set");
        let mut out = Vec::with_capacity(length);
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| {
                assert!(engine.get(b"copied", Touch::Yes, &mut IntoVec(&mut out)).expect("get").is_some())
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("alloc, copy and publish, value bytes");
    for length in [8, 100, 1000, 4096, 65_536, 1 << 20] {
        let value = vec![b'p'; length];
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| engine.set(b"published", &value, &UPDATE).expect("set"));
        });
    }
    group.finish();
}

/// Of all keys: lent, and as copies.
fn walks(c: &mut Criterion) {
    let mut group = c.benchmark_group("walk");
    for count in [100_000, 1_000_000] {
        let engine = filled(count);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new("lent", count), |b| {
            b.iter(|| {
                let (mut cursor, mut met) = (Cursor::default(), 0);
                while let Some(item) = engine.walk_ref(&mut cursor) {
                    met += u32::from(!black_box(item.key).is_empty());
                }
                assert_eq!(met, count);
            });
        });
        group.bench_function(BenchmarkId::new("copied", count), |b| {
            b.iter(|| {
                let mut cursor = Cursor::default();
                let met = std::iter::from_fn(|| engine.walk(&mut cursor)).map(black_box).count();
                assert_eq!(met, count as usize);
            });
        });
    }
    group.finish();
}

/// Beside libc's, without criterion: a ratio of samples that take turns.
fn beside_memcpy(_: &mut Criterion) {
    if std::env::args().any(|argument| argument == "--bench") {
        copies::table();
    } else {
        copies::check();
    }
}

criterion_group!(benches, hits, reads, writes, steps, walks, beside_memcpy);
criterion_main!(benches);
