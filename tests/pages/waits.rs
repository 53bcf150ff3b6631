//! One request computes, others wait: its end, its death, its client.

use std::{
    io::Write,
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    patience::within,
    server::Build,
    site::{Answer, Site},
};

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=60,lock=30";

fn join(thread: JoinHandle<std::io::Result<Answer>>) -> Answer {
    thread.join().expect("a thread").expect("an answer")
}

/// Time for requests to arrive and to wait.
fn settle() {
    sleep(Duration::from_millis(200));
}

#[test]
fn one_request_computes_and_the_others_get_its_page() {
    for &build in Build::all() {
        let site = Site::start_on(build, 4, ROUTE);
        site.script(&json!({"/slow": {"gate": "go"}}));
        let first = site.later(1, "/slow", "");
        site.await_runs(1);
        let others: Vec<_> = (2..=4).map(|worker| site.later(worker, "/slow", "")).collect();
        settle();
        assert!(others.iter().all(|one| !one.is_finished()));
        site.open("go");
        let first = join(first);
        assert_eq!(first.cache(), "MISS");
        for other in others {
            let other = join(other);
            assert_eq!((other.cache(), &other.body), ("COALESCED", &first.body), "{build:?}");
        }
        assert_eq!(site.runs(), 1);
    }
}

#[test]
fn threads_of_one_worker_wait_as_well() {
    let site = Site::start_on(Build::Installed, 1, &format!("threads = 4\nenable-threads = true\n{ROUTE}"));
    site.script(&json!({"/slow": {"gate": "go"}}));
    let all: Vec<_> = (0..4).map(|_| site.later(1, "/slow", "")).collect();
    site.await_runs(1);
    settle();
    site.open("go");
    let mut answers: Vec<_> = all.into_iter().map(|one| join(one).cache().to_owned()).collect();
    answers.sort();
    assert_eq!(answers, ["COALESCED", "COALESCED", "COALESCED", "MISS"]);
    assert_eq!(site.runs(), 1);
}

#[test]
fn the_death_of_who_computes_ends_the_wait() {
    let site = Site::start_on(Build::Installed, 3, ROUTE);
    site.script(&json!({"/slow": {"gate": "go", "die": true}}));
    let first = site.later(1, "/slow", "");
    site.await_runs(1);
    let second = site.later(2, "/slow", "");
    settle();
    site.script(&json!({"/slow": {"gate": "other"}}));
    site.open("go");
    assert!(first.join().expect("a thread").is_err());
    // The second computes at once, not when a time has passed.
    site.await_runs(2);
    let third = site.later(3, "/slow", "");
    settle();
    site.open("other");
    assert_eq!((join(second).cache(), join(third).cache()), ("MISS", "COALESCED"));
    assert_eq!(site.runs(), 2);
}

#[test]
fn harakiri_ends_the_wait() {
    let site = Site::start_on(Build::Installed, 2, &format!("harakiri = 2\n{ROUTE}"));
    site.script(&json!({"/slow": {"gate": "never"}}));
    let first = site.later(1, "/slow", "");
    site.await_runs(1);
    site.script(&json!({}));
    let began = Instant::now();
    let second = site.later(2, "/slow", "");
    assert!(first.join().expect("a thread").is_err());
    let second = second.join().expect("a thread");
    // The waiting request has a limit of its own, of the same length.
    assert!(second.as_ref().is_ok_and(|answer| answer.cache() == "MISS") || second.is_err());
    assert!(began.elapsed() < Duration::from_secs(25));
    within("the next one computes", || {
        site.try_ask(2, "GET", "/slow", "").is_ok_and(|answer| answer.cache() == "HIT")
    });
}

