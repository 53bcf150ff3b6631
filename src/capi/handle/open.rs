//! Handles: opening, attaching, closing.

use std::{
    ffi::{OsStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use super::{
    call::{call, with_cache},
    error::{CallError, CallResult},
    nodes::Nodes,
    read,
    status::Status,
};
use crate::{
    capi::{
        arg,
        host::{
            cache::Cache,
            options::{self, Defaults, Settings},
        },
        panic::shielded,
    },
    engine::Engine,
    error::{Error, Result},
    near::{OnDown, Tier},
    os::cancel::Shield,
};

/// The cache itself, for callers that outlive the handle.
pub(super) type Shared = Tier;

/// A cache in use by this process.
#[allow(non_camel_case_types, reason = "the name of the header")]
#[derive(Debug)]
pub struct ucache {
    tier: Tier,
    /// If this cache comes from `uwsgi_cache_create`, that one, to whose nodes changes are sent.
    named: Option<&'static Cache>,
}

impl ucache {
    pub(super) fn tier(&self) -> &Tier {
        &self.tier
    }

    pub(super) fn shared(&self) -> Shared {
        self.tier.clone()
    }

    /// The nodes that changes are sent to.
    pub(super) fn nodes(&self) -> Nodes {
        Nodes(self.named)
    }
}

impl From<Tier> for ucache {
    fn from(tier: Tier) -> Self {
        Self { tier, named: None }
    }
}

/// Creates a cache, or opens its store if the definition names an existing one.
///
/// # Safety
/// See [`super`]: `out` is an out parameter, `definition` a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_open(out: *mut *mut ucache, definition: *const c_char) -> c_int {
    // SAFETY: passed on.
    unsafe { give(out, definition, "the definition is NULL", open) }
}

/// Opens an existing store file with its own limits.
///
/// # Safety
/// See [`super`]: `out` is an out parameter, `path` a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_attach(out: *mut *mut ucache, path: *const c_char) -> c_int {
    let attach = |path: &[u8]| {
        Engine::attach_named(Path::new(OsStr::from_bytes(path))).and_then(Tier::of_store).map(ucache::from)
    };
    // SAFETY: passed on.
    unsafe { give(out, path, "the path is NULL", attach) }
}

/// A cache created with `uwsgi_cache_create` by this process or one that it was forked from; in a
/// uWSGI server, one of the server's. "" = the first one.
///
/// # Safety
/// See [`super`]: `out` is an out parameter, `name` a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_named(out: *mut *mut ucache, name: *const c_char) -> c_int {
    let find = |name: &[u8]| {
        let found = Cache::by_name(name);
        let handle = |cache: &'static Cache| ucache { tier: cache.tier.clone(), named: Some(cache) };
        found.map(handle).ok_or_else(|| Error::NoSuchCache(String::from_utf8_lossy(name).into_owned()))
    };
    // SAFETY: passed on.
    unsafe { give(out, name, "the name is NULL", find) }
}

/// Ends the use of a cache; NULL is allowed. A cache in memory ends with its last user, a store
/// file stays.
///
/// # Safety
/// See [`super`]: `cache` is a handle that is not in use, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_close(cache: *mut ucache) {
    shielded((), || {
        if !cache.is_null() {
            // SAFETY: handles come from `give`, and the caller gives this one up.
            drop(unsafe { Box::from_raw(cache) });
        }
    });
}

/// The address of the server behind a cache, without user and password.
///
/// # Safety
/// See [`super`]: handle, buffer; `len` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_server(
    cache: *mut ucache,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe { with_cache(cache, |tier| read::give(buffer, size, len, tier.server().map(str::as_bytes))) }
}

/// Writes the store to disk, before it returns; a cache without one has nothing to write.
///
/// # Safety
/// See [`super`]: handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_sync(cache: *mut ucache) -> c_int {
    // SAFETY: passed on.
    unsafe {
        with_cache(cache, |engine| {
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
    call(|| -> CallResult {
        let _shield = Shield::raise();
        if out.is_null() {
            return Err(CallError::Argument("out is NULL: there is no place for the cache"));
        }
        // SAFETY: the caller vouches for the NUL. A copy, as `out` may lie in the text.
        let text = (!text.is_null()).then(|| unsafe { arg::name(text) }.to_vec());
        // SAFETY: `out` is not NULL, the caller vouches for the rest.
        unsafe { arg::store(out, std::ptr::null_mut()) };
        let handle = make(&text.ok_or(CallError::Argument(missing))?)?;
        // SAFETY: as above.
        unsafe { arg::store(out, Box::into_raw(Box::new(handle))) };
        Ok(Status::Ok)
    })
}

fn open(definition: &[u8]) -> Result<ucache> {
    let settings = options::parse(definition, Defaults::default())?;
    let refused = |reason: &str| {
        let value = options::shown_definition(definition);
        Err(Error::InvalidOption { option: "definition", value, reason: reason.to_owned() })
    };
    // A misspelled option must not create another cache than intended, and there is no log to
    // report it.
    if let Some(note) = settings.notes[..settings.ignored].first() {
        // The note is phrased for a log, in which the option is ignored.
        return refused(&note.replace(" and is ignored", "").replacen(" is ignored", "", 1));
    }
    let Settings { nodes, sync_nodes, udp_servers, .. } = &settings;
    if [nodes, sync_nodes, udp_servers].iter().any(|list| !list.is_empty()) {
        return refused("nodes, sync and udp are for uwsgi_cache_create");
    }
    if settings.store_sync != 0 {
        return refused("store_sync is for uwsgi_cache_create; ucache_sync writes to disk");
    }
    let engine = Engine::create_named(&settings.config)?;
    let tier = Tier::open(engine, &settings.backend, OnDown::Miss)?;
    tier.start_owner(false);
    Ok(tier.into())
}
