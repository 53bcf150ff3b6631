//! Inside a uWSGI: with processes, threads and greenlets, in several interpreters, with the plugin
//! and without.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    environment,
    patience::{PATIENCE, poll},
    root,
    server::{Build, Flavor, Server},
    wheel,
};

/// Options of an application that runs the source which a test posts, with the package.
fn app(build: Build) -> String {
    wheel();
    format!(
        "{}virtualenv = {}\npythonpath = {root}/tests/support\npythonpath = {root}/tests/python\nmodule = probe\n\
         need-app = true\ncache2 = name=mycache,items=200\ncache2 = name=twin,items=200\n",
        build.python(),
        environment().display(),
        root = root().display()
    )
}

fn start(flavor: Flavor, workers: usize, options: &str) -> Server {
    Server::start_app(flavor, workers, &format!("{}{options}", app(Build::Installed)))
}

#[test]
fn workers_share_the_servers_caches() {
    let server = start(Flavor::Ucache, 2, "");
    let setup = "import ucache; c = ucache.Cache('mycache')";
    assert_eq!(server.run(1, &format!("{setup}; c.update('k', 'v'); ucache._ucache.library()[1]")), "False");
    assert_eq!(
        server.run(2, &format!("{setup}\nc.get('k'), uwsgi.cache_get('k', 'mycache')")),
        "('v', b'v')"
    );
    assert_eq!(server.run(1, "uwsgi.cache_set('native', 'n', 0, 'mycache'), c.get('native')"), "(True, 'n')");
    assert_eq!(server.run(2, "c.incr('n'), uwsgi.cache_num('n', 'mycache')"), "(1, 1)");
    assert_eq!(server.run(1, "c.incr('n', 4), sorted(c.keys)"), "(5, ['k', 'n', 'native'])");
    let missing = server.run(1, "ucache.Cache('none').get('k')");
    assert_eq!(
        missing,
        "NoSuchCache: no cache 'none': add 'cache2 = name=none,items=...' to uWSGI's configuration"
    );
    assert_eq!(server.run(2, "c.stats()['items'], len(c.keys)"), "(3, 3)");
}

#[test]
fn the_class_means_what_uwsgiconfs_means() {
    for build in Build::all() {
        let server = Server::start_app_on(*build, Flavor::Ucache, 1, &app(*build));
        assert_eq!(server.run(1, "import inside; inside.same_as_uwsgiconf()"), "[]", "{build:?}");
    }
}

#[test]
fn a_uwsgi_without_the_plugin_says_what_is_missing() {
    let server = start(Flavor::Native, 1, "");
    let missing = server.run(1, "import ucache; ucache.Cache('mycache').get('k')");
    assert!(missing.contains("this uWSGI has no ucache. Add 'plugin = ucache'"), "{missing}");
    // Its own caches work: those of the module do not meet the server's.
    let own =
        "c = ucache.open('own', items=5); c.update('k', 'v')\nc.get('k'), uwsgi.cache_get('k', 'mycache')";
    assert_eq!(server.run(1, own), "('v', None)");
    assert_eq!(server.run(1, "uwsgi.cache_set('k', 'native', 0, 'mycache'), c.get('k')"), "(True, 'v')");
}

