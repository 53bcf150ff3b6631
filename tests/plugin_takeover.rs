//! The plugin inside real uWSGIs: it replaces the cache wherever it can, survives reloads, and
//! stops with a clear message if it cannot.
#![cfg(feature = "uwsgi")]

#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/uwsgi_host.rs"]
mod uwsgi_host;

use std::{
    fs,
    path::Path,
    path::PathBuf,
    process::{Command, Stdio},
};

use uwsgi_host::{Host, Setup, library};

/// The cache functions of uWSGI, except the three that need no jump.
const REPLACED: [&str; 31] = [
    "cache_udp_server_loop",
    "uwsgi_cache_by_name",
    "uwsgi_cache_by_namelen",
    "uwsgi_cache_create",
    "uwsgi_cache_create_all",
    "uwsgi_cache_del2",
    "uwsgi_cache_exists2",
    "uwsgi_cache_fix",
    "uwsgi_cache_get2",
    "uwsgi_cache_get3",
    "uwsgi_cache_get4",
    "uwsgi_cache_init",
    "uwsgi_cache_keys",
    "uwsgi_cache_magic_clear",
    "uwsgi_cache_magic_context_hook",
    "uwsgi_cache_magic_del",
    "uwsgi_cache_magic_exists",
    "uwsgi_cache_magic_get",
    "uwsgi_cache_magic_set",
    "uwsgi_cache_num2",
    "uwsgi_cache_prepare_magic_clear",
    "uwsgi_cache_prepare_magic_del",
    "uwsgi_cache_prepare_magic_exists",
    "uwsgi_cache_prepare_magic_set",
    "uwsgi_cache_prepare_magic_update",
    "uwsgi_cache_set2",
    "uwsgi_cache_setup_nodes",
    "uwsgi_cache_start_sweepers",
    "uwsgi_cache_start_sync_servers",
    "uwsgi_cache_sync_all",
    "uwsgi_cache_sync_from_nodes",
];

const CACHE: &str = "cache2 = name=c,items=100,blocksize=4096";
/// The text of the start-up line.
const TAKEN: &str = "31 cache functions of uWSGI";

/// Every cache function of the host jumps to the library, and the cache works.
fn assert_taken_over(host: &Host, file: &str) {
    let names = REPLACED.join(" ");
    assert_eq!(host.eval(&format!("{{leads_to(n) for n in '{names}'.split()}}")), format!("{{'{file}'}}"));
    assert_works(host);
}

