//! A process whose wall clock can be set, through the preloaded library of `clock_steps.c`.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{fs, path::Path, process::Command};

/// A command that runs `test` of this program again under such a clock, `seconds` ahead (0 =
/// alternately an hour ahead and behind). The returned directory holds the library and the clock's
/// file, and must outlive the command.
pub(crate) fn beside_such_a_clock(test: &str, seconds: i64) -> (Command, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let (shim, clock) = (dir.path().join("clock_steps.so"), dir.path().join("clock"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock_steps.c");
    let built = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).status();
    assert!(built.expect("gcc is there (apt-get install gcc)").success());
    fs::write(&clock, seconds.to_ne_bytes()).expect("a file");
    let mut again = Command::new(std::env::current_exe().expect("a test has a file"));
    again.args(["--exact", test, "--nocapture"]).env("LD_PRELOAD", &shim).env("UCACHE_CLOCK", &clock);
    (again, dir)
}

/// Runs `test` again under such a clock, with these variables in its environment.
///
/// # Panics
/// If it does not pass there.
pub(crate) fn pass_beside_such_a_clock(test: &str, seconds: i64, variables: &[(&str, &str)]) {
    let (mut again, _dir) = beside_such_a_clock(test, seconds);
    let done = again.envs(variables.iter().copied()).output().expect("this very program");
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{}: {said}", done.status);
}
