//! Tools that observe the functions of uWSGI while ucache replaces them: the kernel's uprobes (perf
//! probe, bpftrace, SystemTap) and gdb. They attach before or after the takeover, and detach again.
//! Native uWSGI is compared.
#![cfg(feature = "uwsgi")]

#[path = "support/elf_text.rs"]
mod elf_text;
#[path = "support/patience.rs"]
mod patience;
#[path = "support/private_mounts.rs"]
mod private_mounts;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/uwsgi_host.rs"]
mod uwsgi_host;

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use uwsgi_host::{Host, Setup};

const CACHE: &str = "cache2 = name=c,items=100,blocksize=4096";
const NATIVE: &str = "plugin = python3";
/// Functions used by the calls below.
const CALLED: [&str; 5] = [
    "uwsgi_cache_magic_get",
    "uwsgi_cache_magic_set",
    "uwsgi_cache_magic_del",
    "uwsgi_cache_by_name",
    "uwsgi_cache_keys",
];

/// A private copy of uWSGI, so that observing it affects no other process.
fn copy_of_uwsgi(dir: &Path) -> PathBuf {
    let uwsgi = PathBuf::from(uwsgi_host::uwsgi());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(&uwsgi)).find(|file| file.is_file());
    let copy = dir.join("observed");
    fs::copy(found.expect("uWSGI is installed (`make deps`)"), &copy).expect("it can be copied");
    copy
}

/// The cache functions of a uWSGI, with their file offsets.
fn functions(uwsgi: &Path) -> Vec<(String, u64)> {
    let short = ["uwsgi_cache_item_key", "uwsgi_cache_rlock", "uwsgi_cache_rwunlock"];
    let ours = |name: &str| name.starts_with("uwsgi_cache_") || name == "cache_udp_server_loop";
    let all = elf_text::offsets(uwsgi).into_iter();
    let all: Vec<_> = all.filter(|(name, _)| ours(name) && !short.contains(&name.as_str())).collect();
    assert!(all.len() >= 31, "{all:?}");
    all
}

fn assert_works(host: &Host, plugins: &str) {
    if plugins != NATIVE {
        for name in CALLED {
            assert_eq!(host.eval(&format!("leads_to('{name}')")), "'libucache.so'", "{name}\n{}", host.log());
        }
    }
    calls(host);
    assert_eq!(host.logged("DAMN"), 0, "{}", host.log());
}

fn calls(host: &Host) {
    let calls = "[uwsgi.cache_update('k', b'value', 0, 'c'), uwsgi.cache_get('k', 'c'), uwsgi.cache_keys('c'), \
                 uwsgi.cache_inc('n', 1, 0, 'c'), uwsgi.cache_del('n', 'c'), uwsgi.cache_del('k', 'c')]";
    for _ in 0..20 {
        assert_eq!(host.eval(calls), "[True, b'value', [b'k'], True, True, True]", "{}", host.log());
    }
}

/// Workers exit and are replaced by others with the master's text.
fn respawn(host: &Host) {
    for n in 1..=2 {
        assert_eq!(host.request("POST", "/", "__import__('os')._exit(1)"), None);
        host.until("a new worker", |h| h.logged("DAMN") == n);
        host.until("an answer", |h| h.request("POST", "/", "1 + 1").is_some_and(|answer| answer.1 == "2"));
        calls(host);
    }
    assert_eq!(host.logged("DAMN"), 2, "{}", host.log());
}

/// Kernel probes on every function, and on the returns from some; removed when dropped.
struct Probes {
    tracing: PathBuf,
    group: String,
}

impl Probes {
    /// `None` = not supported by this kernel or not permitted for this user; a message says so.
    fn set(uwsgi: &Path, name: &str) -> Option<Self> {
        private_mounts::unshare_mounts();
        let tracing = uwsgi.with_file_name("tracing");
        fs::create_dir(&tracing).expect("a directory can be made");
        let mounted = nix::mount::mount(
            Some("tracefs"),
            &tracing,
            Some("tracefs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        );
        if mounted.is_err() || !tracing.join("uprobe_events").exists() {
            // Bypasses the test runner, which hides the output of passing tests.
            let _ = writeln!(
                std::io::stderr(),
                "probes {name} the takeover were NOT tried: no tracefs with uprobe_events here ({mounted:?})"
            );
            return None;
        }
        let probes = Self { tracing, group: format!("ucache_{name}_{}", std::process::id()) };
        for (function, offset) in functions(uwsgi) {
            probes.tell(
                "uprobe_events",
                &format!("p:{}/{function} {}:{offset:#x}", probes.group, uwsgi.display()),
            );
            if function.contains("magic") {
                let line = format!("r:{}/{function}_return {}:{offset:#x}", probes.group, uwsgi.display());
                probes.tell("uprobe_events", &line);
            }
        }
        probes.tell(&format!("events/{}/enable", probes.group), "1");
        Some(probes)
    }

    fn tell(&self, file: &str, line: &str) {
        let path = self.tracing.join(file);
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("tracefs can be written");
        file.write_all(line.as_bytes()).unwrap_or_else(|e| panic!("{line} > {}: {e}", path.display()));
    }

    /// The hit count of a probe.
    fn hits(&self, function: &str) -> u64 {
        let profile = fs::read_to_string(self.tracing.join("uprobe_profile")).expect("the profile");
        let uwsgi = self.tracing.with_file_name("observed");
        let count = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words.len() >= 3 && Path::new(words[0]) == uwsgi && words[1] == function)
                .then(|| words[2].parse())
        };
        profile
            .lines()
            .find_map(count)
            .unwrap_or_else(|| panic!("no {function}: {profile}"))
            .expect("a count")
    }

