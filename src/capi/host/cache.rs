//! The caches of this process: engine, settings and C view, in a list that only grows.

use std::{
    ffi::c_char,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use crate::{
    capi::{
        arg,
        host::{env, hash::Algorithm, options::Settings, view::View},
        types::{uwsgi_cache, uwsgi_lock_item},
    },
    near::Tier,
};

/// A cache. Never freed: C keeps pointers to it for the life of the process.
#[derive(Debug)]
pub(crate) struct Cache {
    /// The engine, or the backend.
    pub(crate) tier: Tier,
    /// Its definition.
    pub(crate) settings: Settings,
    /// The struct that C sees.
    pub(crate) view: View,
    /// When this process last wrote the store, seconds of the monotonic clock; 0 = not yet.
    pub(crate) synced: AtomicU64,
    next: AtomicPtr<Cache>,
    _strings: [usize; 6],
}

/// The first cache of this process. Each link is written once, from NULL, with Release: a reader
/// that loads it with Acquire sees a complete `Cache`.
static FIRST: AtomicPtr<Cache> = AtomicPtr::new(ptr::null_mut());

/// Caches by a hash of their names. A place is written once; a cache that finds its own taken is found
/// in the list only.
static NAMED: [AtomicPtr<Cache>; NAMES] = [const { AtomicPtr::new(ptr::null_mut()) }; NAMES];
const NAMES: usize = 64;

/// The place of a name in [`NAMED`].
fn place(name: &[u8]) -> &'static AtomicPtr<Cache> {
    &NAMED[Algorithm::Djb33x.hash(name) as usize % NAMES]
}

impl Cache {
    /// Appends a cache to the list and to C's list.
    pub(crate) fn publish(tier: Tier, settings: Settings, view: View) -> &'static Self {
        let (synced, next) = (AtomicU64::new(0), AtomicPtr::new(ptr::null_mut()));
        let _strings = view.strings();
        let cache: &'static Self = Box::leak(Box::new(Self { tier, settings, view, synced, next, _strings }));
        cache.view.bind(cache);
        let mut cell = &FIRST;
        let new = ptr::from_ref(cache).cast_mut();
        while let Err(found) =
            cell.compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Acquire)
        {
            // SAFETY: a link that is not NULL is a cache leaked by `publish`.
            cell = unsafe { &(*found).next };
        }
        let named = place(cache.settings.name.to_bytes());
        let _ = named.compare_exchange(ptr::null_mut(), new, Ordering::Release, Ordering::Relaxed);
        if !cache.view.link() {
            env::get().log(&format!(
                "cache {:?} was created after a fork: neither other processes nor the list of caches include it",
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
        // SAFETY: the caller vouches for the struct; `View::owner` recognises ours.
        unsafe { View::owner(view) }
    }

    /// The cache with this name, mostly by one comparison; an empty name means the first cache.
    #[inline(never)]
    pub(crate) fn by_name(name: &[u8]) -> Option<&'static Self> {
        if name.is_empty() {
            return all().next();
        }
        let is = |cache: &&Self| cache.settings.name.to_bytes() == name;
        follow(place(name)).filter(is).or_else(|| all().find(is))
    }

    /// [`Cache::by_name`] for magic calls: only one comparison if the first cache is meant.
    ///
    /// # Safety
    /// As [`arg::name`].
    #[inline]
    unsafe fn by_c_name(name: *const c_char) -> Option<&'static Self> {
        let first = all().next()?;
        // SAFETY: a name that is not NULL ends with a NUL (contract), as the cache's does.
        let is_first =
            name.is_null() || unsafe { *name == 0 || libc::strcmp(name, first.settings.name.as_ptr()) == 0 };
        // SAFETY: passed on.
        if is_first { Some(first) } else { Self::by_name(unsafe { arg::name(name) }) }
    }

    /// The cache whose C struct has this lock.
    #[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
    pub(crate) fn by_lock(lock: *const uwsgi_lock_item) -> Option<&'static Self> {
        all().find(|cache| ptr::eq(cache.view.lock(), lock))
    }
}

/// The cache that a link or a place leads to.
#[inline]
fn follow(cell: &AtomicPtr<Cache>) -> Option<&'static Cache> {
    // SAFETY: NULL, or a cache leaked by `publish`.
    unsafe { cell.load(Ordering::Acquire).as_ref::<'static>() }
}

/// All caches of this process, oldest first.
pub(crate) fn all() -> impl Iterator<Item = &'static Cache> {
    std::iter::successors(follow(&FIRST), |cache| follow(&cache.next))
}

/// The cache named by a magic call's last argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// A cache of this process.
    Local(&'static Cache),
    /// `cache@server`
    Remote {
        /// The part before the `@`; empty = the server's first cache.
        cache: &'a [u8],
        /// The part behind it: `host:port` or the path of a unix socket.
        server: &'a [u8],
    },
}

impl<'a> Target<'a> {
    /// Resolves a name; `None` = no such cache.
    ///
    /// # Safety
    /// As [`arg::name`].
    pub(crate) unsafe fn resolve(name: *const c_char) -> Option<Self> {
        // SAFETY: passed on.
        if let Some(cache) = unsafe { Cache::by_c_name(name) } {
            return Some(Self::Local(cache));
        }
        // SAFETY: passed on.
        let name: &'a [u8] = unsafe { arg::name(name) };
        // No cache name contains an '@', so checking for it last costs local calls nothing.
        let at = name.iter().position(|&b| b == b'@')?;
        Some(Self::Remote { cache: &name[..at], server: &name[at + 1..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::host::{create, env::Definition};

    /// More caches than there are places: some share one.
    #[test]
    fn every_cache_is_found_by_its_name() {
        let names: Vec<_> = (0..NAMES + 8).map(|n| format!("one of many {n}\0")).collect();
        for name in &names {
            let definition = format!("name={},items=10,blocksize=16", name.trim_end_matches('\0'));
            create::create(&Definition::Cache2(definition.into_bytes())).expect("a small cache");
        }
        for name in &names {
            // SAFETY: the name ends with a NUL.
            let found = unsafe { Cache::by_c_name(name.as_ptr().cast()) }.expect("it was made");
            assert_eq!(found.settings.name.to_bytes_with_nul(), name.as_bytes());
            assert!(follow(place(found.settings.name.to_bytes())).is_some());
        }
        // SAFETY: as above.
        assert!(unsafe { Cache::by_c_name(c"one of many".as_ptr()) }.is_none());
        // SAFETY: NULL and an empty name mean the first cache.
        let first = unsafe { [Cache::by_c_name(ptr::null()), Cache::by_c_name(c"".as_ptr())] };
        assert!(first.iter().all(|&it| ptr::eq(it.expect("the first"), all().next().expect("the first"))));
    }
}
