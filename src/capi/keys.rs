//! The key walk: `uwsgi_cache_keys` hands out copies, one at a time, and takes them back as the place to go on.

use std::{
    cell::{Cell, RefCell},
    ffi::c_char,
    mem::MaybeUninit,
    ops::Range,
    ptr, slice,
};

use super::{
    arg,
    cache::Cache,
    guard::guard,
    hash::{Algorithm, LANES},
    types::{FLAG_UNGETTABLE, uwsgi_cache, uwsgi_cache_item},
};
use crate::{
    engine::{About, Picture},
    os::local::Local,
    shm::Source,
};

/// Walks that a thread may have open at the same time; the one not used for longest is dropped.
const WALKS: usize = 4;
/// The position after the last item.
const END: u64 = u64::MAX;

/// How far a walk is within the items that it has read.
#[derive(Clone)]
struct Place {
    /// What is walked.
    uc: Cell<*mut uwsgi_cache>,
    /// Items handed out: the caller's position.
    position: Cell<u64>,
    /// The item handed out last.
    given: Cell<*mut uwsgi_cache_item>,
    /// What is handed out next, up to `end`.
    next: Cell<*mut uwsgi_cache_item>,
    end: Cell<*mut uwsgi_cache_item>,
}

impl Place {
    const fn new() -> Self {
        Self {
            uc: Cell::new(ptr::null_mut()),
            position: Cell::new(0),
            given: Cell::new(ptr::null_mut()),
            next: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
        }
    }

    /// Takes over from another one.
    fn set(&self, from: &Self) {
        self.uc.set(from.uc.get());
        self.position.set(from.position.get());
        self.given.set(from.given.get());
        self.next.set(from.next.get());
        self.end.set(from.end.get());
    }

    /// Whether this is the walk that gave `last` as its item number `position`.
    #[inline]
    fn is(&self, uc: *mut uwsgi_cache, position: u64, last: *mut uwsgi_cache_item) -> bool {
        self.position.get() == position
            && ptr::eq(self.given.get(), last)
            && ptr::eq(self.uc.get(), uc)
            && !last.is_null()
    }

    /// The next item, if one is left of those that were read.
    #[inline]
    fn step(&self) -> Option<*mut uwsgi_cache_item> {
        let item = self.next.get();
        if item >= self.end.get() {
            return None;
        }
        // SAFETY: `item` is before `end`, so `Items::add` wrote it.
        self.next.set(unsafe { after(item) });
        self.given.set(item);
        self.position.set(self.position.get() + 1);
        Some(item)
    }
}

/// One walk of a thread.
struct Walk {
    place: Place,
    /// The chain that is read next.
    chain: u64,
    items: Items,
}

/// Items of some chains in C's shape, one behind the other, each with its key and a NUL.
struct Items {
    words: Vec<u64>,
    algorithm: Algorithm,
}

/// Words of an item with a key of `len` bytes.
const fn words_of(len: usize) -> usize {
    size_of::<uwsgi_cache_item>() / 8 + len / 8 + 1
}

/// Where the item after this one, or the end, is.
///
/// # Safety
/// An item that [`Items::add`] wrote.
#[inline]
unsafe fn after(item: *mut uwsgi_cache_item) -> *mut uwsgi_cache_item {
    // SAFETY: the item's words are followed by the next one's, or end where the vector does; the struct is packed, so any
    // address is aligned for it.
    unsafe { item.cast::<u64>().add(words_of((*item).keysize as usize)).cast() }
}

/// # Safety
/// An item that [`Items::add`] wrote, which nobody writes as long as the slice lives.
#[inline]
unsafe fn key_of<'a>(item: *const uwsgi_cache_item) -> &'a [u8] {
    // SAFETY: the key lies behind the head.
    unsafe { slice::from_raw_parts(item.add(1).cast::<u8>(), (*item).keysize as usize) }
}

impl Picture for Items {
    fn len(&self) -> usize {
        self.words.len()
    }

    fn truncate(&mut self, len: usize) {
        self.words.truncate(len);
    }

