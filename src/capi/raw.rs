//! The raw tier: the caller has the cache's lock, or does not mind. Pointers lead into a copy that belongs to the
//! calling thread and stays valid until its next call of this tier on any cache, or until it unlocks.

use std::{
    cell::RefCell,
    ffi::{c_char, c_int},
    mem, ptr,
};

use super::{arg, buffer::Buffer, cache::Cache, guard::guard, types::uwsgi_cache};
use crate::{
    engine::{Engine, Meta, Sink, Touch},
    error::Result,
    os::local::Local,
    shm::Source,
};

/// A copy larger than this is freed when the thread unlocks, bytes.
const KEEP: usize = 64 * 1024;

/// The copy that the thread was given last, and room for the next one: a call that gives nothing may have copied what turns out
/// to be another key's value, and must leave the one before as it is.
#[derive(Default)]
struct Copies {
    given: Buffer,
    next: Buffer,
}

static COPIES: Local<RefCell<Copies>> = Local::new(RefCell::default);

/// Frees a big copy: the thread unlocked, its pointer is dead.
pub(super) fn release() {
    // A signal handler that unlocks in the middle of a copy: nothing to free now.
    COPIES.with_mut(|copies| {
        copies.given.shrink(KEEP);
        copies.next.shrink(KEEP);
    });
}

/// Reads with `get` into the thread's copy; NULL = a miss.
fn copied(get: impl FnOnce(&mut Buffer) -> Result<Option<Meta>>) -> Option<(*mut c_char, Meta)> {
    COPIES.with_mut(|copies| {
        let meta = get(&mut copies.next).ok()??;
        mem::swap(&mut copies.given, &mut copies.next);
        Some((copies.given.as_mut_ptr(), meta))
    })?
}

/// The cache and the key that a read is about; `None` = a cache that is not ours: nothing to ask.
///
/// # Safety
/// See [`crate::capi`]: cache, key. The key's bytes stay as they are for `'a`.
unsafe fn subject<'a>(
    uc: *mut uwsgi_cache,
    key: *const c_char,
    keylen: u16,
) -> Option<(&'static Cache, &'a [u8])> {
    // SAFETY: the caller vouches for cache and key.
    let (cache, key) = unsafe { (Cache::of(uc), arg::bytes(key, keylen.into())) };
    // No item has an empty key: looking for it is a miss like another.
    Some((cache?, key.unwrap_or_default()))
}

/// What `uwsgi_cache_get2`, `3` and `4` have in common: `get` asks the engine, `tell` hands out what the function
/// tells beside the length.
///
/// # Safety
/// See [`crate::capi`]: cache, key, out parameter.
#[inline]
unsafe fn read(
    (uc, key, keylen): (*mut uwsgi_cache, *const c_char, u16),
    valsize: *mut u64,
    get: impl FnOnce(&Engine, &[u8], &mut Buffer) -> Result<Option<Meta>>,
    tell: impl FnOnce(&Meta),
) -> *mut c_char {
    guard(ptr::null_mut(), || {
        // SAFETY: the caller vouches for cache and key, which is only read in here.
        let Some((cache, key)) = (unsafe { subject(uc, key, keylen) }) else { return ptr::null_mut() };
        let Some((value, meta)) = copied(|copy| get(&cache.engine, key, copy)) else {
            return ptr::null_mut();
        };
        // SAFETY: the caller vouches for the out parameter.
        unsafe { arg::store(valsize, meta.len) };
        tell(&meta);
        value
    })
}

/// Reads a value: NULL = a miss. Counts as a use for LRU.
///
/// # Safety
/// See [`crate::capi`]: cache, key, out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_get2(
    uc: *mut uwsgi_cache,
    key: *const c_char,
    keylen: u16,
    valsize: *mut u64,
) -> *mut c_char {
    // SAFETY: the caller vouches for cache, key and out parameter.
    unsafe { read((uc, key, keylen), valsize, |engine, key, copy| engine.get(key, Touch::Yes, copy), |_| ()) }
}

