//! The table of surfaces names existing tests, described differences, and every test that belongs
//! to it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::server::root;

/// Files whose every test is in the table.
const WHOLE: [&str; 3] = ["tests/surfaces", "tests/plugin_routes.rs", "tests/plugin_languages.rs"];

/// The Rust files in and under a path.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return if path.extension().is_some_and(|e| e == "rs") { vec![path.to_owned()] } else { Vec::new() };
    }
    let entries = fs::read_dir(path).expect("a directory can be read");
    entries.flat_map(|entry| sources(&entry.expect("an entry").path())).collect()
}

/// The names of the tests in and under a path.
fn tests(path: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources(path) {
        let text = fs::read_to_string(source).expect("a source is UTF-8");
        let after = text.split("#[test]\n").skip(1).filter_map(|rest| rest.trim_start().strip_prefix("fn "));
        found.extend(after.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
    }
    found
}

/// The parts of a text between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_surface_has_a_test_and_a_result() {
    let compat = fs::read_to_string(root().join("src/docs/compat.md")).expect("the page is there");
    let (_, rest) =
        compat.split_once("\n| surface | tested by | result |\n|---|---|---|\n").expect("the table");
    let rows: Vec<_> = rest.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    let there = tests(&root().join("tests"));
    let mut named = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, by, result] = cells[..] else { panic!("not three cells: {row}") };
        let by = quoted(by);
        assert!(!by.is_empty(), "no test: {row}");
        for test in &by {
            let known = match test.strip_prefix("sessions/") {
                Some(session) => root().join(format!("tests/sessions/{session}.txt")).exists(),
                None => there.contains(test),
            };
            assert!(known, "no test {test}: {row}");
        }
        named.extend(by);
        let described = |number: &str| compat.contains(&format!("\n# {number}: "));
        assert!(result == "same" || result.split(' ').all(described), "{row}");
    }
    let mut missing: BTreeSet<String> = WHOLE.iter().flat_map(|path| tests(&root().join(path))).collect();
    missing.extend(fs::read_dir(root().join("tests/sessions")).expect("sessions").map(|entry| {
        let path = entry.expect("an entry").path();
        format!("sessions/{}", path.file_stem().expect("a name").to_string_lossy())
    }));
    missing.remove("every_surface_has_a_test_and_a_result");
    missing.retain(|test| !named.contains(test));
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}
