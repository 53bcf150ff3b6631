//! Hits and misses, times to live, methods, statuses, validation, ranges.

use std::{thread::sleep, time::Duration};

use serde_json::json;

use super::{patience::within, server::Build, site::Site};

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=60";

#[test]
fn a_page_is_computed_once_for_all_workers() {
    for &build in Build::all() {
        let site = Site::start_on(build, 2, ROUTE);
        let first = site.get("/a?x=1");
        assert_eq!((first.status, first.cache()), (200, "MISS"), "{first:?}\n{}", site.log());
        for worker in [1, 2, 2, 1] {
            let again = site.ask(worker, "GET", "/a?x=1", "");
            assert_eq!((again.status, again.cache(), &again.body), (200, "HIT", &first.body), "{build:?}");
            assert_eq!(again.header("Content-Type"), Some("text/plain"));
            assert_eq!(again.header("Content-Length"), Some(first.body.len().to_string().as_str()));
            assert!(again.header("Age").is_some_and(|age| age.parse::<u64>().is_ok_and(|age| age < 30)));
            assert!(again.header("Date").is_some_and(|date| date.ends_with(" GMT")), "{}", again.head);
            assert!(again.header("ETag").is_some_and(|tag| tag.starts_with('"')), "{}", again.head);
        }
        assert_eq!(site.runs(), 1);
        // Another query and another host are other pages.
        assert_eq!(site.get("/a?x=2").cache(), "MISS");
        let other = site.raw(1, b"GET /a?x=1 HTTP/1.1\r\nHost: other\r\n\r\n").expect("an answer");
        assert_eq!(other.cache(), "MISS");
        assert_eq!(site.runs(), 3);
    }
}

#[test]
fn a_page_ends_when_its_time_has_passed() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=2");
    let first = site.get("/a");
    assert_eq!(site.get("/a").body, first.body);
    within("the page ends", || site.get("/a").body != first.body);
    site.script(&json!({"/b": {"headers": [["Cache-Control", "max-age=1"]]}}));
    let first = site.get("/b");
    sleep(Duration::from_millis(1100));
    let second = site.get("/b");
    assert_ne!(second.body, first.body);
}

#[test]
fn what_the_application_forbids_is_not_stored() {
    let site = Site::start(ROUTE);
    let with = |name: &str, value: &str| json!({"headers": [[name, value]]});
    site.script(&json!({
        "/private": with("Cache-Control", "private"),
        "/no-store": with("Cache-Control", "no-store"),
        "/no-cache": with("Cache-Control", "no-cache"),
        "/old": with("Cache-Control", "max-age=0"),
        "/cookie": with("Set-Cookie", "a=b"),
        "/star": with("Vary", "*"),
        "/500": {"status": "500 Broken"},
        "/206": {"status": "206 Partial Content", "headers": [["Content-Range", "bytes 0-1/9"]]},
        "/events": {"headers": [["Content-Type", "text/event-stream"]]},
    }));
    for path in ["/private", "/no-store", "/no-cache", "/old", "/cookie", "/star", "/500", "/206"] {
        site.forget_runs();
        for _ in 0..3 {
            assert_eq!(site.get(path).cache(), "MISS", "{path}");
        }
        assert_eq!(site.runs(), 3, "{path}");
    }
    let authorized = "Authorization: Basic eDp5\r\n";
    assert_eq!(site.get_with("/ok", authorized).cache(), "BYPASS");
    assert_eq!(site.get("/ok").cache(), "MISS");
    assert_eq!(site.get_with("/ok", authorized).cache(), "BYPASS");
    assert_eq!(site.get("/ok").cache(), "HIT");
}