/// As `uwsgi_cache_get2`, and tells the Unix time of expiry, seconds, 0 = never.
///
/// # Safety
/// See [`crate::capi`]: cache, key, out parameters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_get3(
    uc: *mut uwsgi_cache,
    key: *const c_char,
    keylen: u16,
    valsize: *mut u64,
    expires: *mut u64,
) -> *mut c_char {
    // SAFETY: the caller vouches for cache, key and both out parameters.
    unsafe {
        read(
            (uc, key, keylen),
            valsize,
            |engine, key, copy| engine.get(key, Touch::Yes, copy),
            |meta| arg::store(expires, meta.expires),
        )
    }
}

/// Reads a value and tells how often this function had found it before; no use for LRU. Exact across processes.
///
/// # Safety
/// See [`crate::capi`]: cache, key, out parameters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_get4(
    uc: *mut uwsgi_cache,
    key: *const c_char,
    keylen: u16,
    valsize: *mut u64,
    hits: *mut u64,
) -> *mut c_char {
    // SAFETY: the caller vouches for cache, key and both out parameters.
    unsafe {
        read(
            (uc, key, keylen),
            valsize,
            |engine, key, copy| engine.get_counted(key, copy),
            |meta| arg::store(hits, meta.hits),
        )
    }
}

/// A number's value; 0 for a miss and for a value that is not 8 bytes. No use for LRU.
///
/// # Safety
/// See [`crate::capi`]: cache, key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_num2(uc: *mut uwsgi_cache, key: *const c_char, keylen: u16) -> i64 {
    guard(0, || {
        // SAFETY: the caller vouches for cache and key.
        let Some((cache, key)) = (unsafe { subject(uc, key, keylen) }) else { return 0 };
        let mut number = Number(0);
        match cache.engine.get(key, Touch::No, &mut number) {
            Ok(Some(_)) => number.0,
            _ => 0,
        }
    })
}

/// Takes 8 bytes as a native `int64_t`, other values as 0.
struct Number(i64);

impl Sink for Number {
    fn take(&mut self, src: &Source<'_>) -> bool {
        let mut bytes = [0; 8];
        if src.len() == bytes.len() {
            src.copy_to_slice(&mut bytes);
        }
        self.0 = i64::from_ne_bytes(bytes);
        true
    }
}

/// The number of the key's item, 0 = not stored. Counts neither hit nor miss nor use.
///
/// # Safety
/// See [`crate::capi`]: cache, key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_exists2(uc: *mut uwsgi_cache, key: *const c_char, keylen: u16) -> u32 {
    guard(0, || {
        // SAFETY: the caller vouches for cache and key.
        let Some((cache, key)) = (unsafe { subject(uc, key, keylen) }) else { return 0 };
        cache.engine.exists(key).map_or(0, |id| id.0.get())
    })
}

/// Stores a value: 0, or -1 if it was refused.
///
/// # Safety
/// See [`crate::capi`]: cache, key, value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_set2(
    uc: *mut uwsgi_cache,
    key: *const c_char,
    keylen: u16,
    val: *const c_char,
    vallen: u64,
    expires: u64,
    flags: u64,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller vouches for cache, key and value.
        let (cache, key, val) =
            unsafe { (Cache::of(uc), arg::bytes(key, keylen.into()), arg::bytes(val, vallen)) };
        let Some(cache) = cache else { return -1 };
        // Empty ones go on to the engine, which counts what it refuses.
        let stored = cache.store(key.unwrap_or_default(), val.unwrap_or_default(), expires, flags);
        if stored.is_ok() { 0 } else { -1 }
    })
}

/// Removes the item with number `index`, or if that is 0 the key: 0, or -1 if there is none. As in native a number
/// in range is 0 even if no item has it.
///
/// # Safety
/// See [`crate::capi`]: cache, key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_del2(
    uc: *mut uwsgi_cache,
    key: *const c_char,
    keylen: u16,
    index: u64,
    flags: u16,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller vouches for cache and key.
        let (cache, key) = unsafe { (Cache::of(uc), arg::bytes(key, keylen.into())) };
        let removed = match (cache, key, index) {
            (Some(cache), Some(key), 0) => cache.remove(key, flags.into()).is_ok(),
            (Some(cache), _, 1..) => cache.remove_item(index, flags.into()).is_ok(),
            _ => false,
        };
        if removed { 0 } else { -1 }
    })
}
