//! Functions with callbacks: the walk over all keys, and get-or-set.
//!
//! Frames around a call of the program's function must have nothing to drop, see `callback`.

use std::{
    ffi::{c_int, c_void},
    ptr,
    time::Duration,
};

use super::{
    call::{call, with_nodes},
    callback::{self, Filling, Kept},
    error::{CallError, CallResult, answer},
    open::ucache,
    read::{Room, apart, bytes, copied, key},
    status::Status,
    write::expires,
};
use crate::{
    capi::arg,
    engine::{Fill, Stored},
    error::Error,
    near::Position,
};

/// Receives each key; a non-zero result ends the walk.
pub type KeyFn = unsafe extern "C-unwind" fn(
    context: *mut c_void,
    key: *const c_void,
    keylen: usize,
    vallen: usize,
    expires: u64,
) -> c_int;

/// Writes a value of at most `size` bytes to `buffer` and its length to `len`: 0; anything else =
/// no value.
pub type FillFn = unsafe extern "C-unwind" fn(
    context: *mut c_void,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
) -> c_int;

/// How long other callers wait for the one that computes, and how long it may take before another
/// one takes over.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key passed to the program; its bytes belong to the walk, until its next step.
#[derive(Clone, Copy)]
struct Shown {
    key: *const c_void,
    keylen: usize,
    vallen: usize,
    expires: u64,
}

/// Calls `each` for every key that begins with `prefix`.
///
/// # Safety
/// See [`super`]: handle, callback; `prefix` is NULL or has `prefixlen` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ucache_keys(
    cache: *mut ucache,
    prefix: *const c_void,
    prefixlen: usize,
    each: Option<KeyFn>,
    context: *mut c_void,
) -> c_int {
    let mut walk = ptr::null_mut();
    // SAFETY: the caller vouches for cache and prefix.
    let begun = unsafe {
        with_nodes(cache, |_, _| {
            each.ok_or(CallError::Argument("the function is NULL"))?;
            // A copy: the function may write where the caller's prefix is.
            let mut copy = Vec::new();
            copied(bytes(prefix, prefixlen, "the prefix is NULL")?.unwrap_or_default(), &mut copy)?;
            walk = callback::keep(Kept::Walk { at: Position::default(), prefix: copy });
            Ok(Status::Ok)
        })
    };
    let Some(each) = each.filter(|_| !walk.is_null()) else { return begun };
    let mut status;
    loop {
        let mut shown = None;
        // SAFETY: the caller vouches for the cache; `walk` is kept.
        status = unsafe { step(cache, walk, &mut shown) };
        let Some(Shown { key, keylen, vallen, expires }) = shown else { break };
        // SAFETY: the caller vouches for the function; the key is there until the next step.
        if unsafe { each(context, key, keylen, vallen, expires) } != 0 {
            status = Status::Stopped as c_int;
            break;
        }
    }
    // What went wrong in here, if anything, is no reason for another answer.
    call(|| {
        // SAFETY: kept above, and not used any more.
        drop(unsafe { callback::give_back(walk) });
        Ok(Status::Ok)
    });
    status
}

/// The next key of a walk, if there is one.
///
/// # Safety
/// `cache` is a handle; `walk` is kept data, and what it has shown is no longer used.
unsafe fn step(cache: *mut ucache, walk: *mut Kept, shown: &mut Option<Shown>) -> c_int {
    // SAFETY: the caller vouches for both.
    unsafe {
        with_nodes(cache, |engine, _| {
            let Kept::Walk { at, prefix } = &mut *walk else { return Ok(Status::Ok) };
            while let Some(item) = engine.walk_ref(at) {
                if item.meta.ungettable || !item.key.starts_with(prefix) {
                    continue;
                }
                *shown = Some(Shown {
                    key: item.key.as_ptr().cast(),
                    keylen: item.key.len(),
                    vallen: usize::try_from(item.meta.value_len).unwrap_or(usize::MAX),
                    expires: item.meta.expires_secs(),
                });
                break;
            }
            Ok(Status::Ok)
        })
    }
}

