//! Changes of existing keys: compare-and-swap, numbers, times to live, removal.

use std::ffi::{c_int, c_void};

use super::{
    call::{with_cache, with_nodes},
    error::{CallError, answer},
    open::ucache,
    read::{bytes, key},
    status::Status,
};
use crate::{
    capi::arg,
    engine::{Expires, Math, SetOptions, Swap},
    error::Error,
    os::cancel::Shield,
};

/// A time to live: the item never expires.
pub(super) const NEVER: u64 = 0;
/// A time to live: that of the existing item.
pub(super) const KEEP: u64 = u64::MAX;
/// In a time to live: the other bits are milliseconds.
const MILLIS: u64 = 1 << 63;

/// A value; the engine refuses one that is too long.
///
/// # Safety
/// `value` is NULL or has `len` readable bytes for as long as the slice is in use.
pub(super) unsafe fn value<'a>(value: *const c_void, len: usize) -> Result<&'a [u8], CallError> {
    // SAFETY: passed on.
    match unsafe { bytes(value, len, "the value is NULL") }? {
        Some(value) => Ok(value),
        None => Err(Error::EmptyValue.into()),
    }
}

/// A time to live for calls that cannot keep one.
pub(super) fn expires(ttl: u64) -> Result<Expires, CallError> {
    match ttl {
        NEVER => Ok(Expires::Never),
        KEEP => Err(CallError::Argument("UCACHE_KEEP_TTL: there is no time to live to keep")),
        millis if millis & MILLIS != 0 => Ok(Expires::InMillis(millis & !MILLIS)),
        seconds => Ok(Expires::InMillis(seconds.saturating_mul(1000))),
    }
}

#[allow(clippy::too_many_arguments, reason = "C has no other way to say it")]
/// Replaces a value that equals `expected`.
///
/// # Safety
/// See [`super`]: handle, key, values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_cas(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    expected: *const c_void,
    expectedlen: usize,
    value: *const c_void,
    vallen: usize,
    ttl: u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let (expected, value) = (self::value(expected, expectedlen)?, self::value(value, vallen)?);
            let expires = if ttl == KEEP { None } else { Some(expires(ttl)?) };
            let swapped = engine.swap(key, expected, &Swap::Value(value, expires))?;
            if swapped {
                nodes.replicate_set(key, value, expires);
            }
            answer(swapped, Status::Changed)
        })
    }
}

/// Removes a key.
///
/// # Safety
/// See [`super`]: handle, key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_del(cache: *mut ucache, key: *const c_void, keylen: usize) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let removed = engine.delete(key)?;
            if removed {
                nodes.replicate_del(key);
            }
            answer(removed, Status::NotFound)
        })
    }
}

/// Removes a key whose value equals `expected`.
///
/// # Safety
/// See [`super`]: handle, key, value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_del_if(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    expected: *const c_void,
    expectedlen: usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let (key, expected) = (self::key(engine, key, keylen)?, self::value(expected, expectedlen)?);
            let removed = engine.swap(key, expected, &Swap::Nothing)?;
            if removed {
                nodes.replicate_del(key);
            }
            answer(removed, Status::Changed)
        })
    }
}

/// Adds to a number and returns the new one.
///
/// # Safety
/// See [`super`]: handle, key; `result` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_incr(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    delta: i64,
    ttl: u64,
    result: *mut i64,
) -> c_int {
    // SAFETY: passed on.
    unsafe { math(cache, (key, keylen), (Math::Inc, delta), ttl, result) }
}

/// Multiplies a number and returns the new one.
///
/// # Safety
/// As [`ucache_incr`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_mul(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    factor: i64,
    ttl: u64,
    result: *mut i64,
) -> c_int {
    // SAFETY: passed on.
    unsafe { math(cache, (key, keylen), (Math::Mul, factor), ttl, result) }
}

/// Divides a number and returns the new one.
///
/// # Safety
/// As [`ucache_incr`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_div(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    divisor: i64,
    ttl: u64,
    result: *mut i64,
) -> c_int {
    // SAFETY: passed on.
    unsafe { math(cache, (key, keylen), (Math::Div, divisor), ttl, result) }
}

/// Changes a number.
///
/// # Safety
/// As [`ucache_incr`].
unsafe fn math(
    cache: *mut ucache,
    (key, keylen): (*const c_void, usize),
    (op, operand): (Math, i64),
    ttl: u64,
    result: *mut i64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let options = SetOptions::set(expires(ttl)?).keep_ttl();
            let number = engine.math(key, op, operand, &options)?;
            nodes.replicate_set(key, &number.to_ne_bytes(), None);
            arg::store(result, number);
            Ok(Status::Ok)
        })
    }
}

/// Gives a key another time to live.
///
/// # Safety
/// See [`super`]: handle, key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_touch(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    ttl: u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let found = engine.expire(key, expires(ttl)?)?;
            if found {
                nodes.replicate_touched(key);
            }
            answer(found, Status::NotFound)
        })
    }
}

/// Removes everything.
///
/// # Safety
/// See [`super`]: handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_clear(cache: *mut ucache) -> c_int {
    // SAFETY: the caller vouches for the handle.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let _shield = Shield::raise();
            engine.clear()?;
            nodes.replicate_clear();
            Ok(Status::Ok)
        })
    }
}

/// Frees the memory of expired items.
///
/// # Safety
/// See [`super`]: handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_sweep(cache: *mut ucache) -> c_int {
    // SAFETY: the caller vouches for the handle.
    unsafe {
        with_cache(cache, |engine| {
            let _shield = Shield::raise();
            engine.sweep()?;
            Ok(Status::Ok)
        })
    }
}
