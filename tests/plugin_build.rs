//! The plugin and the uWSGI that it was built for: differences that another one may have, and the
//! behaviour with greater differences.
#![cfg(feature = "uwsgi")]

#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/build.rs"]
mod build;
#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/uwsgi_host.rs"]
mod uwsgi_host;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use build::Build;
use uwsgi_host::{Setup, library};

const CACHE: &str = "cache2 = name=c,items=100,blocksize=4096";
/// The marks before the fingerprints in the library.
const MARKS: [&str; 2] = ["ucache-layout=", "ucache-plugin-layout="];

/// The target triple of this machine.
const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// Runs the build script of the library under test, with its own environment.
fn build_script(out: &Path, name: &str, value: &str) -> Output {
    let builds =
        Path::new(env!("OUT_DIR")).ancestors().nth(2).expect("target/<profile>/build/ucache-.../out");
    let script = fs::read_dir(builds)
        .expect("cargo's build directory")
        .filter_map(|entry| Some(entry.ok()?.path().join("build-script-build")))
        .filter(|path| {
            path.parent()
                .is_some_and(|p| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"ucache-")))
        })
        // `make check` leaves scripts of builds without the plugin there.
        .filter(|path| fs::read(path).is_ok_and(|script| script.windows(7).any(|word| word == b"--dot-h")))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .expect("the build script of this build")
        .1;
    let mut command = Command::new(script);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("OUT_DIR", out).env_remove("UWSGI_BIN");
    // Variables that cargo passes to a build script that compiles C.
    for name in ["TARGET", "HOST"] {
        command.env(name, TARGET);
    }
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    command.env("OPT_LEVEL", "0").env("DEBUG", "false").env("PROFILE", "debug").env("RUSTC", compiler);
    command.env("CARGO_CFG_TARGET_ARCH", std::env::consts::ARCH);
    command.env(name, value).output().expect("the build script runs")
}

#[test]
fn a_build_without_uwsgi_says_what_to_install() {
    let out = tempfile::tempdir().unwrap();
    let fails = |name: &str, value: &str| {
        let output = build_script(out.path(), name, value);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let why = fails("PATH", "/nowhere");
    assert!(
        why.contains("apt-get install uwsgi-core uwsgi-dev libclang-dev") && why.contains("UWSGI_BIN"),
        "{why}"
    );
    let why = fails("UWSGI_BIN", "/nowhere/uwsgi");
    assert!(why.contains("UWSGI_BIN=/nowhere/uwsgi: no such file"), "{why}");
    let why = fails("UWSGI_BIN", "/bin/false");
    assert!(why.contains("/bin/false --dot-h printed nothing"), "{why}");
}

/// A copy of the installed uWSGI with `from` in its header replaced by `to`; returns the
/// fingerprints of a plugin built for it.
fn digests(from: &str, to: &str) -> [String; 2] {
    let dir = tempfile::tempdir().unwrap();
    let ask = Command::new(uwsgi_host::uwsgi()).arg("--dot-h").stdin(Stdio::null()).output();
    let header = String::from_utf8_lossy(&ask.expect("uWSGI runs (`make deps`)").stdout).into_owned();
    assert_eq!(header.matches(from).count(), 1, "{from:?} in uwsgi.h");
    fs::write(dir.path().join("uwsgi.h"), header.replace(from, to)).unwrap();
    let program = dir.path().join("uwsgi");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --dot-h ] && exec cat {}/uwsgi.h\nexec {} \"$@\"\n",
        dir.path().display(),
        uwsgi_host::uwsgi()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let output = build_script(dir.path(), "UWSGI_BIN", &program.display().to_string());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bindings = fs::read(dir.path().join("uwsgi.rs")).unwrap();
    MARKS.map(|mark| {
        let at = places(&bindings, mark);
        assert_eq!(at.len(), 1, "{mark}");
        String::from_utf8_lossy(&bindings[at[0]..at[0] + 16]).into_owned()
    })
}

