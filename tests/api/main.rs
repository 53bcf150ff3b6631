//! Tests of the safe Rust interface: every method, its errors, threads, forks and kills.

mod batch;
mod cas;
mod examples;
mod expiry;
mod get_or_set;
mod get_or_set_faults;
mod keys;
mod maintenance;
mod options;
#[path = "../support/patience.rs"]
mod patience;
mod process;
mod read;
mod refresh;
mod registry;
mod store;
#[cfg(feature = "serde")]
mod typed;
mod write;

use std::{fmt::Debug, thread, time::Duration};

use patience::within;
use ucache::{Builder, Cache, Entries, Entry, Error, Expires, Keys, Stats, Stored, Sweeper};

/// Longer than anything here takes, except a hang.
const LONG: Duration = Duration::from_secs(60);

/// A builder for 100 items with a name unique to the calling test.
fn builder() -> Builder {
    let test = thread::current().name().expect("the test harness names its threads").to_owned();
    Cache::builder(test).items(100)
}

/// [`builder`]'s cache.
fn cache() -> Cache {
    builder().build().expect("a cache of 100 items")
}

/// Returns once `n` threads or processes in total have called it with the same key.
fn meet(cache: &Cache, key: &str, n: i64) {
    cache.with_timeout(Expires::Never).incr(key, 1).expect("counts");
    within("the others", || cache.get_int(key).expect("a number") >= Some(n));
}

#[test]
fn handles_go_anywhere() {
    fn check<T: Send + Sync + Debug + 'static>() {}
    fn check_clone<T: Clone>() {}
    check::<Cache>();
    check::<Builder>();
    check::<Stats>();
    check::<Sweeper>();
    check::<Keys>();
    check::<Entries>();
    check::<Entry>();
    check::<Error>();
    check::<Expires>();
    check::<Stored>();
    check_clone::<Cache>();
    check_clone::<Builder>();

    let cache = cache();
    let text = format!("{cache:?}");
    assert!(text.contains("handles_go_anywhere") && text.contains("100"), "{text}");
    assert!(format!("{:?}", cache.keys()).contains("handles_go_anywhere"));
}
