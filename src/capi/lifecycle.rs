//! Making caches and finding them: `uwsgi_cache_create`, `_create_all`, `_init`, `_fix`, `_by_name`.

use std::{
    ffi::c_char,
    os::unix::ffi::OsStrExt,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    arg,
    cache::Cache,
    env::{self, Definition},
    guard::{guard, shielded},
    leave,
    options::{self, Defaults, Settings},
    peer, preload, report,
    shown::shown,
    types::uwsgi_cache,
    view::View,
};
use crate::{
    engine::{Engine, Eviction},
    error::Result,
};

static ALL_CREATED: AtomicBool = AtomicBool::new(false);

/// Makes a cache from a definition (`name=...,items=...`); NULL = the default cache. Gives NULL, with the reason in
/// the log, if it cannot be made. The cache lives as long as the process.
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

/// Makes every cache that the surroundings define; only the first call of a process does.
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

/// Brings the struct's figures up to date: `uwsgi_cache_create` has made everything else.
///
/// # Safety
/// See [`crate::capi`]: cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_init(uc: *mut uwsgi_cache) {
    // SAFETY: passed on.
    shielded((), || unsafe { refresh(uc) });
}

/// Brings the struct's figures up to date: a cache is never in a state that needs more.
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
        // A name that starts with a NUL is none, as in native.
        found(Cache::by_name(if name.first() == Some(&0) { &[] } else { name }))
    })
}

/// # Safety
/// `uc` is a cache, see [`crate::capi`].
unsafe fn refresh(uc: *mut uwsgi_cache) {
    // SAFETY: the caller vouches for the cache.
    if let Some(cache) = unsafe { Cache::of(uc) } {
        cache.view.refresh(&cache.engine.stats());
    }
}

fn found(cache: Option<&Cache>) -> *mut uwsgi_cache {
    cache.map_or(ptr::null_mut(), |cache| cache.view.as_ptr())
}

/// Makes one cache; `None` = it cannot be made, which has been logged and told to the surroundings.
pub(super) fn create(definition: &Definition) -> Option<&'static Cache> {
    let (Definition::Cache2(text) | Definition::Legacy(text)) = definition;
    match make(text) {
        Ok(cache) => {
            report::start(cache);
            env::get().log(&geometry(cache));
            peer::start(cache);
            preload::fill(cache);
            cache.view.refresh(&cache.engine.stats());
            Some(cache)
        }
        Err(e) => {
            let text = shown(text);
            env::get().log(&format!("unable to create the cache \"{text}\": {e}"));
            env::get().create_failed();
            None
        }
    }
}

fn make(text: &[u8]) -> Result<&'static Cache> {
    let env = env::get();
    let defaults = Defaults { store_sync: env.store_sync(), no_expire: env.no_expire() };
    let settings: Settings = options::parse(text, defaults)?;
    let name = shown(settings.name.to_bytes());
    for note in &settings.notes {
        env.log(&format!("cache \"{name}\": {note}"));
    }
    if Cache::by_name(settings.name.to_bytes()).is_some() {
        env.log(&format!("cache \"{name}\": the name is taken; this one is not found by name"));
    }
    let engine = Engine::create(&settings.config)?;
    for note in engine.notes() {
        env.log(&format!("cache \"{name}\": {note}"));
    }
    if let Some(fd) = engine.store_fd() {
        env.keep_fd(fd);
        leave::at_exit();
    }
    let view = View::new(&settings, env.new_lock(&settings.name.to_string_lossy()))?;
    Ok(Cache::publish(engine, settings, view))
}

/// The start-up line: what fits.
fn geometry(cache: &Cache) -> String {
    let (config, stats) = (&cache.settings.config, cache.engine.stats());
    let blocks =
        config.blocks.map_or_else(String::new, |b| format!(" in {} blocks of {} bytes", b.count, b.size));
    let memory = match &config.store {
        Some(store) => {
            format!("store {} ({} items found)", shown(store.path.as_os_str().as_bytes()), stats.items)
        }
        None => "memory".to_owned(),
    };
    format!(
        "cache \"{}\" ready: up to {} items{}, keys up to {} bytes, values up to {} bytes{blocks}; {memory} grows with \
         the data, {} MB of addresses reserved",
        shown(cache.settings.name.to_bytes()),
        config.capacity,
        match config.eviction {
            Eviction::None => "",
            Eviction::Lru => " (LRU)",
            Eviction::S3Fifo => " (S3-FIFO)",
        },
        config.max_key,
        config.max_value,
        stats.reserved >> 20,
    )
}
