//! Keys and values of a store that another process has open.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    time::{Duration, SystemTime},
};

use ucache::{Cache, Expires};

use crate::{Store, ucache, ucache_with};

/// Every possible byte.
fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

#[test]
fn values_go_in_and_out_byte_for_byte() {
    let store = Store::new("cli bytes");
    let value = every_byte();
    assert_eq!(store.run_with(&["set", "bytes"], &value).text(), "");
    assert_eq!(store.cache.get("bytes").unwrap(), Some(value.clone()));
    assert_eq!(store.run(&["get", "bytes"]).out, value, "without a line's end behind it");
    assert_eq!(store.run_with(&["set", "bytes", "-"], b"from a pipe\n").text(), "");
    assert_eq!(store.run(&["get", "bytes"]).out, b"from a pipe\n");
    store.run(&["set", "word", "-5"]).text();
    assert_eq!(store.run(&["get", "word"]).out, b"-5");
    let long = vec![b'v'; 65_536];
    store.run_with(&["set", "long"], &long).text();
    assert_eq!(store.run(&["get", "long"]).out, long);
    let stats = store.cache.stats();
    assert_eq!((stats.hits, stats.misses), (1, 0), "the one hit is this test's own: looking leaves no trace");
}

#[test]
fn set_replaces_add_keeps_replace_needs_the_key() {
    let store = Store::new("cli set");
    store.run(&["add", "k", "first"]).text();
    let said = store.run(&["add", "k", "second"]).failed(1);
    assert!(said.contains("\"k\" exists") && said.contains("`set`"), "{said}");
    assert_eq!(store.cache.get_str("k").unwrap().as_deref(), Some("first"));
    store.run(&["set", "k", "third"]).text();
    assert_eq!(store.cache.get_str("k").unwrap().as_deref(), Some("third"));
    store.run(&["replace", "k", "fourth", "--ttl", "1h"]).text();
    store.run(&["replace", "k", "fifth", "--keep-ttl"]).text();
    assert_eq!(store.cache.get_str("k").unwrap().as_deref(), Some("fifth"));
    assert!(store.cache.expires("k").is_some_and(|expires| expires != Expires::Never));
    assert_eq!(store.run(&["replace", "none", "v"]).failed(1), "");
    assert!(!store.cache.contains("none"));
    assert_eq!(store.run(&["exists", "k"]).code, Some(0));
    store.run(&["del", "k"]).text();
    assert_eq!(store.run(&["del", "k"]).failed(1), "");
    assert_eq!(store.run(&["exists", "k"]).failed(1), "");
    assert_eq!(store.run(&["get", "k"]).failed(1), "", "a miss says nothing, anywhere");
    store.cache.set_many([("a", "1"), ("b", "2")]).unwrap();
    let said = store.run(&["del", "a", "no", "b"]).failed(1);
    assert!(said.contains("1 of 3"), "{said}");
    assert!(!store.cache.contains("a") && !store.cache.contains("b"));
}

#[test]
fn append_and_prepend() {
    let store = Store::new("cli append");
    for command in ["append", "prepend"] {
        assert_eq!(store.run(&[command, "k", "v"]).failed(1), "");
    }
    store.run(&["set", "k", "b", "--ttl", "1h"]).text();
    assert_eq!(store.run(&["append", "k", "-c"]).text(), "");
    store.run_with(&["append", "k", "-"], b"\0\n").text();
    store.run_with(&["prepend", "k"], b"a-").text();
    assert_eq!(store.run(&["get", "k"]).out, b"a-b-c\0\n");
    assert!(store.cache.expires("k").is_some_and(|expires| expires != Expires::Never), "the expiry stays");
    let said = store.run_with(&["append", "k"], &vec![b'v'; 65_530]).failed(4);
    assert!(said.contains("65537") && said.contains("limit is 65536"), "{said}");
}

