//! The key walk: `uwsgi_cache_keys` hands out copies, one at a time, and takes them back as the place to go on.

use std::{cell::RefCell, ffi::c_char, ptr};

use super::{
    arg,
    buffer::Buffer,
    cache::Cache,
    guard::guard,
    types::{FLAG_UNGETTABLE, uwsgi_cache, uwsgi_cache_item},
};
use crate::engine::{Cursor, ItemRef};

/// Walks that a thread may have open at the same time; the one not used for longest is dropped.
const WALKS: usize = 4;
/// The position after the last item.
const END: u64 = u64::MAX;

/// One walk of a thread.
struct Walk {
    cache: *const Cache,
    /// Items handed out: the caller's position.
    position: u64,
    cursor: Cursor,
    /// The item handed out last.
    item: Buffer,
}

thread_local! {
    /// Least recently used first.
    static OPEN: RefCell<Vec<Walk>> = const { RefCell::new(Vec::new()) };
}

/// Ends the thread's walks: it unlocked, its pointers are dead.
pub(super) fn release() {
    // A thread's end or a signal handler in the middle of a walk: nothing to free now.
    let _ = OPEN.try_with(|open| open.try_borrow_mut().map(|mut open| open.clear()));
}

impl Walk {
    fn new(cache: &'static Cache, position: u64) -> Self {
        let mut walk = Self { cache, position: 0, cursor: Cursor::default(), item: Buffer::new() };
        // Not a walk of this thread, or a forgotten one: go on where it was, as far as that can be told.
        while walk.position < position && cache.engine.walk_ref(&mut walk.cursor).is_some() {
            walk.position += 1;
        }
        walk
    }

    /// The next item in C's shape, the key behind it, in memory of this walk.
    fn next(&mut self, cache: &Cache) -> Option<*mut uwsgi_cache_item> {
        let ItemRef { key, about } = cache.engine.walk_ref(&mut self.cursor)?;
        self.position += 1;
        let head = uwsgi_cache_item {
            flags: if about.ungettable { FLAG_UNGETTABLE } else { 0 },
            keysize: key.len() as u64,
            hash: cache.settings.hash.hash(key).into(),
            valsize: about.value_len,
            first_block: about.id.0.get().into(),
            expires: about.expires,
            hits: 0,
            prev: 0,
            next: 0,
            lru_prev: 0,
            lru_next: 0,
            key: [],
        };
        let size = size_of::<uwsgi_cache_item>();
        self.item.room(size + key.len())?;
        let at = self.item.as_mut_ptr().cast::<uwsgi_cache_item>();
        // SAFETY: `room` made space for the head and the key at `at`, which nobody else uses; the struct is
        // packed, so any address is aligned for it.
        unsafe {
            at.write(head);
            ptr::copy_nonoverlapping(key.as_ptr(), at.add(1).cast(), key.len());
        }
        Some(at)
    }
}

/// The item after `*uci`, or with `*pos` = 0 and `*uci` = NULL the first; NULL = the end. The item is a copy that
/// belongs to the calling thread, until its next step of the walk or its next unlock. `*pos` is the walk's own
/// business. Items stored throughout the walk are met exactly once.
///
/// # Safety
/// See [`crate::capi`]: cache. `pos` and `uci` are NULL or point to writable variables; `*uci` is NULL or what the
/// walk gave last (it is compared, never followed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_keys(
    uc: *mut uwsgi_cache,
    pos: *mut u64,
    uci: *mut *mut uwsgi_cache_item,
) -> *mut uwsgi_cache_item {
    guard(ptr::null_mut(), || {
        // SAFETY: the caller vouches for the cache.
        let Some(cache) = (unsafe { Cache::of(uc) }) else { return ptr::null_mut() };
        if pos.is_null() || uci.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: the caller vouches for both variables.
        let (position, last) = unsafe { (pos.read_unaligned(), uci.read_unaligned()) };
        let (position, item) = step(cache, position, last).unwrap_or((END, None));
        // SAFETY: as above. At the end `*uci` stays as it was, as in native.
        unsafe {
            arg::store(pos, position);
            if let Some(item) = item {
                arg::store(uci, item);
            }
        }
        item.unwrap_or(ptr::null_mut())
    })
}

/// The key of an item of the walk: `keysize` bytes, valid as long as the item.
///
/// # Safety
/// `uci` is NULL or points to a `struct uwsgi_cache_item`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_item_key(uci: *mut uwsgi_cache_item) -> *mut c_char {
    if uci.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller vouches for the struct; no memory is read.
    unsafe { (&raw mut (*uci).key).cast() }
}

fn step(
    cache: &'static Cache,
    position: u64,
    last: *mut uwsgi_cache_item,
) -> Option<(u64, Option<*mut uwsgi_cache_item>)> {
    if position == END {
        return None;
    }
    let step = OPEN.try_with(|open| {
        let mut open = open.try_borrow_mut().ok()?;
        let is_known = |walk: &mut Walk| {
            ptr::eq(walk.cache, cache)
                && walk.position == position
                && !last.is_null()
                && ptr::eq(walk.item.as_mut_ptr().cast(), last)
        };
        // Mostly the one that went on last.
        if !open.last_mut().is_some_and(is_known) {
            let walk = match open.iter_mut().position(is_known) {
                Some(i) => open.remove(i),
                None => Walk::new(cache, position),
            };
            if open.len() == WALKS {
                open.remove(0);
            }
            open.push(walk);
        }
        let walk = open.last_mut()?;
        let item = walk.next(cache);
        let position = walk.position;
        if item.is_none() {
            open.pop();
        }
        item.map(|item| (position, Some(item)))
    });
    step.ok()?
}
