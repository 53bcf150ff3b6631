//! Storing: set, add, replace, append, prepend.

use std::ffi::{c_int, c_void};

use super::{
    call::with_nodes,
    error::{CallError, answer},
    open::ucache,
    read::{bytes, key},
    status::Status,
    write::{KEEP, expires, value},
};
use crate::{
    capi::arg,
    engine::{Expires, Mode, SetOptions, Side, Stored},
};

/// Options of a write that may keep the time to live of an existing item.
fn options(mode: Mode, ttl: u64) -> Result<SetOptions, CallError> {
    match ttl {
        KEEP => Ok(SetOptions::new(mode, Expires::Never).keep_ttl()),
        ttl => Ok(SetOptions::new(mode, expires(ttl)?)),
    }
}

/// A key or value as the program passes it.
type Bytes = (*const c_void, usize);

/// Stores a value and sends it to the nodes; `kept` is the result if it was not stored.
///
/// # Safety
/// See [`super`]: handle, key, value.
unsafe fn store(
    cache: *mut ucache,
    (key, keylen): Bytes,
    (value, vallen): Bytes,
    options: impl FnOnce() -> Result<SetOptions, CallError>,
    kept: Status,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let (key, value) = (self::key(engine, key, keylen)?, self::value(value, vallen)?);
            let options = options()?;
            let stored = engine.set(key, value, &options)? != Stored::Kept;
            if stored {
                nodes.replicate_set(key, value, (!options.keep_ttl).then_some(options.expires));
            }
            answer(stored, kept)
        })
    }
}

/// Adds bytes to a value; stores its new length in `len`.
///
/// # Safety
/// See [`super`]: handle, key, value; `len` is an out parameter.
unsafe fn join(
    cache: *mut ucache,
    (key, keylen): Bytes,
    (value, vallen): Bytes,
    len: *mut usize,
    side: Side,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let (key, added) = (self::key(engine, key, keylen)?, bytes(value, vallen, "the value is NULL")?);
            let Some(new) = engine.join(key, added.unwrap_or_default(), side)? else {
                return Ok(Status::NotFound);
            };
            nodes.replicate_touched(key);
            arg::store(len, new as usize);
            Ok(Status::Ok)
        })
    }
}

/// Stores a value, whether or not the key exists.
///
/// # Safety
/// See [`super`]: handle, key, value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_set(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    value: *const c_void,
    vallen: usize,
    ttl: u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe { store(cache, (key, keylen), (value, vallen), || options(Mode::Set, ttl), Status::Ok) }
}

/// Stores a value if the key is missing.
///
/// # Safety
/// See [`super`]: handle, key, value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_add(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    value: *const c_void,
    vallen: usize,
    ttl: u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        store(cache, (key, keylen), (value, vallen), || Ok(SetOptions::add(expires(ttl)?)), Status::Exists)
    }
}

/// Stores a value if the key exists.
///
/// # Safety
/// See [`super`]: handle, key, value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_replace(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    value: *const c_void,
    vallen: usize,
    ttl: u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe { store(cache, (key, keylen), (value, vallen), || options(Mode::Replace, ttl), Status::NotFound) }
}

/// Adds bytes behind a value; returns its new length.
///
/// # Safety
/// See [`super`]: handle, key, value; `len` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_append(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    value: *const c_void,
    vallen: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe { join(cache, (key, keylen), (value, vallen), len, Side::Back) }
}

/// Adds bytes before a value; returns its new length.
///
/// # Safety
/// See [`super`]: handle, key, value; `len` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_prepend(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    value: *const c_void,
    vallen: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe { join(cache, (key, keylen), (value, vallen), len, Side::Front) }
}
