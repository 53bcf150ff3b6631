//! Store files of real uWSGIs: how servers leave them, other users meanwhile, and changes under a
//! running server.
#![cfg(all(feature = "uwsgi", feature = "cli"))]

#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/uwsgi_host.rs"]
mod uwsgi_host;

use std::{
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::Duration,
};

use patience::{PATIENCE, poll, within};
use tempfile::TempDir;
use ucache::Cache;
use uwsgi_host::{Host, library};

const UNCLEAN: &str = "the store was not closed cleanly";

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    (dir, path)
}

fn definition(path: &Path, more: &str) -> String {
    format!("cache2 = name=c,items=500,blocksize=5000,store={}{more}", path.display())
}

/// The processes of a server except the first.
fn workers(host: &Host) -> Vec<u32> {
    let pids = host.eval("[w['pid'] for w in uwsgi.workers()]");
    let pid = |text: &str| text.trim().parse().expect("a process id");
    pids.trim_matches(['[', ']']).split(',').map(pid).collect()
}

/// Waits until both workers handle signals: one that is still starting would miss them.
fn settled(host: &Host) {
    host.until("both workers accept", |host| host.stats().matches("\"accepting\":1").count() == 2);
}

/// SIGKILL for a server; waits until its workers, who end after it, are gone too.
fn kill(host: &mut Host) {
    let pids = workers(host);
    host.end("KILL");
    let is_there = |pid: u32| {
        Path::new(&format!("/proc/{pid}/maps")).metadata().is_ok_and(|_| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        })
    };
    for pid in pids {
        within(format!("worker {pid} ends with its master"), || !is_there(pid));
    }
}

/// `daemonize2`: the process that opened the store leaves it to a child in the background.
#[test]
fn a_server_that_went_to_the_background_closes_its_store() {
    let (dir, path) = place();
    let at = dir.path().display().to_string();
    symlink(library(), dir.path().join("ucache_plugin.so")).expect("a symlink");
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let ini = format!(
        "[uwsgi]\nplugins-dir = {at}\nplugin = ucache\nmaster = true\nsocket = {at}/socket\ndaemonize2 = {at}/log\n\
         safe-pidfile = {at}/pid\n{}\n",
        definition(&path, "")
    );
    let file = dir.path().join("uwsgi.ini");
    std::fs::write(&file, ini).expect("the configuration is written");
    for round in 0..2 {
        let started = Command::new(uwsgi_host::uwsgi()).arg(&file).output().expect("uwsgi runs");
        assert!(started.status.success(), "{started:?}");
        let wait = |what: &str, ready: &dyn Fn() -> bool| {
            let is_ready = poll(PATIENCE, || ready().then_some(()));
            assert!(is_ready.is_some(), "{what} did not come about:\n{}", log());
        };
        let pid =
            || -> Option<u32> { std::fs::read_to_string(dir.path().join("pid")).ok()?.trim().parse().ok() };
        wait("the server", &|| pid().is_some() && log().matches("spawned uWSGI worker 1").count() > round);
        // The master's first cycle comes within a second.
        thread::sleep(Duration::from_millis(1500));
        let master = pid().expect("a process id");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(master as i32), nix::sys::signal::Signal::SIGINT)
            .expect("the master is there");
        wait("the end", &|| !Path::new(&format!("/proc/{master}")).exists());
        let left = Cache::attach(&path).expect("a store").stats();
        assert!(!left.last_unclean, "{}", log());
    }
    assert!(!log().contains(UNCLEAN), "{}", log());
}

