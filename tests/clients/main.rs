//! uWSGI 2.0.31 of PyPI, and unchanged tests by others: those in the source releases of the cache's
//! clients, and uWSGI's own. They run on uWSGI's cache and on ucache, in Debian's release and in
//! PyPI's, and must have the same outcomes.
#![cfg(feature = "uwsgi")]

mod configurations;
mod libraries;
#[path = "../support/patience.rs"]
mod patience;
mod takeover;
mod uwsgi_tests;

#[path = "../support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/server.rs"]
mod server;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/uwsgi_host.rs"]
mod uwsgi_host;

use std::{collections::BTreeMap, thread};

use server::{Build, Flavor};

/// The outcome of each test.
type Outcomes = BTreeMap<String, String>;

/// Runs `suite` on both caches of both releases concurrently; the outcomes must be equal.
fn same_everywhere(suite: impl Fn(Build, Flavor) -> Outcomes + Sync) -> Outcomes {
    same_on([Build::Installed, Build::Pypi], suite)
}

/// Runs `suite` on both caches of these releases concurrently; the outcomes must be equal.
fn same_on<const N: usize>(builds: [Build; N], suite: impl Fn(Build, Flavor) -> Outcomes + Sync) -> Outcomes {
    let suite = &suite;
    let runs: Vec<_> = builds
        .into_iter()
        .flat_map(|build| [Flavor::Native, Flavor::Ucache].map(|flavor| (build, flavor)))
        .collect();
    let mut all: Vec<Outcomes> = thread::scope(|scope| {
        let running: Vec<_> =
            runs.iter().map(|&(build, flavor)| scope.spawn(move || suite(build, flavor))).collect();
        running.into_iter().map(|one| one.join().expect("the suite runs")).collect()
    });
    let first = all.remove(0);
    for (other, run) in all.iter().zip(&runs[1..]) {
        assert_eq!(&first, other, "{run:?}");
    }
    first
}

/// Number of tests with this outcome.
fn count(outcomes: &Outcomes, outcome: &str) -> usize {
    outcomes.values().filter(|one| *one == outcome).count()
}
