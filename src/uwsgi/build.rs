//! Reads the header and the compiler flags of the uWSGI named by `UWSGI_BIN` (or found in PATH) and
//! lets bindgen translate its structs into `OUT_DIR/uwsgi.rs`. No code of uWSGI is kept in the
//! repository.

use std::{env, fmt::Write as _, fs, panic::AssertUnwindSafe, path::Path, path::PathBuf, process::Command};

mod layout;

/// Writes the bindings and the fingerprint of the interface; an error names what to install.
pub(crate) fn generate() -> Result<(), String> {
    println!("cargo::rerun-if-changed=src/uwsgi/build.rs");
    println!("cargo::rerun-if-changed=src/uwsgi/layout.rs");
    println!("cargo::rerun-if-changed=src/uwsgi/layout/header.rs");
    println!("cargo::rerun-if-env-changed=UWSGI_BIN");
    println!("cargo::rerun-if-env-changed=PATH");
    let binary = find()?;
    println!("cargo::rerun-if-changed={}", binary.display());
    let header = ask(&binary, "--dot-h")?;
    let cflags = ask(&binary, "--cflags")?;
    let version = ask(&binary, "--version")?;
    // Without PCRE, uWSGI has no routes, and its header no types for them.
    println!("cargo::rustc-check-cfg=cfg(uwsgi_routing)");
    if layout::defines(&cflags).contains(&"-DUWSGI_ROUTING") {
        println!("cargo::rustc-cfg=uwsgi_routing");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run through cargo")?);
    let path = out.join("uwsgi.h");
    fs::write(&path, &header).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut bindings = bindings(&path, &cflags)?;
    shim(&out, &cflags)?;
    // The fingerprints are searched for by name in the finished library, hence the prefixes.
    let layout::Digests { all, plugin } = layout::Digests::of(&header, &cflags);
    let _ = write!(
        bindings,
        "\n/// Fingerprint of the structs of the uWSGI that the plugin was built against.\n\
         pub static LAYOUT: &str = \"ucache-layout={all}\";\n\
         /// The same of the structs that uWSGI reads from a plugin.\n\
         pub static PLUGIN_LAYOUT: &str = \"ucache-plugin-layout={plugin}\";\n\
         /// Version of that uWSGI.\npub const BUILT_AGAINST: &str = {:?};\n",
        version.trim()
    );
    let path = out.join("uwsgi.rs");
    fs::write(&path, bindings).map_err(|e| format!("{}: {e}", path.display()))
}

fn find() -> Result<PathBuf, String> {
    let missing = "install one (Debian, Ubuntu: apt-get install uwsgi-core uwsgi-dev libclang-dev) or set UWSGI_BIN \
                   to the uwsgi that will load the plugin";
    if let Some(named) = env::var_os("UWSGI_BIN") {
        let named = PathBuf::from(named);
        return if named.is_file() {
            Ok(named)
        } else {
            Err(format!("UWSGI_BIN={}: no such file; {missing}", named.display()))
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("uwsgi"))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("the feature `uwsgi` needs a uWSGI, but PATH has none; {missing}"))
}

fn ask(binary: &Path, option: &str) -> Result<String, String> {
    let output = Command::new(binary).arg(option).output();
    let output = output.map_err(|e| format!("{} {option}: {e}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && !text.trim().is_empty() {
        return Ok(text);
    }
    Err(format!(
        "{} {option} printed nothing ({}): uWSGI 2.0 or later is needed\n{}",
        binary.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Compiles the C side of the layout check with the flags of the host's own build.
fn shim(out: &Path, cflags: &str) -> Result<(), String> {
    println!("cargo::rerun-if-changed=src/uwsgi/shim.c");
    let mut build = cc::Build::new();
    build.file("src/uwsgi/shim.c").include(out).warnings(false).cargo_warnings(false);
    for word in layout::defines(cflags).into_iter().chain(includes(cflags)) {
        build.flag(word);
    }
    build.try_compile("ucache_shim").map_err(|e| format!("src/uwsgi/shim.c: {e}\n{HEADERS}"))
}

/// The include flags of the host's own build.
fn includes(cflags: &str) -> impl Iterator<Item = &str> {
    cflags.split_whitespace().filter(|word| word.starts_with("-I/"))
}

const HEADERS: &str = "the header of uWSGI did not compile: it includes the headers of what uWSGI was built with \
                       (Debian, Ubuntu: apt-get install uwsgi-dev libclang-dev; another build: the -dev packages of \
                       its PCRE, OpenSSL, libcap, ...)";

fn bindings(header: &Path, cflags: &str) -> Result<String, String> {
    let mut builder = bindgen::Builder::default()
        .header(header.to_string_lossy())
        .clang_args(layout::defines(cflags))
        .clang_args(includes(cflags))
        .derive_debug(false)
        .layout_tests(true)
        .generate_comments(false)
        .ignore_functions()
        .wrap_unsafe_ops(true)
        .rust_edition(bindgen::RustEdition::Edition2024);
    // An allowed type brings the types that it contains.
    for name in layout::TYPES {
        builder = builder.allowlist_type(name);
    }
    // bindgen panics when libclang itself is missing.
    let generated = std::panic::catch_unwind(AssertUnwindSafe(|| builder.generate()))
        .map_err(|_| "libclang is missing (Debian, Ubuntu: apt-get install libclang-dev)".to_owned())?;
    generated.map(|b| b.to_string()).map_err(|e| format!("{e}\n{HEADERS}"))
}
