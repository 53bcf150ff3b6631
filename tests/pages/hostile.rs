//! Requests that try to put something into the cache, or to get something out, that is not theirs.

use serde_json::json;

use super::site::Site;

const ROUTE: &str = "route = ^/ ucache:name=pages,ttl=60";

/// Headers that applications reflect, but which are no part of the key.
#[test]
fn headers_outside_the_key_poison_nothing() {
    let site = Site::start(ROUTE);
    let names = [
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X-Host",
        "X-Original-Host",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Host-Override",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Forwarded-Path",
        "X-Forwarded-URI",
        "X-Forwarded-Protocol",
        "X-Forwarded-SSL",
        "X-Script-Name",
        "X-Scheme",
        "X-URL-Scheme",
        "Front-End-HTTPS",
        "Forwarded",
        "X-Forwarded-Proto",
        // The variable of a header does not tell a dash from an underscore.
        "X_Forwarded_Host",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let variable = format!("HTTP_{}", name.to_uppercase().replace('-', "_"));
        let path = format!("/{number}");
        site.script(&json!({path.clone(): {"echo": [variable]}}));
        let poisoned = site.get_with(&path, &format!("{name}: evil.example\r\n"));
        assert!(
            poisoned.text().contains("evil.example") && poisoned.cache() == "BYPASS",
            "{name}: {poisoned:?}"
        );
        for _ in 0..2 {
            let clean = site.ask(2, "GET", &path, "");
            assert!(clean.text().ends_with("=None"), "{name}: {clean:?}");
        }
        // Nor does the clean page answer the request with the header.
        assert!(site.get_with(&path, &format!("{name}: evil.example\r\n")).text().contains("evil.example"));
    }
    // A scheme is part of the key.
    site.script(&json!({"/s": {"echo": ["HTTP_X_FORWARDED_PROTO"]}}));
    assert!(site.get_with("/s", "X-Forwarded-Proto: https\r\n").text().ends_with("=https"));
    assert!(site.get("/s").text().ends_with("=None"));
    assert_eq!(site.get_with("/s", "X-Forwarded-Proto: https\r\n").cache(), "HIT");
}

/// Paths that a server or an application may take for an account page, and a rule for caches for a
/// file: a slash, a parameter, an encoded separator, a query, a fragment, dots.
#[test]
fn a_name_that_looks_like_a_file_is_no_other_users_page() {
    let site = Site::start(
        "route = \\.(css|js|ico|txt)$ ucache:name=pages,ttl=60,force=1\nroute = ^/ ucache:name=pages,ttl=60",
    );
    let uris = [
        "/account/x.css",
        "/account;x.css",
        "/account%2fx.css",
        "/account%3bx.css",
        "/account%00x.css",
        "/account%0ax.css",
        "/account%23x.css",
        "/account%3fx.css",
        "/account?x.css",
        "/account#x.css",
        "/account/..%2fx.css",
        "/static/..%2faccount?x.js",
        "/static/%2e%2e/account/robots.txt",
        "//account/favicon.ico",
        "/account/.css",
        "/account%E3%80%82css",
    ];
    // Whatever the path, the application takes it for its account page, and says nothing of
    // caching.
    site.script(&json!({"*": {"echo": ["HTTP_COOKIE"]}}));
    for uri in uris {
        let lured = site.get_with(uri, "Cookie: session=victim\r\n");
        assert!(lured.text().contains("session=victim"), "{uri}: {lured:?}");
        for _ in 0..2 {
            let attacker = site.ask(2, "GET", uri, "");
            assert!(attacker.status == 200 && !attacker.text().contains("victim"), "{uri}: {attacker:?}");
        }
    }
    // A test of the test: a page for all is one for all.
    site.script(&json!({"*": {"echo": ["HTTP_COOKIE"], "headers": [["Cache-Control", "public"]]}}));
    site.get_with("/all.css", "Cookie: session=victim\r\n");
    assert!(site.get("/all.css").text().contains("victim"));
}

/// One page's answer is never another path's, however alike the paths are.
#[test]
fn paths_that_are_read_differently_have_pages_of_their_own() {
    let site = Site::start(ROUTE);
    let uris = [
        "/a/b",
        "/a/b/",
        "//a/b",
        "/a//b",
        "/a/./b",
        "/a/c/../b",
        "/A/b",
        "/a%2fb",
        "/a%2Fb",
        "/%61/b",
        "/a/b?",
        "/a/b;c",
        "/a/b?c=d&e=f",
        "/a/b?e=f&c=d",
        "/a/b?c=d;e=f",
        "/a/b?c=d&c=d",
        "/a/b?c=%64",
        "/a/b?C=d",
    ];
    let bodies: Vec<_> = uris.map(|uri| site.get(uri)).into();
    for (uri, first) in uris.iter().zip(&bodies) {
        assert!(first.text().starts_with(&format!("GET {uri} ")), "{uri}: {first:?}");
        let again = site.ask(2, "GET", uri, "");
        assert_eq!((again.cache(), &again.body), ("HIT", &first.body), "{uri}");
    }
}

