//! Event loops: a request that waits holds up no other request of its thread.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{server::Build, site::Site};

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=60,lock=30";

/// One worker with one thread, and many requests in it.
fn check(build: Build, options: &str) {
    let site = Site::start_on(build, 1, &format!("{options}\n{ROUTE}"));
    site.script(&json!({"/slow": {"gate": "go"}, "/quick": {}}));
    let all: Vec<_> = (0..5).map(|_| site.later(1, "/slow", "")).collect();
    site.await_runs(1);
    sleep(Duration::from_millis(300));
    assert!(all.iter().all(|one| !one.is_finished()));
    // One computes and four wait; the loop serves others.
    let began = Instant::now();
    assert_eq!(site.get("/quick").cache(), "MISS");
    assert_eq!(site.get("/quick").cache(), "HIT");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(site.runs(), 2);
    site.open("go");
    let mut answers: Vec<_> = all
        .into_iter()
        .map(|one| one.join().expect("a thread").expect("an answer").cache().to_owned())
        .collect();
    answers.sort();
    assert_eq!(answers, ["COALESCED", "COALESCED", "COALESCED", "COALESCED", "MISS"], "{options}");
    assert_eq!(site.runs(), 2);
    // Streams, old pages and failures, as elsewhere.
    site.script(
        &json!({"/parts": {"parts": ["one ", "two"]}, "/bad": {"parts": ["one ", "two"], "raise_at": 1}}),
    );
    assert_eq!((site.get("/parts").text(), site.get("/parts").cache()), ("one two".into(), "HIT"));
    assert_eq!((site.get("/bad").cache(), site.get("/bad").cache()), ("MISS", "MISS"));
}

#[test]
fn gevent() {
    // Debian's 2.0.21 has its own plugin, for the Python of the system.
    for &build in Build::all() {
        let plugin = if build == Build::Installed { "plugin = gevent_python3\n" } else { "" };
        check(build, &format!("{plugin}gevent = 20\ngevent-monkey-patch = true"));
    }
}

#[test]
fn coroutines_of_uwsgi() {
    for engine in ["plugin = greenlet_python3\ngreenlet = true", "plugin = ugreen\nugreen = true"] {
        check(Build::Installed, &format!("{engine}\nasync = 20\nenv = PAGES_SUSPEND=1"));
    }
}

#[test]
fn without_coroutines_nobody_waits() {
    // uWSGI's loop alone cannot let a request wait: the others compute, too, and store nothing.
    let site = Site::start_on(Build::Installed, 1, &format!("async = 20\n{ROUTE}"));
    let page = site.get("/a");
    assert_eq!((site.get("/a").cache(), site.get("/a").body), ("HIT", page.body));
}
