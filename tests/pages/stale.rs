//! Old pages: while one request refreshes them, instead of errors.

use std::{
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;

use super::{patience::within, server::Build, site::Site};

/// Past the time to live of a second.
fn age() {
    sleep(Duration::from_millis(1100));
}

#[test]
fn one_request_refreshes_after_it_has_answered() {
    for &build in Build::all() {
        let site = Site::start_on(
            build,
            3,
            "route = ^/ ucache:name=pages,ttl=1,stale=60\nlog-format = log %(uri) %(status) %(rsize) %(ucache)",
        );
        let old = site.get("/a");
        site.script(&json!({"/a": {"gate": "go"}}));
        age();
        site.forget_runs();
        // None waits, although the application does.
        for worker in [1, 2, 3, 2] {
            let answer = site.ask(worker, "GET", "/a", "");
            assert_eq!((answer.cache(), &answer.body), ("STALE", &old.body), "{build:?}");
        }
        site.await_runs(1);
        site.open("go");
        within("the page is new", || site.ask(2, "GET", "/a", "").cache() == "HIT");
        let new = site.ask(3, "GET", "/a", "");
        assert!(new.body != old.body && new.status == 200, "{new:?}");
        // The worker that refreshed serves as before, and its log line is of the client's answer.
        within("it serves", || site.get("/a").cache() == "HIT");
        assert_eq!(site.runs(), 1);
        let (log, line) = (site.log(), format!("log /a 200 {} ", old.body.len()));
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with("log /a ")).collect();
        assert!(lines.iter().all(|one| one.starts_with(&line)), "{log}");
        assert!(lines.iter().filter(|one| one.ends_with(" STALE")).count() >= 4, "{log}");
    }
}

#[test]
fn a_refresh_that_fails_leaves_the_old_page() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=1,stale=60");
    let old = site.get("/a");
    let scripts = [
        json!({"status": "500 Broken"}),
        json!({"raise": true}),
        json!({"parts": ["a", "b"], "raise_at": 1}),
    ];
    for (runs, script) in scripts.into_iter().enumerate() {
        site.script(&json!({"/a": script}));
        age();
        assert_eq!(site.get("/a").body, old.body);
        site.await_runs(runs + 2);
        assert_eq!((site.get("/a").cache(), site.get("/a").body), ("STALE", old.body.clone()));
        within("the refresh is over", || site.get("/a").body == old.body);
    }
    // A response that must not be stored ends it.
    site.script(&json!({"/a": {"headers": [["Cache-Control", "private"]]}}));
    within("the page is gone", || site.get("/a").cache() == "MISS");
}

#[test]
fn a_deadly_refresh_costs_one_worker_at_a_time() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=1,stale=60");
    let old = site.get("/a");
    site.script(&json!({"/a": {"die": true}}));
    age();
    for _ in 0..5 {
        within("a worker answers", || {
            site.try_ask(2, "GET", "/a", "").is_ok_and(|answer| answer.body == old.body)
        });
    }
    site.script(&json!({}));
    within("the page is new", || site.try_ask(1, "GET", "/a", "").is_ok_and(|a| a.body != old.body));
}

#[test]
fn old_pages_are_served_instead_of_errors() {
    for &build in Build::all() {
        let site = Site::start_on(build, 2, "route = ^/ ucache:name=pages,ttl=1,stale_error=60");
        site.script(&json!({"/a": {"headers": [["X-Kept", "yes"]]}}));
        let old = site.get("/a");
        age();
        for script in [
            json!({"status": "500 Broken", "headers": [["X-Error", "yes"]]}),
            json!({"status": "503 Busy", "body": ""}),
            json!({"status": "502 Gate", "parts": ["long ", "answer"]}),
            json!({"raise": true}),
        ] {
            site.script(&json!({"/a": script.clone()}));
            let answer = site.get("/a");
            assert_eq!(
                (answer.status, answer.cache()),
                (200, "STALE"),
                "{script} {answer:?}\n{}",
                site.log()
            );
            assert_eq!((&answer.body, answer.header("X-Kept")), (&old.body, Some("yes")), "{script}");
            assert_eq!(answer.header("X-Error"), None);
        }
        // Other answers are the application's.
        site.script(&json!({"/a": {"status": "403 No"}}));
        assert_eq!(site.get("/a").status, 403);
        // Without an old page there is nothing instead.
        site.script(&json!({"/b": {"status": "500 Broken"}}));
        assert_eq!(site.get("/b").status, 500);
    }
}

#[test]
fn who_waited_for_a_worker_that_died_gets_the_old_page() {
    let site =
        Site::start_on(Build::Installed, 3, "route = ^/ ucache:name=pages,ttl=1,stale_error=60,lock=30");
    let old = site.get("/a");
    age();
    site.script(&json!({"/a": {"gate": "go", "die": true}}));
    site.forget_runs();
    let first = site.later(1, "/a", "");
    site.await_runs(1);
    let others = [site.later(2, "/a", ""), site.later(3, "/a", "")];
    sleep(Duration::from_millis(200));
    site.open("go");
    assert!(first.join().expect("a thread").is_err());
    for other in others {
        let other = other.join().expect("a thread").expect("an answer");
        assert_eq!((other.cache(), &other.body), ("STALE", &old.body));
    }
    assert_eq!(site.runs(), 1);
}

