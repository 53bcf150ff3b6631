//! What people have asked of uWSGI's own `cache:` and `cachestore:`, there and here.

use std::{io::Write, thread::sleep, time::Duration};

use serde_json::json;

use super::{
    patience::within,
    server::{Build, Flavor, Server},
    site::Site,
};

/// uWSGI's own routes for the same purpose.
const NATIVE: &str = "plugin = router_cache\nroute-if = equal:${PATH_INFO};/ last:\n\
                      route = ^/ cache:key=${REQUEST_URI},name=pages\n\
                      route = ^/ cachestore:key=${REQUEST_URI},name=pages,expires=60";
const OURS: &str = "route = ^/ ucache:name=pages,ttl=60";

fn site(flavor: Flavor, more: &str) -> Site {
    let routes = if flavor == Flavor::Native { NATIVE } else { OURS };
    Site::start_as(Build::Installed, flavor, 3, &format!("{more}{routes}"))
}

/// D-64
#[test]
fn only_ucache_has_the_actions() {
    for action in ["ucache:name=pages,ttl=60", "ucachepurge:name=pages,token=t"] {
        let options = format!("cache2 = name=pages,items=100\nroute = ^/x {action}");
        let log = Server::refuse(Flavor::Native, &options);
        assert!(log.contains("unable to register route"), "{log}");
        Server::start(Flavor::Ucache, 1, &options);
    }
}

/// Issue 1047 of uWSGI.
#[test]
fn the_answer_to_a_post_is_no_answer_to_a_get() {
    for (flavor, wrong) in [(Flavor::Native, true), (Flavor::Ucache, false)] {
        let site = site(flavor, "");
        assert!(site.ask(1, "POST", "/form", "").text().starts_with("POST /form"));
        let got = site.get("/form").text();
        assert_eq!(got.starts_with("POST"), wrong, "{flavor:?}: {got}");
    }
}

/// Issue 1832 of uWSGI.
#[test]
fn of_many_requests_one_computes() {
    for (flavor, runs) in [(Flavor::Native, 3), (Flavor::Ucache, 1)] {
        let site = site(flavor, "");
        site.script(&json!({"/slow": {"gate": "go"}}));
        let all: Vec<_> = (1..=3).map(|worker| site.later(worker, "/slow", "")).collect();
        site.await_runs(runs);
        sleep(Duration::from_millis(300));
        site.open("go");
        for one in all {
            assert_eq!(one.join().expect("a thread").expect("an answer").status, 200);
        }
        assert_eq!(site.runs(), runs, "{flavor:?}");
    }
}

/// Issues 925 and 2215 of uWSGI: there the headers and the offloaded body race. A race cannot be
/// shown at will, so this is about `ucache:` alone.
#[test]
fn offload_threads_send_whole_answers() {
    let site = site(Flavor::Ucache, "offload-threads = 2\n");
    site.script(&json!({"/large": {"size": 900_000}}));
    let first = site.get("/large");
    assert_eq!(first.body.len(), 900_000);
    for _ in 0..20 {
        let hit = site.ask(2, "GET", "/large", "");
        assert_eq!((hit.cache(), &hit.body), ("HIT", &first.body));
    }
    let stats: serde_json::Value = serde_json::from_str(&site.server.stats()).expect("JSON");
    assert_eq!(stats["workers"][1]["cores"][0]["offloaded_requests"], 20, "{stats}");
    // A part is sent from where it begins.
    let part = site.get_with("/large", "Range: bytes=100000-799999\r\n");
    assert!(part.status == 206 && part.body == first.body[100_000..800_000], "{}", part.head);
}

/// The request that refreshes closes its connection when its client has the old page: a thread that
/// still sent from it would lose it.
#[test]
fn offload_threads_and_old_pages() {
    for options in ["", "gzip=1,"] {
        let threads = "offload-threads = 2\n";
        let route = format!("{threads}route = ^/ ucache:name=pages,{options}ttl=1,stale=600,stale_error=600");
        let site = Site::start(&route);
        site.script(&json!({"/large": {"size": 900_000}}));
        let old = site.get("/large");
        site.script(&json!({"/large": {"size": 900_000, "gate": "go"}}));
        sleep(Duration::from_millis(1100));
        site.forget_runs();
        let mut slow = site.connect(1).expect("a connection");
        slow.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        // It reads later than anybody computes.
        sleep(Duration::from_millis(300));
        let stale = super::site::read(&mut slow).expect("an answer");
        assert_eq!((stale.cache(), stale.body == old.body), ("STALE", true), "{}", stale.head);
        site.await_runs(1);
        // The others do not wait, and have threads.
        let other = site.ask(2, "GET", "/large", "");
        assert_eq!((other.cache(), other.body == old.body), ("STALE", true), "{}", other.head);
        site.open("go");
        within("the page is new", || {
            let answer = site.ask(2, "GET", "/large", "");
            assert_eq!(answer.body.len(), 900_000, "{}", answer.head);
            answer.body != old.body
        });
        assert_eq!(site.runs(), 1);
    }
}
