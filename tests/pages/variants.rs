//! Variants, conditions, tags and purges.

use serde_json::json;

use super::{patience::within, site::Site};

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=60";

#[test]
fn what_vary_names_selects_the_page() {
    let site = Site::start(ROUTE);
    let vary =
        |names: &str| json!({"headers": [["Vary", names]], "echo": ["HTTP_ACCEPT_LANGUAGE", "HTTP_COOKIE"]});
    site.script(&json!({"/a": vary("Accept-Language"), "/c": vary("Accept-Language, Cookie")}));
    let (german, french) = ("Accept-Language: de\r\n", "Accept-Language: fr\r\n");
    let first = site.get_with("/a", german);
    assert_eq!(first.cache(), "MISS");
    assert_eq!((site.get_with("/a", german).cache(), site.get_with("/a", french).cache()), ("HIT", "MISS"));
    assert_eq!(site.get_with("/a", german).body, first.body);
    assert!(site.get_with("/a", french).text().contains("LANGUAGE=fr"));
    assert!(site.get("/a").text().contains("LANGUAGE=None"));
    assert!(site.get_with("/a", "Accept-Language: \r\n").text().contains("LANGUAGE= "));
    assert_eq!(site.runs(), 4);
    for (cookie, other) in [("a=1", "a=2"), ("a=2", "a=1")] {
        let answer = site.get_with("/c", &format!("Cookie: {cookie}\r\n"));
        assert!(answer.text().contains(cookie) && !answer.text().contains(other), "{answer:?}");
        assert_eq!(site.get_with("/c", &format!("Cookie: {cookie}\r\n")).cache(), "HIT");
    }
    // The application names another header, or none: older variants are no longer served.
    site.script(&json!({"/a": vary("Cookie")}));
    site.ask(1, "POST", "/a", "");
    assert_eq!((site.get_with("/a", german).cache(), site.get_with("/a", french).cache()), ("MISS", "HIT"));
}

#[test]
fn a_response_to_a_cookie_is_for_that_client_alone() {
    let site = Site::start(
        "route = ^/shared ucache:name=pages,ttl=60,cookies=ignore\nroute = ^/ ucache:name=pages,ttl=60",
    );
    let cookie = "Cookie: session=ann\r\n";
    site.script(&json!({
        "/account": {"echo": ["HTTP_COOKIE"]},
        "/public": {"echo": ["HTTP_COOKIE"], "headers": [["Cache-Control", "public"]]},
        "/shared": {"echo": ["HTTP_COOKIE"]},
    }));
    assert!(site.get_with("/account", cookie).text().contains("session=ann"));
    assert!(site.get("/account").text().contains("HTTP_COOKIE=None"));
    // The page without a cookie is stored; it says nothing of one.
    assert_eq!(site.get_with("/account", cookie).cache(), "HIT");
    for path in ["/public", "/shared"] {
        site.get_with(path, cookie);
        assert_eq!(site.get(path).cache(), "HIT", "{path}");
    }
}

#[test]
fn the_route_names_headers_of_its_own() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,vary=X-Tenant");
    site.script(&json!({"/a": {"echo": ["HTTP_X_TENANT"]}}));
    for tenant in ["one", "two", "one", "two"] {
        let answer = site.get_with("/a", &format!("X-Tenant: {tenant}\r\n"));
        assert!(answer.text().ends_with(&format!("HTTP_X_TENANT={tenant}")), "{answer:?}");
    }
    assert_eq!(site.runs(), 2);
}

#[test]
fn variants_have_a_limit() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,variants=3");
    site.script(&json!({"/a": {"headers": [["Vary", "X-Any"]]}}));
    let ask = |n: usize| site.get_with("/a", &format!("X-Any: {n}\r\n"));
    for n in 0..60 {
        assert_eq!(ask(n).cache(), "MISS", "{n}");
    }
    assert_eq!([0, 1, 2, 3, 59].map(|n| ask(n).cache().to_owned()), ["HIT", "HIT", "HIT", "MISS", "MISS"]);
    // The list, three variants; nothing of the others.
    let items = site.server.cache_stats("pages")["items"].as_u64().expect("a number");
    assert!(items <= 5, "{items}");
}

#[test]
fn conditions_of_the_request_go_by_the_cache() {
    let routes = "route = ^/ ucache:name=pages,ttl=60,bypass=${cookie[preview]} ${HTTP_X_FRESH},nostore=${HTTP_X_ONCE}";
    let site = Site::start(routes);
    let first = site.get("/a").body;
    for header in ["Cookie: preview=yes\r\n", "X-Fresh: 1\r\n"] {
        assert_eq!(site.get_with("/a", header).cache(), "BYPASS", "{header}");
    }
    for header in ["Cookie: other=yes\r\n", "X-Fresh: 0\r\n", "X-Fresh:\r\n", "X-Once: 1\r\n"] {
        assert_eq!(site.get_with("/a", header).body, first, "{header}");
    }
    site.get_with("/b", "X-Once: 1\r\n");
    assert_eq!((site.get("/b").cache(), site.get("/b").cache()), ("MISS", "HIT"));
}