#[test]
fn a_slow_application_is_not_waited_for_longer_than_lock() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=1,stale_error=60,lock=1");
    let old = site.get("/a");
    age();
    site.script(&json!({"/a": {"gate": "go"}}));
    let first = site.later(1, "/a", "");
    site.await_runs(2);
    let began = Instant::now();
    let second = site.ask(2, "GET", "/a", "");
    assert_eq!((second.cache(), &second.body), ("STALE", &old.body));
    assert!(began.elapsed() >= Duration::from_secs(1));
    site.open("go");
    let first = first.join().expect("a thread").expect("an answer");
    assert_eq!(first.cache(), "REFRESHED");
    assert_eq!(site.get("/a").body, first.body);
}

#[test]
fn the_application_may_confirm_an_old_page() {
    let site = Site::start(
        "route = ^/b ucache:name=pages,ttl=1,stale=60,gzip=1\nroute = ^/ ucache:name=pages,ttl=1,stale_error=60",
    );
    let news = json!([["Cache-Control", "max-age=60"], ["X-New", "yes"]]);
    let old = json!([["ETag", "\"v1\""], ["X-Old", "yes"]]);
    let confirms = json!({"tag": "\"v1\"", "news": news, "headers": old, "size": 5000});
    for path in ["/a", "/b"] {
        site.script(&json!({path: {"headers": old, "size": 5000}}));
        let first = site.get(path);
        age();
        site.script(&json!({path: confirms}));
        let second = site.get_with(path, "If-None-Match: \"other\"\r\n");
        assert_eq!((second.status, &second.body), (200, &first.body), "{second:?}\n{}", site.log());
        assert_eq!(second.cache(), if path == "/a" { "REFRESHED" } else { "STALE" });
        within("it is stored", || site.ask(2, "GET", path, "").cache() == "HIT");
        let third = site.ask(2, "GET", path, "");
        assert_eq!(
            (&third.body, third.header("X-New"), third.header("X-Old")),
            (&first.body, Some("yes"), Some("yes"))
        );
        assert_eq!(third.header("Cache-Control"), Some("max-age=60"));
        age();
        assert_eq!(site.get(path).cache(), "HIT");
    }
    // A page without a name of the application's is asked for as a whole.
    site.script(&json!({"/c": {"echo": ["HTTP_IF_NONE_MATCH"]}}));
    site.get("/c");
    age();
    assert!(site.get("/c").text().ends_with("HTTP_IF_NONE_MATCH=None"));
}

/// The old page may end meanwhile: it is still there to be replaced.
#[test]
fn a_page_that_ends_while_it_is_refreshed_is_replaced() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=1,stale_error=1");
    // A busy machine may let the new page end before it is asked for.
    let replaced = (0..5).any(|number| {
        let path = format!("/{number}");
        let old = site.get(&path);
        site.script(&json!({path.clone(): {"gate": "go"}}));
        age();
        site.forget_runs();
        let first = site.later(1, &path, "");
        site.await_runs(1);
        sleep(Duration::from_secs(2));
        site.open("go");
        let first = first.join().expect("a thread").expect("an answer");
        site.close("go");
        assert_ne!(first.body, old.body);
        let next = site.ask(2, "GET", &path, "");
        next.cache() == "HIT" && next.body == first.body
    });
    assert!(replaced, "{}", site.log());
    // When it is of no use any more, it is computed like one that is missing.
    site.script(&json!({}));
    site.get("/late");
    sleep(Duration::from_millis(2200));
    assert_eq!(site.get("/late").cache(), "MISS");
}

#[test]
fn the_application_may_forbid_old_pages() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=1,stale=60,stale_error=60");
    site.script(&json!({"/a": {"headers": [["Cache-Control", "max-age=1, must-revalidate"]]}}));
    let old = site.get("/a");
    age();
    site.script(&json!({"/a": {"status": "500 Broken"}}));
    assert_eq!(site.get("/a").status, 500);
    site.script(&json!({}));
    assert_ne!(site.get("/a").body, old.body);
}

/// `Expires` counts from the answer that has it, not from the first one.
#[test]
fn a_confirmed_page_expires_as_the_answer_says() {
    let site = Site::start("route = ^/ ucache:name=pages,stale_error=60");
    let soon = |seconds| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
    site.script(&json!({"/a": {"headers": [["ETag", "\"v1\""], ["Expires", soon(2)]]}}));
    let first = site.get("/a");
    sleep(Duration::from_millis(3100));
    site.script(&json!({"/a": {"tag": "\"v1\"", "news": [["Expires", soon(2)]]}}));
    let second = site.get("/a");
    assert_eq!((second.cache(), &second.body), ("REFRESHED", &first.body));
    let third = site.ask(2, "GET", "/a", "");
    assert_eq!((third.cache(), third.header("Date")), ("HIT", second.header("Date")));
    // The answer says two seconds; the first one was three seconds earlier.
    sleep(Duration::from_millis(2600));
    assert_eq!(site.get("/a").cache(), "REFRESHED");
}
