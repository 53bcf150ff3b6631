//! Link arguments of libucache.so; with the feature `header`, the declarations of include/ucache.h;
//! with the feature `uwsgi`, the types of the installed uWSGI.
#![allow(clippy::disallowed_macros, reason = "a build script talks to cargo on its stdout")]

#[cfg(feature = "header")]
#[path = "src/capi/build.rs"]
mod header;
#[cfg(feature = "uwsgi")]
#[path = "src/uwsgi/build.rs"]
mod uwsgi;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // -Bsymbolic: a host may export functions of the same names; calls inside the library must stay
    // inside. nodelete: the host's code jumps to ours, and threads may be inside. defs: the library
    // needs no symbols of a host, so an undefined one is an error at build time, not at load time.
    let shared = std::env::var_os("CARGO_FEATURE_SHARED").is_some();
    for arg in
        ["-Wl,-soname,libucache.so.0", "-Wl,-Bsymbolic", "-Wl,-z,nodelete"].into_iter().filter(|_| shared)
    {
        println!("cargo::rustc-cdylib-link-arg={arg}");
    }
    // Code that is instrumented for a fuzzer calls functions of the fuzzer's program.
    if shared && std::env::var_os("CARGO_CFG_FUZZING").is_none() {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,defs");
    }
    if let Err(message) = generate() {
        // cargo shows a build script's stderr line by line, unlike a panic's Debug text.
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

fn generate() -> Result<(), String> {
    #[cfg(feature = "uwsgi")]
    uwsgi::generate()?;
    #[cfg(feature = "header")]
    header::generate()?;
    Ok(())
}