#[allow(clippy::too_many_arguments, reason = "C has no other way to say it")]
/// Reads a key, or lets one caller of all processes compute it while the others wait.
///
/// # Safety
/// See [`super`]: handle, key, buffer, callback; `len` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ucache_get_or_set(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
    ttl: u64,
    fill: Option<FillFn>,
    context: *mut c_void,
) -> c_int {
    let mut filling = ptr::null_mut();
    // SAFETY: the caller vouches for all arguments.
    let begun = unsafe { begin(cache, (key, keylen), (buffer, size, len), ttl, fill, &mut filling) };
    let Some(fill) = fill.filter(|_| !filling.is_null()) else { return begun };
    let mut length = 0;
    // SAFETY: the caller vouches for the function and the buffer.
    let made = unsafe { fill(context, buffer, size, &raw mut length) } == 0 && length <= size;
    // SAFETY: as above; the function wrote `length` bytes if it says so.
    unsafe { end(cache, filling, made.then_some((buffer, length)), len, ttl) }
}

/// Reads the key; if the caller has to compute its value, `filling` is set.
///
/// # Safety
/// As [`ucache_get_or_set`].
unsafe fn begin(
    cache: *mut ucache,
    (key, keylen): (*const c_void, usize),
    (buffer, size, len): (*mut c_void, usize, *mut usize),
    ttl: u64,
    fill: Option<FillFn>,
    filling: &mut *mut Kept,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        call(|| {
            let cache = cache.as_ref().ok_or(CallError::Argument("the cache is NULL"))?;
            fill.ok_or(CallError::Argument("the function is NULL"))?;
            let mut copy = Vec::new();
            let key = apart(self::key(cache.tier(), key, keylen)?, buffer, size, &mut copy)?;
            expires(ttl)?;
            let mut room = Room::new(buffer, size)?;
            let token = match cache.tier().begin_fill(key, PATIENCE, PATIENCE, &mut room) {
                Ok(Fill::Hit(_)) => {
                    arg::store(len, room.len);
                    return Ok(Status::Ok);
                }
                Ok(Fill::Filler(token)) => Some(token),
                Ok(Fill::TimedOut) => None,
                Err(error @ Error::BufferTooSmall { .. }) => {
                    arg::store(len, room.len);
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            // From here on the fill is abandoned on failure.
            let mut begun = Filling::new(cache.shared(), Vec::new(), token);
            copied(key, &mut begun.key)?;
            *filling = callback::keep(Kept::Fill(begun));
            Ok(Status::Ok)
        })
    }
}

/// Stores the computed value, if there is one.
///
/// # Safety
/// `cache` is a handle and `filling` comes from [`begin`], used for the last time; the value has
/// its length; `len` is an out parameter.
unsafe fn end(
    cache: *mut ucache,
    filling: *mut Kept,
    value: Option<(*mut c_void, usize)>,
    len: *mut usize,
    ttl: u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |_, nodes| {
            let Kept::Fill(mut filling) = callback::give_back(filling) else { return Ok(Status::Ok) };
            if let Some((data, length @ 1..)) = value
                && let Some(token) = filling.take_token()
            {
                let value = std::slice::from_raw_parts(data.cast::<u8>(), length);
                let expires = expires(ttl)?;
                // A value that is not stored (too long, full) is still returned to the caller.
                if matches!(
                    filling.engine.end_fill(&filling.key, token, value, expires),
                    Ok(Stored::Inserted)
                ) {
                    nodes.replicate_set(&filling.key, value, Some(expires));
                }
            }
            given(value, len)
        })
    }
}

/// # Safety
/// `len` is an out parameter.
unsafe fn given(value: Option<(*mut c_void, usize)>, len: *mut usize) -> CallResult {
    if let Some((_, length)) = value {
        // SAFETY: the caller vouches for `len`.
        unsafe { arg::store(len, length) };
    }
    answer(value.is_some(), Status::Stopped)
}
