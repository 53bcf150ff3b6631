//! Workers and whole servers that end and restart: by request, by limit, by force.

use std::{fs, thread, time::Duration};

use nix::sys::signal::{Signal, kill};

use crate::{
    on_both,
    patience::{poll, within},
    roles::here,
    server::{Flavor, Server},
};

/// Options, and code that a worker runs until it is replaced: in native, in ucache.
type Case = (&'static str, [&'static str; 2]);

/// Runs all cases concurrently: they wait for time to pass.
fn keep_the_cache(cases: &[Case]) {
    thread::scope(|scope| {
        for (lines, sources) in cases {
            scope.spawn(|| {
                on_both(|flavor| {
                    keeps_the_cache(flavor, lines, sources[usize::from(flavor == Flavor::Ucache)])
                })
            });
        }
    });
}

/// Items stored before exist in the process that comes after.
fn keeps_the_cache(flavor: Flavor, lines: &str, source: &str) {
    let server = Server::start(flavor, 2, &format!("{lines}\ncache2 = name=c,items=99,purge_lru=1"));
    assert_eq!(server.run(1, "uwsgi.cache_set('kept', 'value'), uwsgi.cache_inc('n', 5)"), "(True, True)");
    let pid = || server.run(1, "os.getpid()");
    let before = pid();
    within(lines, || {
        server.run(1, source);
        let now = pid();
        now != before && now.parse::<u32>().is_ok()
    });
    let after = "uwsgi.cache_get('kept'), uwsgi.cache_inc('n'), uwsgi.cache_num('n')";
    assert_eq!(server.run(1, after), "(b'value', True, 6)", "{lines} {flavor:?}\n{}", server.log());
    assert_eq!(server.run(2, "uwsgi.cache_num('n'), uwsgi.cache_update('kept', 'new')"), "(6, True)");
    assert_eq!(server.run(1, "uwsgi.cache_get('kept')"), "b'new'", "{lines} {flavor:?}");
}

#[test]
fn workers_that_are_replaced_by_a_limit_keep_the_cache() {
    let update = "uwsgi.cache_update('busy', 'v' * 1000)";
    keep_the_cache(&[
        ("max-requests = 6", [update; 2]),
        // every process is larger than a megabyte: a new one after each request
        ("reload-on-as = 1\nmin-worker-lifetime = 1", [update; 2]),
        ("reload-on-rss = 1\nmin-worker-lifetime = 1", [update; 2]),
    ]);
}

#[test]
fn workers_that_are_killed_by_the_master_keep_the_cache() {
    // the worker is in the middle of updates when its time is over: on native this may end all
    // workers (D-14)
    let harakiri = ["time.sleep(5)", "while True: uwsgi.cache_update('busy', 'v' * 60000)"];
    let busy = "end = time.time() + 1\nwhile time.time() < end: uwsgi.cache_update('busy', 'v' * 60000)";
    keep_the_cache(&[
        ("harakiri = 1", harakiri),
        ("evil-reload-on-rss = 1\nmemory-report = true", ["time.sleep(1)", busy]),
        ("max-worker-lifetime = 1\nmin-worker-lifetime = 0", ["time.sleep(0.2)"; 2]),
    ]);
}

#[test]
fn workers_that_fail_keep_the_cache() {
    keep_the_cache(&[
        ("master = true", ["os._exit(1)"; 2]),
        ("master = true", ["os.kill(os.getpid(), 11)"; 2]),
        ("reload-on-exception = true", ["raise SystemExit"; 2]),
    ]);
}

#[test]
fn hooks_of_workers_that_end_use_the_cache() {
    let lines = format!("max-requests = 3\npythonpath = {}\nimport = roles", here());
    on_both(|flavor| {
        let lines = format!("{lines}\nmule =\nmule =\ncache2 = name=c,items=99");
        let server = Server::start(flavor, 2, &lines);
        within("a hook", || {
            server.run(1, "uwsgi.cache_update('busy', 'v')");
            server.run(2, "uwsgi.cache_num('atexit count') > 0 and uwsgi.cache_get('atexit') is not None")
                == "True"
        });
    });
}

/// The master restarts uWSGI in the same process: memory is empty, a store keeps its items.
fn begins_with_stores_alone(flavor: Flavor, how: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let touched = dir.path().join("touched");
    fs::write(&touched, "").expect("a file can be written");
    let lines = format!(
        "touch-reload = {}\ncache2 = name=memory,items=9\ncache2 = name=disk,items=9,store={}/store",
        touched.display(),
        dir.path().display()
    );
    let server = Server::start(flavor, 2, &lines);
    let fill = "[uwsgi.cache_set('k', 'v', 0, c) for c in ('memory', 'disk')]";
    assert_eq!(server.run(1, fill), "[True, True]");
    let begun = || server.log().matches("spawned uWSGI worker 2").count();
    match how {
        "TERM" => server.signal(Signal::SIGTERM),
        "HUP" => server.signal(Signal::SIGHUP),
        "touch" => {}
        source => drop(server.run(1, source)),
    }
    within(how, || {
        // uWSGI looks once a second, at modification times in whole seconds
        if how == "touch" && begun() == 1 {
            fs::write(&touched, "again").expect("a file can be written");
        }
        begun() > 1 && server.run(1, "1 + 1") == "2" && server.run(2, "1 + 1") == "2"
    });
    let found = "uwsgi.cache_get('k', 'memory'), uwsgi.cache_get('k', 'disk')";
    assert_eq!(server.run(2, found), "(None, b'v')", "{how} on {flavor:?}\n{}", server.log());
    assert_eq!(server.run(1, fill), "[True, None]", "{how} on {flavor:?}");
}

