//! The takeover in uWSGI 2.0.31; plugin_takeover.rs tests it in the installed release.

use std::process::Command;

use super::{
    server::Build,
    uwsgi_host::{Host, Setup, library},
};

const CACHE: &str = "cache2 = name=c,items=100,blocksize=4096";

/// 2.0.31 with the plugin built for it, and Python embedded.
fn setup() -> Setup {
    Setup {
        command: vec![Build::Pypi.uwsgi().display().to_string()],
        library: Build::Pypi.plugins().join("ucache_plugin.so"),
        plugins: "plugin = ucache",
        ..Setup::default()
    }
}

/// The cache functions that the program exports, except the three that need no jump.
fn functions() -> Vec<String> {
    let listed = Command::new("nm").args(["-D", "--defined-only"]).arg(Build::Pypi.uwsgi()).output();
    let listed = String::from_utf8(listed.expect("nm runs (apt-get install binutils)").stdout).expect("text");
    let short = ["uwsgi_cache_item_key", "uwsgi_cache_rlock", "uwsgi_cache_rwunlock"];
    let names = listed.lines().filter_map(|line| line.rsplit(' ').next());
    let of_cache = |name: &&str| name.starts_with("uwsgi_cache_") || name.starts_with("cache_udp_");
    names.filter(of_cache).filter(|name| !short.contains(name)).map(str::to_owned).collect()
}

/// Every function jumps to the library, and the cache works.
fn assert_taken_over(host: &Host) {
    let functions = functions();
    assert_eq!(functions.len(), 31, "{functions:?}");
    let names = functions.join(" ");
    assert_eq!(host.eval(&format!("{{leads_to(n) for n in '{names}'.split()}}")), "{'libucache.so'}");
    assert_works(host);
}

fn assert_works(host: &Host) {
    assert_eq!(host.eval("uwsgi.cache_update('k', b'value', 0, 'c')"), "True");
    assert_eq!(host.eval("uwsgi.cache_get('k', 'c'), uwsgi.cache_keys('c')"), "(b'value', [b'k'])");
    assert_eq!(host.eval("uwsgi.cache_del('k', 'c'), uwsgi.cache_get('k', 'c')"), "(True, None)");
}

#[test]
fn every_function_and_the_statistics() {
    let host = setup().start(CACHE);
    assert_eq!(host.logged("31 cache functions of uWSGI 2.0.31"), 1, "{}", host.log());
    assert_taken_over(&host);
    host.until("live statistics", |h| h.stats().contains("\"hits\":1") && h.stats().contains("\"miss\":1"));
}

#[test]
fn the_core_the_protocol_and_a_router() {
    let host = setup().start(&format!(
        "{CACHE}\ncheck-cache = c\nsocket = {{dir}}/uwsgi\nhttp = {{dir}}/router\nhttp-use-cache = c"
    ));
    let ask = |path: &str| host.request("GET", path, "").expect("an answer").1;
    assert_eq!(ask("/page"), "page");
    let page = "HTTP/1.0 200 OK\\r\\n\\r\\nfrom the cache";
    assert_eq!(host.eval(&format!("uwsgi.cache_set('/page', b'{page}', 0, 'c')")), "True");
    assert!(ask("/page").ends_with("from the cache"), "{}", host.log());
    assert_eq!(host.eval("uwsgi.cache_set('k', b'value', 0, 'c')"), "True");
    let answer = host.exchange("uwsgi", &[111, 1, 0, 5, b'k']).expect("an answer");
    assert_eq!((&answer[1..4], &answer[4..]), (&[0, 0, 1][..], &b"value"[..]), "{}", host.log());
    let routed = || host.exchange("router", b"GET / HTTP/1.0\r\nHost: the.site\r\n\r\n").unwrap_or_default();
    assert!(!routed().ends_with(b"page"));
    let node = host.dir().join("uwsgi").display().to_string();
    assert_eq!(host.eval(&format!("uwsgi.cache_set('the.site', b'{node}', 0, 'c')")), "True");
    assert!(routed().ends_with(b"page"), "{}", host.log());
}

#[test]
fn a_reload_takes_over_again() {
    let host = setup().start("cache2 = name=c,items=100,blocksize=4096,store={dir}/store\nlazy-apps = true");
    assert_eq!(host.eval("uwsgi.cache_set('stays', b'1', 0, 'c')"), "True");
    host.until("both workers", |h| h.logged("(default app)") == 2);
    host.signal("HUP");
    host.until("a reload", |h| h.logged("31 cache functions of uWSGI") == 2);
    host.until("an answer", |h| h.request("POST", "/", "1 + 1").is_some_and(|a| a.1 == "2"));
    assert_eq!(host.eval("uwsgi.cache_get('stays', 'c')"), "b'1'");
    assert_eq!(host.eval("uwsgi.cache_del('stays', 'c')"), "True");
    assert_taken_over(&host);
}

#[test]
fn where_memory_or_proc_is_confined() {
    let host = Setup { confine: "mdwe", ..setup() }.start(CACHE);
    assert_eq!(host.logged("(/proc/self/mem)"), 1, "{}", host.log());
    assert_taken_over(&host);
    let host = Setup { confine: "noproc", ..setup() }.start(CACHE);
    assert_eq!(host.logged("(mprotect)"), 1, "{}", host.log());
    assert_works(&host);
}

#[test]
fn a_plugin_of_another_release_is_refused() {
    let log = Setup { library: library(), ..setup() }.refuse(CACHE);
    assert!(log.contains("built for uWSGI") && log.contains("stopped: the takeover failed"), "{log}");
    let log = Setup { library: setup().library, ..Setup::default() }.refuse(CACHE);
    assert!(log.contains("built for uWSGI 2.0.31") && log.contains("stopped: the takeover failed"), "{log}");
}
