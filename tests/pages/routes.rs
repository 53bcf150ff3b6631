//! Other routes beside `ucache:`: those that change the body, those for errors, responses and ends.

use std::{io::Read, thread::sleep, time::Duration};

use serde_json::json;

use super::{
    patience::within,
    server::{Build, Flavor, Server},
    site::{Answer, Site},
};

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=60,stale_error=60";

/// The plugin of a transformation; PyPI's build has it inside.
fn plugin(build: Build, name: &str) -> String {
    if build == Build::Installed { format!("plugin = transformation_{name}\n") } else { String::new() }
}

/// The body behind the framing of the answer, which must have one only.
fn body(answer: &Answer) -> String {
    let (length, coding) = (answer.header("Content-Length"), answer.header("Transfer-Encoding"));
    assert!(length.is_none() || coding.is_none(), "two framings: {}", answer.head);
    if let Some(length) = length {
        assert_eq!(length, answer.body.len().to_string(), "{}", answer.head);
    }
    if coding.is_none() {
        return answer.text();
    }
    let (mut text, mut rest) = (String::new(), answer.text());
    loop {
        let (size, more) = rest.split_once("\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).expect("a number");
        if size == 0 {
            return text;
        }
        text += &more[..size];
        rest = more[size + 2..].to_owned();
    }
}

#[test]
fn bodies_that_other_routes_change() {
    for &build in Build::all() {
        // Before: what they make of a body is not what may be stored, and they would run again on
        // each hit. Behind: they change what the application sends, not what is stored.
        for (first, caches) in [(true, ["BYPASS", "BYPASS"]), (false, ["MISS", "HIT"])] {
            let chunked = "route = ^/ chunked:";
            let routes = if first { [chunked, ROUTE] } else { [ROUTE, chunked] }.join("\n");
            let site = Site::start_on(build, 2, &format!("{}{routes}", plugin(build, "chunked")));
            site.script(&json!({"/a": {"body": "0123456789"}, "/b": {"parts": ["one ", "two"]}}));
            for (path, expected) in [("/a", "0123456789"), ("/b", "one two")] {
                for cache in caches {
                    let answer = site.get(path);
                    assert_eq!((answer.cache(), body(&answer).as_str()), (cache, expected), "{path} {first}");
                }
            }
        }
    }
    let site = Site::start(&format!("plugin = transformation_toupper\nroute = ^/ toupper:\n{ROUTE}"));
    site.script(&json!({"/a": {"body": "abc"}}));
    for _ in 0..2 {
        let answer = site.get("/a");
        assert_eq!((answer.cache(), body(&answer).as_str()), ("BYPASS", "ABC"));
    }
}

/// In lists of routes that run when there is a response already, there is nothing to serve or to
/// watch.
#[test]
fn lists_of_routes_for_responses() {
    for list in ["error-route", "response-route", "final-route"] {
        let log = Server::refuse(
            Flavor::Ucache,
            &format!("cache2 = name=pages,items=9\n{list} = ^/ ucache:name=pages,ttl=5"),
        );
        assert!(log.contains("[ucache] ucache: only routes of requests"), "{list}: {log}");
    }
    // Beside one for requests.
    let routes = format!(
        "{ROUTE}\nerror-route = ^/ addheader:X-Error: seen\nresponse-route = ^/ addheader:X-Any: seen"
    );
    for &build in Build::all() {
        let site = Site::start_on(build, 2, &routes);
        site.script(&json!({"/bad": {"status": "500 Broken"}}));
        assert_eq!(site.get("/bad").header("X-Error"), Some("seen"));
        for cache in ["MISS", "HIT"] {
            let answer = site.get("/a");
            assert_eq!((answer.cache(), answer.header("X-Any")), (cache, Some("seen")), "{build:?}");
        }
    }
}

/// `uwsgi.route` reads the options at each call. Nothing of them is left when the answer is sent; until
/// then they are needed.
#[test]
fn an_action_that_the_application_calls() {
    let call = |key: &str| format!("__import__('uwsgi').route('ucache', 'name=pages,ttl=60,key=' + {key})");
    let memory = "open('/proc/self/statm').read().split()[1]";
    for &build in Build::all() {
        let site = Site::start_on(build, 1, "");
        // Another page each time: what answers is the application, not an earlier answer.
        let key = "str(__import__('time').time_ns()) + 'x' * 1000";
        let often = format!("[{} for n in range(20000)] and {memory}", call(key));
        site.script(&json!({"/a": {"eval": call("'once'")}, "/often": {"eval": often}}));
        assert_eq!(site.get("/a").cache(), "MISS");
        within("the page is stored", || site.server.cache_stats("pages")["items"] == 1);
        let pages = || -> i64 { site.get("/often").text().trim_matches('\'').parse().expect("a number") };
        let (_, before) = (pages(), pages());
        let more = (pages() - before) << 12;
        assert!(more < 5 << 20, "{more} bytes more after 20,000 calls ({build:?})");
    }
}

/// The body of an answer that may be compressed; its length must be the one that it states.
fn unpacked(answer: &Answer) -> String {
    if let Some(length) = answer.header("Content-Length") {
        assert_eq!(length, answer.body.len().to_string(), "{}", answer.head);
    }
    if answer.header("Content-Encoding").is_none() {
        return body(answer);
    }
    let mut text = String::new();
    let read = flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text);
    read.unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    text
}

