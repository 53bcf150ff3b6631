//! Creating and finding caches: `uwsgi_cache_create`, `_create_all`, `_init`, `_fix`, `_by_name`.

use std::{
    ffi::c_char,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::capi::{
    arg,
    host::{
        cache::Cache,
        create::create,
        env::{self, Definition},
        preload,
    },
    panic::{guard, shielded},
    types::uwsgi_cache,
};

static ALL_CREATED: AtomicBool = AtomicBool::new(false);

/// Creates a cache from a definition (`name=...,items=...`); NULL = the default cache. Returns
/// NULL, with the reason in the log, if it cannot be created. The cache lives as long as the
/// process.
///
/// # Safety
/// See [`crate::capi`]: `arg` is a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_create(arg: *const c_char) -> *mut uwsgi_cache {
    shielded(ptr::null_mut(), || {
        let definition = if arg.is_null() {
            env::get().definitions().into_iter().find(|d| matches!(d, Definition::Legacy(_)))
        } else {
            // SAFETY: the caller vouches for the string.
            Some(Definition::Cache2(unsafe { arg::name(arg) }.to_vec()))
        };
        let Some(definition) = definition else {
            env::get().log("no default cache is defined");
            env::get().create_failed();
            return ptr::null_mut();
        };
        create(&definition).map_or(ptr::null_mut(), |cache| cache.view.as_ptr())
    })
}

/// Creates every cache defined by the environment, at the first call in a process only.
#[unsafe(no_mangle)]
pub extern "C" fn uwsgi_cache_create_all() {
    shielded((), || {
        if ALL_CREATED.swap(true, Ordering::AcqRel) {
            return;
        }
        for definition in env::get().definitions() {
            create(&definition);
        }
        preload::check();
        env::get().caches_created();
    });
}

/// Refreshes the struct's statistics; `uwsgi_cache_create` has done everything else.
///
/// # Safety
/// See [`crate::capi`]: cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_init(uc: *mut uwsgi_cache) {
    // SAFETY: passed on.
    shielded((), || unsafe { refresh(uc) });
}

/// Refreshes the struct's statistics; no cache ever needs more.
///
/// # Safety
/// See [`crate::capi`]: cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_fix(uc: *mut uwsgi_cache) {
    // SAFETY: passed on.
    shielded((), || unsafe { refresh(uc) });
}

/// The cache with this name, NULL if there is none; no name = the first.
///
/// # Safety
/// See [`crate::capi`]: name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_by_name(name: *const c_char) -> *mut uwsgi_cache {
    guard(ptr::null_mut(), || {
        // SAFETY: the caller vouches for the name.
        found(Cache::by_name(unsafe { arg::name(name) }))
    })
}

/// As `uwsgi_cache_by_name`, for a name of `len` bytes without a NUL; length 0 = the first cache.
///
/// # Safety
/// `name` is NULL or has `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_by_namelen(name: *const c_char, len: u16) -> *mut uwsgi_cache {
    guard(ptr::null_mut(), || {
        // SAFETY: the caller vouches for the bytes.
        let name = unsafe { arg::bytes(name, len.into()) }.unwrap_or_default();
        // A name that starts with a NUL names the first cache, as in native.
        found(Cache::by_name(if name.first() == Some(&0) { &[] } else { name }))
    })
}

/// # Safety
/// `uc` is a cache, see [`crate::capi`].
unsafe fn refresh(uc: *mut uwsgi_cache) {
    // SAFETY: the caller vouches for the cache.
    if let Some(cache) = unsafe { Cache::of(uc) } {
        cache.view.refresh(&cache.tier.stats());
    }
}

fn found(cache: Option<&Cache>) -> *mut uwsgi_cache {
    cache.map_or(ptr::null_mut(), |cache| cache.view.as_ptr())
}
