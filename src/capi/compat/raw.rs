//! The raw tier: the caller holds the cache's lock, or does not need it. Pointers refer to a copy
//! owned by the calling thread, which stays valid until its next call of this tier on any cache, or
//! until it unlocks.

use std::{
    cell::RefCell,
    ffi::{c_char, c_int},
    mem, ptr,
};

use crate::{
    capi::{arg, buffer::Buffer, host::cache::Cache, panic::guard, types::uwsgi_cache},
    engine::{Meta, Sink, Touch},
    error::Result,
    near::Tier,
    os::local::Local,
    shm::SharedBytes,
};

/// Larger copies are freed when the thread unlocks, bytes.
const KEEP: usize = 64 * 1024;

/// The copy returned to the thread last, and space for the next one: a call that misses may have
/// copied another key's value before it noticed, and must leave the previous copy unchanged.
#[derive(Default)]
struct ReturnSlots {
    given: Buffer,
    next: Buffer,
}

static RETURN_SLOTS: Local<RefCell<ReturnSlots>> = Local::new(RefCell::default);

/// Frees a large copy after an unlock, which invalidates its pointer.
pub(crate) fn release() {
    // In a signal handler that unlocks in the middle of a copy, nothing is freed.
    RETURN_SLOTS.with_mut(|copies| {
        copies.given.shrink(KEEP);
        copies.next.shrink(KEEP);
    });
}

/// Reads with `get` into the thread's copy; NULL = a miss.
fn copied(get: impl FnOnce(&mut Buffer) -> Result<Option<Meta>>) -> Option<(*mut c_char, Meta)> {
    RETURN_SLOTS.with_mut(|copies| {
        let meta = get(&mut copies.next).ok()??;
        mem::swap(&mut copies.given, &mut copies.next);
        Some((copies.given.as_mut_ptr(), meta))
    })?
}

/// [`copied`] where the value comes from a server: while a call waits for it, a host may run other requests of the thread,
/// which make calls of this tier, too.
fn fetched(get: impl FnOnce(&mut Buffer) -> Result<Option<Meta>>) -> Option<(*mut c_char, Meta)> {
    let mut own = Buffer::default();
    let meta = get(&mut own).ok()??;
    RETURN_SLOTS.with_mut(|copies| {
        copies.given = own;
        (copies.given.as_mut_ptr(), meta)
    })
}

/// The cache and the key of a read; `None` = not a cache of this library.
///
/// # Safety
/// See [`crate::capi`]: cache, key. The key's bytes do not change during `'a`.
unsafe fn subject<'a>(
    uc: *mut uwsgi_cache,
    key: *const c_char,
    keylen: u16,
) -> Option<(&'static Cache, &'a [u8])> {
    // SAFETY: the caller vouches for cache and key.
    let (cache, key) = unsafe { (Cache::of(uc), arg::bytes(key, keylen.into())) };
    // No item has an empty key: such a lookup is an ordinary miss.
    Some((cache?, key.unwrap_or_default()))
}

/// The common part of `uwsgi_cache_get2`, `3` and `4`: `get` reads from the engine, `tell` stores
/// the additional result.
///
/// # Safety
/// See [`crate::capi`]: cache, key, out parameter.
#[inline]
unsafe fn read(
    (uc, key, keylen): (*mut uwsgi_cache, *const c_char, u16),
    valsize: *mut u64,
    get: impl FnOnce(&Tier, &[u8], &mut Buffer) -> Result<Option<Meta>>,
    tell: impl FnOnce(&Meta),
) -> *mut c_char {
    guard(ptr::null_mut(), || {
        // SAFETY: the caller vouches for cache and key, which is only read here.
        let Some((cache, key)) = (unsafe { subject(uc, key, keylen) }) else { return ptr::null_mut() };
        let found = match cache.tier.local() {
            Some(_) => copied(|copy| get(&cache.tier, key, copy)),
            None => fetched(|copy| get(&cache.tier, key, copy)),
        };
        let Some((value, meta)) = found else { return ptr::null_mut() };
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
    unsafe { read((uc, key, keylen), valsize, |cache, key, copy| cache.get(key, Touch::Yes, copy), |_| ()) }
}

/// Like `uwsgi_cache_get2`, and returns the Unix time of expiry, seconds, 0 = never.
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
            |cache, key, copy| cache.get(key, Touch::Yes, copy),
            |meta| arg::store(expires, meta.expires_secs()),
        )
    }
}

/// Reads a value and returns how often this function has found it before; no use for LRU. Exact
/// across processes.
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
            |cache, key, copy| cache.get_counted(key, copy),
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
        match cache.tier.get(key, Touch::No, &mut number) {
            Ok(Some(_)) => number.0,
            _ => 0,
        }
    })
}

/// Interprets 8 bytes as a native `int64_t`, other values as 0.
struct Number(i64);

impl Sink for Number {
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        let mut bytes = [0; 8];
        if src.len() == bytes.len() {
            src.copy_to_slice(&mut bytes);
        }
        self.0 = i64::from_ne_bytes(bytes);
        true
    }
}

/// The id of the key's item, 0 = not stored. Counts neither as a hit or miss nor as a use.
///
/// # Safety
/// See [`crate::capi`]: cache, key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_exists2(uc: *mut uwsgi_cache, key: *const c_char, keylen: u16) -> u32 {
    guard(0, || {
        // SAFETY: the caller vouches for cache and key.
        let Some((cache, key)) = (unsafe { subject(uc, key, keylen) }) else { return 0 };
        cache.tier.exists(key).map_or(0, |id| id.0.get())
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
        // Empty ones are passed on to the engine, which counts refusals.
        let stored = cache.store(key.unwrap_or_default(), val.unwrap_or_default(), expires, flags);
        if stored.is_ok() { 0 } else { -1 }
    })
}

/// Removes the item with id `index`, or the key if that is 0: 0, or -1 if there is none. As in
/// native, an id in range returns 0 even if no item has it.
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