/// The offsets of fingerprints behind a mark.
fn places(bytes: &[u8], mark: &str) -> Vec<usize> {
    let ends =
        (0..bytes.len() - 40).filter(|&i| bytes[i..].starts_with(mark.as_bytes())).map(|i| i + mark.len());
    ends.filter(|&i| bytes[i..i + 16].iter().all(u8::is_ascii_hexdigit)).collect()
}

/// A copy of the library with these fingerprints, as if built for another uWSGI.
fn forged(dir: &Path, digests: [&str; 2]) -> PathBuf {
    let file = dir.join("libucache.so");
    let mut bytes = fs::read(library()).unwrap();
    for (mark, digest) in MARKS.into_iter().zip(digests) {
        let all = places(&bytes, mark);
        assert!(!all.is_empty(), "the library has {mark}");
        for at in all {
            bytes[at..at + 16].copy_from_slice(digest.as_bytes());
        }
    }
    fs::write(&file, bytes).unwrap();
    file
}

fn own_digests() -> [String; 2] {
    let bytes = fs::read(library()).unwrap();
    MARKS.map(|mark| {
        let at = *places(&bytes, mark).first().unwrap_or_else(|| panic!("the library has {mark}"));
        String::from_utf8_lossy(&bytes[at..at + 16]).into_owned()
    })
}

const FORGED: &str = "0123456789abcdef";
/// The message of a plugin built for another uWSGI.
const OTHER: &str = "cannot replace uWSGI's cache: built for uWSGI";
const STOPPED: &str = "stopped: the takeover failed";
const GOES_ON: &str = "ucache-or-native: falling back to uWSGI's own cache";

#[test]
fn a_release_with_the_same_structs_is_the_same_uwsgi() {
    let [all, plugin] = digests(
        "struct uwsgi_option {",
        "/* Another comment. */\nint uwsgi_one_function_more(struct wsgi_request *, char *);\nstruct uwsgi_option {",
    );
    assert_eq!([all.clone(), plugin.clone()], own_digests());
    let dir = tempfile::tempdir().unwrap();
    let library = forged(dir.path(), [&all, &plugin]);
    let host = Setup { library, ..Setup::default() }.start(CACHE);
    assert_eq!(host.logged("31 cache functions of uWSGI"), 1, "{}", host.log());
}

#[test]
fn a_field_that_moved_is_refused_or_left_to_native() {
    // One more field in uwsgi_server: other offsets, and nothing else.
    let [all, plugin] = digests("\tchar hostname[256];\n", "\tint moved;\n\tchar hostname[256];\n");
    let own = own_digests();
    assert!(all != own[0] && plugin == own[1]);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup { library: forged(dir.path(), [&all, &plugin]), ..Setup::default() };
    let log = setup.refuse(&format!("{CACHE}\ncache2 = name=kept,items=9,store={{dir}}/store"));
    assert!(log.contains(OTHER) && log.contains(STOPPED) && log.contains(&all), "{log}");
    assert!(log.contains("cargo build --release --features uwsgi"), "{log}");
    assert!(!log.contains("creating a new cache store file"), "{log}");
    // A worker that is still starting may miss the signal: the master must not wait a minute for
    // it.
    let mercy = "worker-reload-mercy = 2\nreload-mercy = 2";
    let host = setup.start(&format!("{CACHE}\nucache-or-native = true\n{mercy}"));
    assert_eq!((host.logged(OTHER), host.logged(GOES_ON)), (1, 1), "{}", host.log());
    assert_eq!(host.logged("cache functions of uWSGI"), 0);
    assert!(!host.eval("leads_to('uwsgi_cache_magic_get')").contains("libucache"));
    assert_eq!(host.eval("uwsgi.cache_set('k', b'v', 0, 'c'), uwsgi.cache_get('k', 'c')"), "(True, b'v')");
    host.signal("TERM");
    host.until("a reload", |h| h.logged(GOES_ON) == 2);
    host.until("an answer", |h| h.request("POST", "/", "1 + 1").is_some_and(|a| a.1 == "2"));
}

