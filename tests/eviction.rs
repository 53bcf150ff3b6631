//! Hit ratios of the engine's sampled policies, compared with exact versions of the same policies.

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
            // Uses are distinguished by the kernel's tick, which is long compared with these
            // traces.
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

/// Exact in caches of up to 4,096 items, sampled above.
#[test]
fn sieve_is_as_good_as_the_exact_one() {
    let traces = [synthetic(50_000, 250_000), vec![public()]].concat();
    for trace in traces.iter().filter(|t| t.name != "loop") {
        for share in [10, 100] {
            let capacity = trace.objects as usize / share;
            let (sieve, exact) =
                (measured(&trace.keys, capacity, Eviction::Sieve), exact_sieve(&trace.keys, capacity));
            let allowed = if capacity <= 4096 { 0.001 } else { 0.02 };
            assert!(
                (sieve - exact).abs() < allowed,
                "{} {capacity}: SIEVE {sieve}, exact {exact}",
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
        // With a loop larger than the cache both have no hits.
        let expected = if trace.name == "loop" { -0.01 } else { 0.05 };
        assert!(gain > expected, "{}: {gain:+.3}", trace.name);
    }
}

#[test]
fn the_references_are_what_they_say() {
    let is = |ratio: f64, hits: u32, of: u32| (ratio - f64::from(hits) / f64::from(of)).abs() < 1e-9;
    // Two items, a a b c a. LRU and FIFO evict a for c; SIEVE evicts b, because a was visited.
    let visited = [1, 1, 2, 3, 1];
    assert!(is(exact_lru(&visited, 2), 1, 5));
    assert!(is(exact_sieve(&visited, 2), 2, 5));
    // Two items, a b a c a b. LRU evicts b for c, then c for b; so does SIEVE.
    let recent = [1, 2, 1, 3, 1, 2];
    assert!(is(exact_lru(&recent, 2), 2, 6));
    assert!(is(exact_sieve(&recent, 2), 2, 6));
    // One use is not enough: the scan evicts ten items used once.
    let scan: Vec<u32> = (0..10).chain(100..200).chain(0..10).collect();
    for policy in [exact_lru, exact_sieve, exact_s3fifo] {
        assert!(is(policy(&scan, 20), 0, 120));
    }
    // Two uses are: both keep the ten through the scan, LRU does not.
    let twice: Vec<u32> = (0..10).chain(0..10).chain(100..200).chain(0..10).collect();
    assert!(is(exact_lru(&twice, 20), 10, 130));
    assert!(is(exact_sieve(&twice, 20), 20, 130));
    assert!(is(exact_s3fifo(&twice, 20), 20, 130));
}
