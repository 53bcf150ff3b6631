//! A cache with a backend, against real servers.

mod api;
#[path = "../support/backend.rs"]
mod backend;
mod c;
mod certificates;
mod clock;
#[path = "../support/clock_steps.rs"]
mod clock_steps;
#[path = "../support/cluster.rs"]
mod cluster;
mod clusters;
mod computing;
mod copies;
#[path = "../support/engine_proc.rs"]
mod engine_proc;
#[path = "../support/engine_step.rs"]
mod engine_step;
mod failures;
mod forks;
mod generations;
mod interop;
mod killed_holders;
mod model;
mod moving_leases;
mod negative;
mod numbers;
mod operations;
mod other_clients;
#[path = "../support/patience.rs"]
mod patience;
mod place;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/sentinel.rs"]
mod sentinel;
mod sentinels;
mod takeover;
mod tls;
mod tls_clusters;
mod tracking;
mod walks;

use backend::Server;
use ucache::near::{Backend, Limits, OnDown, Options};

/// Options by name and value.
fn options(pairs: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (name, value) in pairs {
        assert!(options.set(name, value), "{name}");
    }
    options
}

/// A backend named `c`, which tells errors from misses unless `more` says otherwise.
fn backend_with(url: &str, more: &[(&str, &str)], math_initial: i64) -> Backend {
    let options = options(&[&[("backend", url)], more].concat());
    let settings = options.check("c", OnDown::Error).expect("options that are right").expect("a backend");
    Backend::new(settings, Limits { max_key: 2048, math_initial })
}

/// A server of every kind with a backend to it.
fn everywhere(mut test: impl FnMut(&Server, &Backend)) {
    for program in backend::programs() {
        let server = Server::with(&program, 0, &[]);
        eprintln!("{}", program.display());
        test(&server, &backend_with(&server.url(), &[], 0));
    }
}
