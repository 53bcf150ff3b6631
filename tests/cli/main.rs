//! Tests of the command `ucache` with real processes, store files, servers, a terminal and Redis.

#[cfg(feature = "redis")]
mod backend;
#[cfg(feature = "redis")]
#[path = "../support/backend.rs"]
mod backend_server;
mod bad_input;
mod check;
mod items;
#[path = "../remote/native.rs"]
#[allow(dead_code, reason = "shared with the tests of the remote half, which use all of it")]
mod native;
mod pages;
#[path = "../support/patience.rs"]
mod patience;
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
use ucache::{Cache, Eviction, Expires};

/// The command that cargo built for these tests, without a terminal.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ucache"));
    command.stdin(Stdio::null()).env_remove("COLUMNS").env_remove("LINES").env_remove("NO_COLOR");
    command
}

/// The result of a run.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        // Every error has a message.
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

    /// Checks the exit status and that standard output is empty; returns the message.
    #[track_caller]
    fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        self.err
    }
}

/// Runs the command with these arguments.
fn ucache<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    command().args(args).output().expect("the command starts").into()
}

/// Runs the command with this standard input.
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

/// A store of 1,000 items in its own directory.
struct Store {
    dir: TempDir,
    cache: Cache,
}

impl Store {
    /// `name` must be unique among the tests.
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::builder(name).items(1000).evict(Eviction::Lru).timeout(Expires::Never);
        let cache = cache.store(dir.path().join("store")).build().expect("a store");
        Self { dir, cache }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Runs a command on it: the store's path is inserted after the first word.
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
