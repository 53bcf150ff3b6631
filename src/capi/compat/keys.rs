//! The key walk: `uwsgi_cache_keys` returns copies, one at a time, and takes the last one as the
//! position.

use std::{
    cell::{Cell, RefCell},
    ffi::c_char,
    mem::MaybeUninit,
    ops::Range,
    ptr, slice,
};

use crate::{
    capi::{
        arg,
        host::{
            cache::Cache,
            hash::{Algorithm, LANES},
        },
        panic::guard,
        types::{FLAG_UNGETTABLE, uwsgi_cache, uwsgi_cache_item},
    },
    engine::{ItemMeta, ItemRef, ScanSink, Sink},
    near::{self, Position},
    os::local::Local,
    shm::SharedBytes,
};

/// Maximum number of concurrent walks per thread; the least recently used one is dropped.
const WALKS: usize = 4;
/// The position after the last item.
const END: u64 = u64::MAX;

/// The position of a walk within the items that it has read.
#[derive(Clone)]
struct Place {
    /// The cache being walked.
    uc: Cell<*mut uwsgi_cache>,
    /// Number of items returned: the caller's position.
    position: Cell<u64>,
    /// The item returned last.
    given: Cell<*mut uwsgi_cache_item>,
    /// The item to return next, up to `end`.
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

    /// Copies the position of another walk.
    fn set(&self, from: &Self) {
        self.uc.set(from.uc.get());
        self.position.set(from.position.get());
        self.given.set(from.given.get());
        self.next.set(from.next.get());
        self.end.set(from.end.get());
    }

    /// Whether this walk returned `last` as its item number `position`.
    #[inline]
    fn is(&self, uc: *mut uwsgi_cache, position: u64, last: *mut uwsgi_cache_item) -> bool {
        self.position.get() == position
            && ptr::eq(self.given.get(), last)
            && ptr::eq(self.uc.get(), uc)
            && !last.is_null()
    }

    /// The next item among those already read.
    #[inline]
    fn step(&self) -> Option<*mut uwsgi_cache_item> {
        let item = self.next.get();
        if item >= self.end.get() {
            return None;
        }
        // SAFETY: `item` is before `end`, so it was written by `Items::add`.
        self.next.set(unsafe { after(item) });
        self.given.set(item);
        self.position.set(self.position.get() + 1);
        Some(item)
    }
}

/// One walk of a thread.
struct Walk {
    place: Place,
    /// The chain to read next.
    chain: u64,
    items: Items,
}

/// Items of some chains in C's layout, one behind the other, each with its key and a NUL.
struct Items {
    words: Vec<u64>,
    algorithm: Algorithm,
}

/// Words of an item whose key has `len` bytes.
const fn words_of(len: usize) -> usize {
    size_of::<uwsgi_cache_item>() / 8 + len / 8 + 1
}

/// Address of the item after this one, or the end.
///
/// # Safety
/// An item that [`Items::add`] wrote.
#[inline]
unsafe fn after(item: *mut uwsgi_cache_item) -> *mut uwsgi_cache_item {
    // SAFETY: the item's words are followed by the next one's, or end with the vector; the struct
    // is packed, so any address is aligned for it.
    unsafe { item.cast::<u64>().add(words_of((*item).keysize as usize)).cast() }
}

/// # Safety
/// An item written by [`Items::add`], which does not change while the slice lives.
#[inline]
unsafe fn key_of<'a>(item: *const uwsgi_cache_item) -> &'a [u8] {
    // SAFETY: the key follows the item's header.
    unsafe { slice::from_raw_parts(item.add(1).cast::<u8>(), (*item).keysize as usize) }
}

impl ScanSink for Items {
    fn len(&self) -> usize {
        self.words.len()
    }

    fn truncate(&mut self, len: usize) {
        self.words.truncate(len);
    }

    #[inline]
    fn add(&mut self, about: ItemMeta, key: &SharedBytes<'_>) {
        let (start, words) = (self.words.len(), words_of(key.len()));
        self.words.reserve(words);
        let room = &mut self.words.spare_capacity_mut()[..words];
        // The NUL and padding, unless the key overwrites them.
        room[words - 1].write(0);
        let at = room.as_mut_ptr().cast::<uwsgi_cache_item>();
        // SAFETY: `room` holds the header and behind it at least the key and a NUL (`words_of`); no
        // other code uses it.
        let copy = unsafe { slice::from_raw_parts_mut(at.add(1).cast::<MaybeUninit<u8>>(), key.len()) };
        key.copy_to_uninit(copy);
        let head = uwsgi_cache_item {
            flags: if about.ungettable { FLAG_UNGETTABLE } else { 0 },
            keysize: copy.len() as u64,
            hash: 0, // `Items::hash`
            valsize: about.value_len,
            first_block: about.id.0.get().into(),
            expires: about.expires_secs(),
            hits: 0,
            prev: 0,
            next: 0,
            lru_prev: 0,
            lru_next: 0,
            key: [],
        };
        // SAFETY: header, key and the word behind them were written: all words added to the
        // vector's length; `reserve` allocated them.
        unsafe {
            at.write(head);
            self.words.set_len(start + words);
        }
    }
}