#[test]
fn a_server_that_ends_or_reloads_has_closed_its_store() {
    for (options, signal) in [
        ("lazy-apps = false", "INT"),
        ("lazy-apps = true", "QUIT"),
        ("die-on-term = true", "TERM"),
        ("master = false\nworkers = 1", "INT"),
    ] {
        let (_dir, path) = place();
        let lines = format!("{options}\n{}", definition(&path, ""));
        let mut first = Host::start(&lines);
        assert_eq!(first.eval("uwsgi.cache_update('k', 'v', 0, 'c')"), "True");
        let has_master = !options.starts_with("master");
        if has_master {
            settled(&first);
        }
        first.end(signal);
        assert_eq!(first.logged(UNCLEAN), 0);
        let mut second = Host::start(&lines);
        assert_eq!(second.eval("uwsgi.cache_get('k', 'c')"), "b'v'");
        assert_eq!(second.logged(UNCLEAN), 0, "{options} {signal}: {}", second.log());
        if has_master {
            let before = workers(&second);
            settled(&second);
            second.signal("HUP");
            second.until("a reload", |host| {
                host.request("POST", "/", "1").is_some_and(|(status, _)| status.contains("200"))
                    && workers(host).iter().all(|pid| !before.contains(pid))
            });
            assert_eq!(second.eval("uwsgi.cache_get('k', 'c')"), "b'v'");
            assert_eq!(second.logged(UNCLEAN), 0, "{options} reload: {}", second.log());
        }
        // The control: a death is reported.
        kill(&mut second);
        let third = Host::start(&lines);
        assert_eq!(third.eval("uwsgi.cache_get('k', 'c')"), "b'v'");
        assert_eq!(third.logged(UNCLEAN), 1, "{options} SIGKILL: {}", third.log());
    }
}

#[test]
fn two_servers_share_a_store_and_one_outlives_the_other() {
    let (_dir, path) = place();
    let lines = definition(&path, "");
    let (mut first, second) = (Host::start(&lines), Host::start(&lines));
    assert_eq!(first.eval("uwsgi.cache_update('from first', 'a', 0, 'c')"), "True");
    assert_eq!(second.eval("uwsgi.cache_get('from first', 'c')"), "b'a'");
    assert_eq!(second.eval("uwsgi.cache_update('from second', 'b', 0, 'c')"), "True");
    assert_eq!(first.eval("uwsgi.cache_get('from second', 'c')"), "b'b'");
    // Both write without a pause; then the first is killed in the middle.
    let write = "[uwsgi.cache_update('k%d' % (i % 50), ('%d,' % (i % 50)) * (i * 37 % 900 + 1), 0, 'c') for i in range(N)]";
    let whole = "all(set(v.split(b',')[:-1]) == {b'%d' % i} for i in range(50) for v in [uwsgi.cache_get('k%d' % i, 'c')] if v)";
    let rounds = AtomicU32::new(0);
    thread::scope(|s| {
        let endless = write.replace('N', "1 << 60");
        // It ends with its server: no answer.
        let (first_ref, rounds) = (&first, &rounds);
        let killed = s.spawn(move || first_ref.request("POST", "/", &endless));
        let other = s.spawn(|| {
            for _ in 0..20 {
                assert!(!second.eval(&write.replace('N', "20000")).contains("False"), "a write was refused");
                rounds.fetch_add(1, Relaxed);
            }
        });
        while rounds.load(Relaxed) < 5 && !other.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        first_ref.signal("KILL");
        assert_eq!(killed.join().expect("a thread"), None, "the first server was at work when it was killed");
        other.join().expect("the second server goes on");
    });
    first.end("KILL");
    assert_eq!(second.eval(whole), "True", "{}", second.log());
    assert_eq!(
        second.eval("uwsgi.cache_get('from first', 'c'), uwsgi.cache_get('from second', 'c')"),
        "(b'a', b'b')"
    );
    // A user returns while the store is in use.
    let third = Host::start(&lines);
    assert_eq!(third.eval("uwsgi.cache_update('from third', 'd', 0, 'c')"), "True");
    assert_eq!(second.eval("uwsgi.cache_get('from third', 'c')"), "b'd'");
    assert_eq!(third.eval(whole), "True");
}

