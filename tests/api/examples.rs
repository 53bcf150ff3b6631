//! The examples do what they say.

use std::{env, process::Command};

/// Runs an example and returns its output.
fn run(name: &str) -> String {
    let target = env::current_exe().expect("the path of this test");
    let target = target.ancestors().nth(3).expect("<target>/<profile>/deps/<test>");
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--offline", "--example", name, "--manifest-path"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).arg("--target-dir").arg(target);
    let output = command.output().expect("cargo starts");
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
