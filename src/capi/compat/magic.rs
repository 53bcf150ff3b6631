//! The self-locking tier: `uwsgi_cache_magic_*`. A name refers to a local cache or, as
//! `cache@server`, to a remote one; values read belong to the caller.

use std::{
    ffi::{c_char, c_int},
    ptr,
};

use crate::{
    capi::{
        arg,
        buffer::MallocBuf,
        host::{
            cache::{Cache, Target},
            network,
        },
        panic::guard,
    },
    engine::Touch,
};

/// Reads a value: NULL = a miss. The caller frees it with `free()`; a NUL that `vallen` does not
/// count follows it.
///
/// # Safety
/// See [`crate::capi`]: key, out parameters, name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_magic_get(
    key: *const c_char,
    keylen: u16,
    vallen: *mut u64,
    expires: *mut u64,
    cache: *const c_char,
) -> *mut c_char {
    guard(ptr::null_mut(), || {
        // SAFETY: the caller vouches for key and name.
        let (key, target) = unsafe { (arg::bytes(key, keylen.into()), Target::resolve(cache)) };
        let Some((value, expiry)) = target.and_then(|target| read(target, key.unwrap_or_default())) else {
            return ptr::null_mut();
        };
        // SAFETY: the caller vouches for the out parameters.
        unsafe {
            arg::store(vallen, value.len() as u64);
            arg::store(expires, expiry);
        }
        value.into_raw()
    })
}

/// Stores a value: 0, or -1 if it was refused.
///
/// # Safety
/// See [`crate::capi`]: key, value, name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_magic_set(
    key: *const c_char,
    keylen: u16,
    value: *const c_char,
    vallen: u64,
    expires: u64,
    flags: u64,
    cache: *const c_char,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller vouches for key, value and name.
        let (key, value, target) =
            unsafe { (arg::bytes(key, keylen.into()), arg::bytes(value, vallen), Target::resolve(cache)) };
        match target {
            Some(Target::Local(cache)) => status(
                cache.store(key.unwrap_or_default(), value.unwrap_or_default(), expires, flags).is_ok(),
            ),
            Some(Target::Remote { cache, server }) => match (key, value) {
                (Some(key), Some(value)) => status(network::set(server, cache, key, value, expires, flags)),
                _ => -1,
            },
            None => -1,
        }
    })
}

/// Removes a key: 0, or -1 if it was not stored.
///
/// # Safety
/// See [`crate::capi`]: key, name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_magic_del(
    key: *const c_char,
    keylen: u16,
    cache: *const c_char,
) -> c_int {
    guard(-1, || {
        // SAFETY: the caller vouches for key and name.
        let (key, target) = unsafe { (arg::bytes(key, keylen.into()), Target::resolve(cache)) };
        status(match (key, target) {
            (Some(key), Some(Target::Local(cache))) => cache.remove(key, 0).is_ok(),
            (Some(key), Some(Target::Remote { cache, server })) => network::del(server, cache, key),
            _ => false,
        })
    })
}

/// Whether a key is stored: 1 or 0.
///
/// # Safety
/// See [`crate::capi`]: key, name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_magic_exists(
    key: *const c_char,
    keylen: u16,
    cache: *const c_char,
) -> c_int {
    guard(0, || {
        // SAFETY: the caller vouches for key and name.
        let (key, target) = unsafe { (arg::bytes(key, keylen.into()), Target::resolve(cache)) };
        c_int::from(match (key, target) {
            (Some(key), Some(Target::Local(cache))) => cache.tier.exists(key).is_some(),
            (Some(key), Some(Target::Remote { cache, server })) => network::exists(server, cache, key),
            _ => false,
        })
    })
}

/// Removes everything: 0, or -1 if there is no such cache or it could not be cleared.
///
/// # Safety
/// See [`crate::capi`]: name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uwsgi_cache_magic_clear(cache: *const c_char) -> c_int {
    guard(-1, || {
        // SAFETY: the caller vouches for the name.
        status(match unsafe { Target::resolve(cache) } {
            Some(Target::Local(cache)) => cache.empty().is_ok(),
            Some(Target::Remote { cache, server }) => network::clear(server, cache),
            None => false,
        })
    })
}

fn read(target: Target<'_>, key: &[u8]) -> Option<(MallocBuf, u64)> {
    match target {
        Target::Local(cache) => read_local(cache, key),
        Target::Remote { cache, server } if !key.is_empty() => network::get(server, cache, key),
        Target::Remote { .. } => None,
    }
}

/// Copies the value into one `malloc` allocation.
fn read_local(cache: &Cache, key: &[u8]) -> Option<(MallocBuf, u64)> {
    let mut value = MallocBuf::new();
    let meta = cache.tier.get(key, Touch::Yes, &mut value).ok()??;
    Some((value, meta.expires_secs()))
}

fn status(ok: bool) -> c_int {
    if ok { 0 } else { -1 }
}
