//! Placeholders of fillers that have ended: none keeps its place for ever.

use std::{thread, time::Duration};

use super::{
    tests::{ADD, key},
    *,
};

/// Takes the leases of so many keys.
fn take_leases(e: &Engine, n: u64, lease: Duration) {
    for i in 0..n {
        let begun = e.begin_fill(&key(i), lease, Duration::ZERO, &mut Vec::new());
        assert!(matches!(begun.unwrap(), Fill::Filler(_)));
    }
}

/// The same in a thread that ends.
fn leave_leases(e: &Engine, n: u64, lease: Duration) {
    thread::scope(|scope| _ = scope.spawn(|| take_leases(e, n, lease)));
}

#[test]
fn leases_end_where_items_do_not() {
    for (sweep, full_sweeps) in [(true, 0), (false, 0), (false, 3600)] {
        let config = Config { no_expire: true, sweep_on_full: full_sweeps, ..Config::new("leases", 5000) };
        let e = Engine::create(&config).unwrap();
        let kept = SetOptions { expires: Expires::At(1), ..ADD };
        e.set(b"expired, but kept", b"v", &kept).unwrap();
        // What was swept before is not looked at again for nothing.
        e.sweep().unwrap();
        leave_leases(&e, 4999, Duration::from_secs(1));
        assert_eq!(e.set(b"new", b"v", &ADD).is_ok(), full_sweeps != 0, "the leases have not ended");
        thread::sleep(Duration::from_millis(3100));
        if sweep {
            e.sweep().unwrap();
            assert_eq!(e.stats().items, 1);
        }
        for i in 0..4000 {
            e.set(&key(100_000 + i), b"v", &ADD).unwrap();
        }
        assert_eq!(e.exists(b"expired, but kept").is_some(), full_sweeps == 0);
        assert!(e.nothing_due(), "no full cache sweeps without a reason");
    }
}

#[test]
fn leases_of_the_dead_are_evicted_from_an_exact_lru() {
    for alive in [false, true] {
        let e = Engine::create(&Config { eviction: Eviction::Lru, ..Config::new("leases", 300) }).unwrap();
        e.set(b"item", b"v", &ADD).unwrap();
        let lease = Duration::from_secs(1000);
        let take = if alive { take_leases } else { leave_leases };
        take(&e, 299, lease);
        // The item is the oldest. Then placeholders go, as nothing else is there.
        for i in 0..600 {
            e.set(&key(1000 + i), b"v", &ADD).unwrap();
        }
        assert!(e.exists(b"item").is_none() && e.exists(&key(1599)).is_some());
        assert_eq!(e.stats().items, 300);
    }
}
