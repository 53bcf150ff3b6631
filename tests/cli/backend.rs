//! `--backend`: caches whose values are at a server.

use std::time::Duration;

use ucache::{Backend, Cache, Error, StoreFault};

use crate::{
    backend_server::Server,
    patience::{PATIENCE, poll, within},
    ucache,
};

#[test]
fn values_at_a_server() {
    let server = Server::start();
    let at = format!("{},prefix=p:", server.url());
    let run = |args: &[&str]| ucache(["--backend", &at].iter().chain(args));
    run(&["set", "pages", "k", "v", "--ttl", "100"]).text();
    assert_eq!(server.ask(["GET", "p:k"]), "v");
    assert_eq!(run(&["get", "pages", "k"]).text(), "v");
    assert_eq!(run(&["add", "pages", "k", "w"]).code, Some(1));
    assert_eq!(run(&["replace", "pages", "none", "w"]).code, Some(1));
    run(&["append", "pages", "k", "!"]).text();
    run(&["touch", "pages", "k", "never"]).text();
    assert_eq!(run(&["ttl", "pages", "k"]).text(), "never\n");
    assert_eq!(run(&["incr", "pages", "n", "42"]).text(), "42\n");
    assert_eq!(run(&["get", "pages", "n", "--int"]).text(), "42\n");
    assert_eq!(run(&["exists", "pages", "n"]).code, Some(0));
    server.ask(["SET", "p:other", "of another client"]);
    let mut keys: Vec<_> = run(&["keys", "pages"]).text().lines().map(str::to_owned).collect();
    keys.sort();
    assert_eq!(keys, ["k", "n", "other"]);
    let dump = run(&["dump", "pages", "--prefix", "k"]).text();
    assert!(dump.contains("\"v!\""), "{dump}");
    assert_eq!(run(&["del", "pages", "k"]).code, Some(0));
    run(&["clear", "pages"]).text();
    assert_eq!(server.ask(["DBSIZE"]), "0");
}

#[test]
fn what_cannot_be_is_said() {
    let mut server = Server::start();
    let url = server.url();
    for command in ["stat", "top", "metrics"] {
        let said = ucache(["--backend", &url, command, "pages"]).failed(6);
        assert!(said.contains("a cache with a backend has no store"), "{said}");
    }
    let said = ucache(["--backend", "redis://a,evict=lru", "get", "pages", "k"]).failed(2);
    assert!(said.contains("no option \"evict\""), "{said}");
    let said = ucache(["--backend", "http://me:hush@a", "get", "pages", "k"]).failed(2);
    assert!(said.contains("the scheme must be redis://") && !said.contains("hush"), "{said}");
    server.down();
    for args in [
        &["get", "pages", "k"][..],
        &["exists", "pages", "k"],
        &["keys", "pages"],
        &["set", "pages", "k", "v"],
    ] {
        let said = ucache(["--backend", &url].iter().chain(args)).failed(3);
        assert!(said.contains("no connection"), "{said}");
    }
}

/// A cache whose region can be looked into.
fn with_store(name: &str, backend: Backend, path: &std::path::Path) -> Cache {
    // A busy machine does not make it fail.
    let backend = backend.prefix("p:").timeout(Duration::from_secs(20));
    Cache::builder(name).items(100).store(path).backend(backend).build().expect("a cache")
}

