//! `make fleet`: a cluster and three machines, and the page that shows them.

use std::{
    fs::{self, File},
    path::Path,
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
    /// Removed with it, should its program be killed.
    _files: tempfile::TempDir,
    port: u16,
}

/// A process, and when it began: another one may get its number later.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    name: String,
    began: String,
}

impl Process {
    /// `None` = it has ended, whether its parent knows or not.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let words: Vec<_> = rest.split(' ').collect();
        let (parent, began) = (words.get(1)?.parse().ok()?, (*words.get(19)?).to_owned());
        (words[0] != "Z").then_some(Self { pid, parent, name: name.to_owned(), began })
    }

    fn all() -> Vec<Self> {
        let names = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.file_name());
        names.filter_map(|name| Self::of(name.to_str()?.parse().ok()?)).collect()
    }

    fn is_there(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.began == self.began)
    }
}

/// Ports, and the same by commas.
fn free_ports<const N: usize>() -> ([u16; N], String) {
    let ports = std::array::from_fn(|_| free_port());
    (ports, ports.map(|port| port.to_string()).join(","))
}

impl Fleet {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // In memory if it can be, as by default.
        let memory = Some(Path::new("/dev/shm")).filter(|memory| memory.is_dir());
        let files = tempfile::Builder::new().prefix("uf").tempdir_in(memory.unwrap_or(dir.path()));
        let files = files.expect("a directory for the nodes");
        let (ports, of_machines) = free_ports::<4>();
        let (_, of_nodes) = free_ports::<12>();
        let output = File::create(dir.path().join("output")).expect("a file");
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=INT", "--kill-after=20", "240", "python3"]);
        command.arg(root().join("examples/fleet/run.py"));
        command.args(["--ports", &of_machines, "--nodes", &of_nodes]);
        command.arg("--dir").arg(files.path());
        command.arg("--uwsgi").arg(Build::Installed.uwsgi());
        command.arg("--plugins").arg(Build::Installed.plugins());
        command.arg("--log").arg(dir.path().join("log"));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a copy")).stderr(output);
        let process = command.spawn().expect("timeout and python3 run");
        let fleet = Self { process, dir, _files: files, port: ports[0] };
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

    /// All processes that it has started, and theirs.
    fn processes(&self) -> Vec<Process> {
        let (all, mut found) = (Process::all(), Vec::new());
        let mut parents = vec![self.process.id()];
        while let Some(parent) = parents.pop() {
            let children = all.iter().filter(|process| process.parent == parent);
            parents.extend(children.clone().map(|process| process.pid));
            found.extend(children.cloned());
        }
        found
    }

    /// Waits until the cluster and the machines are there: `timeout`'s Python, six nodes, and three
    /// masters with two workers each.
    fn all_processes(&self) -> Vec<Process> {
        within("all processes", || self.processes().len() == 1 + 6 + 3 * 3);
        self.processes()
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

/// Waits until they have ended.
fn all_end(processes: &[Process]) {
    let left = || processes.iter().filter(|process| process.is_there()).collect::<Vec<_>>();
    let ended = poll(PATIENCE, || left().is_empty().then_some(())).is_some();
    assert!(ended, "left: {:?}", left());
}

#[test]
fn the_page_of_the_fleet_works_in_a_browser() {
    let mut fleet = Fleet::start();
    let address = format!("http://127.0.0.1:{}/", fleet.port);
    in_browser("fleet.py", &[&address], || fleet.log());
    let all = fleet.all_processes();
    assert!(fleet.interrupt(), "it does not end\n{}", fleet.log());
    all_end(&all);
}

/// Nobody is there to end them, and a process that is stopped takes no signal but one.
#[test]
fn a_fleet_that_is_killed_leaves_no_process() {
    let fleet = Fleet::start();
    let stopped = http(fleet.port, "POST", "/stop", "node=2&on=1").expect("an answer");
    assert_eq!(stopped.status, 200, "{}", stopped.body);
    let all = fleet.all_processes();
    let python = all.iter().find(|process| process.parent == fleet.process.id()).expect("its program");
    kill(Pid::from_raw(i32::try_from(python.pid).expect("a pid")), Signal::SIGKILL).expect("killed");
    all_end(&all);
}