#[test]
fn times_to_live() {
    let store = Store::new("cli ttl");
    store.run(&["set", "k", "v", "--ttl", "1h"]).text();
    let left: u64 = store.run(&["ttl", "k"]).text().trim().parse().unwrap();
    assert!((3000..=3600).contains(&left), "{left}");
    store.run(&["touch", "k", "never"]).text();
    assert_eq!(store.run(&["ttl", "k"]).text(), "never\n");
    store.run(&["touch", "k", "2d"]).text();
    store.run(&["set", "k", "w", "--keep-ttl"]).text();
    let left: u64 = store.run(&["ttl", "k"]).text().trim().parse().unwrap();
    assert!((172_000..=172_800).contains(&left), "{left}");
    assert_eq!(store.cache.get_str("k").unwrap().as_deref(), Some("w"));
    store.run(&["touch", "k", "3600500ms"]).text();
    let at = store.cache.expires("k").and_then(Expires::deadline).expect("it expires");
    let left = at.duration_since(SystemTime::now()).expect("later");
    assert!(left > Duration::from_secs(3000) && left <= Duration::from_millis(3_600_500), "{left:?}");
    for zero in ["0", "00", "0s", "0m"] {
        store.run(&["set", "k", "v", "--ttl", "1h"]).text();
        store.run(&["touch", "k", zero]).text();
        assert_eq!(store.run(&["ttl", "k"]).text(), "never\n", "{zero}");
        store.run(&["set", "k", "v", "--ttl", zero]).text();
        assert_eq!(store.run(&["ttl", "k"]).text(), "never\n", "{zero}");
    }
    assert_eq!(store.run(&["touch", "none", "5"]).failed(1), "");
    assert!(store.run(&["touch", "k", "5w"]).failed(2).contains("unknown unit"));
}

#[test]
fn counters() {
    let store = Store::new("cli counters");
    assert_eq!(store.run(&["incr", "n"]).text(), "1\n");
    assert_eq!(store.run(&["incr", "n", "41"]).text(), "42\n");
    assert_eq!(store.run(&["incr", "n", "-50"]).text(), "-8\n");
    assert_eq!(store.cache.get_int("n").unwrap(), Some(-8));
    store.run(&["set", "n", "--int", "1000"]).text();
    assert_eq!(store.cache.get_int("n").unwrap(), Some(1000));
    assert_eq!(store.run(&["get", "n", "--int"]).text(), "1000\n");
    store.cache.set("text", "abc").unwrap();
    let said = store.run(&["incr", "text"]).failed(4);
    assert!(said.contains("3 bytes") && said.contains("--int"), "{said}");
    assert!(store.run(&["get", "text", "--int"]).failed(4).contains("8"));
    assert!(store.run(&["set", "m", "--int", "1.5"]).failed(2).contains("not a number"));
}

#[test]
fn keys_are_found_by_pattern_and_prefix() {
    let store = Store::new("cli keys");
    store.cache.set_with("page:/a/b", "12345", Duration::from_secs(500)).unwrap();
    store.cache.set_many([("page:/c", "x"), ("user:1", "y"), ("user:22", "z")]).unwrap();
    let sorted = |args: &[&str]| {
        let mut lines: Vec<String> = store.run(args).text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&["keys"]), ["page:/a/b", "page:/c", "user:1", "user:22"]);
    assert_eq!(sorted(&["keys", "page:*"]), ["page:/a/b", "page:/c"], "* matches slashes, too");
    assert_eq!(sorted(&["keys", "user:?"]), ["user:1"]);
    assert_eq!(sorted(&["keys", "{user:1,page:/[cd]}"]), ["page:/c", "user:1"]);
    assert_eq!(sorted(&["keys", "--prefix", "user:"]), ["user:1", "user:22"]);
    assert_eq!(sorted(&["keys", "*2", "--prefix", "user:"]), ["user:22"]);
    assert_eq!(store.run(&["keys", "--count"]).text(), "4\n");
    assert_eq!(store.run(&["keys", "nothing*"]).text(), "");
    let long = store.run(&["keys", "--long", "page:/a/*"]).text();
    let words: Vec<&str> = long.lines().nth(1).unwrap().split_whitespace().collect();
    assert!((400..=500).contains(&words[0].parse::<u64>().unwrap()), "{long}");
    assert_eq!(words[1..], ["5", "B", "page:/a/b"]);
    assert!(store.run(&["keys", "--long", "user:1"]).text().contains("never"));
    let json: serde_json::Value =
        serde_json::from_str(&store.run(&["keys", "--json", "user:1"]).text()).unwrap();
    assert_eq!(json, serde_json::json!({"key": "user:1", "size": 1, "expires": null}));
    assert!(store.run(&["keys", "[z-a"]).failed(2).contains("pattern"));
}