/// Pages that the action sends in place of the application's answer pass the routes behind it, too.
#[test]
fn old_pages_that_other_routes_change_have_their_length() {
    let long = "hello world ".repeat(40);
    for (name, action) in [("gzip", "gzip:"), ("chunked", "chunked:")] {
        for options in ["stale_error=60", "stale_error=60,gzip=1"] {
            let site = Site::start(&format!(
                "plugin = transformation_{name}\nroute = ^/ ucache:name=pages,ttl=1,{options}\nroute = ^/ {action}"
            ));
            let named = json!({"body": long, "headers": [["ETag", "\"v1\""]]});
            let confirms = json!({"tag": "\"v1\"", "body": "another"});
            for (script, cache) in [
                (json!({"status": "500 Broken"}), "STALE"),
                (json!({"raise": true}), "STALE"),
                (confirms, "REFRESHED"),
            ] {
                site.script(&json!({"/a": named}));
                site.get("/a");
                sleep(Duration::from_millis(1100));
                site.script(&json!({"/a": script.clone()}));
                let answer = site.get_with("/a", "Accept-Encoding: gzip\r\n");
                assert_eq!(
                    (answer.status, answer.cache()),
                    (200, cache),
                    "{action} {script} {}",
                    answer.head
                );
                assert_eq!(unpacked(&answer), long, "{action} {options} {script}");
            }
        }
    }
}

#[test]
fn hits_that_routes_for_responses_change_have_their_length() {
    let long = "hello world ".repeat(10_000);
    for &build in Build::all() {
        for (name, action) in [("gzip", "gzip:"), ("chunked", "chunked:")] {
            let site = Site::start_on(
                build,
                2,
                &format!(
                    "{}offload-threads = 1\nresponse-route = ^/ {action}\nresponse-route = ^/ addheader:X-Added: yes\n\
                     route = ^/ ucache:name=pages,ttl=1,stale=60",
                    plugin(build, name)
                ),
            );
            site.script(&json!({"/a": {"body": long}}));
            assert_eq!(unpacked(&site.get("/a")), long, "{build:?} {action}");
            for cache in ["HIT", "REFRESHED", "HIT"] {
                let answer = site.get("/a");
                assert_eq!((answer.cache(), unpacked(&answer) == long), (cache, true), "{}", answer.head);
                assert_eq!(answer.header("X-Added"), Some("yes"), "{build:?} {}", answer.head);
                if cache == "HIT" {
                    sleep(Duration::from_millis(1100));
                }
            }
        }
        // Without one that changes the body, the length is there.
        let site = Site::start_on(build, 2, &format!("response-route = ^/ addheader:X-Added: yes\n{ROUTE}"));
        site.get("/a");
        let answer = site.get("/a");
        assert_eq!((answer.cache(), answer.header("X-Added")), ("HIT", Some("yes")));
        assert!(answer.header("Content-Length").is_some(), "{}", answer.head);
    }
}
