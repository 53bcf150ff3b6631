//! What the model of many workers must give where the answer is known.

use crate::simulation::{Costs, Load, Locking, Operation, Outcome, run};

const COSTS: Costs = Costs { line: 50.0, call: 1000.0, wake: 5000.0, pause: 10.0 };
const READ: Operation = Operation { writes: false, outside: 100.0, hold: 0.0, common_line: false };
const WRITE: Operation = Operation { writes: true, outside: 50.0, hold: 50.0, common_line: false };

fn rate(locking: Locking, kinds: &[(Operation, u32)], keys: u32, workers: u32) -> Outcome {
    let order: Vec<u32> = (0..1 << 16).map(|n: u32| n.wrapping_mul(2_654_435_761) % keys).collect();
    run(COSTS, &Load { locking, kinds, order: &order, keys, reach: 1000 }, workers, 40_000)
}

fn near(outcome: Outcome, rate: f64) {
    assert!((outcome.rate / rate - 1.0).abs() < 0.05, "{outcome:?}, not {rate}");
}

#[test]
fn a_lone_worker_takes_what_its_operations_take() {
    near(rate(Locking::Shards(16), &[(READ, 100)], 1000, 1), 10.0);
    near(rate(Locking::Shards(16), &[(WRITE, 100)], 1000, 1), 10.0);
    near(
        rate(Locking::ReadersAndWriters, &[(WRITE, 50), (Operation { hold: 10.0, ..READ }, 50)], 1000, 1),
        9.52,
    );
}

#[test]
fn reads_without_a_lock_scale() {
    near(rate(Locking::Shards(16), &[(READ, 100)], 1000, 64), 640.0);
}

#[test]
fn a_line_for_all_limits_all() {
    let counted = Operation { common_line: true, ..READ };
    near(rate(Locking::Shards(16), &[(counted, 100)], 1000, 64), 20.0);
}

#[test]
fn one_lock_is_the_limit_whatever_the_workers() {
    let few = rate(Locking::Shards(1), &[(WRITE, 100)], 1000, 4);
    let many = rate(Locking::Shards(1), &[(WRITE, 100)], 1000, 32);
    // To hold it for 50 ns, a line for the block: at most 10 million.
    assert!(few.rate < 10.0 && many.rate < few.rate * 1.1 && few.busiest > 0.5, "{few:?} {many:?}");
    let sharded = rate(Locking::Shards(256), &[(WRITE, 100)], 100_000, 32);
    assert!(sharded.rate > 10.0 * many.rate && sharded.busiest < 0.5, "{sharded:?}");
}

#[test]
fn writers_and_readers_of_one_lock_put_each_other_to_sleep() {
    let read = Operation { hold: 50.0, outside: 50.0, ..READ };
    let mixed = rate(Locking::ReadersAndWriters, &[(read, 95), (WRITE, 5)], 1000, 8);
    let alone = rate(Locking::ReadersAndWriters, &[(read, 95), (WRITE, 5)], 1000, 1);
    assert!(mixed.rate < alone.rate / 2.0, "{mixed:?} {alone:?}");
}

#[test]
fn readers_of_one_lock_wait_for_its_line() {
    let read = Operation { hold: 50.0, outside: 50.0, ..READ };
    let outcome = rate(Locking::ReadersAndWriters, &[(read, 100)], 1000, 64);
    // Each takes the line twice.
    near(outcome, 10.0);
}

/// Two workers of one counter: the one who has the lock works on while the other pauses, so that few operations wait for
/// a line. In step they would take turns, a line each.
#[test]
fn waiters_do_not_march_in_step() {
    let counter = Operation { writes: true, outside: 14.0, hold: 14.0, common_line: true };
    let load =
        Load { locking: Locking::Shards(16), kinds: &[(counter, 100)], order: &[0], keys: 1, reach: 1000 };
    let outcome = run(Costs { pause: 25.0, ..COSTS }, &load, 2, 40_000);
    assert!(outcome.rate > 10.0 && outcome.rate < 36.0, "{outcome:?}");
}
