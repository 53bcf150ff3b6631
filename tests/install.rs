//! `make install` under a prefix, and what is usable there: pkg-config, the C examples built with
//! it, shared and static, the command. The Debian package.

#[cfg(feature = "uwsgi")]
#[path = "install/deb.rs"]
mod deb;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Standard output of a command that must succeed.
fn succeed(command: &mut Command) -> String {
    let hint = "gcc, make and pkg-config are needed (`make deps` installs them)";
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; {hint}"));
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}{errors}", output.status);
    said.into_owned()
}

/// How a program is linked with the library.
enum Link {
    Shared,
    Static,
    OnlyTheLibraryStatic,
}

/// What cargo built for these tests, where `make build` would have put it.
struct Built {
    dir: tempfile::TempDir,
}

impl Built {
    fn new() -> Self {
        let built = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        let test = std::env::current_exe().expect("the test's own path");
        let (release, command) = (built.release(), built.command());
        fs::create_dir_all(&release).expect("writable");
        fs::create_dir_all(command.join("release")).expect("writable");
        for name in ["libucache.so", "libucache.a"] {
            let file = test.with_file_name(name);
            assert!(file.is_file(), "{} is missing: `cargo test` builds it", file.display());
            symlink(file, release.join(name)).expect("writable");
        }
        symlink("libucache.so", release.join("ucache_plugin.so")).expect("writable");
        symlink(env!("CARGO_BIN_EXE_ucache"), command.join("release/ucache")).expect("writable");
        built
    }

    fn release(&self) -> PathBuf {
        self.dir.path().join("built")
    }

    fn command(&self) -> PathBuf {
        self.dir.path().join("command")
    }
}

/// An installed prefix.
struct Installed {
    dir: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let built = Built::new();
        let (release, command) = (built.release(), built.command());
        let installed = Self { dir: built.dir };
        let variables = [
            format!("PREFIX={}", installed.prefix().display()),
            format!("RELEASE={}", release.display()),
            format!("COMMAND={}", command.display()),
            // This test must not change the machine's library cache.
            "LDCONFIG=true".to_owned(),
        ];
        installed.make("install", &variables);
        installed
    }

    fn make(&self, target: &str, variables: &[String]) -> String {
        // Variables of an outer make must not affect this one.
        let mut make = Command::new("make");
        make.args(["-s", target]).args(variables).current_dir(env!("CARGO_MANIFEST_DIR"));
        succeed(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("DESTDIR"))
    }

    fn prefix(&self) -> PathBuf {
        self.dir.path().join("prefix")
    }

    /// Output of pkg-config as words.
    fn pkg_config(&self, args: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.args(args).arg("ucache").env("PKG_CONFIG_PATH", self.prefix().join("lib/pkgconfig"));
        succeed(&mut command).split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles an example as its first lines say.
    fn compile(&self, compiler: &[&str], example: &str, link: &Link) -> PathBuf {
        let out = self.dir.path().join(example);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{example}.c"));
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).args(["-Wall", "-Wextra", "-Werror", "-D_DEFAULT_SOURCE"]);
        command.arg(source).args(["-x", "none", "-o"]).arg(&out);
        match link {
            Link::Shared => command.args(self.pkg_config(&["--cflags", "--libs"])),
            Link::Static => command.arg("-static").args(self.pkg_config(STATIC)),
            Link::OnlyTheLibraryStatic => {
                let words = self.pkg_config(STATIC).into_iter();
                command.args(words.map(|word| word.replace("-lucache", "-l:libucache.a")))
            }
        };
        succeed(&mut command);
        out
    }

    fn run(&self, program: &Path, args: &[&Path]) -> String {
        succeed(Command::new(program).args(args).env("LD_LIBRARY_PATH", self.prefix().join("lib")))
    }
}

const C: &[&str] = &["gcc", "-std=c99"];
const CXX: &[&str] = &["g++", "-std=c++17", "-x", "c++"];
const STATIC: &[&str] = &["--static", "--cflags", "--libs"];

fn assert_basics(said: &str) {
    for line in [
        "greeting is there already",
        "greeting = hello",
        "greeting needs 5 bytes",
        "nothing is not stored",
        "visits = 42",
        "greeting was hello, and is not any more",
        "key greeting, 7 bytes, expires",
        "key visits, 8 bytes, stays",
        "taken: bonjour",
        "1 of 1000 items",
    ] {
        assert!(said.lines().any(|l| l == line), "{line:?} is missing in:\n{said}");
    }
}

#[test]
fn what_is_installed_is_found_used_and_removed() {
    let installed = Installed::new();
    let prefix = installed.prefix();
    let lib = |name: &str| prefix.join("lib").join(name);
    // The file name has the version, programs use the soname, the linker the plain name.
    let version = env!("CARGO_PKG_VERSION");
    assert!(lib(&format!("libucache.so.{version}")).symlink_metadata().expect("it is there").is_file());
    assert_eq!(
        fs::read_link(lib("libucache.so.0")).expect("a link"),
        Path::new(&format!("libucache.so.{version}"))
    );
    assert_eq!(fs::read_link(lib("libucache.so")).expect("a link"), Path::new("libucache.so.0"));
    assert_eq!(
        fs::canonicalize(lib("uwsgi/plugins/ucache_plugin.so")).ok(),
        fs::canonicalize(lib("libucache.so")).ok()
    );
    assert_eq!(installed.pkg_config(&["--modversion"]), [version]);
    assert_eq!(installed.pkg_config(&["--variable=prefix"]), [prefix.display().to_string()]);

    for compiler in [C, CXX] {
        let program = installed.compile(compiler, "c_cache", &Link::Shared);
        assert!(succeed(Command::new("objdump").arg("-p").arg(&program)).contains("libucache.so.0\n"));
        assert_basics(&installed.run(&program, &[]));
        for link in [Link::Static, Link::OnlyTheLibraryStatic] {
            let program = installed.compile(compiler, "c_cache", &link);
            let needed = succeed(Command::new("objdump").arg("-p").arg(&program));
            assert!(!needed.contains("libucache"), "{needed}");
            assert_basics(&installed.run(&program, &[]));
        }
    }

    let said = succeed(Command::new(prefix.join("bin/ucache")).arg("--version"));
    assert_eq!(said.trim(), format!("ucache {version}"));
    assert!(prefix.join("share/man/man1/ucache.1").is_file());
    installed.make("uninstall", &[format!("PREFIX={}", prefix.display())]);
    let left: Vec<_> = files(&prefix);
    assert!(left.is_empty(), "{left:?}");
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable").path());
    entries
        .flat_map(|path| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] })
        .collect()
}

#[test]
fn the_examples_in_c_do_what_they_say() {
    let installed = Installed::new();
    let reader = installed.compile(C, "c_reader", &Link::Shared);
    let writer = installed.compile(C, "c_two_processes", &Link::Shared);
    let store = installed.dir.path().join("two.ucache");
    for _ in 0..2 {
        let said = installed.run(&writer, &[&store, &reader]);
        assert_eq!(said, "reader: I am asked \"how are you?\"\nwriter: the answer is \"fine\"\n");
    }
    let get_or_set = installed.compile(C, "c_get_or_set", &Link::Shared);
    let said = installed.run(&get_or_set, &[]);
    assert_eq!(said, format!("{}4 asked, 1 rendered\n", "<h1>/index</h1>\n".repeat(4)));
}