fn assert_works(host: &Host) {
    assert_eq!(host.eval("uwsgi.cache_update('k', b'value', 0, 'c')"), "True");
    assert_eq!(host.eval("uwsgi.cache_get('k', 'c')"), "b'value'");
    assert_eq!(host.eval("uwsgi.cache_keys('c')"), "[b'k']");
    assert_eq!(host.eval("uwsgi.cache_del('k', 'c')"), "True");
    assert_eq!(host.eval("uwsgi.cache_get('k', 'c')"), "None");
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|e| panic!("{program}: {e} (apt-get install binutils gcc python3-venv)"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_library_needs_no_host_and_calls_none() {
    let library = library();
    let library = library.to_str().expect("a UTF-8 path");
    let undefined = run("nm", &["-D", "--undefined-only", library]);
    assert!(undefined.contains(" malloc"), "nm shows what the library needs: {undefined}");
    assert!(!undefined.contains("uwsgi"), "{undefined}");
    let relocations = run("objdump", &["-R", library]);
    let symbols: Vec<&str> = relocations.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(symbols.iter().any(|s| s.starts_with("malloc")), "objdump shows relocations: {symbols:?}");
    let of_host = |s: &&&str| s.starts_with("uwsgi") || s.starts_with("cache_udp") || s.starts_with("ucache");
    assert_eq!(symbols.iter().find(of_host), None);
    let dynamic = run("readelf", &["-d", library]);
    assert!(dynamic.contains("[libucache.so.0]") && dynamic.contains("NODELETE"), "{dynamic}");
    let exported = run("nm", &["-D", "--defined-only", library]);
    let exported: Vec<&str> = exported.lines().filter_map(|line| line.split(' ').next_back()).collect();
    for name in REPLACED.iter().chain(&["ucache_plugin", "uwsgi_cache_item_key", "uwsgi_cache_rlock"]) {
        assert!(exported.contains(name), "{name} is not exported");
    }
}

#[test]
fn calls_of_workers_land_in_ucache() {
    let host = Host::start(CACHE);
    assert_eq!(host.logged(TAKEN), 1, "{}", host.log());
    assert_eq!(host.logged("(/proc/self/mem)"), 1);
    assert_taken_over(&host, "libucache.so");
    // The three short ones stay, and work: PyPy's plugin calls them.
    assert!(!host.eval("leads_to('uwsgi_cache_rlock')").contains("libucache"));
    host.until("live statistics", |h| h.stats().contains("\"hits\":1") && h.stats().contains("\"miss\":1"));
}

#[test]
fn an_absolute_path_and_a_copy_load_too() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("ucache_plugin.so");
    fs::copy(library(), &copy).unwrap();
    let host = Setup { plugins: "plugin = python3", ..Setup::default() }
        .start(&format!("plugin = {}\n{CACHE}", copy.display()));
    assert_taken_over(&host, "ucache_plugin.so");
}

#[test]
fn calls_of_the_core_land_in_ucache() {
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("file.txt"), "static").unwrap();
    let host = Host::start(&format!(
        "{CACHE}\ncache2 = name=paths,items=10\ncheck-cache = c\nstatic-cache-paths = 60\n\
         static-cache-paths-name = paths\nstatic-map = /s={}\nlock-engine = ipcsem",
        files.path().display()
    ));
    // check-cache: the core answers a GET from the cache, before any app.
    let page = "HTTP/1.0 200 OK\\r\\nX-From: cache\\r\\n\\r\\nfrom the cache";
    let ask = |path: &str| host.request("GET", path, "").expect("an answer").1;
    assert_eq!(ask("/page"), "page");
    assert_eq!(host.eval(&format!("uwsgi.cache_set('/page', b'{page}', 0, 'c')")), "True");
    assert!(ask("/page").ends_with("from the cache"), "{}", host.log());
    // static-cache-paths: the core stores and reads with the raw functions, under its own lock
    // table.
    for _ in 0..2 {
        assert_eq!(ask("/s/file.txt"), "static");
    }
    let keys = host.eval("uwsgi.cache_keys('paths')");
    assert!(keys.contains("file.txt"), "{keys}\n{}", host.log());
    host.until("a hit of the core", |h| {
        h.stats().contains("\"name\":\"paths\"") && h.stats().contains("\"hits\":1")
    });
}

/// ucache serves the cache protocol: native's answer to command 5 starts with the address of a
/// header.
fn assert_serves(host: &Host) {
    assert_eq!(host.eval("uwsgi.cache_update('k', b'value', 0, 'c')"), "True");
    let answer = host.exchange("uwsgi", &[111, 1, 0, 5, b'k']).expect("an answer");
    assert_eq!((&answer[1..4], &answer[4..]), (&[0, 0, 1][..], &b"value"[..]), "{}", host.log());
}

#[test]
fn the_cache_protocol_stays_ours_whatever_is_loaded_when() {
    for plugins in ["plugin = ucache,python3,cache", "plugin = cache,ucache,python3"] {
        let setup = Setup { plugins, ..Setup::default() };
        assert_serves(&setup.start(&format!("{CACHE}\nsocket = {{dir}}/uwsgi")));
    }
}

#[test]
fn the_cache_protocol_is_not_served_unasked() {
    let host = Host::start(&format!("{CACHE}\nsocket = {{dir}}/uwsgi"));
    assert_eq!(host.exchange("uwsgi", &[111, 1, 0, 5, b'k']), Some(Vec::new()));
    assert_eq!(host.logged("unavailable modifier requested: 111"), 1, "{}", host.log());
    assert_serves(&Host::start(&format!("{CACHE}\nsocket = {{dir}}/uwsgi\nucache-serve = true")));
}

#[test]
fn routers_find_their_nodes_in_the_cache() {
    let setup = Setup { plugins: "plugin = ucache,python3,http", ..Setup::default() };
    let host =
        setup.start(&format!("{CACHE}\nhttp = {{dir}}/router\nhttp-use-cache = c\nsocket = {{dir}}/uwsgi"));
    let node = host.dir().join("uwsgi").display().to_string();
    let routed = || host.exchange("router", b"GET / HTTP/1.0\r\nHost: the.site\r\n\r\n").unwrap_or_default();
    assert!(!routed().ends_with(b"page"));
    // A router is a separate process; it chooses nodes by the item's hits.
    assert_eq!(host.eval(&format!("uwsgi.cache_set('the.site', b'{node}', 0, 'c')")), "True");
    assert!(routed().ends_with(b"page"), "{}", host.log());
}

