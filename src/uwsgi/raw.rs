//! The structs of the uWSGI that the plugin is built against, as bindgen reads them.
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

// What the C surface mirrors by hand; another host needs another mirror.
const _: () = assert!(size_of::<uwsgi_cache>() == 352);
const _: () = assert!(size_of::<uwsgi_cache_item>() == 88);
const _: () = assert!(size_of::<uwsgi_lock_item>() == 40);
