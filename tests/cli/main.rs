//! The command `ucache`, as people and scripts meet it: real processes, store files, servers, a terminal, Redis.

mod bad_input;
mod check;
mod items;
#[path = "../remote/native.rs"]
#[allow(dead_code, reason = "shared with the tests of the remote half, which use all of it")]
mod native;
mod pages;
#[path = "../support/ports.rs"]
mod ports;
mod server;
mod transfer;
mod watch;

use std::{
    ffi::OsStr,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use tempfile::TempDir;
use ucache::{Cache, Expires};

/// The command as cargo built it for these tests, on nobody's terminal.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ucache"));
    command.stdin(Stdio::null()).env_remove("COLUMNS").env_remove("LINES").env_remove("NO_COLOR");
    command
}

/// What a run came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        // Whatever goes wrong, it is said in words.
        assert!(!err.contains("panicked"), "{err}");
        Self { code: output.status.code(), out: output.stdout, err }
    }
}

impl Ran {
    /// The output of a command that must succeed, as text.
    #[track_caller]
    fn text(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        String::from_utf8(self.out).expect("text")
    }

    /// Checks the exit status and that nothing is on standard output; returns what was said.
    #[track_caller]
    fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        self.err
    }
}

/// Runs the command with these words behind its name.
fn ucache<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    command().args(args).output().expect("the command starts").into()
}

/// Runs the command with this as its standard input.
fn ucache_with<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Ran {
    let mut command = command();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    thread::scope(|scope| {
        scope.spawn(move || {
            // A command that needs no more input closes the pipe.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().expect("the command ends").into()
    })
}

/// A store of 1,000 items in a directory of its own.
struct Store {
    dir: TempDir,
    cache: Cache,
}

impl Store {
    /// `name` must be no other test's.
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::builder(name).items(1000).purge_lru(true).timeout(Expires::Never);
        let cache = cache.store(dir.path().join("store")).build().expect("a store");
        Self { dir, cache }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Runs a command on it: the store's path goes behind the first word.
    fn run(&self, args: &[&str]) -> Ran {
        let path = self.path();
        let (first, rest) = args.split_first().expect("a command");
        ucache([OsStr::new(first), path.as_os_str()].into_iter().chain(rest.iter().map(OsStr::new)))
    }

    fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let path = self.path();
        let (first, rest) = args.split_first().expect("a command");
        ucache_with(
            [OsStr::new(first), path.as_os_str()].into_iter().chain(rest.iter().map(OsStr::new)),
            input,
        )
    }
}