#[test]
fn a_store_shows_the_copies() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("copies");
    let file = path.to_str().expect("text");
    let c = with_store("shown", Backend::url(server.url()), &path);
    within("a hit of a copy", || {
        c.set("k", "v").expect("set");
        assert!(c.get("k").expect("get").is_some() && c.get("k").expect("get").is_some());
        c.near_stats().expect("it has a backend").hits > 0
    });
    let stat = ucache(["stat", file]).text();
    for part in ["copies of a server's values", "beat age", &format!("process {}", std::process::id())] {
        assert!(stat.contains(part), "{part} in {stat}");
    }
    let read = || -> serde_json::Value {
        serde_json::from_str(&ucache(["stat", file, "--json"]).text()).expect("JSON")
    };
    // The beat of a busy machine may be late.
    within("copies are in use", || read()["near_up"] == 1);
    let json = read();
    assert!(json["near_hits"].as_u64() > Some(0) && json["backend_requests"].as_u64() > Some(0), "{json}");
    assert!(json["near_beat_age_ms"].is_u64(), "{json}");
    assert!(json["backend_up"] == 1 && json["backend_elsewhere"] == 0, "{json}");
    let page = ucache(["metrics", file]).text();
    for gauge in ["near_up", "backend_up"] {
        let line = format!("ucache_{gauge}{{cache=\"shown\",store=\"{file}\"}} 1\n");
        assert!(page.contains(&line), "{line} in {page}");
    }
    assert!(page.contains("# TYPE ucache_near_fills_total counter\nucache_near_fills_total{"), "{page}");
    let top = ucache(["top", file, "--once", "--interval", "0.1"]).text();
    assert!(
        top.contains("copies hit") && top.contains("server up, beat ") && top.contains("fills "),
        "{top}"
    );
    let url = format!("{},prefix=p:", server.url());
    let same = ucache(["--backend", &url, "check", file]).text();
    assert!(same.contains("0 differ"), "{same}");
    // What is only a copy is nobody else's.
    for args in [&["get", file, "k"][..], &["set", file, "k", "w"], &["clear", file]] {
        let said = ucache(args).failed(3);
        assert!(said.contains("holds copies of values that are at a server"), "{said}");
    }
    assert!(matches!(Cache::attach(&path), Err(Error::Store { fault: StoreFault::Copies, .. })));
    drop(c);
    let local = Cache::builder("local").items(100).evict(ucache::Eviction::S3Fifo).store(&path).build();
    assert!(matches!(local, Err(Error::Store { fault: StoreFault::Copies, .. })), "{local:?}");
    // The same cache may have it again.
    let again = with_store("shown", Backend::url(server.url()), &path);
    assert_eq!(again.get_str("k").expect("get").as_deref(), Some("v"));
}

#[test]
fn a_copy_that_differs_is_found() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("copies");
    // Nobody tells this one of changes.
    let untold = Backend::url(server.url()).tracking(false).copy_ttl(Duration::from_secs(600));
    let c = with_store("untold", untold, &path);
    for key in ["same", "other"] {
        c.set(key, "v").expect("set");
        assert!(c.get(key).expect("get").is_some());
    }
    server.ask(["SET", "p:other", "changed"]);
    let url = format!("{},prefix=p:", server.url());
    let run = ucache(["--backend", &url, "check", path.to_str().expect("text"), "--json"]);
    assert_eq!(run.code, Some(1));
    let out = String::from_utf8_lossy(&run.out);
    assert!(out.contains("\"compared\":2") && out.contains("\"wrong\":[\"other\"]"), "{out}");
    // Values of its own are not replaced by copies.
    let path = dir.path().join("values");
    let own = Cache::builder("own").items(10).store(&path).build().expect("a cache");
    own.set("k", "v").expect("set");
    drop(own);
    let open = || Cache::builder("own").items(10).store(&path).backend(Backend::url(server.url())).build();
    // Children of other tests have the file open until they run a program.
    let in_use = |opened: &_| matches!(opened, Err(Error::Store { fault: StoreFault::InUse { .. }, .. }));
    let refused =
        poll(PATIENCE, || Some(open()).filter(|opened| !in_use(opened))).expect("nobody has it open");
    assert!(matches!(refused, Err(Error::Store { fault: StoreFault::Values, .. })), "{refused:?}");
    let said = ucache(["--backend", &url, "check", path.to_str().expect("text")]).failed(6);
    assert!(said.contains("values of its own"), "{said}");
}
