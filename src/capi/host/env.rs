//! The environment of the C interface: a plain program, or a host with its own list of caches, log,
//! locks and options. Set once, before the first cache is created.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, time::Duration};

use once_cell::race::OnceBox;

use crate::{
    capi::types::{uwsgi_cache, uwsgi_lock_item},
    os::cancel::Shield,
};

/// The environment. The defaults are those of a plain program.
pub(crate) trait Env: Sync {
    /// The location of the pointer to the first cache.
    fn head(&self) -> *mut *mut uwsgi_cache;
    /// Writes one line (without its newline) to the log; the default is stderr.
    fn log(&self, line: &str) {
        let _shield = Shield::raise();
        self.write_log(line);
    }
    /// Does the work of [`Env::log`], with cancellation of the calling thread disabled.
    fn write_log(&self, line: &str);
    /// Creates a lock item named "cache_" and the name, for the new cache `name`. It is in the
    /// host's list of locks if all processes that read the list will have the item's memory. Never
    /// NULL.
    fn new_lock(&self, name: &str) -> *mut uwsgi_lock_item;
    /// Called when a cache could not be created; the reason has been logged. A host exits here (as
    /// native does), a plain program continues and gets NULL.
    fn create_failed(&self);
    /// The caches that `uwsgi_cache_create_all` creates, in order. `uwsgi_cache_create(NULL)`
    /// creates the legacy one, too.
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
    /// `cache-no-expire`: no cache enforces expiry (except those with `lazy_expire`).
    fn no_expire(&self) -> bool {
        false
    }
    /// The content of a file to preload, named as in the option. A host may support other sources
    /// than files (`exec://`, `http://`), and exit if there is nothing to read.
    ///
    /// # Errors
    /// The reason for having no content.
    fn read_file(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        std::fs::read(Path::new(OsStr::from_bytes(name))).map_err(|e| e.to_string())
    }
    /// Called once, at the end of `uwsgi_cache_create_all`: a host does the rest of its own
    /// function's work here (it registers the hash algorithms, which a router looks up by name, and
    /// notes that the caches exist).
    fn caches_created(&self) {}
    /// Whether the calling thread may use the system's resolver for the server of a copy. It may
    /// not if another thread forks processes that would inherit the resolver's locks.
    fn may_look_up(&self) -> bool {
        true
    }
    /// Whether a master process starts the threads of the caches (`uwsgi_cache_start_sweepers`).
    fn has_master(&self) -> bool {
        false
    }
    /// Whether `uwsgi_cache_sync_all` writes every store before it returns (called by a plain
    /// program), or starts a thread that writes those whose `store_sync` is due (called by a host's
    /// master every second).
    fn sync_at_once(&self) -> bool {
        true
    }
}

/// A cache to create.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Definition {
    /// A `cache2` string.
    Cache2(Vec<u8>),
    /// The old-style `cache` options, already as key=value pairs of a cache2 string (name=default,
    /// ...).
    Legacy(Vec<u8>),
}

/// An item to store when a cache is created. The text may start with "cachename ".
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Preload {
    /// `[cache ]key=value`
    Item(Vec<u8>),
    /// `[cache ]path`
    File(Vec<u8>),
    /// `[cache ]path`, stored gzipped
    Gzip(Vec<u8>),
}

static ENV: OnceBox<&'static dyn Env> = OnceBox::new();

/// The environment in use: the host's, or from the first call on that of a plain program.
pub(crate) fn get() -> &'static dyn Env {
    *ENV.get_or_init(|| {
        Box::new(FINDER.get().and_then(|find| find()).unwrap_or(&super::standalone::Standalone))
    })
}

/// Called at the first use, unless a host was installed before: a host may be loaded after this
/// library.
static FINDER: OnceBox<fn() -> Option<&'static dyn Env>> = OnceBox::new();

/// Sets the function that looks for a host; the first one stays. It must not call [`get`].
#[cfg(feature = "uwsgi")]
pub(crate) fn look_with(find: fn() -> Option<&'static dyn Env>) {
    let _ = FINDER.set(Box::new(find));
}

/// Installs a host; `false` = an environment was already in use.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
pub(crate) fn install(env: &'static dyn Env) -> bool {
    ENV.set(Box::new(env)).is_ok()
}
