//! Writing.

use std::ffi::{c_int, c_void};

use super::{
    detail::{Fault, answer, change, on},
    handle::ucache,
    read::{bytes, key},
    status::Status,
};
use crate::{
    capi::arg,
    engine::{Expires, Math, Mode, SetOptions, Stored, Swap},
    error::Error,
    os::cancel::Shield,
};

/// A time to live: the item never expires.
const NEVER: u64 = 0;
/// A time to live: that of the item that is there.
const KEEP: u64 = u64::MAX;

/// A value; one that is too long for the cache is for the engine to refuse.
///
/// # Safety
/// `value` is NULL or has `len` readable bytes for as long as the slice is in use.
unsafe fn value<'a>(value: *const c_void, len: usize) -> Result<&'a [u8], Fault> {
    // SAFETY: passed on.
    match unsafe { bytes(value, len, "the value is NULL") }? {
        Some(value) => Ok(value),
        None => Err(Error::EmptyValue.into()),
    }
}

/// A time to live where there is none to keep.
pub(super) fn expires(ttl: u64) -> Result<Expires, Fault> {
    match ttl {
        NEVER => Ok(Expires::Never),
        KEEP => Err(Fault::Argument("UCACHE_KEEP_TTL: there is no time to live to keep")),
        seconds => Ok(Expires::In(seconds)),
    }
}

/// Stores a value unless the key exists.
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
    unsafe {
        change(cache, |engine, nodes| {
            let (key, value) = (self::key(engine, key, keylen)?, self::value(value, vallen)?);
            let options =
                SetOptions { mode: Mode::Add, expires: expires(ttl)?, keep_ttl: false, ungettable: false };
            let stored = engine.set(key, value, &options)? != Stored::Kept;
            if stored {
                nodes.tell_set(key, value, Some(options.expires));
            }
            answer(stored, Status::Exists)
        })
    }
}

/// Stores a value, whether the key exists or not.
///
/// # Safety
/// See [`super`]: handle, key, value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_update(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    value: *const c_void,
    vallen: usize,
    ttl: u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        change(cache, |engine, nodes| {
            let (key, value) = (self::key(engine, key, keylen)?, self::value(value, vallen)?);
            let keep_ttl = ttl == KEEP;
            let expires = if keep_ttl { Expires::Never } else { expires(ttl)? };
            let options = SetOptions { mode: Mode::Update, expires, keep_ttl, ungettable: false };
            engine.set(key, value, &options)?;
            nodes.tell_set(key, value, (!keep_ttl).then_some(expires));
            Ok(Status::Ok)
        })
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
        change(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let (expected, value) = (self::value(expected, expectedlen)?, self::value(value, vallen)?);
            let expires = if ttl == KEEP { None } else { Some(expires(ttl)?) };
            let swapped = engine.swap(key, expected, &Swap::Value(value, expires))?;
            if swapped {
                nodes.tell_set(key, value, expires);
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
        change(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let removed = engine.delete(key)?;
            if removed {
                nodes.tell_del(key);
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
        change(cache, |engine, nodes| {
            let (key, expected) = (self::key(engine, key, keylen)?, self::value(expected, expectedlen)?);
            let removed = engine.swap(key, expected, &Swap::Nothing)?;
            if removed {
                nodes.tell_del(key);
            }
            answer(removed, Status::Changed)
        })
    }
}

/// Adds to a number and gives the new one.
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
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        change(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let options =
                SetOptions { mode: Mode::Update, expires: expires(ttl)?, keep_ttl: true, ungettable: false };
            let number = engine.math(key, Math::Inc, delta, &options)?;
            nodes.tell_set(key, &number.to_ne_bytes(), None);
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
        change(cache, |engine, nodes| {
            let key = self::key(engine, key, keylen)?;
            let found = engine.expire(key, expires(ttl)?)?;
            if found {
                nodes.tell_touched(key);
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
        change(cache, |engine, nodes| {
            let _shield = Shield::raise();
            engine.clear()?;
            nodes.tell_clear();
            Ok(Status::Ok)
        })
    }
}

/// Gives the memory of what has expired back.
///
/// # Safety
/// See [`super`]: handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_sweep(cache: *mut ucache) -> c_int {
    // SAFETY: the caller vouches for the handle.
    unsafe {
        on(cache, |engine| {
            let _shield = Shield::raise();
            engine.sweep()?;
            Ok(Status::Ok)
        })
    }
}
