//! Reading into the caller's buffer.

use std::{
    ffi::{c_int, c_void},
    io,
    mem::MaybeUninit,
    slice,
};

use super::{
    detail::{Fault, Outcome, answer, change, on},
    handle::ucache,
    status::Status,
};
use crate::{
    capi::arg,
    engine::{Engine, Sink, Touch},
    error::Error,
    shm::Source,
};

/// The longest that an object can be: a length over it is a mistake of the caller's, such as the -1 of a failed `read`.
const LONGEST: usize = isize::MAX as usize;

/// Bytes of the caller; `None` = there are none. `missing` says that they are NULL.
///
/// # Safety
/// `data` is NULL or has `len` readable bytes for as long as the slice is in use.
pub(super) unsafe fn bytes<'a>(
    data: *const c_void,
    len: usize,
    missing: &'static str,
) -> Result<Option<&'a [u8]>, Fault> {
    if data.is_null() && len > 0 {
        return Err(Fault::Argument(missing));
    }
    if len > LONGEST {
        return Err(Fault::Argument("a length is over SSIZE_MAX"));
    }
    // SAFETY: the caller vouches for the bytes.
    Ok(unsafe { arg::bytes(data.cast(), len as u64) })
}

/// A key as the cache takes it.
///
/// # Safety
/// `key` is NULL or has `len` readable bytes for as long as the slice is in use.
pub(super) unsafe fn key<'a>(engine: &Engine, key: *const c_void, len: usize) -> Result<&'a [u8], Fault> {
    let limit = engine.config().max_key;
    if len as u64 > limit {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        return Err(Error::KeyTooLong { len, limit }.into());
    }
    // SAFETY: passed on.
    unsafe { bytes(key, len, "the key is NULL") }?.ok_or_else(|| Error::EmptyKey.into())
}

/// The key, or a copy of it in `copy` where the buffer has bytes in common with it: what is read is written to the buffer
/// before the key is looked at for the last time.
#[inline]
pub(super) fn apart<'k>(
    key: &'k [u8],
    buffer: *mut c_void,
    size: usize,
    copy: &'k mut Vec<u8>,
) -> Result<&'k [u8], Fault> {
    let (start, end) = (buffer.addr(), buffer.addr().saturating_add(size));
    let range = key.as_ptr_range();
    if range.end.addr() <= start || end <= range.start.addr() {
        return Ok(key);
    }
    copied(key, copy)?;
    Ok(copy)
}

/// Copies bytes of the caller's to memory of the library's.
#[cold]
pub(super) fn copied(bytes: &[u8], to: &mut Vec<u8>) -> Result<(), Fault> {
    let no_memory = |_| Error::Os { call: "malloc", source: io::ErrorKind::OutOfMemory.into() };
    to.try_reserve_exact(bytes.len()).map_err(no_memory)?;
    to.extend_from_slice(bytes);
    Ok(())
}

/// The caller's buffer, and how long the value is.
pub(super) struct Room<'a> {
    buffer: &'a mut [MaybeUninit<u8>],
    pub(super) len: usize,
}

impl<'a> Room<'a> {
    /// # Safety
    /// `buffer` is a buffer of `size` bytes, see [`super`], for as long as the room is in use.
    pub(super) unsafe fn new(buffer: *mut c_void, size: usize) -> Result<Self, Fault> {
        let buffer = match (buffer.is_null(), size) {
            (_, 0) => &mut [],
            (true, _) => return Err(Fault::Argument("the buffer is NULL")),
            (_, size) if size > LONGEST => {
                return Err(Fault::Argument("the size of the buffer is over SSIZE_MAX"));
            }
            // SAFETY: the caller vouches for the bytes, and for being the only one who uses them.
            _ => unsafe { slice::from_raw_parts_mut(buffer.cast(), size) },
        };
        Ok(Self { buffer, len: 0 })
    }
}

impl Sink for Room<'_> {
    #[inline(always)]
    fn take(&mut self, src: &Source<'_>) -> bool {
        self.len = src.len();
        let Some(room) = self.buffer.get_mut(..self.len) else { return false };
        src.copy_to_uninit(room);
        true
    }
}

/// Runs a read, and tells the value's length also when it did not fit.
///
/// # Safety
/// As [`Room::new`]; `len` is an out parameter.
pub(super) unsafe fn read_into(
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
    read: impl FnOnce(&mut Room<'_>) -> crate::error::Result<bool>,
) -> Outcome {
    // SAFETY: passed on.
    let mut room = unsafe { Room::new(buffer, size) }?;
    let found = read(&mut room);
    if matches!(found, Ok(true) | Err(Error::BufferTooSmall { .. })) {
        // SAFETY: the caller vouches for `len`.
        unsafe { arg::store(len, room.len) };
    }
    answer(found?, Status::NotFound)
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
        on(cache, |engine| {
            let mut copy = Vec::new();
            let key = apart(self::key(engine, key, keylen)?, buffer, size, &mut copy)?;
            read_into(buffer, size, len, |room| Ok(engine.get(key, Touch::Yes, room)?.is_some()))
        })
    }
}

/// Copies a value as `ucache_get` does and removes it, in one step; one that does not fit stays.
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
        change(cache, |engine, nodes| {
            let mut copy = Vec::new();
            let key = apart(self::key(engine, key, keylen)?, buffer, size, &mut copy)?;
            read_into(buffer, size, len, |room| {
                let taken = engine.take_out(key, room)?;
                if taken {
                    nodes.tell_del(key);
                }
                Ok(taken)
            })
        })
    }
}

/// Whether a key is stored, and until when.
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
    struct Nothing;
    impl Sink for Nothing {
        fn take(&mut self, _: &Source<'_>) -> bool {
            true
        }
    }
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        on(cache, |engine| {
            let key = self::key(engine, key, keylen)?;
            // The first question leaves out what reads miss, the second tells the time; neither counts.
            let found = engine.exists(key).is_some();
            let Some(meta) = engine.get(key, Touch::Unseen, &mut Nothing)?.filter(|_| found) else {
                return Ok(Status::NotFound);
            };
            arg::store(expires, meta.expires);
            Ok(Status::Ok)
        })
    }
}
