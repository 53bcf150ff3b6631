//! Other routes beside `ucache:`: those that change the body, those for errors, responses and ends.

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
        let often = format!("[{} for n in range(20000)] and {memory}", call("str(n) + 'x' * 1000"));
        site.script(&json!({"/a": {"eval": call("'once'")}, "/often": {"eval": often}}));
        assert_eq!(site.get("/a").cache(), "MISS");
        within("the page is stored", || site.server.cache_stats("pages")["items"] == 1);
        let pages = || -> i64 { site.get("/often").text().trim_matches('\'').parse().expect("a number") };
        let (_, before) = (pages(), pages());
        let more = (pages() - before) << 12;
        assert!(more < 5 << 20, "{more} bytes more after 20,000 calls ({build:?})");
    }
}
