//! Reads the sources and fails where a layer reaches the wrong way, or a rule of the project is broken.

#[path = "support/sources.rs"]
mod sources;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sources::{files, follows, names_at, tokens};

/// A folder of `src` and what it may do.
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
    may_be_unsafe: bool,
    may_name_libc: bool,
}

/// `error` and `docs` belong to none and know none.
const LAYERS: [Layer; 7] = [
    Layer { name: "os", uses: &[], may_be_unsafe: true, may_name_libc: true },
    Layer { name: "shm", uses: &["os"], may_be_unsafe: true, may_name_libc: false },
    Layer { name: "engine", uses: &["os", "shm"], may_be_unsafe: false, may_name_libc: false },
    Layer { name: "api", uses: &["os", "shm", "engine"], may_be_unsafe: false, may_name_libc: false },
    Layer { name: "capi", uses: &["os", "shm", "engine"], may_be_unsafe: true, may_name_libc: true },
    Layer { name: "uwsgi", uses: &["os", "shm", "engine", "capi"], may_be_unsafe: true, may_name_libc: true },
    Layer { name: "cli", uses: &["os", "shm", "engine", "api"], may_be_unsafe: false, may_name_libc: false },
];
/// What every layer may take from the root of the crate.
const ROOT: [&str; 3] = ["error", "Error", "Result"];

const MOST_LINES: usize = 500;
const MOST_LINES_OF_A_FUNCTION: usize = 80;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files under `folder` with their texts, named from the package's directory.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let directory = root().join(folder);
    if !directory.exists() {
        return Vec::new();
    }
    let rust = files(&directory).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.map(|path| (relative(&path), fs::read_to_string(&path).expect("a source is UTF-8"))).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("it is inside").display().to_string()
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{} violations:\n{}", broken.len(), broken.join("\n"));
}

/// Uses of the crate by `source` that its layer is not allowed.
fn wrong_reaches(layer: &Layer, file: &str, source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let mut wrong = Vec::new();
    for at in 0..tokens.len() {
        let from_root = follows(&tokens, at, &["crate", ":", ":"]);
        let from_parent = follows(&tokens, at, &["super", ":", ":"]);
        if !from_root && !from_parent {
            continue;
        }
        for name in names_at(&tokens, at + 3) {
            let text = name.text.as_str();
            let is_layer = LAYERS.iter().any(|other| other.name == text);
            let allowed = text == layer.name || layer.uses.contains(&text) || ROOT.contains(&text);
            // a parent's own module may have any other name
            if !allowed && (from_root || is_layer) {
                wrong.push(format!("{file}:{}: {} uses {text}", name.line, layer.name));
            }
        }
    }
    wrong
}

#[test]
fn layers_reach_down_only() {
    for layer in &LAYERS {
        let sources = rust_files(&format!("src/{}", layer.name));
        let broken: Vec<_> =
            sources.iter().flat_map(|(file, source)| wrong_reaches(layer, file, source)).collect();
        assert_none(&broken);
    }
}

#[test]
fn a_wrong_reach_is_found() {
    let api = LAYERS.iter().find(|layer| layer.name == "api").expect("a layer");
    for source in [
        "use crate::capi::view;",
        "use crate::{engine::Engine, capi::{self, view}};",
        "fn f() { let x = crate::uwsgi::host(); }",
        "mod m { fn f() { super::super::capi::f() } }",
        "macro_rules! m { () => { crate::capi::f() } }",
        "use crate::Cache;",
    ] {
        assert_eq!(wrong_reaches(api, "f", source).len(), 1, "{source}");
    }
    let fine = "//! crate::capi\nuse crate::{engine::{Engine, capi}, error::Error}; use super::cache; \
                const X: &str = \"crate::capi::f\";";
    assert_eq!(wrong_reaches(api, "f", fine), [""; 0]);
}

#[test]
fn every_folder_is_a_layer_and_no_file_is_outside() {
    let known: BTreeSet<_> = LAYERS.iter().map(|layer| layer.name).collect();
    let outside = ["lib.rs", "error.rs", "bin", "docs"];
    for entry in fs::read_dir(root().join("src")).expect("src is there") {
        let name = entry.expect("a directory can be read").file_name().into_string().expect("UTF-8");
        assert!(known.contains(name.as_str()) || outside.contains(&name.as_str()), "src/{name} is no layer");
    }
}

/// Lines with this word as a token of its own.
fn lines_with(source: &str, word: &str) -> Vec<usize> {
    let tokens = tokens(source);
    // `forbid(unsafe_code)` and the like are other tokens; `#[unsafe(no_mangle)]` is a promise, too
    tokens.iter().filter(|token| token.text == word).map(|token| token.line).collect()
}

