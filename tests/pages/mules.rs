//! `refresh=mule`: old pages are refreshed by a mule; its death, its full queue, its absence.

use std::{fmt::Write as _, thread::sleep, time::Duration};

use serde_json::{Value, json};

use super::{
    patience::within,
    server::{Build, Flavor, Server},
    site::Site,
};

const MULE: &str = "mule = ucache\nroute = ^/ ucache:name=pages,ttl=1,stale=600,refresh=mule,lock=30";
/// Which mule runs the application; 0 = a worker does.
const WHO: &str = "__import__('uwsgi').mule_id()";

/// Past the time to live of a second.
fn age() {
    sleep(Duration::from_millis(1100));
}

fn figure(site: &Site, name: &str) -> u64 {
    let all: Value = serde_json::from_str(&site.server.stats()).expect("JSON");
    all["metrics"][format!("cache.pages.{name}")]["value"].as_u64().unwrap_or(0)
}

/// A page that a worker made becomes one that the mule made.
fn refreshed_by_mule(build: Build, options: &str) {
    let site = Site::start_on(build, 2, &format!("{options}\n{MULE}"));
    site.script(&json!({"/a": {"eval": WHO}}));
    assert_eq!(site.get("/a").text(), "0", "{options}");
    site.script(&json!({"/a": {"eval": WHO, "gate": "go"}}));
    age();
    site.forget_runs();
    // Nobody waits, and the page is computed once.
    for worker in [1, 2, 1, 2] {
        let answer = site.ask(worker, "GET", "/a", "Cookie: a=b\r\n");
        assert_eq!((answer.cache(), answer.text().as_str()), ("STALE", "0"), "{options}");
    }
    site.await_runs(1);
    assert_eq!(site.get("/other").cache(), "MISS");
    assert_eq!(site.runs(), 2, "{options}\n{}", site.log());
    site.open("go");
    within("the page is the mule's", || site.ask(2, "GET", "/a", "").text() == "1");
}

#[test]
fn a_mule_refreshes_pages() {
    for &build in Build::all() {
        refreshed_by_mule(build, "");
        refreshed_by_mule(build, "threads = 2\nenable-threads = true");
        let plugin = if build == Build::Installed { "plugin = gevent_python3\n" } else { "" };
        refreshed_by_mule(build, &format!("{plugin}gevent = 10\ngevent-monkey-patch = true"));
    }
}

#[test]
fn the_other_routes_are_run_once() {
    // Those before are not run again; those after are.
    let routes = "mule = ucache\nlog-format = log %(uri) %(ucache)\n\
                  route = ^/old/(.*) setpathinfo:/new/$1\nroute-run = addvar:BEFORE=${BEFORE}x\n\
                  route = ^/ ucache:name=pages,ttl=1,stale=600,refresh=mule\nroute-run = addvar:AFTER=yes";
    let site = Site::start(routes);
    let echo = json!(["BEFORE", "AFTER", "PATH_INFO", "HTTP_COOKIE", "HTTP_X_ANY", "REMOTE_ADDR"]);
    site.script(&json!({"/new/a": {"echo": echo, "eval": "seen + str(__import__('uwsgi').mule_id())"}}));
    let headers = "X-Any: 1\r\n";
    let seen = |mule: u8| {
        format!(
            "' BEFORE=x AFTER=yes PATH_INFO=/new/a HTTP_COOKIE=None HTTP_X_ANY=1 REMOTE_ADDR=0.0.0.0{mule}'"
        )
    };
    assert_eq!(site.get_with("/old/a", headers).text(), seen(0));
    age();
    assert_eq!(site.get_with("/old/a", headers).cache(), "STALE");
    within("the page is the mule's", || site.get("/old/a").text() == seen(1));
    // The request of the mule is no line of the log, and none of the statistics.
    within("the log has lines", || site.log().contains("log /old/a HIT"));
    assert_eq!(site.log().lines().filter(|line| *line == "log /old/a MISS").count(), 1, "{}", site.log());
}

#[test]
fn failures_and_deaths_of_a_mule_leave_the_old_page() {
    let site = Site::start(&format!("harakiri = 4\n{MULE}"));
    let old = site.get("/a");
    for script in [
        json!({"raise": true}),
        json!({"status": "500 Broken"}),
        json!({"parts": ["a", "b"], "raise_at": 1}),
        json!({"die": true}),
        json!({"parts": ["a", "b"], "die_at": 1}),
        // Too long for harakiri.
        json!({"gate": "never"}),
    ] {
        site.script(&json!({"/a": script}));
        site.forget_runs();
        age();
        within("a mule tries", || {
            let answer = site.ask(2, "GET", "/a", "");
            assert_eq!((answer.cache(), &answer.body), ("STALE", &old.body), "{script}\n{}", site.log());
            site.runs() > 0
        });
    }
    site.script(&json!({"/a": {"eval": WHO}}));
    within("a new mule refreshes", || site.get("/a").text() == "1");
    // Workers did not die of it.
    assert!(!site.log().contains("DAMN ! worker"), "{}", site.log());
}

#[test]
fn a_full_queue_leaves_refreshes_to_workers() {
    const PAGES: usize = 40;
    let site = Site::start(&format!("enable-metrics = true\nmule-msg-size = 4096\n{MULE}"));
    let path = |n: usize| format!("/{n}");
    let mut script = json!({"/slow": {}});
    for n in 0..PAGES {
        script[path(n)] = json!({"eval": WHO});
    }
    site.script(&script);
    site.get("/slow");
    for n in 0..PAGES {
        site.get(&path(n));
    }
    script["/slow"] = json!({"gate": "go"});
    site.script(&script);
    age();
    site.forget_runs();
    assert_eq!(site.get("/slow").cache(), "STALE");
    site.await_runs(1);
    for n in 0..PAGES {
        assert_eq!(site.get(&path(n)).cache(), "STALE", "{n}");
    }
    within("uWSGI's metrics", || figure(&site, "page_unqueued") > 0);
    // The mule is busy, so workers ran the application, each for a page that found no place.
    site.await_runs(2);
    let mut summary = String::new();
    let queued = figure(&site, "page_queued");
    let _ = write!(summary, "{queued} queued, {} not", figure(&site, "page_unqueued"));
    assert!(queued > 1 && queued < PAGES as u64, "{summary}");
    site.open("go");
    within("all pages are new", || {
        (0..PAGES).all(|n| site.get(&path(n)).cache() == "HIT" || site.get(&path(n)).cache() == "HIT")
            || figure(&site, "page_refreshed") > PAGES as u64
    });
}

#[test]
fn what_mules_need_is_said_at_the_start() {
    let route = "route = ^/ ucache:name=pages,ttl=1,stale=5,refresh=mule";
    for (options, expected) in [
        ("", "refresh=mule: there is no mule for it; add `mule = ucache`"),
        ("mule = true", "refresh=mule: there is no mule for it; add `mule = ucache`"),
        ("mule = ucache\nlazy-apps = true", "refresh=mule: mules have no application with lazy-apps"),
        ("mule = ucache\nasync = 5", "refresh=mule: a mule cannot run an application that suspends"),
    ] {
        let log = Server::refuse(Flavor::Ucache, &format!("cache2 = name=pages,items=9\n{options}\n{route}"));
        assert!(log.contains(expected), "{options}: {log}");
    }
}
