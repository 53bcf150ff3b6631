//! Reads include/ucache.h with bindgen, so that `src/capi/header.rs` can compare it with the
//! library's exports.

use std::{env, path::PathBuf};

/// Writes `ucache_functions.rs` (the functions, over the library's own structs) and
/// `ucache_structs.rs` (the header's structs and constants) into `OUT_DIR`.
pub(crate) fn generate() -> Result<(), String> {
    println!("cargo::rerun-if-changed=include/ucache.h");
    println!("cargo::rerun-if-changed=src/capi/build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let read = |builder: bindgen::Builder, name: &str| {
        let bindings = builder.header("include/ucache.h").generate().map_err(|e| {
            format!("include/ucache.h: {e} (bindgen needs libclang: apt-get install libclang-dev)")
        })?;
        bindings.write_to_file(out.join(name)).map_err(|e| format!("{name}: {e}"))
    };
    let builder = || bindgen::builder().rust_edition(bindgen::RustEdition::Edition2024).wrap_unsafe_ops(true);
    let functions = builder()
        .allowlist_function("(uwsgi_cache|cache_udp|ucache)_.*")
        .blocklist_type("uwsgi_.*|_*(pid|time)_t|ucache|ucache_(stats|memory|lease|read)")
        // These call functions of the program, whose thread may end inside them.
        .override_abi(bindgen::Abi::CUnwind, "ucache_(keys|key_fn|get_or_set|fill_fn)")
        .layout_tests(false)
        .merge_extern_blocks(true);
    read(functions, "ucache_functions.rs")?;
    let structs = builder()
        .prepend_enum_name(false)
        .allowlist_type("uwsgi_.*|ucache_(stats|memory|status|read)")
        .allowlist_var("UWSGI_CACHE_FLAG_.*|UCACHE_.*");
    read(structs, "ucache_structs.rs")
}