#[test]
fn keys_of_any_bytes_are_shown_and_found_again() {
    let store = Store::new("cli odd keys");
    let odd = [b"new\nline".to_vec(), b"\x1b[31mred\x07".to_vec(), every_byte(), b"back\\slash".to_vec()];
    for key in &odd {
        store.cache.set(key, "v").unwrap();
    }
    let shown = store.run(&["keys"]).text();
    assert_eq!(shown.lines().count(), odd.len(), "a line each, whatever is in them");
    assert!(!shown.contains('\x1b') && !shown.contains('\x07'), "no key commands the terminal");
    for line in shown.lines() {
        assert_eq!(store.run(&["get", "-e", line]).out, b"v", "{line}");
    }
    let mut raw: Vec<Vec<u8>> =
        store.run(&["keys", "-0", "*"]).out.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
    raw.retain(|key| key == b"new\nline");
    assert_eq!(raw.len(), 1, "raw keys, ended by NUL");
    let path = store.path();
    let got = ucache([OsStr::new("get"), path.as_os_str(), OsStr::from_bytes(b"\x1b[31mred\x07")]);
    assert_eq!(got.out, b"v", "bytes of the command line are the key");
    assert!(store.run(&["get", "-e", "bad\\q"]).failed(2).contains("not a valid escaped key"));
    store.run(&["del", "-e", "new\\nline"]).text();
    assert!(!store.cache.contains("new\nline"));
}

#[test]
fn a_key_that_reads_miss_is_not_listed() {
    let store = Store::new("cli hidden");
    let line = br#"{"key":"hidden","value":"v","ungettable":true}"#;
    assert!(store.run_with(&["load"], line).text().is_empty());
    assert!(store.cache.contains("hidden") && store.cache.get("hidden").unwrap().is_none());
    assert_eq!(store.run(&["keys"]).text(), "");
    assert!(store.run(&["dump"]).text().contains("\"ungettable\":true"), "a dump has it all the same");
}

#[test]
fn clear_removes_all() {
    let store = Store::new("cli clear");
    store.cache.set_many([("a", "1"), ("b", "2")]).unwrap();
    store.run(&["clear"]).text();
    assert_eq!(store.cache.keys().count(), 0);
    assert_eq!(store.run(&["keys", "-c"]).text(), "0\n");
}

#[test]
fn a_store_is_made_and_used_without_any_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prices.ucache");
    let path = file.to_str().unwrap();
    ucache(["create", path, "--items", "10", "--blocksize", "100", "--purge-lru"]).text();
    assert!(ucache(["create", path, "--items", "10"]).failed(1).contains("exists"));
    assert!(ucache(["create", &format!("{path}2"), "--items", "0"]).failed(2).contains("items=0"));
    assert!(!dir.path().join("prices.ucache2").exists());
    ucache(["set", path, "apple", "0.30"]).text();
    assert!(ucache_with(["set", path, "pear"], &[b'v'; 101]).failed(4).contains("limit is 100"));
    let cache = Cache::attach(&file).unwrap();
    assert_eq!((cache.name(), cache.stats().capacity), ("prices", 10));
    assert_eq!(cache.expires("apple"), Some(Expires::Never));
}
