//! Calls that call back: the walk over all keys, and get-or-set.

use std::{
    ffi::{c_int, c_void},
    time::Duration,
};

use super::{
    detail::{Fault, Outcome, answer, change, on},
    handle::ucache,
    read::{Room, bytes, key},
    status::Status,
    write::expires,
};
use crate::{
    capi::arg,
    engine::{Cursor, Fill, Stored},
    error::Error,
    os::process::fork_count,
};

/// Gets each key; anything but 0 ends the walk.
pub type KeyFn = unsafe extern "C" fn(
    context: *mut c_void,
    key: *const c_void,
    keylen: usize,
    vallen: usize,
    expires: u64,
) -> c_int;

/// Puts a value of at most `size` bytes into `buffer` and its length into `len`: 0; anything else = there is none.
pub type FillFn =
    unsafe extern "C" fn(context: *mut c_void, buffer: *mut c_void, size: usize, len: *mut usize) -> c_int;

/// How long the others wait for one who computes, and how long that one may take before another does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `each` for every key that begins with `prefix`.
///
/// # Safety
/// See [`super`]: handle, callback; `prefix` is NULL or has `prefixlen` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_keys(
    cache: *mut ucache,
    prefix: *const c_void,
    prefixlen: usize,
    each: Option<KeyFn>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        on(cache, |engine| {
            let each = each.ok_or(Fault::Argument("there is no function to call"))?;
            let prefix = bytes(prefix, prefixlen, "the prefix is NULL")?.unwrap_or_default();
            let mut cursor = Cursor::default();
            while let Some(item) = engine.walk(&mut cursor) {
                if item.ungettable || !item.key.starts_with(prefix) {
                    continue;
                }
                let length = usize::try_from(item.value_len).unwrap_or(usize::MAX);
                if each(context, item.key.as_ptr().cast(), item.key.len(), length, item.expires) != 0 {
                    return Ok(Status::Stopped);
                }
            }
            Ok(Status::Ok)
        })
    }
}

#[allow(clippy::too_many_arguments, reason = "C has no other way to say it")]
/// Reads a key, or has one caller of all processes compute it while the others wait.
///
/// # Safety
/// See [`super`]: handle, key, buffer, callback; `len` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_get_or_set(
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
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        change(cache, |engine, nodes| {
            let fill = fill.ok_or(Fault::Argument("there is no function to call"))?;
            let key = self::key(engine, key, keylen)?;
            let expires = expires(ttl)?;
            let mut room = Room::new(buffer, size)?;
            let token = match engine.begin_fill(key, PATIENCE, PATIENCE, &mut room) {
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
            // The function may write where the caller's key is.
            let key = &*key.to_vec();
            let (forks, mut length) = (fork_count(), 0);
            let made = fill(context, buffer, size, &raw mut length) == 0 && length <= size;
            // A child that the function forked has not got the duty of its parent.
            if let Some(token) = token.filter(|_| forks == fork_count()) {
                if made && length > 0 {
                    let value = std::slice::from_raw_parts(buffer.cast::<u8>(), length);
                    // What is not stored (too long, full) is the caller's all the same.
                    if matches!(engine.end_fill(key, token, value, expires), Ok(Stored::Inserted)) {
                        nodes.tell_set(key, value, Some(expires));
                    }
                } else {
                    // If this fails, a waiter takes over when the time of the filler is up.
                    let _ = engine.abandon_fill(key, token);
                }
            }
            given(made, len, length)
        })
    }
}

/// # Safety
/// `len` is an out parameter.
unsafe fn given(made: bool, len: *mut usize, length: usize) -> Outcome {
    if made {
        // SAFETY: the caller vouches for `len`.
        unsafe { arg::store(len, length) };
    }
    answer(made, Status::Stopped)
}
