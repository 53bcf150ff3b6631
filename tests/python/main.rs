//! The Python package: its wheel in fresh environments of every interpreter of this machine, its
//! tests outside a uWSGI and inside one, and the checkers of its sources.
#![cfg(feature = "uwsgi")]

mod inside;
mod outside;

#[path = "../support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/server.rs"]
mod server;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use server::root;

/// The environment with the package and what its tests need, for Debian's Python.
fn environment() -> PathBuf {
    let environment = root().join(".build/python");
    assert!(environment.join("bin/maturin").exists(), "no {}: `make deps` makes it", environment.display());
    environment
}

/// Runs a command that must succeed; returns what it prints.
fn succeed(command: &mut Command) -> String {
    let output = command
        .current_dir(root())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("PYTHONPATH")
        .env_remove("VIRTUAL_ENV")
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text.into_owned()
}

/// The wheel of the current sources, installed in the environment. Without the slow optimisations of
/// a release.
fn wheel() -> &'static Path {
    static WHEEL: OnceLock<PathBuf> = OnceLock::new();
    WHEEL.get_or_init(|| {
        let wheels = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wheels");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        succeed(
            Command::new("make")
                .args(["-s", "wheel"])
                .arg(format!("WHEELS={}", wheels.display()))
                .arg(format!("WHEEL_TARGET={}", target.display()))
                .envs([("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")]),
        );
        let mut made = fs::read_dir(&wheels).expect("the wheels").map(|entry| entry.expect("a file").path());
        let wheel = made.find(|path| path.extension().is_some_and(|e| e == "whl")).expect("a wheel");
        install(&environment(), &[wheel.to_str().expect("UTF-8")]);
        wheel
    })
}

/// Installs packages with the environment's pip; a wheel replaces the one before.
fn install(environment: &Path, packages: &[&str]) {
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let wheel = packages.iter().any(|package| package.ends_with(".whl"));
    let again: &[&str] = if wheel { &["--force-reinstall", "--no-deps"] } else { &[] };
    succeed(Command::new(environment.join("bin/python3")).args(pip).args(again).args(packages));
}