/// Asks from several threads at once; every answer must be the same.
fn ask_together(server: &Server, workers: &[usize], source: &str) -> String {
    let answers: Vec<String> = thread::scope(|scope| {
        let asking: Vec<_> =
            workers.iter().map(|&worker| scope.spawn(move || server.run(worker, source))).collect();
        asking.into_iter().map(|one| one.join().expect("an answer")).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}\n{}", server.log());
    answers[0].clone()
}

#[test]
fn one_process_thread_or_greenlet_computes() {
    let once = "import inside; inside.computed_once('key')[:2]";
    let processes = start(Flavor::Ucache, 4, "");
    assert_eq!(ask_together(&processes, &[1, 2, 3, 4], once), "('value', 1)");
    let threads = start(Flavor::Ucache, 2, "enable-threads = true\nthreads = 4\n");
    assert_eq!(ask_together(&threads, &[1, 1, 1, 1, 2, 2], once), "('value', 1)");
    // Without monkey patching: a greenlet that waits must let the others run.
    let gevent = "plugin = gevent\ngevent = 20\n";
    let greenlets = start(Flavor::Ucache, 2, gevent);
    assert_eq!(ask_together(&greenlets, &[1, 1, 1, 1, 2, 2], once), "('value', 1)");
    let patched = start(Flavor::Ucache, 2, &format!("{gevent}gevent-monkey-patch = true\n"));
    assert_eq!(ask_together(&patched, &[1, 1, 1, 1, 2, 2], once), "('value', 1)");
}

#[test]
fn a_killed_worker_leaves_nothing_held() {
    let server = start(Flavor::Ucache, 2, "");
    let die = "import ucache, os, signal; c = ucache.Cache('mycache')\n\
               c.get_or_set('k', lambda: os.kill(os.getpid(), signal.SIGKILL), limit=600)";
    assert_eq!(server.run(1, die), "(no answer)");
    let next = "import ucache\nucache.Cache('mycache').get_or_set('k', lambda: 'v', limit=600)";
    assert_eq!(server.run(2, next), "'v'");
}

/// uWSGI gives each application an interpreter of its own.
#[test]
fn every_interpreter_has_the_module() {
    wheel();
    let options = format!(
        "plugin = python3\nvirtualenv = {}\npythonpath = {root}/tests/support\nmount = /={root}/tests/support/probe.py\n\
         mount = /second={root}/tests/support/probe.py\nmanage-script-name = true\ncache2 = name=mycache,items=200\n",
        environment().display(),
        root = root().display()
    );
    let server = Server::start_app(Flavor::Ucache, 1, &options);
    let ask = |path: &str, source: &str| server.ask(1, "POST", path, source).expect("an answer").body;
    let source = "import ucache, sys; c = ucache.Cache('mycache')\n(c.incr('n'), id(sys.modules))";
    let (first, second) = (ask("/", source), ask("/second/", source));
    assert!(first.starts_with("(1, ") && second.starts_with("(2, "), "{first} {second}");
    assert_ne!(first[3..], second[3..], "two interpreters");
    let own = "try:\n    c.incr('text') if c.set('text', 'x') else None\nexcept ucache.NotANumber:\n    answer = 'own'\nanswer";
    assert_eq!(ask("/second/", own), "'own'", "each interpreter has exceptions of its own");
    assert_eq!(ask("/", "c.get_or_set('k', lambda: 'v'), c.ttl('k') > 0"), "('v', True)");
}

/// The package's own tests, in a uWSGI's process.
#[test]
fn the_tests_pass_inside() {
    wheel();
    for build in Build::all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let script = dir.path().join("run.py");
        let text = format!(
            "import pytest, sys\nsys.argv = ['pytest']\nresult = pytest.main(['-q', '-p', 'no:cacheprovider', '{root}/tests/python/test_core.py', \
             '{root}/tests/python/test_filling.py', '-k', 'not keyboard_interrupt_while_waiting'])\nprint('RESULT', int(result))\n",
            root = root().display()
        );
        std::fs::write(&script, text).expect("a script");
        let options = format!(
            "virtualenv = {}\nenable-threads = true\npyrun = {}\ncache2 = name=mycache,items=200\n",
            environment().display(),
            script.display()
        );
        let log = Server::run_program(*build, Flavor::Ucache, &options);
        assert!(log.contains("RESULT 0") && log.contains(" passed"), "{build:?}\n{log}");
    }
}

/// The command of `examples/Containerfile`, with this machine's places, and a request to it.
#[test]
fn the_command_of_the_image_serves_and_ends() {
    wheel();
    let text = fs::read_to_string(root().join("examples/Containerfile")).expect("the Containerfile");
    let command = text.split("\nCMD ").nth(1).expect("a CMD").replace("\\\n", "");
    let words: Vec<String> = serde_json::from_str(command.trim()).expect("a list of words");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (socket, log) = (dir.path().join("http"), dir.path().join("log"));
    let examples = root().join("examples");
    let here = |word: &String| match &**word {
        "0.0.0.0:8080" => socket.display().to_string(),
        "/usr/local/lib/uwsgi" => Build::Pypi.plugins().display().to_string(),
        "/app" => examples.display().to_string(),
        word => word.to_owned(),
    };
    assert_eq!(words[0], "uwsgi");
    let mut uwsgi = Command::new(Build::Pypi.uwsgi());
    uwsgi.args(words[1..].iter().map(here)).arg("--virtualenv").arg(environment());
    uwsgi.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    let said = fs::File::create(&log).expect("a log");
    let mut uwsgi =
        uwsgi.stdout(said.try_clone().expect("a copy")).stderr(said).spawn().expect("uWSGI starts");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let ask = |wanted: &str| {
        let mut answer = String::new();
        let is_there = poll(PATIENCE, || {
            answer.clear();
            if let Ok(mut stream) = UnixStream::connect(&socket) {
                let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                let _ = stream.read_to_string(&mut answer);
            }
            answer.contains(wanted).then_some(())
        });
        assert!(is_there.is_some(), "{wanted} is not in {answer:?}\n{}", said());
    };
    ask(", request 1\n");
    ask(", request 2\n");
    kill(Pid::from_raw(uwsgi.id().cast_signed()), Signal::SIGTERM).expect("SIGTERM");
    let ended = poll(PATIENCE, || uwsgi.try_wait().expect("a child"));
    let _ = uwsgi.kill();
    assert!(ended.is_some() && said().contains("taken over"), "{}", said());
}
