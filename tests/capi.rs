//! The C interface from C and C++ programs: linked shared and static, run, also under valgrind.

#[path = "support/exports.rs"]
mod exports;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use exports::{EXPORTED, EXTRAS};

/// Libraries for a static link with libucache.a, from `rustc --print native-static-libs` (glibc).
const NATIVE_LIBS: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// For `-static`, without the shared libgcc.
const STATIC_LIBS: [&str; 6] = ["-lgcc_eh", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

const C: Compiler = Compiler { program: "gcc", args: &["-std=c99", "-D_GNU_SOURCE"] };
const CXX: Compiler = Compiler { program: "g++", args: &["-std=c++17", "-x", "c++"] };

const CLANG: Compiler = Compiler { program: "clang", args: &["-std=c99", "-D_GNU_SOURCE"] };
const CLANG_CXX: Compiler = Compiler { program: "clang", args: &["-std=c++17", "-x", "c++"] };

/// Address and undefined-behaviour sanitizers, for the programs' memory.
const SANITIZED: Compiler = Compiler {
    program: "gcc",
    args: &["-std=c99", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
};

struct Compiler {
    program: &'static str,
    args: &'static [&'static str],
}

impl Compiler {
    /// Debian's clang packages have their version in the program's name; see `.ci/deps`.
    fn path(&self) -> &'static str {
        let installed = |name: &&str| Command::new(name).arg("--version").output().is_ok();
        match self.program {
            "clang" => ["clang-16", "clang-19"].into_iter().find(installed).unwrap_or("clang"),
            other => other,
        }
    }
}

#[derive(Clone, Copy)]
enum Link {
    Shared,
    Static,
    /// Without any shared library (`-static`).
    Fully,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library that cargo built for this test run, beside the test's own executable.
fn library(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    let dir = exe.parent().expect("a directory around the test");
    [dir, dir.parent().expect("a directory around deps")]
        .into_iter()
        .map(|dir| dir.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no {name} in {} or above: run `cargo build`", dir.display()))
}

fn run(command: &mut Command, hint: &str) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; {hint}"))
}

/// Runs a command that must succeed; returns its standard output.
fn succeed(command: &mut Command, hint: &str) -> String {
    let output = run(command, hint);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

const APT: &str = "apt-get install gcc g++ clang binutils valgrind uwsgi-core uwsgi-dev";

fn build(dir: &Path, source: &str, compiler: &Compiler, link: Link) -> PathBuf {
    let out = dir.join(Path::new(source).file_stem().expect("a file name"));
    let mut command = Command::new(compiler.path());
    command
        .args(compiler.args)
        .args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"])
        .arg(format!("-I{}", root().join("include").display()))
        .arg(root().join(source))
        .arg("-o")
        .arg(&out);
    command.args(["-x", "none"]);
    match link {
        Link::Shared => command.arg(library("libucache.so")),
        Link::Static => command.arg(library("libucache.a")).args(NATIVE_LIBS),
        Link::Fully => command.arg("-static").arg(library("libucache.a")).args(STATIC_LIBS),
    };
    succeed(&mut command, APT);
    out
}

/// A command that finds the library, under the name that the loader looks for.
fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    let so = library("libucache.so");
    let link = so.with_file_name("libucache.so.0");
    if let Err(e) = std::os::unix::fs::symlink("libucache.so", &link) {
        assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists, "{}: {e}", link.display());
    }
    command.env("LD_LIBRARY_PATH", so.parent().expect("a directory around the library"));
    command
}

/// Builds and runs a program of tests/c. Its argument is a path that does not exist yet.
fn check(source: &str, compiler: &Compiler, link: Link) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let exe = build(dir.path(), &format!("tests/c/{source}.c"), compiler, link);
    let mut command = program(exe);
    command.arg(dir.path().join("store.ucache"));
    succeed(&mut command, "it was just built");
}

macro_rules! programs {
    ($($name:ident: $source:literal $compiler:ident $link:ident;)+) => {
        $(#[test]
        fn $name() {
            check($source, &$compiler, Link::$link);
        })+
    };
}