fn succeed(command: &mut Command, hint: &str) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; {hint}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// The C program of `tests/c/store.c`, which stores "kept" and counts "runs".
fn c_program(dir: &Path) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = dir.join("program");
    let mut gcc = Command::new("gcc");
    gcc.args(["-D_GNU_SOURCE", "-pthread"]).arg(format!("-I{}", root.join("include").display()));
    gcc.arg(root.join("tests/c/store.c")).arg(library()).arg("-o").arg(&out);
    succeed(&mut gcc, "apt-get install gcc");
    let mut program = Command::new(out);
    // The library's name for programs.
    symlink(library(), dir.join("libucache.so.0")).expect("a symlink");
    program.env("LD_LIBRARY_PATH", dir).arg("write");
    program
}

#[test]
fn c_rust_and_the_command_join_a_running_server() {
    let (dir, path) = place();
    // As many items as the C program requests.
    let mut host = Host::start(&format!("cache2 = name=c,items=100,store={}", path.display()));
    assert_eq!(
        host.eval("uwsgi.cache_update('server', 'says', 0, 'c'), uwsgi.cache_inc('runs', 41, 0, 'c')"),
        "(True, True)"
    );
    // C reads the server's number, adds to it and stores its own value.
    succeed(c_program(dir.path()).arg(&path), "it was just built");
    assert_eq!(host.eval("uwsgi.cache_num('runs', 'c'), uwsgi.cache_get('kept', 'c')"), "(42, b'value')");
    // Rust.
    let cache = Cache::attach(&path).expect("the store of a running server");
    assert_eq!(cache.get("server").expect("get").as_deref(), Some(&b"says"[..]));
    cache.set("rust", "was here").expect("set");
    assert_eq!(host.eval("uwsgi.cache_get('rust', 'c')"), "b'was here'");
    assert_eq!(host.eval("uwsgi.cache_del('rust', 'c')"), "True");
    assert_eq!(cache.get("rust").expect("get"), None);
    // The command.
    let ucache = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ucache"));
        let at = path.to_str().expect("text");
        succeed(command.arg(args[0]).arg(at).args(&args[1..]), "it was just built").stdout
    };
    assert_eq!(ucache(&["get", "server"]), b"says");
    ucache(&["set", "command", "line"]);
    ucache(&["incr", "runs", "8"]);
    assert_eq!(host.eval("uwsgi.cache_get('command', 'c'), uwsgi.cache_num('runs', 'c')"), "(b'line', 50)");
    // They are gone; the server continues, and is the last one to leave.
    drop(cache);
    assert_eq!(
        host.eval("uwsgi.cache_update('server', 'still', 0, 'c'), uwsgi.cache_get('server', 'c')"),
        "(True, b'still')"
    );
    settled(&host);
    host.end("INT");
    let again = Cache::attach(&path).expect("the store");
    assert!(!again.stats().last_unclean, "the server closed it");
    assert_eq!(again.get("server").expect("get").as_deref(), Some(&b"still"[..]));
}

#[test]
fn a_store_cut_off_under_a_guarded_server_is_misses_and_refusals() {
    let (_dir, path) = place();
    let mut host = Host::start(&definition(&path, ",store_guard=1"));
    let fill = "[uwsgi.cache_update('k%d' % i, 'v' * 3000, 0, 'c') for i in range(400)].count(True)";
    assert_eq!(host.eval(fill), "400");
    let before = workers(&host);
    File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("ftruncate");
    for _ in 0..20 {
        // Each worker gets some of these.
        let reads = host.eval("[uwsgi.cache_get('k%d' % i, 'c') for i in range(400)].count(None)");
        assert_eq!(reads, "400", "{}", host.log());
        let writes =
            host.eval("[uwsgi.cache_update('k%d' % i, 'new', 0, 'c') for i in range(10)].count(True)");
        assert_eq!(writes, "0", "{}", host.log());
    }
    assert_eq!(workers(&host), before, "no worker died of it:\n{}", host.log());
    settled(&host);
    host.end("INT");
    assert_eq!(host.logged("signal 7"), 0, "{}", host.log());
}
