//! Reading into the caller's buffer.

use std::{
    ffi::{c_int, c_void},
    io,
    mem::MaybeUninit,
    slice,
};

use super::{
    call::{with_cache, with_nodes},
    error::{CallError, CallResult, answer},
    open::ucache,
    status::Status,
    write::NEVER,
};
use crate::{
    capi::arg,
    engine::{MAX_KEY, Meta, Sink, Touch},
    error::Error,
    near::Tier,
    os::clock::unix_millis,
    shm::SharedBytes,
};

/// Maximum length of an object: a greater one is an error of the caller, such as the -1 of a failed
/// `read`.
const LONGEST: usize = isize::MAX as usize;

/// Bytes of the caller; `None` = empty. `missing` is the message if they are NULL.
///
/// # Safety
/// `data` is NULL or has `len` readable bytes for as long as the slice is in use.
pub(super) unsafe fn bytes<'a>(
    data: *const c_void,
    len: usize,
    missing: &'static str,
) -> Result<Option<&'a [u8]>, CallError> {
    if data.is_null() && len > 0 {
        return Err(CallError::Argument(missing));
    }
    if len > LONGEST {
        return Err(CallError::Argument("a length is over SSIZE_MAX"));
    }
    // SAFETY: the caller vouches for the bytes.
    Ok(unsafe { arg::bytes(data.cast(), len as u64) })
}

/// A key, checked against NULL, emptiness and the limit.
///
/// # Safety
/// `key` is NULL or has `len` readable bytes for as long as the slice is in use.
pub(super) unsafe fn key<'a>(cache: &Tier, key: *const c_void, len: usize) -> Result<&'a [u8], CallError> {
    let limit = cache.engine().config().max_key;
    // SAFETY: passed on.
    unsafe {
        if len as u64 > limit {
            return long_key(cache, key, len);
        }
        bytes(key, len, "the key is NULL")?.ok_or_else(|| Error::EmptyKey.into())
    }
}

/// A key above the limit: refused unless it is stored, since `keysize` may have been greater.
///
/// # Safety
/// As [`key`].
#[cold]
unsafe fn long_key<'a>(cache: &Tier, key: *const c_void, len: usize) -> Result<&'a [u8], CallError> {
    let limit = usize::try_from(cache.engine().config().max_key).unwrap_or(usize::MAX);
    if len as u64 <= MAX_KEY {
        // SAFETY: passed on.
        let key = unsafe { bytes(key, len, "the key is NULL") }?.ok_or(Error::EmptyKey)?;
        if cache.engine().exists(key).is_some() {
            return Ok(key);
        }
    }
    Err(Error::KeyTooLong { len, limit }.into())
}

/// The key, or a copy of it in `copy` if it overlaps the buffer, which is written before the last
/// use of the key.
#[inline]
pub(super) fn apart<'k>(
    key: &'k [u8],
    buffer: *mut c_void,
    size: usize,
    copy: &'k mut Vec<u8>,
) -> Result<&'k [u8], CallError> {
    if !overlaps(key, buffer, size) {
        return Ok(key);
    }
    copied(key, copy)?;
    Ok(copy)
}

/// Whether a key overlaps the buffer.
#[inline]
fn overlaps(key: &[u8], buffer: *mut c_void, size: usize) -> bool {
    let range = key.as_ptr_range();
    range.end.addr() > buffer.addr() && buffer.addr().saturating_add(size) > range.start.addr()
}

/// Copies bytes of the caller to memory of the library.
#[cold]
pub(super) fn copied(bytes: &[u8], to: &mut Vec<u8>) -> Result<(), CallError> {
    let no_memory = |_| Error::Os { call: "malloc", source: io::ErrorKind::OutOfMemory.into() };
    to.try_reserve_exact(bytes.len()).map_err(no_memory)?;
    to.extend_from_slice(bytes);
    Ok(())
}

/// The caller's buffer, and the length of the value.
pub(super) struct Room<'a> {
    buffer: &'a mut [MaybeUninit<u8>],
    pub(super) len: usize,
}

impl<'a> Room<'a> {
    /// # Safety
    /// `buffer` is a buffer of `size` bytes, see [`super`], for as long as the room is in use.
    pub(super) unsafe fn new(buffer: *mut c_void, size: usize) -> Result<Self, CallError> {
        let buffer = match (buffer.is_null(), size) {
            (_, 0) => &mut [],
            (true, _) => return Err(CallError::Argument("the buffer is NULL")),
            (_, size) if size > LONGEST => {
                return Err(CallError::Argument("the size of the buffer is over SSIZE_MAX"));
            }
            // SAFETY: the caller vouches for the bytes, and for being the only one who uses them.
            _ => unsafe { slice::from_raw_parts_mut(buffer.cast(), size) },
        };
        Ok(Self { buffer, len: 0 })
    }

    /// Room in bytes that the library holds already.
    pub(super) fn over(buffer: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Copies a value that lies in memory of the library; `false` if it does not fit.
    pub(super) fn put(&mut self, value: &[u8]) -> bool {
        self.len = value.len();
        let Some(room) = self.buffer.get_mut(..self.len) else { return false };
        room.iter_mut().zip(value).for_each(|(to, &byte)| _ = to.write(byte));
        true
    }

    /// The whole buffer.
    pub(super) fn into_buffer(self) -> &'a mut [MaybeUninit<u8>] {
        self.buffer
    }
}

impl Sink for Room<'_> {
    #[inline(always)]
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
        self.len = src.len();
        let Some(room) = self.buffer.get_mut(..self.len) else { return false };
        src.copy_to_uninit(room);
        true
    }
}

