//! A real uWSGI whose caches have a backend: the sessions that run on its own cache, and what only
//! a backend has.

#[path = "support/backend.rs"]
mod backend;
#[path = "near/certificates.rs"]
mod certificates;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/ports.rs"]
mod ports;
#[path = "support/sentinel.rs"]
mod sentinel;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/session.rs"]
mod session;

use std::{fs, thread};

use patience::within;
use server::{Build, Flavor, Server};
use session::Session;

/// A session's text, its caches at a server, with copies (`near=1`) or without.
fn with_backend(name: &str, at: &backend::Server, near: u8) -> String {
    let path = server::root().join("tests/sessions").join(name).with_extension("txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let line = |line: &str| match line.strip_prefix("cache2 = ") {
        Some(options) => {
            format!("cache2 = backend={},backend_timeout=20s,near={near},{options}\n", at.url())
        }
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Sessions, and words of their steps that are about the limits of a local cache: how long a value
/// may be, how many items fit (D-62).
const SESSIONS: [(&str, &[&str]); 12] = [
    ("basics", &["'v' * 1001", "uwsgi.cache_get('bigger')"]),
    ("preload", &[]),
    ("ttl", &["'gone', 'forever')"]),
    ("division", &[]),
    ("math", &[]),
    ("cachelib", &["b'v' * 4096", "[lru.set(", "lru.set('5', 5)"]),
    ("uwsgiconf", &[]),
    ("flask_caching", &[]),
    ("django_uwsgi", &["cache.set('bigger'", "cache.set('big', b'v' * 4096)"]),
    ("django_uwsgi_cache", &["cache.set('bigger'", "cache.set('big', b'v' * 4096)"]),
    ("no_expire", &["uwsgi.cache_get('k', 'first')", "uwsgi.cache_set('k', 'w', 0, 'first')"]),
    ("c_functions", &C_FUNCTIONS),
];

/// The steps with `get4`, ids, items that reads miss and more items than fit.
const C_FUNCTIONS: [&str; 17] = [
    "[raw.get('c', b'k', 4) for _ in range(3)]",
    "raw.get('c', b'k', 4)",
    "raw.get('c', b'k', 4)",
    "raw.set('c', b'k', b'other', 0, 2), raw.get('c', b'k', 4)",
    "raw.set('c', b'k', b'new'), raw.get('c', b'k', 4)",
    "n = raw.exists('c', b'k')",
    "raw.delete('c', index=n)",
    "raw.set('c', b'u', b'hidden', 0, 1)",
    "uwsgi.cache_get('u')",
    "raw.keys('c'), raw.keys('lru')",
    "raw.get('lru', b'1', 4)",
    "raw.keys('lru')",
    "raw.set('lru', b'5', b'v')",
    "raw.set('lru', b'6', b'v')",
    "len({raw.exists('many'",
    "max(raw.exists('many'",
    "raw.delete('c', index=2**20)",
];

/// Steps of a session that differ and should not; `but`: those that must.
fn differing((name, but): (&str, &[&str]), near: u8) -> Vec<String> {
    let at = backend::Server::start();
    let wrong = Session::parse(&with_backend(name, &at, near)).run(Build::Installed, Flavor::Ucache);
    let (expected, wrong): (Vec<_>, Vec<_>) =
        wrong.into_iter().partition(|step| but.iter().any(|word| step.contains(word)));
    let mut faults: Vec<_> = wrong.into_iter().map(|step| format!("{name}, near={near}: {step}")).collect();
    if expected.len() != but.len() {
        faults.push(format!("{name}, near={near}: {} of {} steps differ", expected.len(), but.len()));
    }
    faults
}

#[test]
fn sessions_get_the_answers_of_a_local_cache() {
    let mut faults = Vec::new();
    // `get4` finds a copy or not.
    let copies = SESSIONS.iter().filter(|(name, _)| *name != "c_functions").map(|session| (*session, 1));
    let all: Vec<_> = SESSIONS.iter().map(|session| (*session, 0)).chain(copies).collect();
    for some in all.chunks(5) {
        let found = thread::scope(|scope| {
            let start = |&(session, near)| scope.spawn(move || differing(session, near));
            let running: Vec<_> = some.iter().map(start).collect();
            running.into_iter().flat_map(|one| one.join().expect("the session runs")).collect::<Vec<_>>()
        });
        faults.extend(found);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_server_is_shared_by_all_machines() {
    let at = backend::Server::start();
    let cache = format!("cache2 = name=c,items=10,backend={}", at.url());
    let machines = [0, 1].map(|_| Server::start(Flavor::Ucache, 2, &cache));
    assert_eq!(machines[0].run(1, "uwsgi.cache_set('k', b'v\\x00', 100)"), "True");
    assert_eq!(machines[1].run(2, "uwsgi.cache_get('k')"), "b'v\\x00'");
    assert_eq!(machines[1].run(1, "uwsgi.cache_set('k', 'other')"), "None");
    for machine in &machines {
        machine.run(1, "for _ in range(50): uwsgi.cache_inc('n', 2)");
    }
    assert_eq!(machines[0].run(2, "uwsgi.cache_num('n')"), "200");
    assert_eq!(machines[0].run(1, "sorted(uwsgi.cache_keys())"), "[b'k', b'n']");
    at.ask(["SET", "c:other", "of redis-cli"]);
    assert_eq!(machines[1].run(1, "uwsgi.cache_get('other')"), "b'of redis-cli'");
    assert_eq!(machines[1].run(1, "uwsgi.cache_clear()"), "True");
    assert_eq!(machines[0].run(1, "uwsgi.cache_exists('k'), uwsgi.cache_keys()"), "(None, [])");
}

/// Counts its runs for each path, and takes some time.
const SLOW: &str = "import os, time
def application(env, start):
    with open(os.environ['RUNS'], 'a') as runs:
        runs.write(env['PATH_INFO'] + '\\n')
    time.sleep(0.2)
    start('200 OK', [('Content-Type', 'text/plain')])
    return [b'page ' + env['PATH_INFO'].encode()]
";

#[test]
fn a_page_is_computed_once_by_all_machines() {
    let at = backend::Server::start();
    let files = tempfile::tempdir().expect("a temporary directory");
    let (dir, runs) = (files.path(), files.path().join("runs"));
    fs::write(dir.join("slow.py"), SLOW).expect("written");
    let options = format!(
        "{}env = RUNS={}\npythonpath = {}\nmodule = slow\nneed-app = true\n\
         cache2 = name=pages,items=100,blocksize=10000,backend={}\nroute = ^/ ucache:name=pages,ttl=60\n",
        Build::Installed.python(),
        runs.display(),
        dir.display(),
        at.url()
    );
    let machines = [0, 1, 2].map(|_| Server::start_app(Flavor::Ucache, 2, &options));
    for page in 0..5 {
        let path = format!("/{page}");
        thread::scope(|scope| {
            for machine in &machines {
                for worker in [1, 2] {
                    let path = &path;
                    scope.spawn(move || {
                        let answer = machine.ask(worker, "GET", path, "").expect("an answer");
                        assert_eq!(answer.body, format!("page {path}"));
                    });
                }
            }
        });
        let all = fs::read_to_string(&runs).expect("runs");
        assert_eq!(all.lines().filter(|run| *run == path).count(), 1, "{path}: {all}");
    }
}

#[test]
fn a_server_that_is_down_is_misses_and_comes_back() {
    let mut at = backend::Server::start();
    let cache = format!("cache2 = name=c,items=10,backend={}", at.url());
    at.down();
    // Down at the start: uWSGI starts all the same.
    let server = Server::start(Flavor::Ucache, 1, &cache);
    assert_eq!(
        server.run(1, "uwsgi.cache_get('k'), uwsgi.cache_exists('k'), uwsgi.cache_keys()"),
        "(None, None, [])"
    );
    assert_eq!(server.run(1, "uwsgi.cache_set('k', 'v'), uwsgi.cache_inc('n')"), "(None, None)");
    assert!(server.log().contains("no connection"), "{}", server.log());
    at.up();
    within("it is back", || server.run(1, "uwsgi.cache_update('k', 'v')") == "True");
    assert_eq!(server.run(1, "uwsgi.cache_get('k')"), "b'v'");
}

#[test]
fn what_cannot_be_is_refused_at_the_start_and_no_secret_is_logged() {
    for (options, words) in [
        ("backend=http://a", "the scheme must be redis://"),
        ("backend=rediss://me:hush@a,ca=/no/such", "ca=/no/such: the file cannot be read"),
        ("backend=redis+sentinel://me:hush@a;b", "must name the sentinels and the service"),
        ("backend=redis://a,near=2", "near=2: must be 1"),
        ("backend=redis://a,near=0,tracking=bcast", "has no meaning with near=0"),
        ("backend=redis://a,evict=none", "evict=none: must evict, as in evict=s3fifo"),
        ("backend=redis://a,tracking=off", "tracking=off: needs l1_ttl"),
        ("backend=redis://a,nodes=127.0.0.1:1", "option nodes=127.0.0.1:1: has no meaning with a backend"),
        ("backend=redis://a,backend_secret=hush", "must be file:/path"),
        ("prefix=p", "has no meaning without backend="),
    ] {
        let log = Server::refuse(Flavor::Ucache, &format!("cache2 = name=c,items=10,{options}"));
        assert!(log.contains(words), "{options}: {log}");
        // uWSGI itself tells the line of its configuration that it reads.
        let ours = log.lines().filter(|line| line.contains("[ucache]"));
        assert!(
            ours.clone().count() > 0 && ours.clone().all(|line| !line.contains("hush")),
            "{options}: {log}"
        );
    }
}

#[test]
fn figures_of_copies_are_metrics() {
    let mut at = backend::Server::start();
    let options = format!("enable-metrics = true\ncache2 = name=c,items=10,backend={}", at.url());
    let server = Server::start(Flavor::Ucache, 2, &options);
    let metric = |name: &str| {
        let value = server.run(1, &format!("uwsgi.metric_get('cache.c.{name}')"));
        value.parse::<u64>().unwrap_or_else(|_| panic!("{name}: {value}"))
    };
    assert_eq!(server.run(1, "uwsgi.cache_set('k', 'v')"), "True");
    within("hits of copies", || {
        server.run(2, "[uwsgi.cache_get('k') for _ in range(3)]");
        metric("near_hits") > 0
    });
    assert!(metric("near_up") == 1 && metric("backend_up") == 1 && metric("near_fills") > 0);
    assert!(metric("near_beat_age_ms") < 60_000 && metric("near_owner_pid") > 1);
    at.ask(["SET", "c:k", "other"]);
    within("messages", || metric("near_invalidated") > 0);
    // The statistics server has them all.
    let stats: serde_json::Value = serde_json::from_str(&server.stats()).expect("statistics are JSON");
    for name in
        ["near_hits", "near_misses", "near_bypassed", "near_terms", "backend_connects", "backend_elsewhere"]
    {
        assert!(stats["metrics"][format!("cache.c.{name}")]["value"].is_u64(), "{name} in {stats}");
    }
    at.down();
    within("the server is down", || {
        server.run(2, "uwsgi.cache_get('k')");
        metric("backend_up") == 0 && metric("near_up") == 0
    });
}

/// While requests of a worker wait for a server that does not answer, others of it are served.
fn a_stalled_server_stops_no_loop(lines: &str) {
    let at = backend::Server::start();
    let options = format!(
        "{lines}\nenable-metrics = true\n\
         cache2 = name=c,items=10,max_stale=100ms,backend_timeout=60s,backend={}",
        at.url()
    );
    let server = Server::start(Flavor::Ucache, 1, &options);
    assert_eq!(server.run(1, "uwsgi.cache_set('k', 'v'), uwsgi.cache_set('l', 'w')"), "(True, True)");
    within("copies are in use", || {
        server.run(1, "[uwsgi.cache_get('k') for _ in range(3)]");
        server.run(1, "uwsgi.metric_get('cache.c.near_hits')") != "0"
    });
    at.freeze(true);
    // A read of a copy that becomes too old, one of a key without a copy, a write, a number.
    let calls = [
        ("uwsgi.cache_get('k')", "b'v'"),
        ("uwsgi.cache_get('l')", "b'w'"),
        ("uwsgi.cache_update('m', 'x')", "True"),
        ("uwsgi.cache_inc('n', 5)", "True"),
    ];
    within("no copy is new enough", || {
        server.run(1, "uwsgi.metric_get('cache.c.near_beat_age_ms') > 200") == "True"
    });
    let (server, at) = (&server, &at);
    thread::scope(|scope| {
        let waiting = calls.map(|(call, _)| {
            let source = format!("setattr(uwsgi, 'begun', getattr(uwsgi, 'begun', 0) + 1), {call}");
            scope.spawn(move || server.run(1, &source))
        });
        // Each answer is one of the worker whose other requests wait.
        within("all have begun", || server.run(1, "getattr(uwsgi, 'begun', 0)") == "4");
        for n in 0..5 {
            assert_eq!(server.run(1, &format!("1 + {n}")), (1 + n).to_string());
        }
        assert!(waiting.iter().all(|one| !one.is_finished()), "{}", server.log());
        at.freeze(false);
        for (one, (call, answer)) in waiting.into_iter().zip(calls) {
            assert_eq!(one.join().expect("an answer"), format!("(None, {answer})"), "{call}");
        }
    });
    assert_eq!(server.run(1, "uwsgi.cache_get('m'), uwsgi.cache_num('n')"), "(b'x', 5)");
}

#[test]
fn a_stalled_server_stops_no_loop_of_gevent() {
    a_stalled_server_stops_no_loop(
        "plugin = gevent_python3\npythonpath = /usr/lib/python3/dist-packages\ngevent = 20",
    );
}

#[test]
fn a_stalled_server_stops_no_asynchronous_core() {
    a_stalled_server_stops_no_loop(
        "plugin = greenlet_python3\npythonpath = /usr/lib/python3/dist-packages\nasync = 20\ngreenlet = true",
    );
}

#[test]
fn greenlets_speak_tls_to_the_primary_that_a_sentinel_names() {
    let authority = certificates::Authority::new();
    let pair = authority.certificate("s", &["127.0.0.1"]);
    let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let (ca, cert, key) = (text(&authority.file()), text(&pair.cert), text(&pair.key));
    let port = ports::free_port();
    let port_text = port.to_string();
    let mut args = vec!["--tls-port", &port_text, "--tls-cert-file", &cert, "--tls-key-file", &key];
    args.extend(["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--requirepass", "hush"]);
    let at = backend::Server::with("redis-server".as_ref(), 0, &args);
    let sentinel_port = ports::free_port();
    let tls = format!(
        "tls-port {sentinel_port}\ntls-ca-cert-file {ca}\ntls-cert-file {cert}\ntls-key-file {key}\n\
         tls-auth-clients no\ntls-replication yes"
    );
    let _sentinel = sentinel::Sentinel::start(port, &tls, "sentinel auth-pass pages hush");
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(secret.path(), "hush").expect("written");
    let options = format!(
        "plugin = gevent_python3\npythonpath = /usr/lib/python3/dist-packages\ngevent = 10\n\
         cache2 = name=c,items=10,backend_timeout=20s,ca={ca},backend_secret=file:{},\
         backend=rediss+sentinel://127.0.0.1:{sentinel_port}/pages",
        secret.path().display()
    );
    let server = Server::start(Flavor::Ucache, 1, &options);
    assert_eq!(server.run(1, "uwsgi.cache_set('k', 'v' * 100000)"), "True");
    within("the owner follows the primary", || {
        server.log().contains(&format!("/pages: the primary is 127.0.0.1:{port}"))
    });
    assert_eq!(server.run(1, "[len(uwsgi.cache_get('k')) for _ in range(3)]"), "[100000, 100000, 100000]");
    at.freeze(true);
    // While one request waits for the server, another one is answered.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.run(1, "uwsgi.cache_keys()"));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(server.run(1, "1 + 1"), "2");
        at.freeze(false);
        assert_eq!(waiting.join().expect("an answer"), "[b'k']");
    });
    assert!(!server.log().contains("hush"), "{}", server.log());
}