#[test]
fn unsafe_and_libc_stay_in_their_layers() {
    let mut broken = Vec::new();
    for (file, source) in rust_files("src") {
        let layer = LAYERS.iter().find(|layer| file.starts_with(&format!("src/{}/", layer.name)));
        for (word, allowed) in [
            ("unsafe", layer.is_some_and(|l| l.may_be_unsafe)),
            ("libc", layer.is_some_and(|l| l.may_name_libc)),
        ] {
            if !allowed {
                broken.extend(lines_with(&source, word).iter().map(|line| format!("{file}:{line}: {word}")));
            }
        }
    }
    assert_none(&broken);
    assert_eq!(lines_with("#![forbid(unsafe_code)] // unsafe\nfn f() { unsafe { g() } }", "unsafe"), [2]);
}

/// Whether a file says so for itself and the modules inside it.
fn forbids_unsafe_code(source: &str) -> bool {
    let tokens = tokens(source);
    let attribute = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
    (0..tokens.len()).any(|at| follows(&tokens, at, &attribute))
}

#[test]
fn safe_layers_forbid_unsafe_code() {
    let mut checked = 0;
    for layer in LAYERS.iter().filter(|layer| !layer.may_be_unsafe) {
        let sources = rust_files(&format!("src/{}", layer.name));
        let module = format!("src/{}/mod.rs", layer.name);
        let all = sources.iter().any(|(file, source)| *file == module && forbids_unsafe_code(source));
        for (file, source) in &sources {
            assert!(
                all || forbids_unsafe_code(source),
                "{file} lacks forbid(unsafe_code), and so does {module}"
            );
            checked += 1;
        }
    }
    assert!(checked > 5, "only {checked} files were found");
}

/// Length of every function, in lines, with its name and first line.
fn functions(source: &str) -> Vec<(String, usize, usize)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if tokens[at].text != "fn"
            || !tokens.get(at + 1).is_some_and(|t| t.text.starts_with(char::is_alphabetic))
        {
            continue;
        }
        let mut depth = 0_i32;
        for token in &tokens[at..] {
            match token.text.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                // a declaration without a body
                ";" if depth == 0 => break,
                _ => {}
            }
            if token.text == "}" && depth == 0 {
                found.push((tokens[at + 1].text.clone(), tokens[at].line, token.line - tokens[at].line + 1));
                break;
            }
        }
    }
    found
}

#[test]
fn files_and_functions_are_short() {
    let mut broken = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for (file, source) in rust_files(folder) {
            let lines = source.lines().count();
            if lines > MOST_LINES {
                broken.push(format!("{file}: {lines} lines"));
            }
            let long =
                functions(&source).into_iter().filter(|(_, _, lines)| *lines > MOST_LINES_OF_A_FUNCTION);
            broken.extend(
                long.map(|(name, line, lines)| format!("{file}:{line}: fn {name} has {lines} lines")),
            );
        }
    }
    assert_none(&broken);
    let source = "trait T { fn a(&self) -> [u8; 4]; }\nfn b() {\n  { }\n}\n";
    assert_eq!(functions(source), [("b".to_owned(), 2, 3)]);
}

/// What is committed, as far as a fresh clone has it: no build output, no fetched code.
fn committed() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root()).expect("the package's directory is there") {
        let path = entry.expect("a directory can be read").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        match name.as_str() {
            ".git" | ".build" | "target" | "Cargo.lock" => {}
            _ if path.is_dir() => all.extend(files(&path)),
            _ => all.push(path),
        }
    }
    all.retain(|path| !path.components().any(|part| part.as_os_str() == "__pycache__"));
    all
}

/// A child that was forked while another thread made such a thing would wait for that thread for ever. What serves other
/// machines runs in threads that come after a server's forks.
#[test]
fn nothing_waits_for_a_thread_that_a_child_has_not() {
    let waits = |source: &str| ["OnceLock", "LazyLock"].map(|word| lines_with(source, word)).concat();
    let mut broken = Vec::new();
    for folder in ["os", "shm", "engine", "api", "capi"] {
        for (file, source) in rust_files(folder).iter().filter(|(file, _)| !file.contains("/remote/")) {
            broken.extend(waits(source).into_iter().map(|line| format!("{file}:{line}")));
        }
    }
    assert_none(&broken);
    assert_eq!(waits("use std::sync::Mutex;\nstatic S: OnceLock<u8> = x();"), [2]);
}

#[test]
fn nothing_is_left_to_do_or_skipped() {
    // put together here, so that this file does not hold them
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["#[ig", "nore"],
        ["todo", "!("],
        ["unimplemen", "ted!("],
    ];
    let words = words.map(|halves| halves.concat());
    assert_none(&lines_holding(&words));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let places = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/tm", "p/p_"],
        ["arti", "factory"],
        [".py", "env"],
    ];
    let places = places.map(|halves| halves.concat());
    assert_none(&lines_holding(&places));
}

fn lines_holding(words: &[String]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut read = 0;
    for path in committed() {
        // fuzz corpora and the like are not text
        let Ok(text) = fs::read_to_string(&path) else { continue };
        read += 1;
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                broken.push(format!("{}:{}: {word}", relative(&path), number + 1));
            }
        }
    }
    assert!(read > 20, "only {read} files were read");
    broken
}
