//! The wall clock of a machine is set back: its copies, which end by that clock, are removed.

use std::{fs::OpenOptions, io::Write, path::Path, time::Duration};

use ucache::Backend;

use crate::{
    backend::Server,
    clock_steps::pass_beside_such_a_clock,
    cluster::Cluster,
    clusters::key_at,
    copies::{hits, machine, patient, within},
};

/// Where the values are, for the process with such a clock.
const URL: &str = "UCACHE_TEST_URL";
const KEY: &str = "UCACHE_TEST_KEY";
/// How far ahead its clock is at first, seconds.
const AHEAD: i64 = 7200;

/// A server that does not tell of the end of a value which nobody asks it for.
fn silence(server: &Server) {
    assert_eq!(server.ask(["DEBUG", "SET-ACTIVE-EXPIRE", "0"]), "OK");
}

fn beside_a_clock_that_is_set(test: &str, url: &str, key: &str) {
    pass_beside_such_a_clock(test, AHEAD, &[(URL, url), (KEY, key)]);
}

/// In the process with such a clock.
fn set_it_back(file: &Path) {
    let of = |name| std::env::var(name).expect("the test sets it");
    let (url, key) = (of(URL), of(KEY));
    let c = machine("set back", if url.contains("cluster") { Backend::url(url) } else { patient(url) });
    within("a copy", || {
        if c.get(&key).expect("get").is_none() {
            c.set_with(&key, "v", Duration::from_secs(3)).expect("set");
        }
        let before = hits(&c);
        c.get(&key).expect("get").is_some() && hits(&c) > before
    });
    let mut clock = OpenOptions::new().write(true).open(file).expect("the clock's file");
    clock.write_all(&(AHEAD - 3600).to_ne_bytes()).expect("the clock is set");
    within("the copy ends with the value", || c.get(&key).expect("get").is_none());
    within("the owner removes copies", || c.near_stats().expect("it has a backend").flushes > 0);
}

#[test]
fn copies_of_a_server() {
    if let Some(file) = std::env::var_os("UCACHE_CLOCK") {
        return set_it_back(file.as_ref());
    }
    let server = Server::start();
    silence(&server);
    beside_a_clock_that_is_set("clock::copies_of_a_server", &server.url(), "k");
}

#[test]
fn copies_of_a_cluster() {
    if let Some(file) = std::env::var_os("UCACHE_CLOCK") {
        return set_it_back(file.as_ref());
    }
    let cluster = Cluster::of_primaries(Path::new("redis-server"));
    let key = key_at(&cluster, 1);
    silence(&cluster.nodes[1].server);
    beside_a_clock_that_is_set("clock::copies_of_a_cluster", &cluster.url(), &key);
}
