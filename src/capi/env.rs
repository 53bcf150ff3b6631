//! What surrounds the C surface: nothing (a plain program), or a host that has its own list of caches, its own
//! log, locks and options. Set once, before the first cache is made.

use std::{ffi::c_char, sync::OnceLock, time::Duration};

use super::types::{uwsgi_cache, uwsgi_lock_item};

/// The surroundings. The defaults are those of a plain program.
pub(crate) trait Env: Sync {
    /// Where the pointer to the first cache lives.
    fn head(&self) -> *mut *mut uwsgi_cache;
    /// Writes one line (without its end) to the log; the default is stderr.
    fn log(&self, line: &str);
    /// A lock item for a new cache, listed in the host's lock list. Never NULL.
    fn new_lock(&self, name: &str) -> *mut uwsgi_lock_item;
    /// A cache could not be made; the reason has been logged. A host ends here (as native does), a plain program
    /// returns and gets NULL.
    fn create_failed(&self);
    /// Definitions for `uwsgi_cache_create_all`: `None` = the legacy "default" cache, else a cache2 string.
    fn definitions(&self) -> Vec<Definition>;
    /// `add-cache-item`, `load-file-in-cache` and `load-file-in-cache-gzip` values, in order.
    fn preloads(&self) -> Vec<Preload>;
    /// Seconds between two sweeps (`cache-expire-freq`, default 3).
    fn sweep_interval(&self) -> Duration;
    /// `cache-report-freed-items`.
    fn report_freed(&self) -> bool;
    /// `socket-timeout`, for remote caches (default 4 s).
    fn socket_timeout(&self) -> Duration;
    /// The default of `store_sync` (`cache-store-sync`).
    fn store_sync(&self) -> u64;
    /// Called with every store's descriptor, which a host must not close on reload.
    fn keep_fd(&self, fd: i32);
}

/// One cache to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Definition {
    /// A `cache2` string.
    Cache2(Vec<u8>),
    /// The old-style `cache` options, already as key=value pairs of a cache2 string (name=default, ...).
    Legacy(Vec<u8>),
}

/// One item to store when a cache is made. The text may start with "cachename ".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Preload {
    /// `[cache ]key=value`
    Item(Vec<u8>),
    /// `[cache ]path`
    File(Vec<u8>),
    /// `[cache ]path`, stored gzipped
    Gzip(Vec<u8>),
}

static ENV: OnceLock<&'static dyn Env> = OnceLock::new();

/// Puts a host in place; `false` = surroundings were already in use.
pub(crate) fn install(env: &'static dyn Env) -> bool {
    ENV.set(env).is_ok()
}
