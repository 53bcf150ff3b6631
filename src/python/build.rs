//! Link arguments of the module.
#![allow(clippy::disallowed_macros, reason = "a build script talks to cargo on its stdout")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A host such as uWSGI exports functions of the same names as the library inside.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