programs! {
    nulls_are_refused: "nulls" C Shared;
    nulls_are_refused_in_cxx: "nulls" CXX Static;
    behaviour: "behaviour" C Shared;
    behaviour_in_cxx: "behaviour" CXX Shared;
    behaviour_linked_statically: "behaviour" C Static;
    raw_tier: "raw" C Shared;
    raw_tier_in_cxx: "raw" CXX Static;
    definitions_and_structs: "create" C Shared;
    definitions_and_structs_in_cxx: "create" CXX Shared;
    processes: "fork" C Shared;
    processes_in_cxx_linked_statically: "fork" CXX Static;
    store_files: "store" C Shared;
    sweeper: "sweep" C Shared;
    short_interface: "short" C Shared;
    short_interface_in_cxx: "short" CXX Shared;
    short_interface_linked_statically: "short" C Static;
    nodes_are_told: "nodes" C Shared;
    exit_handlers_may_use_caches: "exit" C Shared;
    exit_handlers_may_use_caches_in_cxx_linked_statically: "exit" CXX Static;
    a_copy_stays_while_nothing_is_given: "kept" C Shared;
    no_thread_is_cancelled_inside: "cancel" C Shared;
    no_thread_is_cancelled_inside_in_cxx: "cancel" CXX Shared;
    no_thread_is_cancelled_inside_without_shared_libraries: "cancel" C Fully;
    arguments_may_share_memory: "alias" C Shared;
    behaviour_without_shared_libraries: "behaviour" C Fully;
    short_interface_without_shared_libraries: "short" C Fully;
    nulls_are_refused_with_clang: "nulls" CLANG Shared;
    raw_tier_with_clang: "raw" CLANG Shared;
    short_interface_with_clang: "short" CLANG Static;
    no_thread_is_cancelled_inside_with_clang: "cancel" CLANG Shared;
    sanitizers_find_nothing_where_arguments_share_memory: "alias" SANITIZED Shared;
    sanitizers_find_nothing_in_behaviour: "behaviour" SANITIZED Shared;
    sanitizers_find_nothing_in_the_raw_tier: "raw" SANITIZED Shared;
    sanitizers_find_nothing_in_definitions: "create" SANITIZED Shared;
    sanitizers_find_nothing_in_processes: "fork" SANITIZED Shared;
    sanitizers_find_nothing_in_the_short_interface: "short" SANITIZED Shared;
    sanitizers_find_nothing_in_store_files: "store" SANITIZED Shared;
}

/// Memory errors and leaks of the library itself, as far as valgrind can see into shared memory.
fn valgrind(source: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let exe = build(dir.path(), &format!("tests/c/{source}.c"), &C, Link::Shared);
    let mut command = program("valgrind");
    command
        .args(["--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite", "-q"])
        .arg(exe);
    succeed(&mut command, APT);
}

#[test]
fn valgrind_finds_nothing_in_the_null_matrix() {
    valgrind("nulls");
}

#[test]
fn valgrind_finds_nothing_in_the_raw_tier() {
    valgrind("raw");
}

#[test]
fn valgrind_finds_nothing_in_definitions() {
    valgrind("create");
}

#[test]
fn valgrind_finds_nothing_in_the_short_interface() {
    valgrind("short");
}

/// Standard error has no reader any more: messages are lost, and the program continues.
#[test]
fn a_log_without_a_reader_ends_nobody() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let exe = build(dir.path(), "tests/c/log.c", &C, Link::Shared);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = program(exe).stderr(writer).status().expect("it was just built");
    assert!(status.success(), "{status}");
}

#[test]
fn each_reason_has_a_line_of_its_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let exe = build(dir.path(), "tests/c/disk.c", &C, Link::Shared);
    let output = run(program(exe).arg(dir.path().join("store")), "it was just built");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{said}");
    for text in [
        "its store cannot grow: File too large (os error 27)",
        "was not stored: no space for",
        "was not stored: the value is empty",
        "was not stored: the key is empty",
        "was not stored: the key has 51 bytes",
        "was not stored: the value has 70000 bytes",
    ] {
        assert_eq!(said.lines().filter(|line| line.contains(text)).count(), 1, "{text:?} in\n{said}");
    }
}

