//! The examples work as described.

use std::{env, process::Command};

/// Runs an example and returns its output. `cargo run` would rebuild the library with other
/// features, replacing the one that the tests of the plugin load.
fn run(name: &str) -> String {
    let test = env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("<target>/<profile>/deps/<test>");
    let example = profile.join("examples").join(name);
    let output = Command::new(&example)
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}; `cargo test` without `--test` builds it", example.display()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("the examples print text")
}

#[test]
fn rust_basic() {
    let output = run("rust_basic");
    for line in ["lang = fr", "visits = 1", "visits = 42", "motto = never lock a reader", "5 of 100 items"] {
        assert!(output.contains(line), "{line:?} in\n{output}");
    }
    assert_eq!(output.matches("rendering /index").count(), 1, "{output}");
}

#[test]
fn two_processes() {
    let output = run("two_processes");
    assert!(output.contains("worker: hello from the server"), "{output}");
    assert!(output.contains("server: hello from process"), "{output}");
    assert!(output.contains("counter = 20000 of 20000"), "{output}");
}
