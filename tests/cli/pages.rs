//! Completions, manual pages, help.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::ucache;

#[test]
fn completions_for_every_shell() {
    for (shell, part) in [
        ("bash", "complete -F _ucache"),
        ("zsh", "#compdef ucache"),
        ("fish", "complete -c ucache"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = ucache(["completions", shell]).text();
        assert!(script.contains(part), "{shell}");
    }
    let script = ucache(["completions", "bash"]).text();
    let mut bash = Command::new("bash");
    let asked = format!(
        "{script}\nCOMP_WORDS=(ucache st); COMP_CWORD=1; _ucache ucache st ucache; echo \"${{COMPREPLY[*]}}\""
    );
    let output = bash.args(["-c", &asked]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "stat\n");
}

#[test]
fn manual_pages() {
    let one = ucache(["man"]).text();
    for part in [".TH ucache 1", "Exit status", "NAME@ADDRESS", "ucache\\-dump"] {
        assert!(one.contains(part), "{part:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    ucache(["man", "--dir", folder.to_str().unwrap()]).text();
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(
        names.contains(&"ucache.1".to_owned()) && names.contains(&"ucache-load.1".to_owned()),
        "{names:?}"
    );
    assert_eq!(names.len(), 26, "{names:?}");
    let page = fs::read_to_string(folder.join("ucache-touch.1")).unwrap();
    assert!(page.contains("ucache\\-touch") && page.contains("12h"), "{page}");
}

#[test]
fn help_tells_the_exit_status_of_each_failure() {
    let help = ucache(["--help"]).text();
    for status in
        ["0 done", "1 no", "2 wrong", "3 the target", "4 the cache", "5 reading", "6 the target", "141"]
    {
        assert!(
            help.split_whitespace().collect::<Vec<_>>().join(" ").contains(status),
            "{status:?} in\n{help}"
        );
    }
    assert!(help.contains("Looks into caches"));
    assert_eq!(ucache(["--version"]).text(), format!("ucache {}\n", env!("CARGO_PKG_VERSION")));
}

/// The Rust files below a directory, as one text.
fn rust_below(directory: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn each_request_has_an_answer_and_a_test_that_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/docs/requests.md")).unwrap();
    let sources = [rust_below(&root.join("src")), rust_below(&root.join("tests"))].concat();
    let mut rows = 0;
    for line in page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| who")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [who, says, answer, tests] = cells[..] else { panic!("{line}") };
        assert!(!who.is_empty() && !says.is_empty() && !answer.is_empty(), "{line}");
        assert!(!tests.is_empty() || answer.starts_with("*no*: "), "neither a test nor a reason: {line}");
        for test in tests.split('`').skip(1).step_by(2) {
            let exists = match test.strip_prefix("sessions/") {
                Some(name) => root.join(format!("tests/sessions/{name}.txt")).is_file(),
                None => sources.contains(&format!("fn {test}(")),
            };
            assert!(exists, "no test {test}: {line}");
        }
        rows += 1;
    }
    assert!(rows >= 40, "{rows} rows");
}