    #[inline]
    fn add(&mut self, about: About, key: &Source<'_>) {
        let (start, words) = (self.words.len(), words_of(key.len()));
        self.words.reserve(words);
        let room = &mut self.words.spare_capacity_mut()[..words];
        // The NUL and what is behind it, where the key leaves that.
        room[words - 1].write(0);
        let at = room.as_mut_ptr().cast::<uwsgi_cache_item>();
        // SAFETY: `room` holds the head and, from its end on, at least the key and a NUL (`words_of`); nobody else has it.
        let copy = unsafe { slice::from_raw_parts_mut(at.add(1).cast::<MaybeUninit<u8>>(), key.len()) };
        key.copy_to_uninit(copy);
        let head = uwsgi_cache_item {
            flags: if about.ungettable { FLAG_UNGETTABLE } else { 0 },
            keysize: copy.len() as u64,
            hash: 0, // `Items::hash`
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
        // SAFETY: head, key and the word behind were written: all of the words that become part of the vector; `reserve`
        // made room for them.
        unsafe {
            at.write(head);
            self.words.set_len(start + words);
        }
    }
}

impl Items {
    /// Hashes the keys, [`LANES`] at a time.
    fn hash(&mut self) {
        let Range { start: mut item, end } = self.words.as_mut_ptr_range();
        while item < end {
            let mut last = item.cast::<uwsgi_cache_item>();
            // What is missing of the last few is hashed more than once.
            let items = [(); LANES].map(|()| {
                if item < end {
                    last = item.cast();
                    // SAFETY: before the end, so `add` wrote it.
                    item = unsafe { after(last) }.cast();
                }
                last
            });
            // SAFETY: as above; nobody else has them.
            let hashes = self.algorithm.hashes(items.map(|item| unsafe { key_of(item) }));
            for (item, hash) in items.into_iter().zip(hashes) {
                // SAFETY: as above; the keys' slices are not used any more.
                unsafe { (*item).hash = hash.into() };
            }
        }
    }
}

/// The thread's walks, least recently used first.
#[derive(Default)]
struct Walks(Vec<Walk>);

static OPEN: Local<RefCell<Walks>> = Local::new(RefCell::default);

thread_local! {
    /// Where the last of `OPEN` is, for the next step, which mostly finds all that it needs here.
    static LAST: Place = const { Place::new() };
}

/// Ends the thread's walks: it unlocked, its pointers are dead.
pub(super) fn release() {
    // A signal handler in the middle of a walk: nothing to free now.
    OPEN.with_mut(Walks::clear);
}

impl Walks {
    fn clear(&mut self) {
        LAST.with(|place| place.set(&Place::new()));
        self.0.clear();
    }
}

impl Drop for Walks {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Walk {
    fn new(cache: &'static Cache, uc: *mut uwsgi_cache, position: u64) -> Self {
        let items = Items { words: Vec::new(), algorithm: cache.settings.hash };
        let mut walk = Self { place: Place::new(), chain: 0, items };
        walk.place.uc.set(uc);
        // Not a walk of this thread, or a forgotten one: go on where it was, as far as that can be told.
        while walk.place.position.get() < position && walk.next(cache).is_some() {}
        walk
    }

    /// The next item in C's shape, the key behind it, in memory of this walk.
    fn next(&mut self, cache: &Cache) -> Option<*mut uwsgi_cache_item> {
        loop {
            if let Some(item) = self.place.step() {
                return Some(item);
            }
            self.items.words.clear();
            if !cache.engine.walk_on(&mut self.chain, &mut self.items) {
                return None;
            }
            self.items.hash();
            let items = self.items.words.as_mut_ptr_range();
            self.place.next.set(items.start.cast());
            self.place.end.set(items.end.cast());
        }
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
    if pos.is_null() || uci.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller vouches for both variables.
    let (position, last) = unsafe { (pos.read_unaligned(), uci.read_unaligned()) };
    let quick = LAST.with(|place| {
        let item = place.is(uc, position, last).then(|| place.step())??;
        Some((place.position.get(), item))
    });
    let (position, item) = quick.unwrap_or_else(|| {
        guard((position, ptr::null_mut()), || {
            // SAFETY: the caller vouches for the cache.
            let Some(cache) = (unsafe { Cache::of(uc) }) else { return (position, ptr::null_mut()) };
            step(cache, uc, position, last).unwrap_or((END, ptr::null_mut()))
        })
    });
    // SAFETY: as above. At the end `*uci` stays as it was, as in native.
    unsafe {
        arg::store(pos, position);
        if !item.is_null() {
            arg::store(uci, item);
        }
    }
    item
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

/// A step that needs another chain, or another walk than the last one.
#[inline(never)]
fn step(
    cache: &'static Cache,
    uc: *mut uwsgi_cache,
    position: u64,
    last: *mut uwsgi_cache_item,
) -> Option<(u64, *mut uwsgi_cache_item)> {
    if position == END {
        return None;
    }
    OPEN.with_mut(|Walks(open)| {
        LAST.with(|place| {
            if let Some(walk) = open.last_mut()
                && !place.uc.get().is_null()
            {
                walk.place.set(place);
            }
            place.set(&Place::new());
        });
        let walk = match open.iter().rposition(|walk| walk.place.is(uc, position, last)) {
            Some(i) => open.remove(i),
            None => Walk::new(cache, uc, position),
        };
        if open.len() == WALKS {
            open.remove(0);
        }
        open.push(walk);
        let walk = open.last_mut()?;
        let Some(item) = walk.next(cache) else {
            open.pop();
            return None;
        };
        LAST.with(|place| place.set(&walk.place));
        Some((walk.place.position.get(), item))
    })?
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