#[test]
fn what_is_refused_is_said_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let exe = build(dir.path(), "tests/c/log.c", &C, Link::Shared);
    let output = run(&mut program(exe), "it was just built");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{said}");
    let lines = |text: &str| said.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("*** DANGER cache \"full\" is FULL !!! ***"), 1, "{said}");
    assert_eq!(
        lines(
            "cache \"full\": \"a\\nk\"... (5 bytes) was not stored: the value has 70000 bytes, the limit is 65536"
        ),
        1,
        "{said}"
    );
    assert_eq!(lines("was not stored: the value is empty"), 1, "{said}");
    assert_eq!(lines("was not stored"), 2, "{said}");
    assert_eq!(lines("is FULL"), 1, "{said}");
    assert_eq!(lines("cache \"full\": option purge_lru=0 is off"), 1, "{said}");
    assert_eq!(lines("cache \"full\": unknown option max-items is ignored (meant max_items?)"), 1, "{said}");
    assert_eq!(lines("ready: up to 2 items"), 3, "{said}");
    assert_eq!(said.lines().count(), 8, "{said}");
}

#[test]
fn the_example_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let exe = build(dir.path(), "examples/c_basic.c", &C, Link::Shared);
    let said = succeed(&mut program(exe), "it was just built");
    for line in
        ["greeting = hello", "answer = 42", "nothing is not stored", "visits = 2000", "key answer, 2 bytes"]
    {
        assert!(said.contains(line), "{line:?} is missing in:\n{said}");
    }
}

/// Every function is called in a thread with a pending cancellation.
#[test]
fn cancellation_is_tried_in_every_function() {
    let tried = std::fs::read_to_string(root().join("tests/c/cancel.c")).expect("the program");
    let left_out: Vec<_> =
        EXPORTED.iter().chain(&EXTRAS).filter(|name| !tried.contains(&format!("{name}("))).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
}

/// The data of a thread that ends in a callback is freed.
#[test]
fn valgrind_finds_nothing_where_threads_are_cancelled() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let exe = build(dir.path(), "tests/c/cancel.c", &C, Link::Shared);
    let mut command = program("valgrind");
    command
        .args(["--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite", "-q"])
        .arg(exe)
        .arg(dir.path().join("store.ucache"))
        .arg("briefly");
    succeed(&mut command, APT);
}

/// A library linked with libucache.a exports none of its symbols, and does not disturb another one.
#[test]
fn a_library_may_have_ucache_inside() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let so = dir.path().join("libembed.so");
    let include = format!("-I{}", root().join("include").display());
    let mut command = Command::new("gcc");
    command
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", &include])
        .arg(root().join("tests/c/embed.c"))
        .arg("-o")
        .arg(&so)
        .arg(library("libucache.a"))
        .args(NATIVE_LIBS)
        .arg("-Wl,--exclude-libs,libucache.a");
    succeed(&mut command, APT);
    let listed = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(&so), APT);
    let shown: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(shown, ["embed_answer"]);
    let exe = dir.path().join("embedded");
    let mut command = Command::new("gcc");
    command
        .args(["-Wall", "-Wextra", "-Werror", &include])
        .arg(root().join("tests/c/embedded.c"))
        .arg("-o")
        .arg(&exe)
        .arg(&so)
        .arg(library("libucache.so"));
    succeed(&mut command, APT);
    let path = std::env::join_paths([dir.path(), library("libucache.so").parent().expect("a directory")]);
    succeed(program(&exe).env("LD_LIBRARY_PATH", path.expect("no colons")), "it was just built");
}

/// The header gives the same two link lines as these tests use.
#[test]
fn the_header_says_how_to_link() {
    let header = std::fs::read_to_string(root().join("include/ucache.h")).expect("the header");
    let words = header.split_whitespace().filter(|&word| word != "*").collect::<Vec<_>>().join(" ");
    for line in [NATIVE_LIBS, STATIC_LIBS].map(|libs| format!("libucache.a {}", libs.join(" "))) {
        assert!(words.contains(&line), "{line}");
    }
    assert!(words.contains("-Wl,--exclude-libs,libucache.a"));
}