#[test]
fn reloads_take_over_again_and_keep_the_store() {
    let host = Host::start("cache2 = name=c,items=100,blocksize=4096,store={dir}/store\nlazy-apps = true");
    assert_eq!(host.eval("uwsgi.cache_set('stays', b'1', 0, 'c')"), "True");
    for (turn, signal) in ["HUP", "TERM", "HUP"].into_iter().enumerate() {
        // A worker that is still loading its app may miss a graceful reload.
        host.until("both workers", |h| h.logged("(default app)") == 2 * (turn + 1));
        host.signal(signal);
        host.until("a reload", |h| h.logged(TAKEN) == turn + 2);
        host.until("an answer", |h| h.request("POST", "/", "1 + 1").is_some_and(|a| a.1 == "2"));
        assert_eq!(host.eval("uwsgi.cache_get('stays', 'c')"), "b'1'");
        assert_eq!(host.eval("leads_to('uwsgi_cache_magic_get')"), "'libucache.so'");
    }
}

#[test]
fn workers_that_come_later_use_the_same_cache() {
    let host = Host::start(&format!("{CACHE}\nlazy-apps = true"));
    assert_eq!(host.eval("uwsgi.cache_set('stays', b'1', 0, 'c')"), "True");
    assert_eq!(host.request("POST", "/", "__import__('os')._exit(1)"), None);
    host.until("a new worker", |h| h.logged("Respawned uWSGI worker") == 1);
    assert_eq!(
        host.eval("[uwsgi.cache_get('stays', 'c'), uwsgi.cache_update('k', b'v', 0, 'c')]"),
        "[b'1', True]"
    );
}

#[test]
fn memory_that_may_not_become_executable_is_no_hindrance() {
    let host = Setup { confine: "mdwe", ..Setup::default() }.start(CACHE);
    assert_eq!(host.logged("(/proc/self/mem)"), 1, "{}", host.log());
    assert_taken_over(&host, "libucache.so");
}

#[test]
fn without_proc_the_pages_are_made_writable() {
    let host = Setup { confine: "noproc", ..Setup::default() }.start(CACHE);
    assert_eq!(host.logged("(mprotect)"), 1, "{}", host.log());
    assert_works(&host);
}

#[test]
fn where_nothing_may_be_written_the_operator_decides() {
    let setup = Setup { confine: "mdwe noproc", ..Setup::default() };
    let log = setup.refuse("cache2 = name=c,items=100,store={dir}/store");
    assert!(log.contains("cannot replace uWSGI's cache: program text cannot be written"), "{log}");
    assert!(
        log.contains("MemoryDenyWriteExecute") && log.contains("`ucache-or-native = true` falls back"),
        "{log}"
    );
    assert!(
        !log.contains("creating a new cache store file"),
        "stopped before native code made a store: {log}"
    );
    let host = setup.start(&format!("{CACHE}\nucache-or-native = true"));
    assert_eq!(host.logged("falling back to uWSGI's own cache"), 1);
    assert_eq!(host.logged(TAKEN), 0);
    assert_works(&host);
    let log = setup.refuse(&format!("{CACHE}\nucache-or-native = no"));
    assert!(log.contains("stopped: the takeover failed"), "{log}");
}

#[test]
fn a_plugin_loaded_after_the_caches_changes_nothing() {
    let host = Setup { plugins: "plugin = python3", ..Setup::default() }.start(CACHE);
    let plugin = host.dir().join("ucache_plugin.so");
    assert_eq!(host.eval(&format!("load_plugin_now({:?})", plugin.display().to_string())), "True");
    assert_eq!(
        host.logged("cannot replace uWSGI's cache: uWSGI has made its caches already"),
        1,
        "{}",
        host.log()
    );
    assert_eq!(host.logged("`plugin = ucache` before the lines of the caches"), 1);
    assert!(!host.eval("leads_to('uwsgi_cache_magic_get')").contains("libucache"));
    assert_works(&host);
}

#[test]
fn a_takeover_that_was_undone_stops_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let rogue = dir.path().join("rogue_plugin.so").display().to_string();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/uwsgi_rogue.c");
    run("cc", &["-shared", "-fPIC", "-D_GNU_SOURCE", "-o", &rogue, source]);
    let log = Setup::default().refuse(&format!("plugin = {rogue}\n{CACHE}"));
    assert!(log.contains("functions that lead elsewhere again: [\"uwsgi_cache_num2\"]"), "{log}");
}

