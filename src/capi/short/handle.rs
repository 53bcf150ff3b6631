//! Handles: opening, attaching, closing.

use std::{
    ffi::{OsStr, c_char, c_int},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use super::{
    detail::{Fault, Outcome, on, run},
    nodes::Nodes,
    status::Status,
};
use crate::{
    capi::{
        arg,
        cache::Cache,
        guard::shielded,
        options::{self, Defaults, Settings},
        shown::shown,
    },
    engine::Engine,
    error::{Error, Result},
    os::cancel::Shield,
};

/// The cache itself, for who goes on using it without the handle.
pub(super) type Shared = Arc<Engine>;

/// A cache in use by this process.
#[allow(non_camel_case_types, reason = "the name of the header")]
#[derive(Debug)]
pub struct ucache {
    engine: Arc<Engine>,
    /// The cache of `uwsgi_cache_create` that this is, whose nodes are told of changes.
    named: Option<&'static Cache>,
}

impl ucache {
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn shared(&self) -> Shared {
        Arc::clone(&self.engine)
    }

    /// Who is told of changes.
    pub(super) fn nodes(&self) -> Nodes {
        Nodes(self.named)
    }
}

impl From<Arc<Engine>> for ucache {
    fn from(engine: Arc<Engine>) -> Self {
        Self { engine, named: None }
    }
}

/// Makes a cache, or opens its store if the definition names one that exists.
///
/// # Safety
/// See [`super`]: `out` is an out parameter, `definition` a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_open(out: *mut *mut ucache, definition: *const c_char) -> c_int {
    // SAFETY: passed on.
    unsafe { give(out, definition, "the definition is NULL", open) }
}

/// Opens a store file that exists, with the limits it was made with.
///
/// # Safety
/// See [`super`]: `out` is an out parameter, `path` a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_attach(out: *mut *mut ucache, path: *const c_char) -> c_int {
    let attach = |path: &[u8]| Engine::attach_named(Path::new(OsStr::from_bytes(path))).map(ucache::from);
    // SAFETY: passed on.
    unsafe { give(out, path, "the path is NULL", attach) }
}

/// The cache that this process, or one that it was forked from, made with `uwsgi_cache_create`; in a uWSGI server, one
/// of the server's. "" = the first one.
///
/// # Safety
/// See [`super`]: `out` is an out parameter, `name` a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_named(out: *mut *mut ucache, name: *const c_char) -> c_int {
    let find = |name: &[u8]| {
        let found = Cache::by_name(name);
        let handle = |cache: &'static Cache| ucache { engine: Arc::clone(&cache.engine), named: Some(cache) };
        found.map(handle).ok_or_else(|| Error::NoSuchCache(String::from_utf8_lossy(name).into_owned()))
    };
    // SAFETY: passed on.
    unsafe { give(out, name, "the name is NULL", find) }
}

/// Ends the use of a cache; NULL is allowed. What is stored in memory goes with its last user, a store file stays.
///
/// # Safety
/// See [`super`]: `cache` is a handle, which nobody uses now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_close(cache: *mut ucache) {
    shielded((), || {
        if !cache.is_null() {
            // SAFETY: handles come from `give`, and the caller gives this one up.
            drop(unsafe { Box::from_raw(cache) });
        }
    });
}

/// Writes the store to disk, before it returns; a cache without one has nothing to write.
///
/// # Safety
/// See [`super`]: handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_sync(cache: *mut ucache) -> c_int {
    // SAFETY: passed on.
    unsafe {
        on(cache, |engine| {
            let _shield = Shield::raise();
            engine.sync()?;
            Ok(Status::Ok)
        })
    }
}

/// Writes a new handle to `out`, or NULL.
///
/// # Safety
/// `out` is an out parameter, `text` a name.
unsafe fn give(
    out: *mut *mut ucache,
    text: *const c_char,
    missing: &'static str,
    make: impl FnOnce(&[u8]) -> Result<ucache>,
) -> c_int {
    run(|| -> Outcome {
        let _shield = Shield::raise();
        if out.is_null() {
            return Err(Fault::Argument("there is no place for the cache: out is NULL"));
        }
        // SAFETY: the caller vouches for the NUL. A copy, as `out` may lie in the text.
        let text = (!text.is_null()).then(|| unsafe { arg::name(text) }.to_vec());
        // SAFETY: `out` is not NULL, the caller vouches for the rest.
        unsafe { arg::store(out, std::ptr::null_mut()) };
        let handle = make(&text.ok_or(Fault::Argument(missing))?)?;
        // SAFETY: as above.
        unsafe { arg::store(out, Box::into_raw(Box::new(handle))) };
        Ok(Status::Ok)
    })
}

fn open(definition: &[u8]) -> Result<ucache> {
    let settings = options::parse(definition, Defaults::default())?;
    let refused = |reason: &str| {
        let value = shown(definition);
        Err(Error::InvalidOption { option: "definition", value, reason: reason.to_owned() })
    };
    // A mistake in spelling must not make another cache than the one that was meant; there is no log to tell it in.
    if let Some(note) = settings.notes[..settings.ignored].first() {
        // The note is a log's, which goes on without the option.
        return refused(&note.replace(" and is ignored", "").replacen(" is ignored", "", 1));
    }
    let Settings { nodes, sync_nodes, udp_servers, .. } = &settings;
    if [nodes, sync_nodes, udp_servers].iter().any(|list| !list.is_empty()) {
        return refused("nodes, sync and udp are for uwsgi_cache_create");
    }
    if settings.store_sync != 0 {
        return refused("store_sync is for uwsgi_cache_create; ucache_sync writes to disk");
    }
    Engine::create_named(&settings.config).map(ucache::from)
}
