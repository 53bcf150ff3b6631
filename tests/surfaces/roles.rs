//! All places where uWSGI runs an application's code: masters, workers, threads, greenlets, mules,
//! spoolers, timers.

use std::{collections::BTreeSet, thread};

use crate::{
    await_worker, on_both,
    patience::within,
    probe_lines,
    server::{Server, root},
    spawn,
};

/// The directory of the Python modules.
pub(crate) fn here() -> String {
    root().join("tests/surfaces").display().to_string()
}

#[test]
fn mules_spoolers_timers_and_imports_use_the_workers_cache() {
    on_both(|flavor| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let here = here();
        let lines = format!(
            "plugin = spooler\nspooler = {}\nspooler-frequency = 1\nmule = {here}/mule.py\nmule =\npythonpath = {here}\n\
             import = roles\ncache2 = name=c,items=100\nlock-engine = ipcsem",
            dir.path().display()
        );
        let server = Server::start(flavor, 2, &lines);
        let marks = |name: &str| server.run(2, &format!("uwsgi.cache_num('{name} count')"));
        // in the master before the workers, once, and it stays
        assert_eq!(
            server.run(1, "uwsgi.cache_get('imported first')"),
            "b'1'",
            "{flavor:?}\n{}",
            server.log()
        );
        assert_ne!(marks("import"), "0");
        for name in ["timer", "rb timer", "cron", "fork"] {
            within(name, || marks(name) != "0");
        }
        // one mule answers, another one gets the signal
        assert_eq!(server.run(1, "uwsgi.cache_set('number', (6).to_bytes(8, 'little'))"), "True");
        let source = "(uwsgi.mule_id(), uwsgi.cache_inc('number', 1), uwsgi.cache_num('number'), \
                      uwsgi.cache_get('imported first'), uwsgi.cache_exists('no'), uwsgi.cache_del('no'))";
        server.run(1, &format!("uwsgi.mule_msg({source:?}, 1)"));
        within("the mule's answer", || {
            server.run(2, "uwsgi.cache_get('answer')") == "b\"(1, True, 7, b'1', None, None)\""
        });
        server.run(2, "uwsgi.signal(4)");
        within("the second mule", || marks("signal") == "1");
        server.run(1, "uwsgi.spool({b'value': b'from the spooler'})");
        within("the spooler", || server.run(1, "uwsgi.cache_get('spooled')") == "b'from the spooler'");
    });
}

#[test]
fn threads_of_a_worker_share_its_caches() {
    on_both(|flavor| {
        let server = Server::start(
            flavor,
            2,
            &format!("threads = 4\npythonpath = {}\ncache2 = name=c,items=99,purge_lru=1", here()),
        );
        // requests on threads of uWSGI, which start threads of Python
        let source = "import roles\nroles.on_threads()";
        thread::scope(|scope| {
            let asked: Vec<_> = (0..4)
                .map(|n| {
                    scope.spawn({
                        let server = &server;
                        move || server.run(n % 2 + 1, source)
                    })
                })
                .collect();
            for one in asked {
                assert_eq!(one.join().expect("no panic"), "[]", "{flavor:?}");
            }
        });
        assert_eq!(server.run(1, "uwsgi.cache_num('n')"), "2400", "{flavor:?}");
    });
}

/// Cores of a process that take turns: requests that wait for each other through the cache only end
/// if each gets its turn.
fn take_turns(lines: &str, pause: &str) {
    on_both(|flavor| {
        let server = spawn(
            flavor,
            1,
            &format!(
                "master = true\nhttp-socket = {{dir}}/w1\nstats = {{dir}}/stats\ncache2 = name=c,items=99\n{}{lines}",
                probe_lines()
            ),
        );
        await_worker(&server, 1);
        let waiting = |n: usize| {
            format!(
                "uwsgi.cache_inc('there')\nend = time.time() + 15\n\
                 while uwsgi.cache_num('there') < 3 and time.time() < end: {pause}\n\
                 uwsgi.cache_num('there'), uwsgi.cache_update('k{n}', 'v' * {n}), len(uwsgi.cache_get('k{n}'))"
            )
        };
        thread::scope(|scope| {
            let asked: Vec<_> = (1..=3)
                .map(|n| {
                    let (server, source) = (&server, waiting(n));
                    (n, scope.spawn(move || server.run(1, &source)))
                })
                .collect();
            for (n, one) in asked {
                assert_eq!(
                    one.join().expect("no panic"),
                    format!("(3, True, {n})"),
                    "{flavor:?}\n{}",
                    server.log()
                );
            }
        });
    });
}

#[test]
fn gevent_cores_share_the_cache() {
    take_turns("plugin = gevent_python3\ngevent = 8", "__import__('gevent').sleep(0.01)");
}

#[test]
fn asynchronous_cores_share_the_cache() {
    take_turns(
        "plugin = greenlet_python3\nasync = 8\ngreenlet = true",
        "uwsgi.async_sleep(1); uwsgi.suspend()",
    );
}

#[test]
fn lazy_apps_and_apps_of_the_master_see_one_cache() {
    for lazy in ["", "lazy-apps = true\n", "lazy = true\n"] {
        on_both(|flavor| {
            let here = here();
            let lines = format!(
                "{lazy}mule =\nmule =\npythonpath = {here}\nimport = roles\ncache2 = name=c,items=99"
            );
            let server = Server::start(flavor, 2, &lines);
            let pids = [1, 2]
                .map(|worker| server.run(worker, "uwsgi.cache_set(f'w{os.getpid()}', 'v'), os.getpid()"));
            assert!(pids.iter().all(|pid| pid.starts_with("(True, ")), "{pids:?}");
            let keys =
                |worker| server.run(worker, "sorted(k for k in uwsgi.cache_keys() if k.startswith(b'w'))");
            assert_eq!(keys(1), keys(2));
            assert_eq!(keys(1).matches("b'w").count(), 2, "{lazy}{flavor:?}");
            assert_eq!(server.run(1, "uwsgi.cache_get('imported first')"), "b'1'", "{lazy}{flavor:?}");
        });
    }
}

#[test]
fn workers_that_come_and_go_with_the_load_share_the_cache() {
    on_both(|flavor| {
        let lines = format!(
            "master = true\nhttp-socket = {{dir}}/w1\nprocesses = 4\ncheaper = 1\ncheaper-initial = 1\ncheaper-step = 1\n\
             cheaper-overload = 1\ncache2 = name=c,items=99\n{}",
            probe_lines()
        );
        let server = spawn(flavor, 1, &lines);
        await_worker(&server, 1);
        let source = "uwsgi.cache_inc('seen')\ntime.sleep(0.5)\nuwsgi.cache_update(f'w{uwsgi.worker_id()}', 'v')\nuwsgi.worker_id()";
        let mut seen = BTreeSet::new();
        let mut asked = 0;
        within("more than one worker", || {
            thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| server.run(1, source))).collect();
                seen.extend(all.into_iter().map(|one| one.join().expect("no panic")));
            });
            asked += 4;
            seen.len() > 1
        });
        let keys = server.run(1, "sorted(k for k in uwsgi.cache_keys() if k.startswith(b'w'))");
        assert_eq!(keys.matches("b'w").count(), seen.len(), "{flavor:?} {seen:?}");
        assert_eq!(server.run(1, "uwsgi.cache_num('seen')"), asked.to_string(), "{flavor:?}");
    });
}
