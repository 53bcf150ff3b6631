//! Checks the sources: layers must not depend on higher ones, and the project's rules must hold.

#[path = "support/calls.rs"]
mod calls;
#[path = "support/imports.rs"]
mod imports;
#[path = "support/sources.rs"]
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use imports::{circles, paths};
use sources::{files, follows, names_at, tokens};

/// A folder of `src` and its permitted dependencies.
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
    may_be_unsafe: bool,
    may_name_libc: bool,
}

/// The module of the Python package, a crate of its own: it calls C functions only.
const MODULE: &str = "src/python/";

/// `error` and `docs` belong to no layer and depend on none.
const LAYERS: [Layer; 10] = [
    Layer { name: "os", uses: &[], may_be_unsafe: true, may_name_libc: true },
    Layer { name: "shm", uses: &["os"], may_be_unsafe: true, may_name_libc: false },
    Layer { name: "engine", uses: &["os", "shm"], may_be_unsafe: false, may_name_libc: false },
    Layer { name: "near", uses: &["os", "shm", "engine"], may_be_unsafe: false, may_name_libc: false },
    Layer { name: "wire", uses: &["engine"], may_be_unsafe: false, may_name_libc: false },
    Layer {
        name: "net",
        uses: &["os", "engine", "near", "wire"],
        may_be_unsafe: false,
        may_name_libc: false,
    },
    Layer {
        name: "api",
        uses: &["os", "shm", "engine", "near", "wire", "net"],
        may_be_unsafe: false,
        may_name_libc: false,
    },
    Layer {
        name: "capi",
        uses: &["os", "shm", "engine", "near", "wire", "net"],
        may_be_unsafe: true,
        may_name_libc: true,
    },
    Layer {
        name: "uwsgi",
        uses: &["os", "shm", "engine", "near", "wire", "net", "capi"],
        may_be_unsafe: true,
        may_name_libc: true,
    },
    Layer {
        name: "cli",
        uses: &["os", "shm", "engine", "near", "wire", "net", "api"],
        may_be_unsafe: false,
        may_name_libc: false,
    },
];
/// What every layer may import from the crate's root.
const ROOT: [&str; 5] = ["error", "Error", "Result", "BackendFault", "StoreFault"];

const MOST_LINES: usize = 500;
const MOST_LINES_OF_A_FUNCTION: usize = 80;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files under `folder` with their texts, with paths relative to the package's directory.
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

/// Imports from the crate by `source` that its layer does not permit.
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
            // a module of the parent may have any other name
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
        "use crate::capi::host;",
        "use crate::{engine::Engine, capi::{self, host}};",
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
    let outside = ["lib.rs", "error.rs", "bin", "docs", "python"];
    for entry in fs::read_dir(root().join("src")).expect("src is there") {
        let name = entry.expect("a directory can be read").file_name().into_string().expect("UTF-8");
        assert!(known.contains(name.as_str()) || outside.contains(&name.as_str()), "src/{name} is no layer");
    }
}

/// The folders of the engine, lowest first. Files beside them (types, figures, arithmetic) are
/// below all.
const ENGINE: [&str; 9] = ["shard", "quota", "index", "policy", "recover", "reclaim", "lock", "ops", "store"];

fn engine_ranks() -> BTreeMap<&'static str, usize> {
    ENGINE.into_iter().zip(1..).collect()
}

/// Rank of a file of the engine; `None` = not in the order: its tests.
fn engine_rank(file: &str) -> Option<usize> {
    let inside = file.strip_prefix("src/engine/").expect("a file of the engine");
    match inside.split_once('/') {
        Some((folder, _)) => Some(
            *engine_ranks()
                .get(folder)
                .unwrap_or_else(|| panic!("engine/{folder} has no place in the order")),
        ),
        // It declares the folders and re-exports their items.
        None if inside == "mod.rs" => Some(ENGINE.len()),
        None => (!inside.ends_with("tests.rs")).then_some(0),
    }
}

/// Calls and imports of the engine that go upwards, with `planted` replacing one file's text.
fn engine_reaches(planted: Option<(&str, &str)>) -> Vec<String> {
    let mut sources = rust_files("src/engine");
    if let Some((file, text)) = planted {
        sources.push((file.to_owned(), text.to_owned()));
    }
    let ranked: Vec<_> = sources
        .iter()
        .filter_map(|(name, text)| Some(calls::File { rank: engine_rank(name)?, name, text }))
        .collect();
    assert!(ranked.len() > 40, "only {} files were found", ranked.len());
    calls::upward(&ranked, &engine_ranks())
}

#[test]
fn the_engine_calls_down_only() {
    assert_none(&engine_reaches(None));
}

