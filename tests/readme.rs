//! Checks of README.md and the pages in src/docs: commands exist, code runs, differences are
//! tested.

#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/sources.rs"]
mod sources;

use std::{collections::BTreeSet, fs, process::Command};

use server::{Build, Flavor, Server, root};

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The fenced blocks of README.md in this language.
fn blocks(language: &str) -> Vec<String> {
    let readme = read("README.md");
    let mut found = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            if of == language {
                found.push(block.join("\n") + "\n");
            }
        }
    }
    assert!(!found.is_empty(), "README.md has no block of {language}");
    found
}

/// Whether the Makefile has the target.
fn is_target(name: &str) -> bool {
    read("Makefile").lines().any(|line| line.split_once(':').is_some_and(|(target, _)| target == name))
}

#[test]
fn every_command_is_known() {
    let mut seen = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        let command = line.split('#').next().expect("a first part").trim();
        match command.split_whitespace().collect::<Vec<_>>()[..] {
            ["make", target] | ["sudo", "make", target] => assert!(is_target(target), "no target {target}"),
            // run by `the_c_program_runs`
            ["cc", "hello.c", "-lucache", "-o", "hello"] => {}
            // `tests/python` installs the wheel
            ["pip", "install", "target/wheels/ucache-*.whl"] => {}
            _ => panic!("nobody checks this command of README.md: {command}"),
        }
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} commands");
    // targets mentioned in the text, like `make help`
    for word in read("README.md").split('`').filter_map(|code| code.strip_prefix("make ")) {
        assert!(is_target(word), "no target {word}");
    }
}

/// `tests/cli` runs them; this checks that they exist.
#[test]
fn every_subcommand_is_known() {
    let args = read("src/cli/args.rs");
    let mut seen = 0;
    for line in blocks("text").iter().flat_map(|block| block.lines()) {
        let Some(name) = line.strip_prefix("ucache ").and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        let variant = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
        let defined = |after| args.contains(&format!("\n    {variant}{after}"));
        assert!(["(", " {", ","].into_iter().any(defined), "no command {name}");
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} commands");
}

#[test]
fn help_lists_every_public_target() {
    let help = Command::new("make").arg("help").current_dir(root()).output().expect("make runs").stdout;
    let help = String::from_utf8(help).expect("UTF-8");
    for target in ["run", "test", "build", "check", "install", "clean"] {
        assert!(help.contains(&format!("make {target} ")), "{help}");
    }
}

#[test]
fn the_uwsgi_quick_start_runs() {
    let ini = blocks("ini");
    let python = blocks("python");
    // The second one is for the Python package: tests/python runs it.
    assert_eq!((ini.len(), python.len()), (1, 2));
    // the harness gives the plugin's name and directory
    let options = ini[0].strip_prefix("plugin = ucache\n").expect("the first line is the plugin's");
    let server = Server::start(Flavor::Ucache, 1, options);
    assert_eq!(server.run(1, &python[0]), "('hello', 1, '<h1>page</h1>')", "{}", server.log());
}

#[test]
fn the_c_program_runs() {
    let program = blocks("c");
    assert_eq!(program.len(), 1);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, binary) = (dir.path().join("hello.c"), dir.path().join("hello"));
    fs::write(&source, &program[0]).expect("the program can be written");
    let library = Build::Installed.plugins();
    let compiled = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&binary, &source])
        .arg("-I")
        .arg(root().join("include"))
        .arg("-L")
        .arg(library)
        .arg("-lucache")
        .output()
        .expect("cc is there: `make deps` installs it");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&binary).env("LD_LIBRARY_PATH", library).output().expect("the program starts");
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), b"hello\n".as_slice()));
}

#[test]
fn the_rust_program_is_a_doctest() {
    assert!(blocks("rust")[0].contains("fn main()"));
    assert!(read("src/lib.rs").contains("include_str!(\"../README.md\")"), "no doctest compiles README.md");
}

/// Every `D-07` in a text, without hyphenated words that merely end so.
fn numbers(text: &str) -> BTreeSet<String> {
    let is_number =
        |at: &usize| text[at + 2..].len() >= 2 && text[at + 2..at + 4].bytes().all(|b| b.is_ascii_digit());
    text.match_indices("D-")
        .map(|(at, _)| at)
        .filter(is_number)
        .map(|at| text[at..at + 4].to_owned())
        .collect()
}

#[test]
fn every_difference_has_a_number_a_text_and_a_test() {
    let compat = read("src/docs/compat.md");
    let rows: Vec<_> = compat.lines().filter(|line| line.starts_with("| [D-")).collect();
    let tests = sources::files(&root().join("tests"));
    let tests: Vec<_> = tests.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let mut last = String::new();
    for row in &rows {
        let number = row.get(3..7).unwrap_or_default().to_owned();
        assert!(row.starts_with(&format!("| [{number}](")) && last < number, "not in order: {row}");
        last.clone_from(&number);
        assert!(compat.contains(&format!("\n# {number}: ")), "{number} has no text");
        let cell = row.trim_end_matches(" |").rsplit("| ").next().expect("a last cell");
        for test in cell.split('`').skip(1).step_by(2) {
            let there = match test.strip_prefix("sessions/") {
                Some(session) => numbers(&read(&format!("tests/sessions/{session}.txt"))).contains(&number),
                None => tests.iter().any(|text| text.contains(&format!("fn {test}("))),
            };
            assert!(there, "{number} has no test {test}");
        }
        assert!(cell.contains('`'), "{number} names no test");
    }
    let known = numbers(&rows.concat());
    for path in sources::files(&root().join("tests/sessions")) {
        let unknown: Vec<_> =
            numbers(&fs::read_to_string(&path).expect("UTF-8")).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{} has {unknown:?}, which compat.md does not", path.display());
    }
}