impl Items {
    /// [`ScanSink::add`] of a key that is not shared.
    fn add_plain(&mut self, item: ItemRef<'_>) {
        struct Key<'a>(&'a mut Items, ItemMeta);
        impl Sink for Key<'_> {
            fn take(&mut self, key: &SharedBytes<'_>) -> bool {
                self.0.add(self.1, key);
                true
            }
        }
        near::give(item.key, &mut Key(self, item.meta));
    }

    /// Hashes the keys, [`LANES`] at a time.
    fn hash(&mut self) {
        let Range { start: mut item, end } = self.words.as_mut_ptr_range();
        while item < end {
            let mut last = item.cast::<uwsgi_cache_item>();
            // To fill the last batch, some keys are hashed more than once.
            let items = [(); LANES].map(|()| {
                if item < end {
                    last = item.cast();
                    // SAFETY: before the end, so it was written by `add`.
                    item = unsafe { after(last) }.cast();
                }
                last
            });
            // SAFETY: as above; no other code uses them.
            let hashes = self.algorithm.hashes(items.map(|item| unsafe { key_of(item) }));
            for (item, hash) in items.into_iter().zip(hashes) {
                // SAFETY: as above; the keys' slices are no longer used.
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
    /// Position of the last walk in `OPEN`, which usually suffices for the next step.
    static LAST: Place = const { Place::new() };
}

/// Ends the thread's walks after an unlock, which invalidates their pointers.
pub(crate) fn release() {
    // In a signal handler that interrupted a walk, nothing is freed.
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
    fn new(cache: &'static Cache, uc: *mut uwsgi_cache, position: u64, listed: Option<Items>) -> Self {
        let whole = listed.is_some();
        let items = listed.unwrap_or_else(|| Items { words: Vec::new(), algorithm: cache.settings.hash });
        let mut walk = Self { place: Place::new(), chain: 0, items };
        walk.place.uc.set(uc);
        if whole {
            walk.show();
        }
        // Not a walk of this thread, or a dropped one: continue at the given position as well as
        // possible.
        while walk.place.position.get() < position && walk.next(cache).is_some() {}
        walk
    }

    /// The next item in C's layout, followed by its key, in memory of this walk.
    fn next(&mut self, cache: &Cache) -> Option<*mut uwsgi_cache_item> {
        loop {
            if let Some(item) = self.place.step() {
                return Some(item);
            }
            // What is at a server was listed whole.
            let engine = cache.tier.local()?;
            self.items.words.clear();
            if !engine.scan_chains(&mut self.chain, &mut self.items) {
                return None;
            }
            self.show();
        }
    }

    /// Makes the items that were read those to step through.
    fn show(&mut self) {
        self.items.hash();
        let items = self.items.words.as_mut_ptr_range();
        self.place.next.set(items.start.cast());
        self.place.end.set(items.end.cast());
    }
}

/// The item after `*uci`, or the first for `*pos` = 0 and `*uci` = NULL; NULL = the end. The item
/// is a copy owned by the calling thread, valid until its next step of the walk or its next unlock.
/// `*pos` is private to the walk. Items stored throughout the walk are returned exactly once.
///
/// # Safety
/// See [`crate::capi`]: cache. `pos` and `uci` are NULL or point to writable variables; `*uci` is
/// NULL or the item last returned by the walk (it is compared, never dereferenced).
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
    // SAFETY: as above. At the end `*uci` stays unchanged, as in native.
    unsafe {
        arg::store(pos, position);
        if !item.is_null() {
            arg::store(uci, item);
        }
    }
    item
}

/// The key of an item returned by the walk: `keysize` bytes, valid as long as the item.
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

/// All items at a server, before anything of the thread's is in use: while this waits, a host may run other requests of the
/// thread.
fn listed(cache: &Cache) -> Items {
    let mut items = Items { words: Vec::new(), algorithm: cache.settings.hash };
    let mut at = Position::default();
    while let Some(item) = cache.tier.walk_ref(&mut at) {
        items.add_plain(item);
    }
    items
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
    let known = |walk: &Walk| walk.place.is(uc, position, last);
    let listed = match cache.tier.local() {
        None if !LAST.with(|place| place.is(uc, position, last))
            && !OPEN.with_mut(|Walks(open)| open.iter().any(known)).unwrap_or(false) =>
        {
            Some(listed(cache))
        }
        _ => None,
    };
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
            None => Walk::new(cache, uc, position, listed),
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
