//! What people have asked of uWSGI's own `cache:` and `cachestore:`, there and here.

use std::{thread::sleep, time::Duration};

use serde_json::json;

use super::{
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
}
