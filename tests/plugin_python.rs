//! The plugin in a real uWSGI, driven from Python: the same sessions on uWSGI's own cache and on ucache, then
//! what needs more than a prompt.

#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use server::{Flavor, Server, http};
use session::Session;

const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

/// Runs `tests/sessions/NAME.txt` on both.
fn check(name: &str) {
    let path = server::root().join("tests/sessions").join(name).with_extension("txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let session = Session::parse(&text);
    for flavor in BOTH {
        let wrong = session.run(flavor);
        assert!(wrong.is_empty(), "{name} on {flavor:?}:\n{}", wrong.join("\n"));
    }
}

macro_rules! sessions {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_session_is_run() {
            let listed = BTreeSet::from([$(stringify!($name).to_owned()),*]);
            let there = fs::read_dir(server::root().join("tests/sessions")).expect("the sessions are there");
            let there = there.map(|entry| {
                let path = entry.expect("a directory can be read").path();
                path.file_stem().expect("a file has a name").to_string_lossy().into_owned()
            });
            assert_eq!(there.collect::<BTreeSet<_>>(), listed);
        }
    };
}

sessions! { basics bitmap capacity division lru math nocache options preload ttl uwsgiconf }

/// Repeats `probe` until it returns true.
fn within(seconds: u64, what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !probe() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn statistics_are_native_ones_and_live() {
    for flavor in BOTH {
        let options = "cache2 = name=watched,items=5,keysize=100,blocksize=200,blocks=7,hashsize=64,hash=murmur2,\
                       lastmod=1\ncache2 = name=idle,items=3";
        let server = Server::start(flavor, 2, options);
        assert_eq!(
            server.cache_stats("watched"),
            json!({"name": "watched", "hash": "murmur2", "hashsize": 64, "keysize": 100, "max_items": 5, "blocks": 7,
                   "blocksize": 200, "items": 0, "hits": 0, "miss": 0, "full": 0, "last_modified_at": 0})
        );
        // 4 items fit, the last 2 do not; 20 hits and 5 misses from each worker; exists counts as neither
        server.run(1, "for n in range(6): uwsgi.cache_set(str(n), 'value')");
        for worker in 1..=2 {
            let source = "for n in range(25): uwsgi.cache_get(str(n % 5)); uwsgi.cache_exists('0')";
            assert_eq!(server.run(worker, source), "");
        }
        let mut last = Value::Null;
        within(10, &format!("the figures of {flavor:?}"), || {
            last = server.cache_stats("watched");
            last["items"] == 4 && last["hits"] == 40 && last["miss"] == 10 && last["full"] == 2
        });
        let changed = last["last_modified_at"].as_u64().expect("a time");
        let now = server.run(1, "int(time.time())").parse::<u64>().expect("a time");
        assert!(changed > 0 && now - 60 <= changed && changed <= now, "{changed} at {now}");
        let idle = server.cache_stats("idle");
        assert_eq!((&idle["items"], &idle["hits"], &idle["miss"]), (&json!(0), &json!(0), &json!(0)));
    }
}

#[test]
fn increments_of_four_workers_all_count() {
    for flavor in BOTH {
        let server = Server::start(flavor, 4, "cache2 = name=c,items=100");
        thread::scope(|scope| {
            for worker in 1..=4 {
                let server = &server;
                let source = "for n in range(5000): uwsgi.cache_inc('n'); uwsgi.cache_dec('down', 2)";
                scope.spawn(move || assert_eq!(server.run(worker, source), ""));
            }
        });
        assert_eq!(server.run(1, "uwsgi.cache_num('n'), uwsgi.cache_num('down')"), "(20000, -40000)");
    }
}

#[test]
fn a_reload_begins_with_an_empty_cache_and_a_full_store() {
    for flavor in BOTH {
        let store = tempfile::tempdir().expect("a temporary directory");
        let store = store.path().join("store");
        let options =
            format!("cache2 = name=memory,items=100\ncache2 = name=disk,items=100,store={}", store.display());
        let mut server = Server::start(flavor, 2, &options);
        let fill =
            "[uwsgi.cache_set(k, k, 0, c) for k in ('a', 'b') for c in ('memory', 'disk')].count(True)";
        for _ in 0..2 {
            server.run(1, "uwsgi.cache_clear('disk')");
            assert_eq!(server.run(1, fill), "4", "{}", server.log());
            server.reload();
            assert_eq!(
                server.run(2, "uwsgi.cache_keys('memory'), sorted(uwsgi.cache_keys('disk'))"),
                "([], [b'a', b'b'])"
            );
            assert_eq!(
                server.run(1, "uwsgi.cache_get('b', 'disk'), uwsgi.cache_get('b', 'memory')"),
                "(b'b', None)"
            );
            assert_eq!(server.run(2, "uwsgi.cache_set('c', 'c'), uwsgi.cache_get('c')"), "(True, b'c')");
            assert_eq!(server.run(1, "uwsgi.cache_get('c')"), "b'c'");
        }
    }
}

#[test]
fn reloaded_workers_keep_the_cache() {
    for flavor in BOTH {
        let touched = tempfile::NamedTempFile::new().expect("a temporary file");
        let options = format!(
            "lazy-apps = true\ntouch-workers-reload = {}\ncache2 = name=c,items=100",
            touched.path().display()
        );
        let server = Server::start(flavor, 2, &options);
        assert_eq!(server.run(1, "uwsgi.cache_set('kept', 'value')"), "True");
        let before = [server.run(1, "os.getpid()"), server.run(2, "os.getpid()")];
        // uWSGI looks once a second, at the time of change in whole seconds
        within(20, "new workers", || {
            fs::write(touched.path(), b"again").expect("the file can be written");
            let answers = [server.run(1, "os.getpid()"), server.run(2, "os.getpid()")];
            answers.iter().zip(&before).all(|(now, then)| now != then && !now.contains('('))
        });
        assert_eq!(
            server.run(2, "uwsgi.cache_get('kept'), uwsgi.cache_update('kept', 'new')"),
            "(b'value', True)"
        );
        assert_eq!(server.run(1, "uwsgi.cache_get('kept')"), "b'new'");
    }
}

#[test]
fn workers_killed_in_the_middle_leave_a_whole_cache() {
    let server = &Server::start(Flavor::Ucache, 3, "cache2 = name=c,items=200,purge_lru=1\nthreads = 2");
    // values that tell their key, so that a torn or foreign one is seen
    let source = "end = time.time() + 3\nwhile time.time() < end:\n    for n in range(50):\n        \
                  uwsgi.cache_update(str(n), f'{n:08}' * 2000)\n        \
                  got = uwsgi.cache_get(str(n))\n        \
                  assert got is None or got == b'%08d' % n * 2000\nuwsgi.worker_id()";
    let reading = "end = time.time() + 3\nread = 0\nwhile time.time() < end:\n    for n in range(50):\n        \
                   got = uwsgi.cache_get(str(n))\n        \
                   assert got is None or got == b'%08d' % n * 2000\n        read += got is not None\nread > 100";
    thread::scope(|scope| {
        let survivor = scope.spawn(|| server.run(3, reading));
        for worker in 1..=2 {
            scope.spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(3);
                while Instant::now() < deadline {
                    let Ok(pid) = server.run(worker, "os.getpid()").parse() else { continue };
                    let pid = Pid::from_raw(pid).expect("a pid is not 0");
                    thread::scope(|inner| {
                        inner.spawn(|| server.run(worker, source));
                        thread::sleep(Duration::from_millis(150));
                        // it may have been killed and reaped already
                        let _ = kill_process(pid, Signal::KILL);
                    });
                }
            });
        }
        assert_eq!(survivor.join().expect("the reader ends"), "True", "{}", server.log());
    });
    assert!(server.log().contains("DAMN ! worker"), "nobody died\n{}", server.log());
    for worker in 1..=3 {
        assert_eq!(
            server.run(worker, "uwsgi.cache_update('after', 'v'), uwsgi.cache_get('after')"),
            "(True, b'v')"
        );
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// `examples/uwsgi.ini` as `make run` uses it, but for its two ports; without the plugin's line for native.
fn example(flavor: Flavor) -> (Server, u16) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let examples = server::root().join("examples");
    let plugins = server::plugin().parent().expect("the plugin is in a directory").display();
    let (port, stats) = (free_port(), free_port());
    let mut ini = fs::read_to_string(examples.join("uwsgi.ini")).expect("the example is there");
    for (from, to) in [
        ("%d../target/release".to_owned(), plugins.to_string()),
        ("127.0.0.1:8080".to_owned(), format!("127.0.0.1:{port}")),
        ("127.0.0.1:9191".to_owned(), format!("127.0.0.1:{stats}")),
        ("%d".to_owned(), format!("{}/", examples.display())),
    ] {
        assert!(ini.contains(&from), "examples/uwsgi.ini has no {from}");
        ini = ini.replace(&from, &to);
    }
    if flavor == Flavor::Native {
        assert!(ini.contains("\nplugin = ucache\n"));
        ini = ini.replace("\nplugin = ucache\n", "\n");
    }
    ini += &format!("pidfile = {}/pid\n", dir.path().display());
    let server = Server::spawn(dir, &ini, 4);
    within(30, "the example answers", || {
        http(port, "GET", "/keys", "").is_ok_and(|answer| answer.status == 200)
    });
    (server, port)
}