#[test]
fn bytes_of_a_request_become_no_header() {
    let site = Site::start(
        "route = ^/key ucache:name=pages,ttl=60,key=${ARG}-${REQUEST_URI}\nroute = ^/ ucache:name=pages,ttl=60",
    );
    for path in ["/%0d%0aX-Evil:%20yes", "/key?ARG=%0d%0aX-Evil:%20yes", "/a\u{e4}?b=\u{1F600}"] {
        for _ in 0..2 {
            let answer = site.get(path);
            assert!(answer.status == 200 && !answer.head.contains("Evil"), "{answer:?}");
        }
    }
    for host in ["localhost\0", "a b", "a/b", "x\u{7f}", "a@b", "<script>"] {
        let request = format!("GET /h HTTP/1.1\r\nHost: {host}\r\n\r\n");
        for _ in 0..2 {
            // uWSGI itself refuses some of these.
            if let Ok(answer) = site.raw(1, request.as_bytes()) {
                assert_eq!(
                    (answer.cache(), answer.head.contains("script")),
                    ("BYPASS", false),
                    "{host:?} {answer:?}"
                );
            }
        }
    }
}

#[test]
fn requests_of_two_readings_go_by_the_cache() {
    let site = Site::start(ROUTE);
    let requests: [&[u8]; 12] = [
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0, 5\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x0\r\n\r\n",
        b"GET http://evil.example/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    for request in requests {
        let shown = String::from_utf8_lossy(request).into_owned();
        // With "chunked", uWSGI's own application interface may wait for a body: only the cache
        // matters.
        if let Ok(answer) = site.raw(1, request) {
            assert!(matches!(answer.cache(), "BYPASS" | "(none)"), "{shown} {answer:?}");
        }
    }
    assert_eq!(site.get("/a").cache(), "MISS");
    // Names that uWSGI reads as others: it sees no body, and neither does the page.
    for (number, name) in ["Transfer-Encoding : chunked", "Content-Length : 5"].into_iter().enumerate() {
        let request = format!("GET /name/{number} HTTP/1.1\r\nHost: localhost\r\n{name}\r\n\r\nhello");
        if let Ok(answer) = site.raw(1, request.as_bytes()) {
            let clean = site.ask(2, "GET", &format!("/name/{number}"), "");
            assert!(clean.text().starts_with(&format!("GET /name/{number} ")), "{clean:?}");
            assert!(!answer.text().contains("hello") && !clean.text().contains("hello"), "{answer:?}");
        }
    }
    // What follows a request in the same packet is no answer of it.
    let two = b"GET /b HTTP/1.1\r\nHost: localhost\r\n\r\nGET /c HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = site.raw(1, two).expect("an answer");
    assert!(answer.text().starts_with("GET /b"), "{answer:?}");
    let again = site.raw(1, two).expect("an answer");
    assert_eq!((again.cache(), &again.body), ("HIT", &answer.body));
    assert_eq!(site.get("/c").cache(), "MISS");
}

#[test]
fn oversize_keys_and_headers_are_served_without_the_cache() {
    let site = Site::start(&format!("buffer-size = 60000\n{ROUTE}"));
    let long = format!("/{}", "x".repeat(3000));
    for _ in 0..2 {
        assert_eq!(site.get(&long).cache(), "BYPASS");
    }
    let (large, headers) = ("y".repeat(50_000), json!([["X-Large", "z".repeat(30_000)]]));
    site.script(&json!({"/large": {"headers": headers}}));
    let first = site.get_with("/large", &format!("X-Long: {large}\r\n"));
    assert_eq!(first.header("X-Large").map(str::len), Some(30_000));
    let again = site.get("/large");
    assert_eq!((again.cache(), again.header("X-Large").map(str::len)), ("HIT", Some(30_000)));
}

#[test]
fn items_of_the_application_are_left_alone() {
    let site = Site::start(ROUTE);
    let set = "__import__('uwsgi').cache_update('http://localhost/a', 'mine', 0, 'pages')";
    site.script(&json!({"/set": {"eval": set}, "/get": {"eval": "__import__('uwsgi').cache_get('http://localhost/a', 'pages')"}}));
    site.ask(1, "POST", "/set", "");
    assert_eq!((site.get("/a").cache(), site.get("/a").cache()), ("BYPASS", "BYPASS"));
    assert_eq!(site.ask(1, "POST", "/get", "").text(), "b'mine'");
    // The documented key: the application removes the page.
    site.get("/b");
    site.script(&json!({"/del": {"eval": "__import__('uwsgi').cache_del('http://localhost/b', 'pages')"}}));
    assert_eq!((site.get("/b").cache(), site.ask(1, "POST", "/del", "").text()), ("HIT", "True".into()));
    assert_eq!(site.get("/b").cache(), "MISS");
}