    fn assert_hit(&self) {
        for function in CALLED {
            assert!(self.hits(function) >= 1, "{function} was not hit");
        }
        assert!(self.hits("uwsgi_cache_magic_get_return") >= 20);
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        // A test that failed before it set a probe has its own message.
        if !self.tracing.join("events").join(&self.group).exists() {
            return;
        }
        self.tell(&format!("events/{}/enable", self.group), "0");
        let mut names: Vec<_> = fs::read_dir(self.tracing.join("events").join(&self.group))
            .map(|all| all.flatten().filter(|one| one.path().is_dir()).map(|one| one.file_name()).collect())
            .unwrap_or_default();
        names.sort();
        for name in names {
            self.tell("uprobe_events", &format!("-:{}/{}", self.group, name.to_string_lossy()));
        }
    }
}

#[test]
fn probes_that_come_and_go_while_the_server_runs() {
    for plugins in [NATIVE, Setup::default().plugins] {
        // In a thread with its own mount namespace.
        let passed = std::thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap();
            let uwsgi = copy_of_uwsgi(dir.path());
            let setup = Setup { command: vec![uwsgi.display().to_string()], plugins, ..Setup::default() };
            let host = setup.start(CACHE);
            assert_works(&host, plugins);
            let Some(probes) = Probes::set(&uwsgi, "after") else { return };
            assert_works(&host, plugins);
            probes.assert_hit();
            drop(probes);
            assert_works(&host, plugins);
            respawn(&host);
        });
        passed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

#[test]
fn probes_that_are_there_before_the_start() {
    for plugins in [NATIVE, Setup::default().plugins] {
        let passed = std::thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap();
            let uwsgi = copy_of_uwsgi(dir.path());
            let Some(probes) = Probes::set(&uwsgi, "before") else { return };
            let setup = Setup { command: vec![uwsgi.display().to_string()], plugins, ..Setup::default() };
            let host = setup.start(CACHE);
            assert_works(&host, plugins);
            probes.assert_hit();
            assert!(probes.hits("uwsgi_cache_create_all") >= 1);
            drop(probes);
            assert_works(&host, plugins);
            respawn(&host);
        });
        passed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

/// Commands for gdb: a breakpoint on each of these functions, which is reported and passed.
fn breakpoints(names: &[String], then: &str) -> String {
    let mut script =
        "set pagination off\nset confirm off\nset breakpoint pending off\nset startup-with-shell off\n\
                      set detach-on-fork on\nset follow-fork-mode parent\n"
            .to_owned();
    for name in names {
        let _ = write!(script, "break {name}\ncommands\nsilent\nprintf \"hit {name}\\n\"\ncontinue\nend\n");
    }
    script + then + "\n"
}

const GDB: [&str; 4] = ["--batch", "-nx", "-iex", "set debuginfod enabled off"];

fn assert_gdb() {
    let found = Command::new("gdb").arg("--version").stdout(Stdio::null()).status();
    assert!(found.is_ok_and(|status| status.success()), "this test drives gdb (apt-get install gdb)");
}

#[test]
fn a_server_that_gdb_starts_with_breakpoints() {
    assert_gdb();
    for plugins in [NATIVE, Setup::default().plugins] {
        let dir = tempfile::tempdir().unwrap();
        let uwsgi = copy_of_uwsgi(dir.path());
        let names: Vec<String> = functions(&uwsgi).into_iter().map(|(name, _)| name).collect();
        let script = dir.path().join("script");
        fs::write(&script, breakpoints(&names, "handle SIGINT nostop noprint pass\nrun")).unwrap();
        let gdb = ["gdb"].into_iter().chain(GDB).map(str::to_owned);
        let args =
            ["-x".to_owned(), script.display().to_string(), "--args".to_owned(), uwsgi.display().to_string()];
        let setup = Setup { command: gdb.chain(args).collect(), plugins, ..Setup::default() };
        // gdb removes its breakpoints from every forked process: workers run without.
        let host = setup.start(CACHE);
        assert_works(&host, plugins);
        assert!(host.logged("hit uwsgi_cache_create_all") >= 1, "{}", host.log());
        respawn(&host);
    }
}

#[test]
fn gdb_that_comes_to_a_worker_and_goes() {
    assert_gdb();
    for plugins in [NATIVE, Setup::default().plugins] {
        let dir = tempfile::tempdir().unwrap();
        let host = Setup { plugins, ..Setup::default() }.start(&format!("{CACHE}\nworkers = 1"));
        let names: Vec<String> = CALLED.into_iter().map(str::to_owned).collect();
        let script = dir.path().join("script");
        fs::write(&script, breakpoints(&names, "continue")).unwrap();
        let worker = host.eval("__import__('os').getpid()");
        let log = fs::File::create(dir.path().join("gdb")).unwrap();
        let seen = || fs::read_to_string(dir.path().join("gdb")).unwrap_or_default();
        let mut gdb = Command::new("gdb")
            .args(GDB)
            .args(["-p", &worker, "-x"])
            .arg(&script)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("gdb starts");
        host.until("a breakpoint", |_| {
            host.eval("uwsgi.cache_get('k', 'c')");
            seen().contains("hit uwsgi_cache_magic_get")
        });
        assert_works(&host, plugins);
        assert!(seen().contains("hit uwsgi_cache_magic_set"), "{}", seen());
        // The kernel lets the worker go however gdb ends; its breakpoints stay only if it is
        // killed.
        let told = Command::new("/bin/kill").args(["-s", "INT", &gdb.id().to_string()]).status().unwrap();
        assert!(told.success());
        assert!(gdb.wait().is_ok());
        assert_works(&host, plugins);
        assert_eq!(host.eval("__import__('os').getpid()"), worker);
    }
}
