//! The structs of the uWSGI that the plugin is built against, as translated by bindgen.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    clippy::ptr_as_ptr,
    clippy::borrow_as_ptr
)]

include!(concat!(env!("OUT_DIR"), "/uwsgi.rs"));

// The C interface mirrors this struct by hand; another host needs another mirror.
const _: () = assert!(size_of::<uwsgi_cache>() == 352);
const _: () = assert!(size_of::<uwsgi_cache_item>() == 88);
const _: () = assert!(size_of::<uwsgi_lock_item>() == 40);

/// Compares the layouts of the C compiler (shim.c) and bindgen, which differ if one of them packs
/// structs differently.
pub(crate) fn compilers_agree() -> bool {
    use std::mem::offset_of;

    unsafe extern "C" {
        static ucache_shim_layout: [usize; 12];
    }
    let bindgen = [
        size_of::<uwsgi_server>(),
        offset_of!(uwsgi_server, caches),
        offset_of!(uwsgi_server, cache2),
        offset_of!(uwsgi_server, cache_setup),
        offset_of!(uwsgi_server, lock_ops),
        offset_of!(uwsgi_server, gp),
        offset_of!(uwsgi_server, p),
        offset_of!(uwsgi_server, socket_timeout),
        size_of::<uwsgi_plugin>(),
        offset_of!(uwsgi_plugin, master_cycle),
        size_of::<wsgi_request>(),
        offset_of!(wsgi_request, buffer),
    ];
    // SAFETY: a constant array of 12 words, linked in from shim.c.
    bindgen == unsafe { ucache_shim_layout }
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_compilers_agree_on_the_layouts() {
        assert!(super::compilers_agree());
    }
}
