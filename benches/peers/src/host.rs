//! A real uWSGI, its own cache or ucache behind the same functions, timed by a plugin that is
//! compiled here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::server::Server;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavor {
    Native,
    Ucache,
}

pub(crate) const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

/// Both, in the order of a round: they take turns at going first, since a machine may be faster or
/// slower for who comes second.
pub(crate) fn turns(round: usize) -> [Flavor; 2] {
    let [first, second] = BOTH;
    if round.is_multiple_of(2) { [first, second] } else { [second, first] }
}

fn program() -> String {
    std::env::var("UWSGI_BIN").unwrap_or_else(|_| "uwsgi".into())
}

fn said(argument: &str) -> String {
    let output = Command::new(program()).arg(argument).output().expect("uwsgi runs (`.ci/deps bench`)");
    String::from_utf8(output.stdout).expect("text")
}

/// What every server of a run is started with.
pub(crate) struct Rig {
    dir: TempDir,
}

/// What one worker said of one phase.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) operations: f64,
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// Figures of all workers by phase.
pub(crate) type Figures = BTreeMap<String, Vec<Figure>>;

impl Rig {
    /// Compiles the plugin against the uWSGI that will run it.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("uwsgi.h"), said("--dot-h")).expect("the header is written");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bench_plugin.c");
        // The flags quote for a shell.
        let compile =
            format!("gcc -O2 -fPIC -shared {} -w -I. \"$0\" -o bench_plugin.so -lm", said("--cflags").trim());
        let done = Command::new("sh").args(["-c", &compile, source]).current_dir(dir.path()).status();
        assert!(done.expect("sh runs").success(), "the plugin does not compile");
        // `make plugin` built it; the Makefile says where.
        let built = std::env::var("UCACHE_PLUGIN").expect("UCACHE_PLUGIN names ucache_plugin.so");
        let built = fs::canonicalize(built).expect("ucache_plugin.so is there: `make build`");
        std::os::unix::fs::symlink(built, dir.path().join("ucache_plugin.so")).expect("a symlink");
        Self { dir }
    }

    /// A server whose workers serve requests, started.
    pub(crate) fn serve(&self, flavor: Flavor, lines: &str) -> Server {
        self.spawn(flavor, lines, &[]).0
    }

    fn spawn(&self, flavor: Flavor, lines: &str, environment: &[(&str, String)]) -> (Server, PathBuf) {
        let plugin = if flavor == Flavor::Ucache { "need-plugin = ucache\n" } else { "" };
        let server = Server::spawn(|dir| {
            let ini = format!(
                "[uwsgi]\nplugins-dir = {}\n{plugin}master = true\nno-orphans = true\n\
                 disable-logging = true\n{lines}\n",
                self.dir.path().display()
            );
            fs::write(dir.join("uwsgi.ini"), ini).expect("the configuration is written");
            let start = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
            let mut command = Command::new(program());
            command.arg("--ini").arg(dir.join("uwsgi.ini")).current_dir(dir);
            command.env("BENCH_OUT", dir.join("out"));
            command.env("BENCH_T0", format!("{}{:09}", start.tv_sec(), start.tv_nsec()));
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command
        });
        let out = server.dir.path().join("out");
        (server, out)
    }

    /// Runs a server to its end in this mode of the plugin; what its workers said.
    pub(crate) fn run(
        &self,
        flavor: Flavor,
        mode: &str,
        lines: &str,
        environment: &[(&str, String)],
    ) -> Figures {
        let mut all = environment.to_vec();
        all.push(("BENCH_MODE", mode.to_owned()));
        let socket = "plugin = bench\nsocket = bench.socket\n".to_owned();
        let (mut server, out) = self.spawn(flavor, &(socket + lines), &all);
        server.join();
        let figures = read(&out);
        let bad = figures.get("bad").map(|bad| bad[0].operations);
        assert_eq!(bad, Some(0.0), "{flavor:?}: operations failed:\n{}", server.log());
        let taken = server.log().contains("[ucache]");
        assert!(taken || flavor == Flavor::Native, "ucache is not in force:\n{}", server.log());
        figures
    }
}

fn read(out: &Path) -> Figures {
    let mut figures = Figures::new();
    for line in fs::read_to_string(out).unwrap_or_default().lines() {
        let parts: Vec<_> = line.split('\t').collect();
        let number = |at: usize| parts[at].parse::<f64>().expect("a number of the plugin");
        let figure = Figure { operations: number(2), wall: number(3), cpu: number(4) };
        figures.entry(parts[0].to_owned()).or_default().push(figure);
    }
    figures
}
