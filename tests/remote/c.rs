//! Safe Rust wrappers around the C functions, as a C program uses them.

use std::{
    ffi::{CString, c_char, c_int, c_void},
    ptr,
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

// The library itself: it has the functions below, which are found by name only.
use ucache as _;

pub(crate) const UPDATE: u64 = 2;
pub(crate) const MATH: u64 = 16;
pub(crate) const INC: u64 = 32;
pub(crate) const FIXEXPIRE: u64 = 512;

unsafe extern "C" {
    fn uwsgi_cache_create(definition: *mut c_char) -> *mut c_void;
    fn uwsgi_cache_magic_get(
        key: *mut c_char,
        len: u16,
        size: *mut u64,
        expires: *mut u64,
        cache: *mut c_char,
    ) -> *mut c_char;
    fn uwsgi_cache_magic_set(
        key: *mut c_char,
        len: u16,
        value: *mut c_char,
        size: u64,
        expires: u64,
        flags: u64,
        cache: *mut c_char,
    ) -> c_int;
    fn uwsgi_cache_magic_del(key: *mut c_char, len: u16, cache: *mut c_char) -> c_int;
    fn uwsgi_cache_magic_exists(key: *mut c_char, len: u16, cache: *mut c_char) -> c_int;
    fn uwsgi_cache_magic_clear(cache: *mut c_char) -> c_int;
    fn uwsgi_cache_start_sync_servers();
    fn cache_udp_server_loop(cache: *mut c_void) -> *mut c_void;
}

/// The struct of a cache, which lives as long as the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handle(usize);

/// Creates a cache, after the first one of this process ("first", which requests without a name
/// use).
pub(crate) fn create(definition: &str) -> Handle {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        make("name=first,items=1000,blocksize=200000");
    });
    make(definition)
}

/// The first cache is shared by all tests of this process: a test that needs it unchanged locks out
/// the others.
pub(crate) fn own_first() -> MutexGuard<'static, ()> {
    static FIRST: Mutex<()> = Mutex::new(());
    FIRST.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make(definition: &str) -> Handle {
    let text = CString::new(definition).unwrap();
    // SAFETY: a NUL-terminated string; the function keeps no pointer to it.
    let made = unsafe { uwsgi_cache_create(text.as_ptr().cast_mut()) };
    assert!(!made.is_null(), "{definition}");
    Handle(made.expose_provenance())
}

fn parts(key: &[u8], cache: &str) -> (*mut c_char, u16, CString) {
    (key.as_ptr().cast_mut().cast(), u16::try_from(key.len()).unwrap(), CString::new(cache).unwrap())
}

/// The value and its expiry.
pub(crate) fn get(key: &[u8], cache: &str) -> Option<(Vec<u8>, u64)> {
    let (key, len, cache) = parts(key, cache);
    let (mut size, mut expires) = (0, 0);
    // SAFETY: all pointers are live; the result is NULL or `size` bytes of malloc memory that we
    // own.
    unsafe {
        let value =
            uwsgi_cache_magic_get(key, len, &raw mut size, &raw mut expires, cache.as_ptr().cast_mut());
        if value.is_null() {
            return None;
        }
        let copy = std::slice::from_raw_parts(value.cast::<u8>(), usize::try_from(size).unwrap()).to_vec();
        libc::free(value.cast());
        Some((copy, expires))
    }
}

/// The value alone.
pub(crate) fn value(key: &[u8], cache: &str) -> Option<Vec<u8>> {
    get(key, cache).map(|(value, _)| value)
}

pub(crate) fn set(key: &[u8], value: &[u8], expires: u64, flags: u64, cache: &str) -> bool {
    let (key, len, cache) = parts(key, cache);
    let (data, size) = (value.as_ptr().cast_mut().cast(), value.len() as u64);
    // SAFETY: all pointers are live for the call, with their own lengths.
    unsafe { uwsgi_cache_magic_set(key, len, data, size, expires, flags, cache.as_ptr().cast_mut()) == 0 }
}

pub(crate) fn update(key: &[u8], value: &[u8], cache: &str) -> bool {
    set(key, value, 0, UPDATE, cache)
}

/// The operation of the language plugins' cache_inc.
pub(crate) fn inc(key: &[u8], by: i64, cache: &str) -> bool {
    set(key, &by.to_ne_bytes(), 0, UPDATE | MATH | INC | FIXEXPIRE, cache)
}

pub(crate) fn number(key: &[u8], cache: &str) -> Option<i64> {
    value(key, cache).map(|v| i64::from_ne_bytes(v.try_into().expect("8 bytes")))
}

pub(crate) fn del(key: &[u8], cache: &str) -> bool {
    let (key, len, cache) = parts(key, cache);
    // SAFETY: as for `set`.
    unsafe { uwsgi_cache_magic_del(key, len, cache.as_ptr().cast_mut()) == 0 }
}

pub(crate) fn exists(key: &[u8], cache: &str) -> bool {
    let (key, len, cache) = parts(key, cache);
    // SAFETY: as for `set`.
    unsafe { uwsgi_cache_magic_exists(key, len, cache.as_ptr().cast_mut()) == 1 }
}

pub(crate) fn clear(cache: &str) -> bool {
    let cache = CString::new(cache).unwrap();
    // SAFETY: a NUL-terminated string.
    unsafe { uwsgi_cache_magic_clear(cache.as_ptr().cast_mut()) == 0 }
}

pub(crate) fn start_sync_servers() {
    // SAFETY: no preconditions.
    unsafe { uwsgi_cache_start_sync_servers() };
}

/// Runs the cache's UDP server in its own thread, for the life of this process.
pub(crate) fn serve_udp(cache: Handle) {
    std::thread::spawn(move || {
        // SAFETY: the handle is a struct that `uwsgi_cache_create` returned, which is never freed.
        let end = unsafe { cache_udp_server_loop(ptr::with_exposed_provenance_mut(cache.0)) };
        assert!(end.is_null());
    });
}

/// Unix time, seconds.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
