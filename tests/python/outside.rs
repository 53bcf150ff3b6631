//! Without a uWSGI.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use super::{environment, install, root, succeed, wheel};

fn pytest(environment: &Path, files: &[&str]) -> String {
    let servers = root().join(".build/servers/valkey-9.1");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "300"]).arg(environment.join("bin/python3"));
    command.args(["-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]);
    if servers.exists() {
        command.env("UCACHE_TEST_SERVER", servers);
    }
    command.env("UCACHE_DJANGO_TESTS", super::environment().join("sources/tests"));
    let text = succeed(command.args(files.iter().map(|file| format!("tests/python/{file}"))));
    assert!(text.contains(" passed"), "{text}");
    text
}

#[test]
fn the_package_does_what_it_says() {
    wheel();
    pytest(&environment(), &["test_core.py", "test_filling.py", "test_around.py", "test_libraries.py"]);
}

#[test]
fn djangos_own_tests_pass() {
    wheel();
    let text = pytest(&environment(), &["test_django.py"]);
    assert!(!text.contains("skipped"), "{text}");
}

#[test]
fn the_example_of_the_readme_runs() {
    wheel();
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let example = readme.split("```python\n").nth(2).and_then(|rest| rest.split("```").next());
    let example = example.expect("the second example in Python");
    let shown = format!("{example}print(page, cache.number('visits'), cache.get_many(['index']))\n");
    let text = succeed(Command::new(environment().join("bin/python3")).args(["-c", &shown]));
    assert_eq!(text.trim(), "<h1>index</h1> 1 {'index': '<h1>index</h1>'}");
}

/// The interpreters from 3.9 on, other than the environment's own: one of each version.
fn interpreters() -> BTreeMap<String, PathBuf> {
    let versions = Command::new("pyenv").arg("root").output().ok().filter(|output| output.status.success());
    let root = versions.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let mut programs: Vec<PathBuf> = (9..20).map(|minor| format!("python3.{minor}").into()).collect();
    programs.push("python3".into());
    if let Some(entries) = root.and_then(|root| root.join("versions").read_dir().ok()) {
        programs.extend(entries.filter_map(|entry| Some(entry.ok()?.path().join("bin/python3"))));
    }
    let version = "import sys; assert sys.version_info >= (3, 9); print(sys.version.split()[0])";
    let mut found = BTreeMap::new();
    for program in programs {
        let asked = Command::new(&program).args(["-c", version]).output();
        if let Some(output) = asked.ok().filter(|output| output.status.success()) {
            found.insert(String::from_utf8_lossy(&output.stdout).trim().to_owned(), program);
        }
    }
    found
}

#[test]
fn the_wheel_works_in_fresh_environments_of_every_interpreter() {
    let (wheel, found) = (wheel(), interpreters());
    assert!(!found.is_empty(), "no Python from 3.9 on");
    thread::scope(|scope| {
        for (version, program) in &found {
            scope.spawn(move || {
                let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("venv-{version}"));
                if !fresh.join("bin/pytest").exists() {
                    succeed(Command::new(program).args(["-m", "venv", "--clear"]).arg(&fresh));
                    install(&fresh, &["pytest"]);
                }
                install(&fresh, &[wheel.to_str().expect("UTF-8")]);
                pytest(&fresh, &["test_core.py", "test_filling.py"]);
            });
        }
    });
}

#[test]
fn the_containerfile_passes_its_linter() {
    succeed(Command::new(environment().join("bin/hadolint")).arg("examples/Containerfile"));
}

#[test]
fn the_sources_pass_the_type_checker_and_the_linter() {
    let tool = |name: &str| environment().join("bin").join(name);
    let in_package = |command: &mut Command, paths: &[&str]| {
        command.args(paths);
        succeed(command)
    };
    let config = root().join("src/python/pyproject.toml");
    let mut ruff = Command::new(tool("ruff"));
    in_package(ruff.args(["check", "--no-cache", "--config"]).arg(&config), &["src/python/package"]);
    let mut format = Command::new(tool("ruff"));
    let package = ["src/python/package"];
    in_package(format.args(["format", "--check", "--no-cache", "--config"]).arg(&config), &package);
    let mut mypy = Command::new(tool("mypy"));
    mypy.args(["--strict", "--cache-dir=/dev/null", "--python-executable"]).arg(tool("python3"));
    in_package(mypy.arg("--config-file").arg(&config), &["src/python/package/ucache"]);
    // A program that uses the package sees its types.
    let dir = tempfile::tempdir().expect("a temporary directory");
    wheel();
    let check = |text: &str| {
        let file = dir.path().join("program.py");
        std::fs::write(&file, text).expect("a file");
        let mut mypy = Command::new(tool("mypy"));
        mypy.args(["--strict", "--cache-dir=/dev/null", "--python-executable"])
            .arg(tool("python3"))
            .arg(&file);
        mypy.current_dir(dir.path()).output().expect("mypy runs")
    };
    let fine = "import ucache\nn: int = ucache.open('c', items=5).incr('k', 2)\n";
    let output = check(fine);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let wrong = check("import ucache\nucache.open('c').incr('k', 'two')\n");
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("arg-type"), "{wrong:?}");
}
