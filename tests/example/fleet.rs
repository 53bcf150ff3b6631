//! `make fleet`: a server and three machines, and the page that shows them.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    in_browser,
    patience::{PATIENCE, poll, within},
    ports::free_port,
    server::{Build, http, root},
};

/// A running `make fleet`, ended by a SIGINT as from Ctrl-C.
struct Fleet {
    process: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Fleet {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ports: [u16; 4] = std::array::from_fn(|_| free_port());
        let output = File::create(dir.path().join("output")).expect("a file");
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=INT", "--kill-after=20", "240", "python3"]);
        command.arg(root().join("examples/fleet/run.py"));
        command.arg("--ports").arg(ports.map(|port| port.to_string()).join(","));
        command.arg("--uwsgi").arg(Build::Installed.uwsgi());
        command.arg("--plugins").arg(Build::Installed.plugins());
        command.arg("--log").arg(dir.path().join("log"));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a copy")).stderr(output);
        let process = command.spawn().expect("timeout and python3 run");
        let fleet = Self { process, dir, port: ports[0] };
        within("three machines answer", || {
            fleet.state().is_some_and(|state| {
                state["machines"].as_array().is_some_and(|all| all.iter().all(|m| !m["seen"].is_null()))
            })
        });
        fleet
    }

    fn state(&self) -> Option<Value> {
        serde_json::from_str(&http(self.port, "GET", "/state", "").ok()?.body).ok()
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        format!("{}\n{}", read("output"), read("log"))
    }

    /// Processes of this fleet: their commands name its files.
    fn processes(&self) -> Vec<PathBuf> {
        let log = fs::read_to_string(self.dir.path().join("log")).expect("the log");
        let pids = log.lines().filter_map(|line| line.strip_prefix("spawned uWSGI master process (pid: "));
        pids.map(|rest| PathBuf::from("/proc").join(rest.trim_end_matches(')'))).collect()
    }

    /// Ends it as a person does; `false` = it does not end.
    fn interrupt(&mut self) -> bool {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Passed on to Python.
            let _ = kill(pid, Signal::SIGINT);
        }
        poll(PATIENCE, || self.process.try_wait().transpose()).is_some()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.interrupt();
    }
}

#[test]
fn the_page_of_the_fleet_works_in_a_browser() {
    let mut fleet = Fleet::start();
    let address = format!("http://127.0.0.1:{}/", fleet.port);
    in_browser("fleet.py", &[&address], || fleet.log());
    let masters = fleet.processes();
    assert!(masters.len() == 3 && masters.iter().all(|process| process.exists()), "{masters:?}");
    assert!(fleet.interrupt(), "it does not end\n{}", fleet.log());
    within("all end with it", || !masters.iter().any(|process| process.exists()));
}
