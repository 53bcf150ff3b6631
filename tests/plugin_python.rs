//! The plugin in a real uWSGI, driven from Python: the same sessions on uWSGI's own cache and on
//! ucache, then tests that need more than a prompt.

#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use patience::within;
use serde_json::{Value, json};
use server::{Build, Flavor, Server};
use session::Session;

const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

/// Runs `tests/sessions/NAME.txt` on both, in every available uWSGI.
fn check(name: &str) {
    let path = server::root().join("tests/sessions").join(name).with_extension("txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let session = Session::parse(&text);
    for (build, flavor) in Build::all().iter().flat_map(|&b| BOTH.map(|f| (b, f))) {
        let wrong = session.run(build, flavor);
        assert!(wrong.is_empty(), "{name} on {build:?}, {flavor:?}:\n{}", wrong.join("\n"));
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

sessions! {
    basics bitmap c_functions cachelib capacity division django_uwsgi django_uwsgi_cache flask_caching legacy lru math
    no_expire nocache options preload ttl uwsgiconf
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
        // 4 items fit, the last 2 do not; 20 hits and 5 misses from each worker; exists counts as
        // neither
        server.run(1, "for n in range(6): uwsgi.cache_set(str(n), 'value')");
        for worker in 1..=2 {
            let source = "for n in range(25): uwsgi.cache_get(str(n % 5)); uwsgi.cache_exists('0')";
            assert_eq!(server.run(worker, source), "");
        }
        let mut last = Value::Null;
        within(format!("the figures of {flavor:?}"), || {
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
fn hits_and_misses_are_exact_under_load() {
    let server = Server::start(Flavor::Ucache, 4, "cache2 = name=c,items=9");
    server.run(1, "uwsgi.cache_set('there', 'v')");
    thread::scope(|scope| {
        for worker in 1..=4 {
            let server = &server;
            let source = "for n in range(20000): uwsgi.cache_get('there'); uwsgi.cache_get('not')";
            scope.spawn(move || assert_eq!(server.run(worker, source), ""));
        }
    });
    let mut last = Value::Null;
    within("80000 of each", || {
        last = server.cache_stats("c");
        last["hits"] == 80_000 && last["miss"] == 80_000
    });
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
fn workers_killed_in_the_middle_leave_a_whole_cache() {
    let server = &Server::start(Flavor::Ucache, 3, "cache2 = name=c,items=200,purge_lru=1\nthreads = 2");
    // values that contain their key, so that torn or foreign ones are noticed
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
                    thread::scope(|inner| {
                        inner.spawn(|| server.run(worker, source));
                        thread::sleep(Duration::from_millis(150));
                        // it may have been killed and reaped already
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
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