#[test]
fn statuses_have_times_of_their_own() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,status=200 301 404:1");
    site.script(&json!({
        "/missing": {"status": "404 Gone Fishing", "body": "none"},
        "/moved": {"status": "301 Moved Permanently", "headers": [["Location", "/new"]], "body": ""},
        "/gone": {"status": "410 Gone"},
        "/empty": {"status": "204 No Content", "body": ""},
        "/all": {"status": "202 Accepted"},
    }));
    site.get("/missing");
    let hit = site.get("/missing");
    assert!(hit.cache() == "HIT" && hit.head.starts_with("HTTP/1.1 404 Gone Fishing\r\n"), "{hit:?}");
    within("its time has passed", || site.get("/missing").cache() != "HIT");
    assert_eq!(site.get("/moved").cache(), "MISS");
    let moved = site.get("/moved");
    assert_eq!((moved.status, moved.cache(), moved.header("Location")), (301, "HIT", Some("/new")));
    assert_eq!((moved.header("Content-Length"), moved.body.len()), (Some("0"), 0));
    for path in ["/gone", "/empty", "/all"] {
        assert_eq!((site.get(path).cache(), site.get(path).cache()), ("MISS", "MISS"), "{path}");
    }
}

#[test]
fn methods_other_than_get_and_head_go_to_the_application() {
    let site = Site::start(ROUTE);
    let page = site.get("/a");
    let head = site.ask(2, "HEAD", "/a", "");
    assert_eq!((head.cache(), head.body.len()), ("HIT", 0));
    assert_eq!(head.header("Content-Length"), Some(page.body.len().to_string().as_str()));
    // A HEAD for a page that is not there stores nothing.
    for _ in 0..2 {
        assert_eq!(site.ask(1, "HEAD", "/b", "").cache(), "MISS");
    }
    assert!(site.get("/b").text().starts_with("GET /b"));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "X"] {
        let answer = site.ask(1, method, "/c", "");
        assert!(answer.text().starts_with(&format!("{method} /c")), "{answer:?}");
        assert!(site.get("/c").text().starts_with("GET /c"));
    }
    // A change that succeeds ends the page; one that fails, or changes nothing, does not.
    let kept = site.get("/d").body;
    site.ask(1, "OPTIONS", "/d", "");
    assert_eq!(site.get("/d").body, kept);
    site.script(&json!({"/d": {"status": "403 No"}}));
    site.ask(1, "POST", "/d", "");
    site.script(&json!({}));
    assert_eq!(site.get("/d").body, kept);
    site.ask(1, "POST", "/d", "");
    assert_ne!(site.get("/d").body, kept);
    // So do pages that its answer names.
    let kept = site.get("/d").body;
    site.script(&json!({"/new": {"headers": [["Location", "/d"]]}}));
    site.ask(1, "POST", "/new", "");
    assert_ne!(site.get("/d").body, kept);
}

#[test]
fn clients_that_have_the_page_are_told_so() {
    let site = Site::start(ROUTE);
    site.script(&json!({
        "/dated": {"headers": [["Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"], ["ETag", "\"v1\""]]},
        "/honest": {"body": "ten  bytes", "headers": [["X-Kept", "yes"]]},
    }));
    site.get("/honest");
    let tag = site.get("/honest").header("ETag").expect("a made tag").to_owned();
    let same = site.get_with("/honest", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.cache(), same.body.len()), (304, "HIT", 0));
    assert_eq!((same.header("ETag"), same.header("X-Kept")), (Some(tag.as_str()), Some("yes")));
    assert_eq!(same.header("Content-Length"), None);
    site.get("/dated");
    let since = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(site.get_with("/dated", since).status, 304);
    assert_eq!(site.get_with("/dated", "If-None-Match: \"v2\"\r\n").status, 200);
    // The application is asked for the whole page, whatever the client has.
    site.script(&json!({"/new": {"echo": ["HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"]}}));
    let new = site.get_with("/new", &format!("If-None-Match: \"x\"\r\n{since}"));
    assert!(new.status == 200 && new.text().ends_with("HTTP_IF_NONE_MATCH=None HTTP_IF_MODIFIED_SINCE=None"));
    assert_eq!(site.get("/new").cache(), "HIT");
}

