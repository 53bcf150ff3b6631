//! The project's claims about itself: the minimum Rust version, packages by release of Debian,
//! known bugs, invariants, links between documents.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// `1.88` and `1.88.0` are the same version.
fn version(text: &str) -> [u32; 3] {
    let mut numbers =
        text.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("a version: {text}")));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

const MSRV: &str = env!("CARGO_PKG_RUST_VERSION");

/// Cargo's own check of `rust-version`, for every package of Cargo.lock used on this platform.
/// Clippy checks the standard library's interfaces (`incompatible_msrv`).
#[test]
fn no_dependency_needs_a_newer_rust() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--all-features", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let newer: Vec<_> = packages
        .iter()
        .filter_map(|package| Some((package, package["rust_version"].as_str()?)))
        .filter(|(_, needs)| version(needs) > version(MSRV))
        .map(|(package, needs)| format!("{} {} needs Rust {needs}", package["name"], package["version"]))
        .collect();
    assert!(newer.is_empty(), "{newer:#?}");
    assert!(packages.len() > 50, "only {} packages", packages.len());
}

#[test]
fn one_minimum_rust_version_is_named() {
    for file in ["README.md", "CONTRIBUTING.md", ".ci/deps", ".github/workflows/ci.yml"] {
        let text = read(file);
        let named: Vec<_> = ["Rust ", "toolchain install ", "cargo +"]
            .iter()
            .flat_map(|before| text.split(before).skip(1))
            .filter_map(|rest| rest.split([' ', '\n']).next())
            .filter(|word| word.starts_with("1."))
            .collect();
        assert!(!named.is_empty(), "{file} names no version of Rust");
        assert!(named.iter().all(|name| *name == MSRV), "{file} names {named:?}, Cargo.toml {MSRV}");
    }
}

/// The package names of each release come from its index; this checks that they are distinguished.
#[test]
fn packages_are_named_by_release() {
    let list = |part: &str, release: &str| -> BTreeSet<String> {
        let output = Command::new(root().join(".ci/deps"))
            .args(["--list", part, release])
            .output()
            .expect(".ci/deps runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    };
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
    let (bookworm, trixie) = (list("all", "12"), list("all", "13"));
    assert_eq!(only(&bookworm, &trixie), ["clang-16", "uwsgi-plugin-rack-ruby3.1"]);
    assert_eq!(only(&trixie, &bookworm), ["clang-19", "uwsgi-plugin-ruby"]);
    assert_eq!(list("bench", "12"), list("bench", "13"));
    assert!(list("build", "13").is_subset(&trixie));
}

/// Rows of a table with two columns, below a heading.
fn rows(text: &str, heading: &str) -> Vec<(String, String)> {
    let (_, section) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let table =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Option<(String, String)> {
        let (left, right) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
        Some((left.to_owned(), right.to_owned()))
    };
    table.skip(2).map(|line| cells(line).unwrap_or_else(|| panic!("no row: {line}"))).collect()
}

/// `name`, `test`, `filter`, `case` of every mutation: lines of a small part of TOML.
fn mutations() -> Vec<(String, String)> {
    let text = read("tests/mutations/mutations.toml");
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
        Some(line.strip_suffix('"').expect("one line").to_owned())
    };
    let described = |block: &str| {
        let by = ["filter", "case"].into_iter().filter_map(|key| value(block, key)).collect::<Vec<_>>();
        let test = value(block, "test").expect("a test");
        (value(block, "name").expect("a name"), format!("`{test}` {}", by.join(" ").replace(" --exact", "")))
    };
    text.split("[[mutation]]").skip(1).map(described).collect()
}

/// All of them at once, as `make mutants` puts them.
#[test]
fn every_bug_can_be_put_back() {
    let run = root().join("tests/mutations/run.py");
    let output = Command::new("python3").arg(run).arg("--check").output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `UCACHE_DOCS=write cargo test --test project` writes the table anew.
#[test]
fn every_bug_that_is_put_back_is_in_the_table() {
    const HEADING: &str = "\n## Bugs put back on purpose\n";
    let file = "src/docs/reliability.md";
    let page = read(file);
    if std::env::var_os("UCACHE_DOCS").is_some_and(|value| value == "write") {
        let (before, rest) = page.split_once(HEADING).expect("the section");
        let start = rest.find("\n| ").expect("a table") + 1;
        let end = start + rest[start..].find("\n\n").expect("an end of the table");
        let lines: String = mutations().iter().map(|(name, by)| format!("\n| {name} | {by} |")).collect();
        let table = format!("| bug | caught by |\n|---|---|{lines}");
        let text = format!("{before}{HEADING}{}{table}{}", &rest[..start], &rest[end..]);
        return fs::write(root().join(file), text).expect("the page is written");
    }
    assert_eq!(
        rows(&page, HEADING),
        mutations(),
        "`UCACHE_DOCS=write cargo test --test project` writes the table anew"
    );
    assert!(mutations().len() > 80);
}

/// Numbers that follow an `I` at the start of a word.
fn invariants(text: &str) -> BTreeSet<u32> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !word(c)).filter_map(|token| token.strip_prefix('I')?.parse().ok()).collect()
}

/// Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(fs::read_to_string(&path).expect("UTF-8"));
        }
    }
}

#[test]
fn invariants_that_are_cited_are_listed_and_explained() {
    let listed: BTreeSet<u32> = read("src/engine/mod.rs")
        .lines()
        .filter(|line| line.starts_with("//!"))
        .flat_map(invariants)
        .collect();
    let architecture = read("ARCHITECTURE.md");
    let (_, section) = architecture.split_once("\n## Invariants\n").expect("a section");
    let section = section.split("\n## ").next().expect("its text");
    let explained: BTreeSet<u32> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| I")?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(listed, explained, "src/engine/mod.rs against ARCHITECTURE.md");
    assert_eq!(listed.iter().copied().collect::<Vec<_>>(), (1..=listed.len() as u32).collect::<Vec<_>>());
    let mut texts = Vec::new();
    sources(&root().join("src"), &mut texts);
    let comments: String = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split_once("//"))
        .map(|(_, comment)| format!("{comment}\n"))
        .collect();
    let unknown: Vec<_> = invariants(&comments).difference(&listed).copied().collect();
    assert!(unknown.is_empty(), "cited, but not listed: {unknown:?}");
}

#[test]
fn links_between_documents_lead_to_files_and_headings() {
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        let text = read(file);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let page = fs::read_to_string(root().join(path))
                .unwrap_or_else(|_| panic!("{file} links to {target}, which is no text file"));
            let heading = |line: &str| {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                line.starts_with('#') && title.replace(' ', "-").replace(['`', ':', '.', ','], "") == anchor
            };
            assert!(
                anchor.is_empty() || page.lines().any(heading),
                "{file} links to {target}: no such heading"
            );
        }
    }
}

/// A file or folder that is renamed is renamed in the documents, too.
#[test]
fn files_that_documents_name_are_there() {
    let folders = ["src/", "tests/", "include/", "benches/", "examples/", "fuzz/", ".ci/", ".github/"];
    let mut seen = 0;
    for file in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "src/docs/design.md"] {
        let text = read(file);
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = folders.iter().any(|folder| name.starts_with(folder));
            if is_path && !name.contains([' ', '*', '\n']) {
                assert!(root().join(name).exists(), "{file} names {name}");
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "only {seen} names");
}

#[test]
fn documents_are_wrapped() {
    let mut wide = Vec::new();
    let docs = fs::read_dir(root().join("src/docs")).expect("documents");
    let docs = docs
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"));
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    for path in docs.chain(top.map(|name| root().join(name))) {
        let text = fs::read_to_string(&path).expect("UTF-8");
        let (mut generated, mut code) = (false, false);
        for (number, line) in text.lines().enumerate() {
            code ^= line.starts_with("```");
            generated = (generated || line.starts_with("<!-- figures of")) && line != "<!-- end -->";
            // rustfmt has its own width; tables and single words cannot be broken.
            let may_be_wide = code || generated || line.starts_with('|') || !line.trim().contains(' ');
            if line.chars().count() > 100 && !may_be_wide {
                wide.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "longer than 100 columns:\n{}", wide.join("\n"));
}