/// If even plugins have another layout, the option must be known when the plugin is loaded.
#[test]
fn other_plugins_are_refused_or_left_to_native() {
    let dir = tempfile::tempdir().unwrap();
    let setup = |plugins, env| Setup {
        library: forged(dir.path(), [FORGED, FORGED]),
        plugins,
        env,
        ..Setup::default()
    };
    let after = "plugin = ucache\nplugin = python3\nucache-or-native = true";
    let log = setup(after, Vec::new()).refuse(CACHE);
    assert!(log.contains("stopped: built for uWSGI") && log.contains("before `plugin = ucache`"), "{log}");
    let before = "ucache-or-native = true\nplugin = ucache\nplugin = python3";
    let by_environment =
        ("plugin = ucache\nplugin = python3", vec![("UWSGI_UCACHE_OR_NATIVE", "true".to_owned())]);
    for (plugins, env) in [(before, Vec::new()), by_environment] {
        let host = setup(plugins, env).start(CACHE);
        assert_eq!((host.logged(GOES_ON), host.logged("cache functions of uWSGI")), (1, 0), "{}", host.log());
        assert_eq!(
            host.eval("uwsgi.cache_set('k', b'v', 0, 'c'), uwsgi.cache_get('k', 'c')"),
            "(True, b'v')"
        );
    }
}

/// `uwsgi --build-plugin src/uwsgi`, with every uWSGI under test; each loads the plugin that it built.
#[test]
fn uwsgi_builds_the_plugin_itself() {
    let source = env!("CARGO_MANIFEST_DIR");
    for build in Build::all() {
        // In place of cargo, which would link for half a minute: the library of these sources that
        // it has made for this uWSGI. What uWSGI compiles and links is the test.
        let plugin = fs::canonicalize(build.plugins().join("ucache_plugin.so")).expect("the plugin");
        let (dir, uwsgi) = (tempfile::tempdir().unwrap(), build.uwsgi());
        let (bin, target) = (dir.path().join("bin"), dir.path().join("target"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(target.join("release")).unwrap();
        let stand_in = format!(
            "#!/bin/sh\necho \"$@\" > {dir}/asked\nexec cp {library} {dir}/target/release/\n",
            dir = dir.path().display(),
            library = plugin.with_file_name("libucache.a").display()
        );
        fs::write(bin.join("cargo"), stand_in).unwrap();
        fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut making = Command::new(&uwsgi);
        making.arg("--build-plugin").arg(Path::new(source).join("src/uwsgi")).current_dir(dir.path());
        making.env("UCACHE_SOURCE", source).env("CARGO_TARGET_DIR", &target);
        let path = std::env::var("PATH").expect("a PATH");
        let made = making.env("PATH", format!("{}:{path}", bin.display())).output().expect("uWSGI runs");
        let said = String::from_utf8_lossy(&made.stdout) + String::from_utf8_lossy(&made.stderr);
        assert!(dir.path().join("ucache_plugin.so").is_file(), "{build:?} {}\n{said}", made.status);
        assert_eq!(
            fs::read_to_string(dir.path().join("asked")).unwrap().trim(),
            format!("build --release --lib --features uwsgi,tls --manifest-path {source}/Cargo.toml")
        );

        let script =
            "import uwsgi\nuwsgi.cache_set('k', 'v', 0, 'c')\nprint('GOT', uwsgi.cache_get('k', 'c'))\n";
        fs::write(dir.path().join("app.py"), script).unwrap();
        fs::write(
            dir.path().join("uwsgi.ini"),
            format!(
                "[uwsgi]\nplugins-dir = {0}\nplugin = ucache\n{1}socket = {0}/socket\n{CACHE}\npyrun = {0}/app.py\n",
                dir.path().display(),
                build.python()
            ),
        )
        .unwrap();
        let ran = Command::new(&uwsgi).arg("--ini").arg(dir.path().join("uwsgi.ini")).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(said.contains("GOT b'v'") && said.contains("taken over"), "{build:?}\n{said}");
    }
}
