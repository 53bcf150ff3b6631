//! Link arguments of libucache.so; with the feature `header`, what include/ucache.h declares; with the feature `uwsgi`,
//! the types of the uWSGI that is there.
#![allow(clippy::disallowed_macros, reason = "a build script talks to cargo on its stdout")]

#[cfg(feature = "header")]
#[path = "src/capi/build.rs"]
mod header;
#[cfg(feature = "uwsgi")]
#[path = "src/uwsgi/build.rs"]
mod uwsgi;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A host may export the functions that we export: calls inside the library must stay inside it. The host's
    // code jumps to ours and threads may be inside, so the library never goes once it is there. And it needs nothing
    // of a host, so what is undefined is an error here, not when a program loads it.
    for arg in ["-Wl,-soname,libucache.so.0", "-Wl,-Bsymbolic", "-Wl,-z,nodelete", "-Wl,-z,defs"] {
        println!("cargo::rustc-cdylib-link-arg={arg}");
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