#[test]
fn an_upward_call_in_the_engine_is_found() {
    for planted in [
        "impl Engine { fn planted(&self) { let _ = self.delete(b\"key\"); } }",
        "fn planted(e: &Engine) { if true { e.sweep().ok(); } }",
        "struct Planted { engine: Arc<Engine> } impl Planted { fn f(&self) { self.engine.clear().ok(); } }",
        "fn planted() { let e = Engine::create(&Config::new(\"c\", 1)); }",
        "impl Engine { fn planted(&self) { (0..1).for_each(|_| self.set_slow()); } }",
        "impl Engine { fn planted() { Self::attach_named(path); } }",
        "fn planted(some: u8) { made(some).map(|e| e.revive()); }",
        "use crate::engine::{Engine, ops::scan::ScanSink};",
        "fn planted() { crate::engine::store::sizing::layout(); }",
    ] {
        let found = engine_reaches(Some(("src/engine/index/planted.rs", planted)));
        assert!(!found.is_empty() && found.iter().all(|f| f.contains("planted")), "{planted}: {found:?}");
    }
    let fine = "impl Engine { fn planted(&self, all: &mut Vec<u8>) { self.shard_of(1); all.insert(0, 1); all.clear(); } }";
    assert_none(&engine_reaches(Some(("src/engine/index/planted.rs", fine))));
}

/// The folders of `capi`, each of which may use those before it. The files beside them serve all.
const CAPI: [&str; 3] = ["host", "compat", "handle"];

#[test]
fn folders_of_capi_reach_down_only() {
    let mut broken = Vec::new();
    for (rank, folder) in CAPI.iter().enumerate() {
        for (file, source) in rust_files(&format!("src/capi/{folder}")) {
            for path in paths(&source, "") {
                if let [capi, other, ..] = &path[..]
                    && capi == "capi"
                    && CAPI[rank + 1..].contains(&other.as_str())
                {
                    broken.push(format!("{file}: {}", path.join("::")));
                }
            }
        }
    }
    assert_none(&broken);
    let found = paths("use crate::{a, capi::{handle::{self, x}, panic}}; use super::b::c;", "p");
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a", "capi::handle::self", "capi::handle::x", "capi::panic", "p::b::c"]);
}

/// Which module of a folder of `src` imports which other one of it, tests left out.
fn imports_in(folder: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut imports = Vec::new();
    for (file, source) in rust_files(&format!("src/{folder}")) {
        let module = file.rsplit('/').next().expect("a name").trim_end_matches(".rs").to_owned();
        if matches!(module.as_str(), "mod" | "tests" | "testing" | "fuzz") {
            continue;
        }
        // tests at the end of a file may import anything
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let inside = paths(source, folder).into_iter().filter(|path| path.len() > 1);
        let others = inside.filter(|path| path[0] == folder && path[1] != module);
        let uses = others.map(|path| path[1].clone()).collect();
        imports.push((module, uses));
    }
    assert!(imports.len() > 5, "{folder}");
    imports
}

#[test]
fn modules_of_a_folder_import_in_no_circle() {
    for folder in ["os", "shm", "wire", "net"] {
        assert_eq!(circles(imports_in(folder)), [""; 0], "{folder}");
    }
    let mut imports = imports_in("shm");
    let slab = imports.iter().find(|(module, _)| module == "slab").expect("a file");
    assert!(slab.1.contains("span"), "the imports are seen");
    let span = imports.iter_mut().find(|(module, _)| module == "span").expect("a file");
    span.1.insert("slab".to_owned());
    assert!(!circles(imports).is_empty());
    let of = |module: &str, uses: &str| (module.to_owned(), BTreeSet::from([uses.to_owned()]));
    assert_eq!(circles(vec![of("a", "b"), of("b", "c"), of("c", "b"), of("d", "e")]), ["a", "b", "c"]);
}

/// Lines with this word as a token of its own.
fn lines_with(source: &str, word: &str) -> Vec<usize> {
    let tokens = tokens(source);
    // `forbid(unsafe_code)` and the like are other tokens; `#[unsafe(no_mangle)]` counts, too
    tokens.iter().filter(|token| token.text == word).map(|token| token.line).collect()
}

#[test]
fn unsafe_and_libc_stay_in_their_layers() {
    let mut broken = Vec::new();
    for (file, source) in rust_files("src") {
        if file.starts_with(MODULE) {
            continue;
        }
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

/// Whether a file forbids unsafe code for itself and the modules inside it.
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

/// Length of every function in lines, with its name and first line.
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

/// Files in the repository as a fresh clone has them: no build output, no fetched code.
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

/// A child forked while another thread initialises such an object would wait for that thread
/// forever. The network code runs in threads started after a server's forks.
#[test]
fn nothing_waits_for_a_thread_that_a_child_has_not() {
    let waits = |source: &str| ["OnceLock", "LazyLock"].map(|word| lines_with(source, word)).concat();
    let mut broken = Vec::new();
    for folder in ["os", "shm", "engine", "near", "api", "capi"] {
        for (file, source) in rust_files(folder) {
            broken.extend(waits(&source).into_iter().map(|line| format!("{file}:{line}")));
        }
    }
    assert_none(&broken);
    assert_eq!(waits("use std::sync::Mutex;\nstatic S: OnceLock<u8> = x();"), [2]);
}

#[test]
fn nothing_is_left_to_do_or_skipped() {
    // assembled here, so that this file does not contain them
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
        // fuzz corpora and the like are binary
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
