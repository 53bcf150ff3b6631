//! The public test suite of HTTP caches (cache-tests.fyi, from npm), against uWSGI with `ucache:` and
//! against nginx with `proxy_cache`, before the same origin server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;

use super::{
    patience::within,
    ports::free_port,
    server::{Build, Flavor, Server, root},
};

/// Statuses that the suite expects to be stored if they are said to be fresh.
const STATUSES: &str = "200 203 204 299 300 301 302 303 307 308 400 404 405 410 414 499 500 502 503 504 599";

/// Required ones that fail: `src/docs/pages.md` says why.
const ARGUED: [&str; 7] = [
    "304-etag-update-response-Set-Cookie",
    "age-parse-prefix",
    "headers-store-Set-Cookie",
    "stale-close-must-revalidate",
    "stale-close-no-cache",
    "stale-close-proxy-revalidate",
    "stale-close-s-maxage=2",
];

/// A program that ends with the test.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("node and nginx are there: `make deps` installs them"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SIGINT, which timeout passes on: nginx ends its worker. It may have ended already.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.0.wait();
    }
}

fn suite() -> PathBuf {
    let suite = root().join(".build/cache-tests/node_modules/http-cache-tests");
    assert!(suite.is_dir(), "no {}: `make deps` fetches it", suite.display());
    suite
}

/// Node in the suite's directory; the suite reads its configuration as npm passes it on.
fn node(port: u16, base: &str, id: &str, at: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=INT", "--kill-after=5", "150", "node", "--no-warnings"]).current_dir(suite());
    for (name, value) in [
        ("protocol", "http"),
        ("port", port.to_string().as_str()),
        ("base", base),
        ("id", id),
        ("pidfile", at.join("origin.pid").to_str().expect("UTF-8")),
    ] {
        command.env(format!("npm_config_{name}"), value).env(format!("npm_package_config_{name}"), value);
    }
    command
}

fn nginx(at: &Path, port: u16, origin: u16) -> Program {
    let dir = at.display();
    let conf = format!(
        "daemon off; pid {dir}/pid; error_log {dir}/log; worker_processes 1; events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;\n\
         uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5; proxy_cache_path {dir}/cache keys_zone=p:10m;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache p;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_cache_revalidate on; }} }} }}\n"
    );
    fs::write(at.join("nginx.conf"), conf).expect("the configuration can be written");
    let mut command = Command::new("timeout");
    command.args(["--signal=INT", "--kill-after=5", "150", "nginx", "-p"]).arg(at).arg("-c");
    Program::start(command.arg(at.join("nginx.conf")))
}

/// Name and outcome of each test.
fn run(origin: u16, port: u16, at: &Path) -> BTreeMap<String, bool> {
    let out =
        node(origin, &format!("http://127.0.0.1:{port}"), "", at).arg("cli.mjs").output().expect("node runs");
    let all: BTreeMap<String, Value> = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    });
    all.into_iter().map(|(name, outcome)| (name, outcome == Value::Bool(true))).collect()
}

/// Whether a single test passes: alone, and once more if it does not. The suite's times are seconds,
/// which a busy machine may miss when all tests run at once.
fn passes_alone(origin: u16, port: u16, id: &str, at: &Path) -> bool {
    (0..3).any(|_| {
        let mut one = node(origin, &format!("http://127.0.0.1:{port}"), id, at);
        let out = one.arg("cli.mjs").output().expect("node runs");
        let text = String::from_utf8_lossy(&out.stdout);
        // The last line is the outcome and, of a failure, the reason.
        text.trim().lines().next_back().is_some_and(|line| line.trim_end().ends_with('-'))
    })
}

/// Which tests are requirements, which are what a good cache does, which only find out.
fn kinds(origin: u16, at: &Path) -> BTreeMap<String, String> {
    let source = format!(
        "import suites from '{}/tests/index.mjs'; const out = {{}}; for (const s of suites) for (const t of s.tests) \
         if (!t.browser_only) out[t.id] = t.kind || 'required'; console.log(JSON.stringify(out))",
        suite().display()
    );
    let out =
        node(origin, "", "", at).args(["--input-type=module", "-e", &source]).output().expect("node runs");
    serde_json::from_slice(&out.stdout).expect("JSON")
}

#[test]
fn the_public_cases_pass_as_often_as_with_nginx() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // nginx's worker may be another user.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let (origin, ours, theirs) = (free_port(), free_port(), free_port());
    let listens = |port: u16| within("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let _origin = Program::start(node(origin, "", "", dir.path()).arg("server/server.mjs"));
    listens(origin);
    // The suite's client keeps connections; uWSGI closes them.
    let options = format!(
        "{}env = ORIGIN={origin}\npythonpath = {}/tests/pages\nmodule = proxy\nneed-app = true\nbuffer-size = 32768\n\
         http-socket = 127.0.0.1:{ours}\nadd-header = Connection: close\nlisten = 100\n\
         cache2 = name=pages,items=10000,blocksize=1m\n\
         route = ^/ ucache:name=pages,lock=3,cookies=ignore,status={STATUSES}",
        Build::Installed.python(),
        root().display()
    );
    let server = Server::start_app(Flavor::Ucache, 6, &options);
    let _nginx = nginx(dir.path(), theirs, origin);
    listens(theirs);
    let (mine, other) = thread::scope(|scope| {
        let mine = scope.spawn(|| run(origin, ours, dir.path()));
        let other = run(origin, theirs, dir.path());
        (mine.join().expect("a run"), other)
    });
    let kinds = kinds(origin, dir.path());
    let passed = |outcomes: &BTreeMap<String, bool>, kind: &str| {
        outcomes
            .iter()
            .filter(|(name, passed)| **passed && kinds.get(*name).is_some_and(|k| k == kind))
            .count()
    };
    let mut table = String::new();
    for kind in ["required", "optimal", "check"] {
        let all = kinds.values().filter(|other| *other == kind).count();
        let (ours, theirs) = (passed(&mine, kind), passed(&other, kind));
        table += &format!("{kind}: {ours} of {all}, nginx {theirs}\n");
        // What "check" finds out is neither right nor wrong.
        assert!(ours >= theirs || kind == "check", "{table}\n{}", server.log());
    }
    let failing: BTreeSet<&str> = mine
        .iter()
        .filter(|(name, passed)| !**passed && kinds.get(*name).is_some_and(|kind| kind == "required"))
        .map(|(name, _)| name.as_str())
        .filter(|name| ARGUED.contains(name) || !passes_alone(origin, ours, name, dir.path()))
        .collect();
    for name in &failing {
        let there = if other.get(*name) == Some(&true) { ", not with nginx" } else { "" };
        table += &format!("fails: {name}{there}\n");
    }
    eprintln!("{table}");
    assert!(mine.len() > 300, "{table}");
    assert_eq!(failing, BTreeSet::from(ARGUED), "{table}");
    let page = fs::read_to_string(root().join("src/docs/pages.md")).expect("the page");
    assert!(ARGUED.iter().all(|name| page.contains(&format!("`{name}`"))), "src/docs/pages.md lacks a case");
}
