//! Link arguments of libucache.so; with the feature `header`, what include/ucache.h declares.
#![allow(clippy::disallowed_macros, reason = "a build script talks to cargo on its stdout")]

#[cfg(feature = "header")]
#[path = "build/header.rs"]
mod header;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A host may export the functions that we export: calls inside the library must stay inside it. The host's
    // code jumps to ours and threads may be inside, so the library never goes once it is there.
    for arg in ["-Wl,-soname,libucache.so", "-Wl,-Bsymbolic-functions", "-Wl,-z,nodelete"] {
        println!("cargo::rustc-cdylib-link-arg={arg}");
    }
    #[cfg(feature = "header")]
    if let Err(message) = header::generate() {
        // cargo shows a build script's stderr line by line, unlike a panic's Debug text.
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}