#[test]
fn the_header_compiles_everywhere_without_a_warning() {
    for (compiler, standards) in [
        (&C, &["c99", "c11", "c17"][..]),
        (&CLANG, &["c99", "c11", "c17"]),
        (&CXX, &["c++11", "c++17", "c++20"]),
        (&CLANG_CXX, &["c++11", "c++17", "c++20"]),
    ] {
        for standard in standards {
            let language = if standard.starts_with("c++") { "c++" } else { "c" };
            let mut command = Command::new(compiler.path());
            command
                .args(["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-x", language])
                .arg(format!("-std={standard}"))
                .arg("-include")
                .arg(root().join("include/ucache.h"))
                .arg("/dev/null");
            succeed(&mut command, APT);
        }
    }
}

/// The program that prints the layout, compiled with one header or both.
fn layout(dir: &Path, compiler: &Compiler, args: &[String]) -> String {
    let out = dir.join("layout");
    let mut command = Command::new(compiler.path());
    command.args(args).arg(root().join("tests/c/layout.c")).arg("-o").arg(&out);
    succeed(&mut command, APT);
    succeed(&mut Command::new(out), "it was just built")
}

#[test]
fn structs_and_flags_are_those_of_the_real_uwsgi_h() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let uwsgi = std::env::var("UWSGI_BIN").unwrap_or_else(|_| "uwsgi".to_owned());
    let header = succeed(Command::new(&uwsgi).arg("--dot-h"), APT);
    std::fs::write(dir.path().join("uwsgi.h"), header).expect("writable");
    let cflags = succeed(Command::new(&uwsgi).arg("--cflags"), APT);
    let defines = cflags.split_whitespace().filter(|flag| flag.starts_with("-D") || flag.starts_with("-I"));
    let ours = format!("-I{}", root().join("include").display());
    let mut real: Vec<String> = defines.map(|flag| flag.replace("\\\"", "\"")).collect();
    real.extend([format!("-I{}", dir.path().display()), ours.clone(), "-DREAL".to_owned()]);
    let expected = layout(dir.path(), &C, &real);
    assert!(expected.lines().count() > 90, "{expected}");
    for compiler in [&C, &CLANG] {
        assert_eq!(layout(dir.path(), compiler, &real), expected);
        assert_eq!(layout(dir.path(), compiler, std::slice::from_ref(&ours)), expected);
    }
    // Both headers in one file: ucache.h adds to uwsgi.h and repeats nothing.
    real.push("-DBOTH".to_owned());
    for compiler in [&C, &CLANG] {
        assert_eq!(layout(dir.path(), compiler, &real), expected);
    }
}

/// Names of the dynamic symbols that `nm` lists with these arguments.
fn symbols(args: &[&str]) -> BTreeSet<String> {
    let listed = succeed(Command::new("nm").args(args).arg(library("libucache.so")), APT);
    let names = listed.lines().filter_map(|line| line.split_whitespace().last());
    names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect()
}

#[test]
fn the_library_exports_exactly_the_documented_functions() {
    let ours = |name: &String| ["uwsgi_", "cache_", "ucache_"].iter().any(|prefix| name.starts_with(prefix));
    let exported: BTreeSet<_> = symbols(&["-D", "--defined-only"]).into_iter().filter(ours).collect();
    // The plugin's own symbols (feature uwsgi) are not part of the C interface.
    let exported: BTreeSet<_> = exported.into_iter().filter(|name| !name.ends_with("_plugin")).collect();
    let expected: BTreeSet<_> = EXPORTED.iter().chain(&EXTRAS).map(|s| (*s).to_owned()).collect();
    assert_eq!(exported, expected);
    let header = std::fs::read_to_string(root().join("include/ucache.h")).expect("the header");
    for name in expected {
        assert!(header.contains(&format!("{name}(")), "{name} is not in ucache.h");
    }
}

#[test]
fn the_library_needs_nothing_of_uwsgi() {
    let needed: Vec<_> =
        symbols(&["-D", "--undefined-only"]).into_iter().filter(|name| name.contains("uwsgi")).collect();
    assert!(needed.is_empty(), "{needed:?}");
}

#[test]
fn no_call_inside_the_library_can_land_in_a_host() {
    let relocations = succeed(Command::new("objdump").arg("-R").arg(library("libucache.so")), APT);
    let ours = |line: &&str| EXPORTED.iter().chain(&EXTRAS).any(|name| line.ends_with(&format!(" {name}")));
    let found: Vec<_> = relocations.lines().filter(ours).collect();
    assert!(found.is_empty(), "{found:#?}");
}
