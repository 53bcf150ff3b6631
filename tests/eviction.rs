//! What the policies keep: the engine's own, which sample, against the same policies with exact order.

#[path = "support/traces.rs"]
mod traces;

use traces::{exact_lru, exact_s3fifo, exact_sieve, measured, public, synthetic};
use ucache::Eviction;

#[test]
fn sampled_policies_are_as_good_as_exact_ones() {
    let traces = [synthetic(50_000, 250_000), vec![public()]].concat();
    for trace in traces.iter().filter(|t| t.name != "loop") {
        for share in [10, 100] {
            let capacity = trace.objects as usize / share;
            let lru = measured(&trace.keys, capacity, Eviction::Lru);
            let fifo = measured(&trace.keys, capacity, Eviction::S3Fifo);
            let (exact_lru, exact_fifo) =
                (exact_lru(&trace.keys, capacity), exact_s3fifo(&trace.keys, capacity));
            // Uses are told apart by the kernel's tick, which is long against these traces.
            assert!(
                (lru - exact_lru).abs() < 0.04,
                "{} {capacity}: LRU {lru}, exact {exact_lru}",
                trace.name
            );
            assert!(
                fifo > exact_fifo - 0.03,
                "{} {capacity}: S3-FIFO {fifo}, exact {exact_fifo}",
                trace.name
            );
        }
    }
}

#[test]
fn s3fifo_keeps_more_of_what_stays_popular() {
    for trace in synthetic(50_000, 250_000).iter().filter(|t| !t.name.contains("reshuffled")) {
        let capacity = trace.objects as usize / 100;
        let gain = measured(&trace.keys, capacity, Eviction::S3Fifo) - exact_lru(&trace.keys, capacity);
        // A loop larger than the cache gives both nothing.
        let expected = if trace.name == "loop" { -0.01 } else { 0.05 };
        assert!(gain > expected, "{}: {gain:+.3}", trace.name);
    }
}

#[test]
fn the_references_are_what_they_say() {
    // LRU of two: a b a c (b goes) a b. SIEVE keeps the visited a. S3-FIFO promotes it.
    let keys = [1, 2, 1, 3, 1, 2];
    assert!((exact_lru(&keys, 2) - 2.0 / 6.0).abs() < 1e-9);
    assert!((exact_sieve(&keys, 2) - 2.0 / 6.0).abs() < 1e-9);
    let scan: Vec<u32> = (0..10).chain(100..200).chain(0..10).collect();
    assert!(exact_lru(&scan, 20) < 1e-9);
    let mut twice: Vec<u32> = (0..10).chain(0..10).chain(100..200).chain(0..10).collect();
    assert!((exact_s3fifo(&twice, 20) - 20.0 / 130.0).abs() < 1e-9);
    twice.truncate(20);
    assert!((exact_sieve(&twice, 20) - 0.5).abs() < 1e-9);
}
