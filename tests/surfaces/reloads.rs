//! Workers and whole servers that end and begin again: by request, by limit, by force.

use std::{fs, thread};

use nix::sys::signal::Signal;

use crate::{
    on_both,
    roles::here,
    server::{Flavor, Server, within},
};

/// Options, and what a worker runs until it is another process: in native, in ucache.
type Case = (&'static str, [&'static str; 2]);

/// Runs all cases at the same time: what they wait for is the clock.
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

/// What was stored before is still there in the process that comes after.
fn keeps_the_cache(flavor: Flavor, lines: &str, source: &str) {
    let server = Server::start(flavor, 2, &format!("{lines}\ncache2 = name=c,items=99,purge_lru=1"));
    assert_eq!(server.run(1, "uwsgi.cache_set('kept', 'value'), uwsgi.cache_inc('n', 5)"), "(True, True)");
    let pid = || server.run(1, "os.getpid()");
    let before = pid();
    within(60, lines, || {
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
    // the worker is in the middle of updates when its time is over: on native it may be the end of all (D-14)
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
        within(30, "a hook", || {
            server.run(1, "uwsgi.cache_update('busy', 'v')");
            server.run(2, "uwsgi.cache_num('atexit count') > 0 and uwsgi.cache_get('atexit') is not None")
                == "True"
        });
    });
}

/// The master starts uWSGI anew, in the same process: memory is made afresh, a store is found again.
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
    within(60, how, || {
        // uWSGI looks once a second, at the time of change in whole seconds
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
