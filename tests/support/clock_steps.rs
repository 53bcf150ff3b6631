//! A process whose wall clock is set: by the library that `clock_steps.c` makes, loaded before it.

use std::{fs, path::Path, process::Command};

/// This very program, to run its `test` again beside such a clock, `seconds` ahead (0 = an hour ahead and behind by turns); and
/// the directory of the library and of the clock's file, which must stay meanwhile.
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