#[test]
fn options_are_checked() {
    let host = Host::start(&format!(
        "{CACHE}\nucache-or-native = perhaps\nucache-or-nativ = true\nucache-quiet = true"
    ));
    assert_eq!(host.logged("option ucache-or-native=perhaps: expected true or false"), 1, "{}", host.log());
    assert_eq!(host.logged("unknown option ucache-or-nativ\n"), 1);
    assert_eq!(host.logged(TAKEN), 0, "ucache-quiet");
    assert_taken_over(&host, "libucache.so");
}

#[test]
fn the_python_module_of_uwsgi_is_a_host_too() {
    let (pyuwsgi, library) = pyuwsgi();
    let setup = |env, plugins| Setup {
        command: vec![pyuwsgi.display().to_string()],
        library: library.clone(),
        env,
        plugins,
        ..Setup::default()
    };
    let lines = format!("{CACHE}\nsocket = {{dir}}/uwsgi");
    let loaded = setup(Vec::new(), "plugin = ucache").start(&lines);
    assert_eq!(loaded.logged(TAKEN), 1, "{}", loaded.log());
    assert_taken_over(&loaded, "libucache.so");
    assert_serves(&loaded);
    let preload = vec![("LD_PRELOAD", library.display().to_string())];
    let preloaded = setup(preload, "").start(&lines);
    assert_eq!(preloaded.logged(TAKEN), 1, "{}", preloaded.log());
    assert_taken_over(&preloaded, "libucache.so");
    assert_serves(&preloaded);
    // Its uWSGI is not the one for which the library of the other tests was built.
    let log = Setup { library: uwsgi_host::library(), ..setup(Vec::new(), "plugin = ucache") }.refuse(CACHE);
    assert!(log.contains("built for uWSGI") && log.contains("stopped: the takeover failed"), "{log}");
}

/// The PyPI module, installed into cargo's directory for tests, and a library built for it.
fn pyuwsgi() -> (PathBuf, PathBuf) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pyuwsgi");
    let at = |path: &str| dir.join(path).display().to_string();
    let program = dir.join("venv/bin/pyuwsgi");
    if !program.is_file() {
        run("/usr/bin/python3", &["-m", "venv", &at("venv")]);
        run(
            &at("venv/bin/pip"),
            &["install", "--quiet", "--disable-pip-version-check", "pyuwsgi==2.0.30.post1"],
        );
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--lib", "--features", "uwsgi", "--target-dir", &at("target")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("UWSGI_BIN", &program)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "pyuwsgi needs PCRE2's header (apt-get install libpcre2-dev): {errors}");
    (program, dir.join("target/debug/libucache.so"))
}

/// Creates a cache in a worker through `library`, and ends the worker: the server continues.
/// Native's own crashes, see `a_cache_made_in_a_worker_ends_with_it`.
fn assert_survives_a_cache_of_a_worker(host: &Host, library: &str) {
    let made = format!("ctypes.CDLL({library}).uwsgi_cache_create(b'name=runtime,items=10') != 0");
    assert_eq!(host.eval(&made), "True", "{}", host.log());
    assert!(!host.stats().contains("cache_runtime"), "{}", host.stats());
    for n in 1..=2 {
        assert_eq!(host.request("POST", "/", "__import__('os').kill(__import__('os').getpid(), 9)"), None);
        host.until("a new worker", |h| h.logged("Respawned uWSGI worker") == n);
    }
    host.until("an answer", |h| h.request("POST", "/", "1 + 1").is_some_and(|answer| answer.1 == "2"));
    assert_works(host);
    assert_eq!(host.logged("Segmentation Fault"), 0, "{}", host.log());
}

#[test]
fn a_cache_made_in_a_worker_is_in_no_list() {
    assert_survives_a_cache_of_a_worker(&Host::start(&format!("{CACHE}\nworkers = 1")), "None");
}

#[test]
fn a_library_that_an_application_loads_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("libucache.so");
    fs::copy(library(), &copy).unwrap();
    let copy = format!("{:?}", copy.display().to_string());
    for plugins in [Setup::default().plugins, "plugin = python3"] {
        let host = Setup { plugins, ..Setup::default() }.start(&format!("{CACHE}\nworkers = 1"));
        assert_survives_a_cache_of_a_worker(&host, &copy);
    }
}