#[test]
fn the_example_serves_its_endpoints() {
    for flavor in BOTH {
        let (server, port) = example(flavor);
        let ask = |path: &str, expected: Value| {
            let answer =
                http(port, "GET", path, "").unwrap_or_else(|e| panic!("{path}: {e}\n{}", server.log()));
            let body: Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(body, expected, "{path} on {flavor:?}");
        };
        ask("/set?key=a&value=one", json!({"key": "a", "stored": true}));
        ask("/set?key=a&value=two", json!({"key": "a", "stored": false}));
        ask("/get?key=a", json!({"key": "a", "value": "one", "found": true}));
        ask("/set?key=a&value=two&replace=1&timeout=60", json!({"key": "a", "stored": true}));
        ask("/get?key=a", json!({"key": "a", "value": "two", "found": true}));
        ask("/get?key=b&default=d", json!({"key": "b", "value": "d", "found": false}));
        ask("/incr?key=n&delta=5", json!({"key": "n", "done": true, "value": 5}));
        ask("/decr?key=n", json!({"key": "n", "done": true, "value": 4}));
        ask("/mul?key=n&value=6", json!({"key": "n", "done": true, "value": 24}));
        ask("/div?key=n", json!({"key": "n", "done": true, "value": 12}));
        ask("/get?key=n&as_int=1", json!({"key": "n", "value": 12}));
        ask("/keys", json!({"keys": ["a", "n"]}));
        ask("/delete?key=a", json!({"key": "a", "deleted": true}));
        ask("/delete?key=a", json!({"key": "a", "deleted": false}));
        ask("/clear", json!({"cleared": true}));
        ask("/keys", json!({"keys": []}));
        ask("/get", json!({"error": "give a key: ?key=NAME"}));
        ask("/incr?key=n&delta=x", json!({"error": "delta must be a whole number"}));
        let posted = http(port, "POST", "/set", "key=p&value=%C3%BC").expect("an answer");
        assert_eq!((posted.status, posted.body.as_str()), (200, "{\"key\": \"p\", \"stored\": true}\n"));
        assert_eq!(http(port, "GET", "/nothing", "").expect("an answer").status, 404);
    }
}

