//! Every way to reach a cache inside uWSGI, on uWSGI's own cache and on ucache: the table of
//! surfaces in `src/docs/compat.md` names these tests.

#[path = "../support/patience.rs"]
mod patience;
#[path = "../support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/server.rs"]
mod server;

mod actions;
mod definitions;
mod foreign;
mod options;
mod processes;
mod reloads;
mod roles;
mod routers;
mod table;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    panic::resume_unwind,
    path::Path,
    thread,
    time::Duration,
};

use patience::within;
use server::{Answer, Flavor, Server};

/// Runs a test on uWSGI's own cache and on ucache concurrently: it mostly waits for time to pass.
fn on_both<T: Send>(test: impl Fn(Flavor) -> T + Sync) -> [T; 2] {
    thread::scope(|scope| {
        let runs = [Flavor::Native, Flavor::Ucache].map(|flavor| {
            let test = &test;
            scope.spawn(move || test(flavor))
        });
        runs.map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

fn get(server: &Server, path: &str) -> Answer {
    server.ask(1, "GET", path, "").unwrap_or_else(|e| panic!("{path}: {e}\n{}", server.log()))
}

/// A request in uWSGI's own protocol, and the whole answer.
fn uwsgi_request(socket: &Path, vars: &[(&str, &str)]) -> Vec<u8> {
    let short = |text: &str| u16::try_from(text.len()).expect("a short text").to_le_bytes();
    let mut body = Vec::new();
    for (name, value) in vars {
        body.extend([&short(name), name.as_bytes(), &short(value), value.as_bytes()].concat());
    }
    let [low, high] = u16::try_from(body.len()).expect("a short request").to_le_bytes();
    exchange(socket, &[&[0, low, high, 0], &body[..]].concat())
}

/// The whole answer to `bytes`; empty if the peer closes.
fn exchange(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let Ok(mut stream) = UnixStream::connect(socket) else { return answer };
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    stream.write_all(bytes).expect("a request can be sent");
    // a reset counts as an answer, too
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// An ini file with these lines, with `{dir}` for the server's directory, run unchanged.
fn spawn(flavor: Flavor, workers: usize, lines: &str) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let lines = lines.replace("{dir}", &dir.path().display().to_string());
    let text = format!("[uwsgi]\n{}pidfile = {}/pid\n{lines}\n", plugin_lines(flavor), dir.path().display());
    Server::spawn(dir, &text, workers)
}

/// Loads the plugin, or nothing.
fn plugin_lines(flavor: Flavor) -> String {
    match flavor {
        Flavor::Native => String::new(),
        Flavor::Ucache => {
            let plugins = server::Build::Installed.plugins();
            format!("plugins-dir = {}\nplugin = ucache\n", plugins.display())
        }
    }
}

/// Lines for an application that runs code sent to it, without the virtual environment as Python's
/// home.
fn probe_lines() -> String {
    let root = server::root().display();
    let packages = std::fs::read_dir(server::venv().join("lib")).expect("the environment is there").flatten();
    let paths: String =
        packages.map(|at| format!("pythonpath = {}/site-packages\n", at.path().display())).collect();
    format!(
        "plugin = python3\n{paths}pythonpath = {root}/tests/support\npythonpath = {root}/tests/surfaces\n\
         module = probe\nneed-app = true\n"
    )
}

/// Waits until a worker answers.
fn await_worker(server: &Server, worker: usize) {
    within("an answer", || server.run(worker, "1 + 1") == "2");
}
