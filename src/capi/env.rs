//! What surrounds the C surface: nothing (a plain program), or a host that has its own list of caches, its own
//! log, locks and options. Set once, before the first cache is made.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path, time::Duration};

use once_cell::race::OnceBox;

use super::types::{uwsgi_cache, uwsgi_lock_item};
use crate::os::cancel::Shield;

/// The surroundings. The defaults are those of a plain program.
pub(crate) trait Env: Sync {
    /// Where the pointer to the first cache lives.
    fn head(&self) -> *mut *mut uwsgi_cache;
    /// Writes one line (without its end) to the log; the default is stderr.
    fn log(&self, line: &str) {
        let _shield = Shield::raise();
        self.write_log(line);
    }
    /// What [`Env::log`] does, with cancellation of the calling thread disabled.
    fn write_log(&self, line: &str);
    /// A lock item, called "cache_" and the name, for the new cache `name`; in the host's list of locks where all processes
    /// that read it will have the item's memory. Never NULL.
    fn new_lock(&self, name: &str) -> *mut uwsgi_lock_item;
    /// A cache could not be made; the reason has been logged. A host ends here (as native does), a plain program
    /// returns and gets NULL.
    fn create_failed(&self);
    /// What `uwsgi_cache_create_all` makes, in order. The legacy one is also what `uwsgi_cache_create(NULL)` makes.
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
    /// `cache-no-expire`: expiry is enforced in no cache (but in those with `lazy_expire`).
    fn no_expire(&self) -> bool {
        false
    }
    /// The content of a file to preload, named as in the option. A host may know other places than files (`exec://`,
    /// `http://`), and end where there is nothing to read.
    ///
    /// # Errors
    /// Says why there is no content.
    fn read_file(&self, name: &[u8]) -> Result<Vec<u8>, String> {
        std::fs::read(Path::new(OsStr::from_bytes(name))).map_err(|e| e.to_string())
    }
    /// Called once, at the end of `uwsgi_cache_create_all`: a host does here what else its own function did
    /// (registers the hash algorithms, which a router asks for by name; notes that the caches exist).
    fn caches_created(&self) {}
    /// Whether the calling thread may ask the system's resolver for the address of a server to copy from: not beside a
    /// thread that forks processes which go on with what they inherit.
    fn may_look_up(&self) -> bool {
        true
    }
    /// Whether `uwsgi_cache_sync_all` writes every store before it returns (a plain program asked for it), or
    /// starts a thread that writes those whose `store_sync` is due (a host's master calls it every second).
    fn sync_at_once(&self) -> bool {
        true
    }
}

/// One cache to make.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Definition {
    /// A `cache2` string.
    Cache2(Vec<u8>),
    /// The old-style `cache` options, already as key=value pairs of a cache2 string (name=default, ...).
    Legacy(Vec<u8>),
}

/// One item to store when a cache is made. The text may start with "cachename ".
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

/// The surroundings in use: the host's, or from the first call on those of a plain program.
pub(crate) fn get() -> &'static dyn Env {
    *ENV.get_or_init(|| {
        Box::new(FINDER.get().and_then(|find| find()).unwrap_or(&super::standalone::Standalone))
    })
}

/// Asked once, at the first use, unless a host was put in place before: a host may be loaded after this library.
static FINDER: OnceBox<fn() -> Option<&'static dyn Env>> = OnceBox::new();

/// Names the function that looks for a host; the first one stays. It must not call [`get`].
#[cfg(feature = "uwsgi")]
pub(crate) fn look_with(find: fn() -> Option<&'static dyn Env>) {
    let _ = FINDER.set(Box::new(find));
}

/// Puts a host in place; `false` = surroundings were already in use.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
pub(crate) fn install(env: &'static dyn Env) -> bool {
    ENV.set(Box::new(env)).is_ok()
}