#[test]
fn an_exception_ends_the_wait_and_is_never_stored() {
    let site = Site::start(ROUTE);
    let parts = json!(["one", "two", "three"]);
    site.script(&json!({
        "/early": {"raise": true},
        "/middle": {"parts": parts, "raise_at": 1},
        "/last": {"parts": parts, "raise_at": 2, "length": true},
        "/dies": {"parts": parts, "die_at": 2},
    }));
    for path in ["/early", "/middle", "/last", "/dies"] {
        for worker in [1, 2] {
            let _ = site.try_ask(worker, "GET", path, "");
        }
    }
    site.script(&json!({}));
    for path in ["/early", "/middle", "/last", "/dies"] {
        within("the application answers", || {
            site.try_ask(1, "GET", path, "")
                .is_ok_and(|answer| answer.text().starts_with(&format!("GET {path}")))
        });
    }
    // While one computes.
    site.script(&json!({"/slow": {"parts": ["a", "b"], "gate": "go", "raise_at": 1}}));
    let first = site.later(1, "/slow", "");
    site.await_runs(13);
    let second = site.later(2, "/slow", "");
    settle();
    site.script(&json!({}));
    site.open("go");
    assert_eq!(join(first).text(), "a");
    assert_eq!(join(second).cache(), "MISS");
}

#[test]
fn what_is_not_stored_is_computed_side_by_side() {
    let site = Site::start_on(Build::Installed, 4, ROUTE);
    let private = json!([["Cache-Control", "private"]]);
    site.script(&json!({"/own": {"headers": private, "gate": "go"}}));
    let first = site.later(1, "/own", "");
    site.await_runs(1);
    let others: Vec<_> = (2..=4).map(|worker| site.later(worker, "/own", "")).collect();
    settle();
    site.script(&json!({"/own": {"headers": private, "gate": "other"}}));
    site.open("go");
    join(first);
    // All three at once, none for another.
    site.await_runs(4);
    site.open("other");
    let mut bodies: Vec<_> = others.into_iter().map(|one| join(one).body).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 3);
    // The next response that may be stored is.
    site.script(&json!({}));
    assert_eq!((site.get("/own").cache(), site.get("/own").cache()), ("MISS", "HIT"));
}

#[test]
fn a_wait_has_an_end() {
    let site = Site::start(
        "route = ^/off ucache:name=pages,ttl=60,lock=0\nroute = ^/ ucache:name=pages,ttl=60,lock=1",
    );
    site.script(&json!({"/slow": {"gate": "go"}, "/off": {"gate": "go"}}));
    for (path, runs) in [("/slow", 1), ("/off", 3)] {
        let first = site.later(1, path, "");
        site.await_runs(runs);
        let began = Instant::now();
        let second = site.later(2, path, "");
        site.await_runs(runs + 1);
        let waited = began.elapsed();
        assert_eq!(waited >= Duration::from_secs(1), path == "/slow", "{waited:?}");
        site.open("go");
        let (first, second) = (join(first), join(second));
        assert_eq!((first.cache(), second.cache()), ("MISS", "MISS"));
        // The page of the one that had the right to store it.
        assert_eq!(site.get(path).body, first.body, "{path}");
        site.close("go");
    }
}

#[test]
fn a_client_that_goes_ends_the_wait() {
    let site = Site::start(ROUTE);
    let parts = vec!["x".repeat(1000); 300];
    site.script(&json!({"/slow": {"parts": parts, "gate2": "go"}}));
    let mut client = site.connect(1).expect("a connection");
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    site.await_runs(1);
    let second = site.later(2, "/slow", "");
    settle();
    drop(client);
    site.open("go");
    // Whoever computed it: a whole page.
    let second = join(second);
    assert_eq!(second.body.len(), 300_000);
    assert_eq!(site.get("/slow").body.len(), 300_000);
}

#[test]
fn a_slow_client_holds_nobody_up() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,lock=30,max_size=900k");
    // More than a socket takes, with and without a length; in one piece and in many.
    site.script(&json!({
        "/one": {"size": 800_000, "gate": "go"},
        "/many": {"parts": vec!["y".repeat(8000); 100], "gate": "go"},
        "/length": {"parts": vec!["z".repeat(8000); 100], "length": true, "gate": "go"},
    }));
    for (number, path) in ["/one", "/many", "/length"].into_iter().enumerate() {
        let mut client = site.connect(1).expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).expect("a request");
        site.await_runs(number + 1);
        let second = site.later(2, path, "");
        settle();
        site.open("go");
        // The first client has not read a byte yet.
        let second = join(second);
        assert_eq!((second.cache(), second.body.len()), ("COALESCED", 800_000), "{path}\n{}", site.log());
        let first = super::site::read(&mut client).expect("an answer");
        assert_eq!(first.body, second.body, "{path}");
        site.close("go");
    }
}