/// Runs a read, and returns the value's length even if it did not fit.
///
/// # Safety
/// As [`Room::new`]; `len` is an out parameter.
pub(super) unsafe fn read_into(
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
    read: impl FnOnce(&mut Room<'_>) -> crate::error::Result<bool>,
) -> CallResult {
    // SAFETY: passed on.
    let mut room = unsafe { Room::new(buffer, size) }?;
    let found = read(&mut room);
    if matches!(found, Ok(true) | Err(Error::BufferTooSmall { .. })) {
        // SAFETY: the caller vouches for `len`.
        unsafe { arg::store(len, room.len) };
    }
    answer(found?, Status::NotFound)
}

/// Copies what the library holds, if anything, and returns its length even if it did not fit.
///
/// # Safety
/// As [`read_into`].
pub(super) unsafe fn give(
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
    bytes: Option<&[u8]>,
) -> CallResult {
    // SAFETY: passed on.
    let mut room = unsafe { Room::new(buffer, size) }?;
    let Some(bytes) = bytes else { return Ok(Status::NotFound) };
    // SAFETY: the caller vouches for `len`.
    unsafe { arg::store(len, bytes.len()) };
    answer(room.put(bytes), Status::TooSmall)
}

/// Copies a value to the front of `buffer`.
///
/// # Safety
/// See [`super`]: handle, key, buffer; `len` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_get(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_cache(cache, |tier| {
            let key = self::key(tier, key, keylen)?;
            if overlaps(key, buffer, size) {
                return get_overlapping(tier, key, (buffer, size), len);
            }
            // The engine's read is compiled into this function where there is no server.
            match tier.local() {
                Some(engine) => {
                    read_into(buffer, size, len, |room| Ok(engine.get(key, Touch::Yes, room)?.is_some()))
                }
                None => read_into(buffer, size, len, |room| Ok(tier.get(key, Touch::Yes, room)?.is_some())),
            }
        })
    }
}

/// [`ucache_get`] of a key in the buffer. Apart, so that the usual read has nothing to free.
///
/// # Safety
/// As there.
#[cold]
unsafe fn get_overlapping(
    tier: &Tier,
    key: &[u8],
    (buffer, size): (*mut c_void, usize),
    len: *mut usize,
) -> CallResult {
    let mut apart = Vec::new();
    copied(key, &mut apart)?;
    // SAFETY: passed on; the buffer is written while only the copy of the key is in use.
    unsafe { read_into(buffer, size, len, |room| Ok(tier.get(&apart, Touch::Yes, room)?.is_some())) }
}

/// Copies a value like `ucache_get` and removes it, atomically; a value that does not fit stays.
///
/// # Safety
/// As [`ucache_get`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_take(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_nodes(cache, |engine, nodes| {
            let mut copy = Vec::new();
            let key = apart(self::key(engine, key, keylen)?, buffer, size, &mut copy)?;
            read_into(buffer, size, len, |room| {
                let taken = engine.take_out(key, room)?;
                if taken {
                    nodes.replicate_del(key);
                }
                Ok(taken)
            })
        })
    }
}

/// Reads a number.
///
/// # Safety
/// See [`super`]: handle, key; `result` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_number(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    result: *mut i64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_cache(cache, |engine| {
            let key = self::key(engine, key, keylen)?;
            // More than the digits of any number.
            let mut buffer = [MaybeUninit::uninit(); 32];
            let mut room = Room::over(&mut buffer);
            let len = match engine.get(key, Touch::Yes, &mut room) {
                Ok(None) => return Ok(Status::NotFound),
                Ok(Some(_)) | Err(Error::BufferTooSmall { .. }) => room.len,
                Err(error) => return Err(error.into()),
            };
            // SAFETY: the read has written `len` bytes, if so many fit.
            let value = buffer.get(..len).map(|value| slice::from_raw_parts(value.as_ptr().cast(), len));
            let Some(number) = value.and_then(|value| engine.number_of(value)) else {
                return Err(Error::NotANumber { len: len as u64 }.into());
            };
            arg::store(result, number);
            Ok(Status::Ok)
        })
    }
}

/// The value that a number is stored as.
///
/// # Safety
/// See [`super`]: handle, buffer; `len` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_number_value(
    cache: *mut ucache,
    number: i64,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe { with_cache(cache, |engine| give(buffer, size, len, Some(&engine.value_of(number)))) }
}

/// Whether a key is stored, and its expiry.
///
/// # Safety
/// See [`super`]: handle, key; `expires` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_exists(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    expires: *mut u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_cache(cache, |engine| {
            let key = self::key(engine, key, keylen)?;
            if let (true, Some(local)) = (expires.is_null(), engine.local()) {
                return answer(local.exists(key).is_some(), Status::NotFound);
            }
            let Some(meta) = about(engine, key)? else { return Ok(Status::NotFound) };
            arg::store(expires, meta.expires_secs());
            Ok(Status::Ok)
        })
    }
}

/// What is known of a key beside its value.
fn about(cache: &Tier, key: &[u8]) -> crate::error::Result<Option<Meta>> {
    // The first call excludes ungettable items, the second one returns the expiry; neither counts.
    let found = cache.exists(key).is_some();
    Ok(cache.get(key, Touch::Unseen, &mut ())?.filter(|_| found))
}

/// The time until a key expires, milliseconds.
///
/// # Safety
/// See [`super`]: handle, key; `millis` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_ttl(
    cache: *mut ucache,
    key: *const c_void,
    keylen: usize,
    millis: *mut u64,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_cache(cache, |engine| {
            let key = self::key(engine, key, keylen)?;
            let Some(meta) = about(engine, key)? else { return Ok(Status::NotFound) };
            let left = match meta.expires_millis {
                0 => NEVER,
                at => at.saturating_sub(unix_millis()).max(1),
            };
            arg::store(millis, left);
            Ok(Status::Ok)
        })
    }
}
