//! Functions of ucache.h that are not in uwsgi.h.

use std::ffi::{c_char, c_int};

use crate::capi::{compat::lock, host::cache::Cache, panic::shielded, types::uwsgi_cache};

/// The version as "major.minor.patch"; static memory.
#[unsafe(no_mangle)]
pub extern "C" fn ucache_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Takes the cache's lock for writing, so that reading and storing under it is atomic for all other
/// writers: 0, or -1 if a live process held it for longer than `lock_timeout` (the lock must be
/// released anyway). Ends with `uwsgi_cache_rwunlock`.
///
/// # Safety
/// See [`crate::capi`]: cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_wlock(uc: *mut uwsgi_cache) -> c_int {
    shielded(-1, || {
        // SAFETY: the caller vouches for the cache.
        let Some(cache) = (unsafe { Cache::of(uc) }) else { return -1 };
        if lock::enter(cache, true) { 0 } else { -1 }
    })
}
