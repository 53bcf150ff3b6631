//! The C interfaces: a program of `tests/c`, against each server.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::backend::{Server, programs};

/// The library as cargo built it for this very test run: beside the test's own executable.
fn library() -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    let dir = exe.parent().expect("a directory around the test");
    let places = [dir, dir.parent().expect("a directory around deps")].map(|dir| dir.join("libucache.so"));
    places.into_iter().find(|path| path.exists()).expect("libucache.so: run `cargo build`")
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; run .ci/deps all"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

#[test]
fn programs_in_c() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("a directory");
    let (program, library) = (dir.path().join("backend"), library());
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c99", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"]);
    gcc.arg(root.join("include")).arg(root.join("tests/c/backend.c")).arg("-o").arg(&program).arg(&library);
    succeed(&mut gcc);
    std::os::unix::fs::symlink(&library, dir.path().join("libucache.so.0")).expect("a link");
    for server in programs() {
        let server = Server::with(&server, 0, &[]);
        succeed(Command::new(&program).env("LD_LIBRARY_PATH", dir.path()).arg(server.url()));
    }
}