#[test]
fn the_example_page_shows_one_cache_in_all_workers() {
    for flavor in BOTH {
        let (server, port) = example(flavor);
        let page = || http(port, "GET", "/", "").expect("an answer");
        let mut seen = BTreeSet::new();
        let mut visits = 0;
        within(30, "two workers have served the page", || {
            // at the same time, because one worker alone would do for one client
            let pages = thread::scope(|scope| {
                let running: Vec<_> = (0..6).map(|_| scope.spawn(page)).collect();
                running.into_iter().map(|one| one.join().expect("a page")).collect::<Vec<_>>()
            });
            visits += pages.len();
            for one in pages {
                assert_eq!(one.status, 200, "{}", server.log());
                let worker =
                    one.body.split("This answer is from worker ").nth(1).expect("the worker's number");
                seen.insert(worker.split(' ').next().expect("a word").to_owned());
            }
            seen.len() > 1
        });
        let last = page().body;
        assert!(last.contains(&format!("for {} visits", visits + 1)), "{last}");
        assert!(last.contains("<b>front page</b>: rendered by worker"), "{last}");
        assert!(last.contains("<td>mycache</td>") && last.contains("/ 999"), "{last}");
        let stats = http(port, "GET", "/stats", "").expect("an answer").body;
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        assert_eq!(stats["caches"][0]["name"], "mycache");
    }
}

#[test]
fn the_log_says_who_serves_the_cache() {
    let server = Server::start(Flavor::Ucache, 1, "cache2 = name=c,items=10");
    assert!(server.log().contains("[ucache] "), "{}", server.log());
    assert!(!server.log().contains("preallocated"), "a native cache was made\n{}", server.log());
}

#[test]
fn definitions_that_cannot_be_end_the_server() {
    for definition in
        ["items=10", "name=a", "name=a,items=0", "name=a,items=10,blocks=5", "name=a,items=4,keysize=70000"]
    {
        for flavor in BOTH {
            let log = Server::refuse(flavor, &format!("cache2 = {definition}"));
            assert!(!log.contains("spawned uWSGI worker"), "{flavor:?} with {definition}:\n{log}");
        }
    }
}
