//! The lock that foreign code takes around the raw tier. Readers need none, so a read lock is only
//! counted; a write lock excludes all other writers ([`Engine::exclusive_begin`]).
//!
//! [`Engine::exclusive_begin`]: crate::engine::Engine::exclusive_begin

use std::{cell::RefCell, ptr};

use crate::{
    capi::{
        compat::{keys, raw},
        host::{cache::Cache, report},
        panic::guard,
        types::{uwsgi_cache, uwsgi_lock_item},
    },
    os::{local::Local, process::Owner},
};

/// A lock held by a thread.
struct Held {
    cache: *const Cache,
    /// The thread: a child of fork inherits this list but holds nothing.
    owner: Owner,
    /// Whether `exclusive_begin` succeeded for it.
    exclusive: bool,
}

/// The thread's locks, in the order in which they were taken.
static HELD: Local<RefCell<Vec<Held>>> = Local::new(RefCell::default);

/// Takes `item` for reading; `false` = not the lock of one of our caches.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
pub(crate) fn rlock(item: *mut uwsgi_lock_item) -> bool {
    guard(true, || Cache::by_lock(item).map(|cache| enter(cache, false)).is_some())
}

/// Takes `item` for writing; `false` = not the lock of one of our caches. If a live process holds
/// it for longer than `lock_timeout`, this is logged and the caller continues: single calls stay
/// atomic.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
pub(crate) fn wlock(item: *mut uwsgi_lock_item) -> bool {
    guard(true, || Cache::by_lock(item).map(|cache| enter(cache, true)).is_some())
}

/// Releases the thread's last lock of `item`; `false` = not the lock of one of our caches.
#[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
pub(crate) fn rwunlock(item: *mut uwsgi_lock_item) -> bool {
    guard(true, || Cache::by_lock(item).map(leave).is_some())
}

/// Takes the cache's lock for reading. Recursive; readers never wait and block nobody.
///
/// # Safety
/// See [`crate::capi`]: cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_rlock(uc: *mut uwsgi_cache) {
    guard((), || {
        // SAFETY: the caller vouches for the cache.
        if let Some(cache) = unsafe { Cache::of(uc) } {
            enter(cache, false);
        }
    });
}

/// Releases the thread's last lock of the cache, for reading or writing. Invalidates the pointers
/// that the raw tier gave to the thread. Without effect if the thread holds nothing.
///
/// # Safety
/// See [`crate::capi`]: cache.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_rwunlock(uc: *mut uwsgi_cache) {
    guard((), || {
        // SAFETY: the caller vouches for the cache.
        if let Some(cache) = unsafe { Cache::of(uc) } {
            leave(cache);
        }
    });
}

/// Takes the cache for writing; `false` = without exclusive access.
pub(crate) fn enter(cache: &'static Cache, write: bool) -> bool {
    let owner = Owner::me();
    let nested = with_held(|held| {
        held.retain(|h| h.owner == owner);
        held.iter().any(|h| ptr::eq(h.cache, cache) && h.exclusive)
    });
    let exclusive = write && nested == Some(false) && begin(cache);
    with_held(|held| held.push(Held { cache, owner, exclusive }));
    exclusive || nested == Some(true)
}

fn leave(cache: &'static Cache) {
    let owner = Owner::me();
    let last = with_held(|held| {
        held.retain(|h| h.owner == owner);
        let i = held.iter().rposition(|h| ptr::eq(h.cache, cache))?;
        Some(held.remove(i))
    });
    if last.flatten().is_some_and(|last| last.exclusive) {
        cache.tier.engine().exclusive_end();
    }
    raw::release();
    keys::release();
}

fn begin(cache: &Cache) -> bool {
    let Err(e) = cache.tier.engine().exclusive_begin() else { return true };
    report::locked(cache, &e);
    false
}

/// `None` = in a signal handler that interrupted this module: then nothing is counted.
fn with_held<T>(f: impl FnOnce(&mut Vec<Held>) -> T) -> Option<T> {
    HELD.with_mut(f)
}

#[cfg(test)]
mod tests {
    use std::{ptr, thread};

    use super::*;
    use crate::capi::host::create;
    use crate::capi::host::env::Definition;

    fn cache(name: &str) -> &'static Cache {
        let text = format!("name={name},items=10,lock_timeout=50");
        create::create(&Definition::Cache2(text.into_bytes())).expect("a small cache")
    }

    #[test]
    fn foreign_locks_are_not_handled() {
        let mut foreign = uwsgi_lock_item {
            id: ptr::null_mut(),
            lock_ptr: ptr::null_mut(),
            rw: 1,
            pid: 0,
            can_deadlock: 0,
            next: ptr::null_mut(),
        };
        for item in [ptr::null_mut(), &raw mut foreign] {
            assert!(!rlock(item) && !wlock(item) && !rwunlock(item));
        }
    }

    #[test]
    fn a_write_lock_excludes_other_threads_until_its_last_unlock() {
        let cache = cache("locked");
        let lock = cache.view.lock();
        let others_store =
            || thread::spawn(|| cache.store(b"k", b"v", 0, 2).is_ok()).join().expect("no panic");
        assert!(wlock(lock) && wlock(lock) && rlock(lock));
        assert!(cache.store(b"k", b"v", 0, 0).is_ok());
        for _ in 0..2 {
            assert!(rwunlock(lock));
            assert!(!others_store());
        }
        assert!(rwunlock(lock));
        assert!(others_store());
        // An extra unlock does nothing.
        assert!(rwunlock(lock) && others_store());
    }

    #[test]
    fn read_locks_exclude_no_one() {
        let cache = cache("read");
        let lock = cache.view.lock();
        assert!(rlock(lock) && rlock(lock));
        assert!(thread::spawn(|| cache.store(b"k", b"v", 0, 0).is_ok()).join().expect("no panic"));
        // Foreign code that writes under its read lock still works.
        assert!(wlock(lock) && cache.store(b"k", b"w", 0, 2).is_ok());
        assert!(rwunlock(lock) && rwunlock(lock) && rwunlock(lock));
    }

    #[test]
    fn a_lock_that_timed_out_is_still_released_in_order() {
        let cache = cache("late");
        let lock = cache.view.lock();
        assert!(wlock(lock));
        let waited = thread::spawn(move || {
            let exclusive = enter(cache, true);
            leave(cache);
            exclusive
        });
        assert!(!waited.join().expect("no panic"));
        assert!(cache.store(b"k", b"v", 0, 0).is_ok() && rwunlock(lock));
    }
}
