//! `bench`: operations per second and their latency, on a new or a given cache.

use std::{
    io::Write,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Context, args::Bench, failure::Outcome, target::Target, text::rate};
use crate::{
    engine::{Config, Engine},
    near::Tier,
};

/// Prefix of the keys, so that they do not collide with others.
const PREFIX: &str = "ucache-bench:";
/// One operation in this many is timed: reading the clock takes as long as a read of the cache.
const TIMED: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Set,
    Get,
    Miss,
    Mixed,
    Del,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Set, "set"),
    (Kind::Get, "get, hit"),
    (Kind::Miss, "get, miss"),
    (Kind::Mixed, "95 % get, 5 % set"),
    (Kind::Del, "del and set"),
];

/// The results of one kind of operation.
struct Measured {
    per_second: f64,
    /// Nanoseconds, sorted.
    times: Vec<u64>,
    errors: u64,
}

pub(super) fn run(context: &mut Context, args: &Bench) -> Outcome {
    let target = match &args.target {
        Some(target) => context.open(target)?,
        None => {
            let mut config = Config::new("ucache bench", u64::from(args.keys) + 1);
            config.max_value = u64::from(args.size).max(8);
            Target::Store(Tier::Local(Engine::create(&config)?))
        }
    };
    let value = vec![b'v'; args.size as usize];
    let keys: Vec<Vec<u8>> = (0..args.keys).map(|i| format!("{PREFIX}{i:09}").into_bytes()).collect();
    let bar = context.progress(Some(KINDS.len() as u64), "measuring");
    let measured = keys.iter().try_for_each(|key| target.set(key, &value, None, false)).and_then(|()| {
        let one = |&(kind, name): &(Kind, &'static str)| {
            let m = measure(&target, kind, &keys, &value, args)?;
            bar.inc(1);
            Ok((name, m))
        };
        KINDS.iter().map(one).collect::<Outcome<Vec<_>>>()
    });
    bar.finish_and_clear();
    // Clean up even after a failure.
    let cleaned = keys.iter().try_for_each(|key| target.del(key).map(|_| ()));
    let measured = measured?;
    cleaned?;
    print(context, args, &measured)
}

fn measure(target: &Target, kind: Kind, keys: &[Vec<u8>], value: &[u8], args: &Bench) -> Outcome<Measured> {
    let stop = AtomicBool::new(false);
    let barrier = Arc::new(Barrier::new(args.threads as usize + 1));
    let (all, elapsed) = thread::scope(|scope| {
        let workers: Vec<_> = (0..args.threads)
            .map(|me| {
                let (stop, barrier) = (&stop, Arc::clone(&barrier));
                scope.spawn(move || {
                    barrier.wait();
                    work(target, kind, keys, value, u64::from(me), stop)
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        thread::sleep(args.seconds);
        stop.store(true, Ordering::Relaxed);
        let all: Vec<_> = workers.into_iter().filter_map(|w| w.join().ok()).collect();
        (all, start.elapsed())
    });
    let mut times = Vec::new();
    let (mut done, mut errors) = (0, 0);
    for one in all {
        let (n, e, t) = one?;
        (done, errors) = (done + n, errors + e);
        times.extend(t);
    }
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let per_second = done as f64 / elapsed.as_secs_f64();
    Ok(Measured { per_second, times, errors })
}

type Work = (u64, u64, Vec<u64>);

/// Returns the numbers of operations and of unexpected results, and some times.
fn work(
    target: &Target,
    kind: Kind,
    keys: &[Vec<u8>],
    value: &[u8],
    me: u64,
    stop: &AtomicBool,
) -> Outcome<Work> {
    let (mut done, mut errors, mut times) = (0_u64, 0, Vec::new());
    let mut random = me.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut miss = PREFIX.as_bytes().to_vec();
    miss.extend_from_slice(b"missing");
    while !stop.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let key = &keys[usize::try_from(random % keys.len() as u64).unwrap_or(0)];
        let start = done.is_multiple_of(TIMED).then(Instant::now);
        let good = match kind {
            Kind::Get => target.get(key)?.is_some_and(|item| item.value.len() == value.len()),
            Kind::Miss => target.get(&miss)?.is_none(),
            Kind::Mixed if !random.is_multiple_of(20) => target.get(key)?.is_some(),
            Kind::Set | Kind::Mixed => target.set(key, value, None, false).map(|()| true)?,
            Kind::Del => {
                target.del(key)?;
                target.set(key, value, None, false).map(|()| true)?
            }
        };
        times.extend(start.map(|s| u64::try_from(s.elapsed().as_nanos()).unwrap_or(u64::MAX)));
        errors += u64::from(!good);
        done += 1;
    }
    Ok((done, errors, times))
}

fn print(context: &mut Context, args: &Bench, measured: &[(&str, Measured)]) -> Outcome {
    let out = &mut context.out;
    if args.json {
        let rows: Vec<_> = measured
            .iter()
            .map(|(name, m)| {
                json!({
                    "operation": name, "per_second": m.per_second.round(), "errors": m.errors,
                    "p50_ns": m.at(500), "p99_ns": m.at(990), "p999_ns": m.at(999), "worst_ns": m.at(1000),
                })
            })
            .collect();
        let all = json!({ "threads": args.threads, "keys": args.keys, "size": args.size, "results": rows });
        return Ok(writeln!(out, "{all}")?);
    }
    let of = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (threads, keys, size) = (of(args.threads, "thread"), of(args.keys, "key"), of(args.size, "byte"));
    writeln!(out, "{threads}, {keys}, values of {size}")?;
    writeln!(out, "{:<21} {:>8} {:>9} {:>9} {:>9} {:>9}", "", "op/s", "p50", "p99", "p99.9", "worst")?;
    for (name, m) in measured {
        let [a, b, c, d] = [500, 990, 999, 1000].map(|permille| time(m.at(permille)));
        writeln!(out, "{name:<21} {:>8} {a:>9} {b:>9} {c:>9} {d:>9}", rate(m.per_second))?;
        if m.errors > 0 {
            writeln!(
                out,
                "  {} of them had an unexpected result (are the keys changed by others, or evicted?)",
                m.errors
            )?;
        }
    }
    Ok(())
}

impl Measured {
    /// The time that this many of a thousand operations take at most.
    fn at(&self, permille: usize) -> u64 {
        let last = self.times.len().saturating_sub(1);
        self.times.get(last * permille / 1000).copied().unwrap_or(0)
    }
}

fn time(nanos: u64) -> String {
    let time = Duration::from_nanos(nanos);
    match nanos {
        0..=9_999 => format!("{nanos} ns"),
        10_000..=9_999_999 => format!("{} us", time.as_micros()),
        _ => format!("{} ms", time.as_millis()),
    }
}
