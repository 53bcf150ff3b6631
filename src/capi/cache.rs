//! The caches of this process: engine, settings and C view together, in a list that only grows.

use std::{
    ffi::c_char,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

use super::{
    arg, env,
    options::Settings,
    types::{uwsgi_cache, uwsgi_lock_item},
    view::View,
};
use crate::engine::Engine;

/// One cache. Never freed: C keeps pointers into it for the life of the process.
#[derive(Debug)]
pub(crate) struct Cache {
    /// The cache itself.
    pub(crate) engine: Arc<Engine>,
    /// What it was made from.
    pub(crate) settings: Settings,
    /// The struct that C sees.
    pub(crate) view: View,
    /// When this process wrote the store last, seconds of the monotonic clock; 0 = not yet.
    pub(super) synced: AtomicU64,
    next: AtomicPtr<Cache>,
    _strings: [usize; 6],
}

/// The first cache of this process. Each cell is written once, from NULL, with Release: a reader that follows it
/// with Acquire sees a whole `Cache`.
static FIRST: AtomicPtr<Cache> = AtomicPtr::new(ptr::null_mut());

impl Cache {
    /// Puts a cache at the end of the list and of C's list.
    pub(super) fn publish(engine: Arc<Engine>, settings: Settings, view: View) -> &'static Self {
        let (synced, next) = (AtomicU64::new(0), AtomicPtr::new(ptr::null_mut()));
        let _strings = view.strings();
        let cache: &'static Self =
            Box::leak(Box::new(Self { engine, settings, view, synced, next, _strings }));
        cache.view.bind(cache);
        let mut cell = &FIRST;
        let new = ptr::from_ref(cache).cast_mut();
        while let Err(found) =
            cell.compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Acquire)
        {
            // SAFETY: what was found is not NULL, hence a cache leaked by `publish`.
            cell = unsafe { &(*found).next };
        }
        if !cache.view.link() {
            env::get().log(&format!(
                "cache {:?} was made after a fork: other processes do not see it, nor does the list of caches",
                cache.settings.config.name
            ));
        }
        cache
    }

    /// The cache behind C's struct; `None` for NULL and for structs that are not ours.
    ///
    /// # Safety
    /// `view` is NULL or points to a `struct uwsgi_cache`.
    pub(crate) unsafe fn of(view: *mut uwsgi_cache) -> Option<&'static Self> {
        // SAFETY: the caller vouches for the struct; `View::owner` tells ours apart.
        unsafe { View::owner(view) }
    }

    /// The cache with this name; an empty name is the first cache's.
    pub(crate) fn by_name(name: &[u8]) -> Option<&'static Self> {
        all().find(|cache| name.is_empty() || cache.settings.name.to_bytes() == name)
    }

    /// [`Cache::by_name`] for every magic call: one comparison where the first cache is meant.
    ///
    /// # Safety
    /// As [`arg::name`].
    #[inline]
    unsafe fn by_c_name(name: *const c_char) -> Option<&'static Self> {
        // SAFETY: a name that is not NULL ends with a NUL (contract).
        if name.is_null() || unsafe { *name } == 0 {
            return all().next();
        }
        // SAFETY: both are strings that end with a NUL.
        all().find(|cache| unsafe { libc::strcmp(name, cache.settings.name.as_ptr()) } == 0)
    }

    /// The cache whose C struct has this lock.
    #[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
    pub(crate) fn by_lock(lock: *const uwsgi_lock_item) -> Option<&'static Self> {
        all().find(|cache| ptr::eq(cache.view.lock(), lock))
    }
}

/// All caches of this process, oldest first.
pub(crate) fn all() -> impl Iterator<Item = &'static Cache> {
    let step = |cell: &AtomicPtr<Cache>| {
        // SAFETY: NULL, or a cache leaked by `publish`.
        unsafe { cell.load(Ordering::Acquire).as_ref::<'static>() }
    };
    std::iter::successors(step(&FIRST), move |cache| step(&cache.next))
}

/// What a magic call's last argument names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// A cache of this process.
    Local(&'static Cache),
    /// `cache@server`
    Remote {
        /// What stands before the `@`; empty = the server's first cache.
        cache: &'a [u8],
        /// What stands behind it: `host:port` or the path of a unix socket.
        server: &'a [u8],
    },
}

impl<'a> Target<'a> {
    /// Resolves a name; `None` = no such cache.
    ///
    /// # Safety
    /// As [`arg::name`].
    pub(super) unsafe fn resolve(name: *const c_char) -> Option<Self> {
        // SAFETY: passed on.
        if let Some(cache) = unsafe { Cache::by_c_name(name) } {
            return Some(Self::Local(cache));
        }
        // SAFETY: passed on.
        let name: &'a [u8] = unsafe { arg::name(name) };
        // No cache is named with an '@', so looking for it last costs local calls nothing.
        let at = name.iter().position(|&b| b == b'@')?;
        Some(Self::Remote { cache: &name[..at], server: &name[at + 1..] })
    }
}