#[test]
fn pages_asked_for_often_are_stored() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,min_uses=3");
    let all: Vec<_> = (0..5).map(|_| site.get("/a").cache().to_owned()).collect();
    assert_eq!(all, ["MISS", "MISS", "MISS", "HIT", "HIT"]);
}

#[test]
fn bodies_are_stored_compressed_and_served_as_asked() {
    let site = Site::start("route = ^/ ucache:name=pages,ttl=60,gzip=1");
    site.script(
        &json!({"/a": {"size": 50_000}, "/done": {"size": 50_000, "headers": [["Content-Encoding", "br"]]}}),
    );
    let plain = site.get("/a");
    assert_eq!((plain.body.len(), plain.header("Content-Encoding")), (50_000, None));
    let packed = site.get_with("/a", "Accept-Encoding: br;q=1, gzip\r\n");
    assert_eq!(
        (packed.header("Content-Encoding"), packed.header("Vary")),
        (Some("gzip"), Some("Accept-Encoding"))
    );
    assert!(packed.body.len() < 5000 && packed.body.starts_with(&[0x1f, 0x8b]), "{}", packed.body.len());
    for other in ["", "Accept-Encoding: br\r\n", "Accept-Encoding: gzip;q=0\r\n"] {
        let answer = site.get_with("/a", other);
        assert_eq!((&answer.body, answer.header("Content-Encoding")), (&plain.body, None), "{other}");
    }
    let done = site.get("/done");
    assert_eq!(site.get_with("/done", "Accept-Encoding: gzip\r\n").body, done.body);
}

#[test]
fn pages_are_purged_by_url_prefix_and_tag() {
    let routes = "route-if = equal:${REQUEST_METHOD};BAN ucachepurge:name=pages,prefix=http://localhost${PATH_INFO},methods=BAN,token=s3\n\
                  route-if = equal:${REQUEST_METHOD};TAG ucachepurge:name=pages,tag=${HTTP_X_TAG},methods=TAG,token=s3\n\
                  route-if = equal:${REQUEST_METHOD};SOFT ucachepurge:name=pages,methods=SOFT,soft=1,token=s3\n\
                  route-if = equal:${REQUEST_METHOD};PURGE ucachepurge:name=pages,token=s3\n\
                  route = ^/ ucache:name=pages,ttl=60,stale=60,tags=X-Tags";
    let site = Site::start(routes);
    let tagged = |tags: &str| json!({"headers": [["X-Tags", tags], ["Vary", "X-V"]]});
    site.script(&json!({"/a/1": tagged("red, blue"), "/a/2": tagged("blue"), "/b": tagged("green")}));
    let paths = ["/a/1", "/a/2", "/b"];
    let fill = || paths.map(|path| site.get(path).body);
    let hits = || paths.map(|path| site.ask(2, "GET", path, "").cache() == "HIT");
    let token = "X-Purge-Token: s3\r\n";
    fill();
    assert_eq!(hits(), [true, true, true]);
    let refused = site.ask(1, "PURGE", "/a/1", "X-Purge-Token: s4\r\n");
    assert_eq!((refused.status, hits()), (403, [true, true, true]));
    assert_eq!(site.ask(1, "PURGE", "/a/1", token).text(), "1\n");
    assert_eq!(hits(), [false, true, true]);
    assert!(site.ask(1, "TAG", "/", &format!("{token}X-Tag: blue\r\n")).text().trim() != "0");
    assert_eq!(hits(), [false, false, true]);
    assert_eq!(site.ask(1, "TAG", "/", token).status, 400);
    site.ask(1, "BAN", "/a/", token);
    assert_eq!(hits(), [false, false, true]);
    let before = fill();
    assert_eq!(site.ask(1, "SOFT", "/b", token).text(), "1\n");
    let old = site.get("/b");
    assert_eq!((old.cache(), &old.body), ("STALE", &before[2]));
    within("it is refreshed", || site.get("/b").body != before[2]);
}

#[test]
fn a_purge_beats_a_computation_that_began_before() {
    let routes = "route-if = equal:${REQUEST_METHOD};PURGE ucachepurge:name=pages,token=s3\n\
                  route-if = equal:${REQUEST_METHOD};BAN ucachepurge:name=pages,prefix=http,methods=BAN,token=s3\n\
                  route = ^/ ucache:name=pages,ttl=60,lock=30";
    let site = Site::start(routes);
    for (runs, method) in ["PURGE", "BAN"].into_iter().enumerate() {
        site.script(&json!({"/a": {"gate": "go"}}));
        let first = site.later(1, "/a", "");
        site.await_runs(runs * 2 + 1);
        site.ask(2, method, "/a", "X-Purge-Token: s3\r\n");
        site.open("go");
        let first = first.join().expect("a thread").expect("an answer");
        assert_ne!(site.ask(2, "GET", "/a", "").body, first.body, "{method}");
        site.ask(2, "PURGE", "/a", "X-Purge-Token: s3\r\n");
        site.close("go");
    }
}