#[test]
fn brutal_and_requested_reloads_begin_with_stores_alone() {
    thread::scope(|scope| {
        for how in ["TERM", "HUP", "uwsgi.reload()", "touch"] {
            scope.spawn(move || on_both(|flavor| begins_with_stores_alone(flavor, how)));
        }
    });
}

/// Creates a cache in a worker, through uWSGI's function or that of a library (a path); returns
/// whether it keeps a value.
fn made_in_a_worker(server: &Server, library: &str) -> String {
    let source = format!(
        "import ctypes; C = ctypes.CDLL({library}); C.uwsgi_cache_create.restype = ctypes.c_void_p; \
         C.uwsgi_cache_magic_get.restype = ctypes.c_void_p; made = bool(C.uwsgi_cache_create(b'name=runtime,items=10')); \
         set = C.uwsgi_cache_magic_set(b'k', 1, b'v', ctypes.c_uint64(1), ctypes.c_uint64(0), ctypes.c_uint64(0), \
         b'runtime'); size = ctypes.c_uint64()\n\
         at = C.uwsgi_cache_magic_get(b'k', 1, ctypes.byref(size), None, b'runtime')\n\
         made, set, ctypes.string_at(at, size.value)"
    );
    server.run(1, &source)
}

/// How a worker that has made a cache ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    Reloaded,
}

fn with_a_cache_of_its_worker(flavor: Flavor) -> Server {
    let server = Server::start(flavor, 1, "cache2 = name=c,items=9");
    assert_eq!(server.run(1, "uwsgi.cache_set('k', 'of all')"), "True");
    let listed = server.stats().matches("\"cache_").count();
    assert_eq!(made_in_a_worker(&server, "None"), "(True, 0, b'v')", "{flavor:?}\n{}", server.log());
    if flavor != Flavor::Native {
        assert_eq!(server.stats().matches("\"cache_").count(), listed);
    }
    server
}

/// Whether native's master crashes. What it reads is undefined, so that one that does not is possible.
fn native_crashes(end: End) -> bool {
    let server = with_a_cache_of_its_worker(Flavor::Native);
    match end {
        End::Killed => _ = server.run(1, "os.kill(os.getpid(), 9)"),
        End::Reloaded => server.signal(Signal::SIGHUP),
    }
    let crashed = || server.log().contains("Segmentation Fault").then_some(());
    poll(Duration::from_secs(10), crashed).is_some()
}

/// D-57: in native the master walks lists of caches and locks that lead into the worker's memory.
/// Here the cache belongs to the worker, and ends with it.
#[test]
fn a_cache_made_in_a_worker_ends_with_it() {
    on_both(|flavor| {
        for end in [End::Killed, End::Reloaded] {
            if flavor == Flavor::Native {
                assert!((0..10).any(|_| native_crashes(end)), "native does not crash: {end:?}");
                continue;
            }
            let mut server = with_a_cache_of_its_worker(flavor);
            let master = server.master();
            if end == End::Killed {
                assert_eq!(server.run(1, "os.kill(os.getpid(), 9)"), "(no answer)");
                within("a new worker", || server.run(1, "1 + 1") == "2");
                assert_eq!(server.run(1, "uwsgi.cache_get('k')"), "b'of all'");
            } else {
                server.reload();
            }
            // The cache's thread and the master's continue for some cycles.
            thread::sleep(Duration::from_secs(4));
            assert_eq!(server.run(1, "uwsgi.cache_set('k2', 'v'), uwsgi.cache_get('k2')"), "(True, b'v')");
            assert_eq!(server.run(1, "uwsgi.cache_get('k', 'runtime')"), "None");
            assert_eq!(server.master(), master, "{end:?}\n{}", server.log());
            assert!(!server.log().contains("Segmentation Fault"), "{}", server.log());
        }
    });
}

/// A library loaded by the application is its own: a second copy beside the plugin, or the only one
/// in a native server.
#[test]
fn a_library_of_the_application_leaves_the_server_alone() {
    on_both(|flavor| {
        let server = Server::start(flavor, 1, "cache2 = name=c,items=9");
        let copy = server.dir().join("libucache.so");
        let library = crate::server::Build::Installed.plugins().join("ucache_plugin.so");
        fs::copy(library, &copy).expect("a file can be copied");
        let before = server.stats().matches("\"cache_").count();
        let made = made_in_a_worker(&server, &format!("{:?}", copy.display().to_string()));
        assert_eq!(made, "(True, 0, b'v')", "{flavor:?}\n{}", server.log());
        assert_eq!(
            server.run(1, "uwsgi.cache_get('k', 'runtime'), uwsgi.cache_set('k', 'w'), uwsgi.cache_get('k')"),
            "(None, True, b'w')"
        );
        assert_eq!(server.stats().matches("\"cache_").count(), before);
        let master = server.master();
        for _ in 0..2 {
            assert_eq!(server.run(1, "os.kill(os.getpid(), 9)"), "(no answer)");
            within("a new worker", || server.run(1, "1 + 1") == "2");
        }
        thread::sleep(Duration::from_secs(2));
        assert_eq!(server.run(1, "uwsgi.cache_get('k')"), "b'w'", "{flavor:?}\n{}", server.log());
        assert_eq!(server.master(), master);
        assert!(
            kill(master, None).is_ok() && !server.log().contains("Segmentation Fault"),
            "{}",
            server.log()
        );
    });
}
