//! Counters, the log variable, and the command.

use std::process::Command;

use serde_json::json;

use super::{patience::within, site::Site};

fn ucache(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ucache")).args(args).output().expect("the command runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// A site whose pages are in a store, too; and the path of the store.
fn site(options: &str) -> (Site, String, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("pages.store").to_str().expect("UTF-8").to_owned();
    let site = Site::start(&format!(
        "cache2 = name=kept,items=100,blocksize=100k,store={store}\nucache-serve = true\nsocket = {}/uwsgi\n{options}",
        dir.path().display()
    ));
    (site, store, dir)
}

#[test]
fn figures_and_log_lines_say_what_happened() {
    let (site, store, _dir) = site(
        "enable-metrics = true\nlog-format = log %(uri) %(ucache)\n\
         route-if-not = equal:${REQUEST_METHOD};POST ucache:name=kept,ttl=60,stale_error=60",
    );
    site.script(&json!({"/a": {"body": "0123456789"}, "/cookie": {"headers": [["Set-Cookie", "a=b"]]}}));
    for (path, headers) in [
        ("/a", ""),
        ("/a", ""),
        ("/a", ""),
        ("/a", "Authorization: x\r\n"),
        ("/cookie", ""),
        ("/cookie", ""),
        ("/a", "Range: bytes=0-3\r\n"),
    ] {
        site.get_with(path, headers);
    }
    let wanted = [
        ("page_hits", 3),
        ("page_misses", 3),
        ("page_bypassed", 1),
        ("page_refused", 2),
        ("page_stale", 0),
        ("page_coalesced", 0),
        ("page_bytes", 24),
        ("page_refreshed", 0),
        ("page_bypassed_authorization", 1),
        ("page_bypassed_method", 0),
        ("page_refused_set_cookie", 2),
        ("page_refused_status", 0),
    ];
    let (code, text) = ucache(&["stat", "--json", &store]);
    let stat: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(code, 0);
    for (name, value) in wanted {
        assert_eq!(stat[name], value, "{name} {text}");
    }
    assert!(stat["page_micros"].as_u64().is_some_and(|micros| micros > 0), "{text}");
    let (_, text) = ucache(&["stat", &store]);
    assert!(text.contains("pages served") && text.contains("3 (50"), "{text}");
    assert!(text.contains("1 (1 authorization)") && text.contains("2 (2 set-cookie)"), "{text}");
    let (_, page) = ucache(&["metrics", &store]);
    for (metric, value) in [
        ("ucache_page_hits_total{", "3"),
        ("ucache_page_bypassed_reasons_total{reason=\"authorization\",", "1"),
        ("ucache_page_bypassed_reasons_total{reason=\"method\",", "0"),
        ("ucache_page_refused_reasons_total{reason=\"set-cookie\",", "2"),
    ] {
        let found = page.lines().find(|line| line.starts_with(metric));
        assert!(found.is_some_and(|line| line.ends_with(&format!("}} {value}"))), "{metric} {page}");
    }
    within("uWSGI's metrics", || {
        let all: serde_json::Value = serde_json::from_str(&site.server.stats()).expect("JSON");
        wanted.iter().all(|(name, value)| all["metrics"][format!("cache.kept.{name}")]["value"] == *value)
    });
    let log = site.log();
    for line in ["log /a MISS", "log /a HIT", "log /a BYPASS:authorization", "log /cookie MISS:set-cookie"] {
        assert!(log.lines().any(|one| one == line), "{line}: {log}");
    }
}

/// Reasons with the header of a request that is bypassed for it.
const BYPASSED: [(&str, &str); 6] = [
    ("authorization", "Authorization: x\r\n"),
    ("condition", "X-Past: 1\r\n"),
    ("form", "If-Match: \"x\"\r\n"),
    ("range", "Range: bytes=0-1\r\n"),
    ("header", "X-Forwarded-Host: x\r\n"),
    ("body", "Content-Length: 1\r\n\r\nx"),
];
/// Reasons, and paths whose responses are refused for them.
const REFUSED: [&str; 12] = [
    "status",
    "set-cookie",
    "private",
    "no-cache",
    "ttl",
    "vary",
    "size",
    "failed",
    "partial",
    "form",
    "unseen",
    "uses",
];

/// One request for each reason.
fn meet_every_reason(site: &Site) {
    let with = |name: &str, value: &str| json!({"headers": [[name, value]]});
    site.script(&json!({
        "/status": {"status": "503 Busy"}, "/set-cookie": with("Set-Cookie", "a=b"),
        "/private": with("Cache-Control", "private"), "/no-cache": with("Cache-Control", "no-cache"),
        "/ttl": with("Cache-Control", "max-age=0"), "/vary": with("Vary", "*"), "/variants": with("Vary", "X-Any"),
        "/size": {"size": 1001}, "/failed": {"raise": true},
        "/partial": {"parts": ["a", "b"], "raise_at": 1}, "/form": with("Transfer-Encoding", "chunked"),
        "/unseen": {"file": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")},
    }));
    for (reason, header) in BYPASSED {
        let request = format!("GET /past-{reason} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        assert_eq!(site.raw(1, request.as_bytes()).expect("an answer").cache(), "BYPASS", "{reason}");
    }
    site.ask(1, "POST", "/past-method", "");
    site.get(&format!("/past-cache{}", "x".repeat(3000)));
    site.raw(2, b"GET /past-uri HTTP/1.1\r\nHost: a b\r\n\r\n").expect("an answer");
    for reason in REFUSED {
        let _ = site.try_ask(2, "GET", &format!("/{reason}"), "");
    }
    site.get_with("/cookie", "Cookie: a=b\r\n");
    site.get_with("/condition", "X-Once: 1\r\n");
    for value in ["1", "2"] {
        site.get_with("/variants", &format!("X-Any: {value}\r\n"));
    }
}

/// Each reason, in the log and among the figures; the figures are of all workers, and outlive them.
#[test]
fn every_reason_is_counted_and_logged() {
    let (site, store, _dir) = site(
        "buffer-size = 16384\nlog-format = log %(uri) %(ucache)\n\
         route = ^/uses ucache:name=kept,ttl=60,min_uses=2\n\
         route = ^/ ucache:name=kept,ttl=60,max_size=1000,variants=1,bypass=${HTTP_X_PAST},nostore=${HTTP_X_ONCE}",
    );
    let stat = || -> serde_json::Value {
        serde_json::from_str(&ucache(&["stat", "--json", &store]).1).expect("JSON")
    };
    let number = |stat: &serde_json::Value, name: &str| stat[name].as_u64().expect("a number");
    // The tests' server has asked for something to see that it runs.
    let begin = stat();
    meet_every_reason(&site);
    let before = stat();
    let grown = |name: &str| number(&before, name) - number(&begin, name);
    for reason in BYPASSED.map(|(reason, _)| reason).iter().chain(&["method", "cache", "uri"]) {
        assert_eq!(grown(&format!("page_bypassed_{reason}")), 1, "{reason} {before}");
    }
    for reason in REFUSED.iter().chain(&["cookie", "condition", "variants"]) {
        let name = format!("page_refused_{}", reason.replace('-', "_"));
        assert_eq!(grown(&name), 1, "{name} {before}\n{}", site.log());
    }
    assert_eq!((grown("page_bypassed"), grown("page_refused")), (9, 15));
    // Of a request without an answer there may be no line.
    let lines = REFUSED.iter().filter(|reason| **reason != "failed");
    let lines: Vec<_> = lines.map(|reason| format!("log /{reason} MISS:{reason}")).collect();
    within("the log has all", || {
        let log = site.log();
        lines.iter().all(|line| log.lines().any(|one| one == line))
    });
    // Workers die, their counts stay.
    site.script(&json!({"/die": {"die": true}}));
    for worker in [1, 2] {
        assert!(site.try_ask(worker, "GET", "/die", "").is_err());
    }
    within("workers are back", || {
        [1, 2].iter().all(|worker| site.try_ask(*worker, "GET", "/form", "").is_ok())
    });
    let after = stat();
    for (name, value) in before.as_object().expect("an object") {
        if name.starts_with("page_") {
            assert!(after[name].as_u64() >= value.as_u64(), "{name}: {value} {}", after[name]);
        }
    }
    assert!(number(&after, "page_misses") >= number(&before, "page_misses") + 3, "{after}");
}

#[test]
fn the_command_purges_pages() {
    let (site, store, dir) = site("route = ^/ ucache:name=kept,ttl=60,stale=60,tags=X-Tags");
    site.script(
        &json!({"/a": {"headers": [["X-Tags", "one,two"]]}, "/b/1": {"headers": [["X-Tags", "two"]]}}),
    );
    let paths = ["/a", "/b/1", "/b/2"];
    let state = || paths.map(|path| site.get(path).cache().to_owned());
    state();
    assert_eq!(state(), ["HIT", "HIT", "HIT"]);
    assert_eq!(ucache(&["purge", &store, "http://localhost/a"]), (0, "1\n".into()));
    assert_eq!(ucache(&["purge", &store, "http://localhost/a"]), (0, "0\n".into()));
    assert_eq!(state(), ["MISS", "HIT", "HIT"]);
    assert_eq!(ucache(&["purge", &store, "--prefix", "http://localhost/b/"]), (0, "2\n".into()));
    assert_eq!(state(), ["HIT", "MISS", "MISS"]);
    assert_eq!(ucache(&["purge", &store, "--tag", "two"]), (0, "2\n".into()));
    assert_eq!(state(), ["MISS", "MISS", "HIT"]);
    assert_eq!(ucache(&["purge", &store, "--tag", "one", "--soft"]), (0, "1\n".into()));
    assert_eq!(site.get("/a").cache(), "STALE");
    within("it is refreshed", || site.ask(2, "GET", "/a", "").cache() == "HIT");
    // Over the protocol: one page, hard.
    let server = format!("kept@{}/uwsgi", dir.path().display());
    assert_eq!(ucache(&["purge", &server, "http://localhost/a"]), (0, "1\n".into()));
    assert_eq!(state(), ["MISS", "HIT", "HIT"]);
    let (code, text) = ucache(&["purge", &server, "--tag", "one"]);
    assert!(code == 6 && text.contains("the cache protocol has no such command"), "{code} {text}");
    let (code, _) = ucache(&["purge", &store]);
    assert_eq!(code, 2);
}

#[test]
fn pages_in_a_store_outlive_the_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = format!(
        "cache2 = name=kept,items=100,store={}/store\nroute = ^/ ucache:name=kept,ttl=60",
        dir.path().display()
    );
    let body = Site::start(&options).get("/a").body;
    let again = Site::start(&options).get("/a");
    assert_eq!((again.cache(), again.body.clone()), ("HIT", body));
}