#[test]
fn ranges_are_cut_from_whole_pages() {
    let site = Site::start(ROUTE);
    site.script(&json!({"/digits": {"body": "0123456789", "echo": ["HTTP_RANGE"]}, "/other": {"echo": ["HTTP_RANGE"]}}));
    // Not stored yet: the application answers, as it likes.
    let other = site.get_with("/other", "Range: bytes=0-1\r\n");
    assert!(other.cache() == "BYPASS" && other.text().ends_with("HTTP_RANGE=bytes=0-1"), "{other:?}");
    site.get("/digits");
    let part = site.get_with("/digits", "Range: bytes=2-4\r\n");
    assert_eq!((part.status, part.text().as_str(), part.cache()), (206, "234", "HIT"));
    assert_eq!(part.header("Content-Range"), Some("bytes 2-4/10"));
    let none = site.get_with("/digits", "Range: bytes=10-\r\n");
    assert_eq!((none.status, none.header("Content-Range"), none.body.len()), (416, Some("bytes */10"), 0));
    assert_eq!(site.get_with("/digits", "Range: bytes=0-1,4-5\r\n").text(), "0123456789");
}

#[test]
fn keys_may_be_templates_and_answers_silent() {
    let routes = "route = ^/user/(\\w+) ucache:name=pages,ttl=60,key=u-$1-${REQUEST_METHOD},x_cache=0\n\
                  route = ^/ ucache:name=pages,ttl=60";
    let site = Site::start(routes);
    let first = site.get("/user/ann?x=1");
    assert_eq!((first.cache(), site.get("/user/ann?x=2").body), ("(none)", first.body.clone()));
    assert_ne!(site.get("/user/bob").body, first.body);
    assert_eq!(site.get("/other").cache(), "MISS");
    assert_eq!(site.get("/other").cache(), "HIT");
}

#[test]
fn empty_large_and_streamed_bodies_are_whole() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,max_size=100000");
    site.script(&json!({
        "/empty": {"body": ""},
        "/large": {"size": 60_000},
        "/most": {"size": 100_000},
        "/over": {"size": 100_001},
        "/announced": {"parts": ["x".repeat(100_001)], "length": true},
        "/parts": {"parts": ["one ", "", "two ", "three"], "pause": 0.05},
        "/length": {"parts": ["one ", "two ", "three"], "length": true},
        "/file": {"file": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")},
    }));
    for (path, cache) in [
        ("/empty", "HIT"),
        ("/large", "HIT"),
        ("/most", "HIT"),
        ("/over", "MISS"),
        ("/announced", "MISS"),
        ("/parts", "HIT"),
        ("/length", "HIT"),
    ] {
        let first = site.get(path);
        let again = site.ask(2, "GET", path, "");
        assert_eq!(again.cache(), cache, "{path}\n{}", site.log());
        let same = |text: String| text.split_whitespace().map(str::len).sum::<usize>();
        assert_eq!(same(again.text()), same(first.text()), "{path}");
        if cache == "HIT" {
            assert_eq!(again.body, first.body, "{path}");
        }
    }
    // A file that is sent by sendfile does not pass through uWSGI's transformations.
    let file = site.get("/file");
    assert!(file.text().contains("[package]"), "{file:?}");
    assert_eq!(site.get("/file").body, file.body);
    assert_eq!(site.get("/parts").text(), "one two three");
}

#[test]
fn mistakes_in_the_configuration_end_the_server() {
    use super::server::{Flavor, Server};
    for (route, expected) in [
        ("ucache:name=pages,ttl=soon", "[ucache] ucache: ttl=soon: expected a number"),
        ("ucache:name=pages,timeout=5", "[ucache] ucache: timeout: there is no such option"),
        ("ucache:name=other,ttl=5", "a route names the cache other, but there is no such cache"),
    ] {
        let log = Server::refuse(Flavor::Ucache, &format!("cache2 = name=pages,items=9\nroute = ^/ {route}"));
        assert!(log.contains(expected), "{route}: {log}");
    }
}
