//! Reading many keys with one call.

use std::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ptr, slice,
};

use super::{
    call::with_cache,
    error::CallError,
    open::ucache,
    read::{Room, key},
    status::Status,
};
use crate::{
    capi::arg,
    engine::{BATCH, Touch},
    error::Error,
    near::{Backed, Tier},
};

/// A key to read, and where its value is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name of the header")]
pub struct ucache_read {
    /// The key.
    pub key: *const c_void,
    /// Its bytes.
    pub keylen: usize,
    /// The value, in the buffer; NULL = not stored.
    pub value: *const c_void,
    /// Its bytes.
    pub vallen: usize,
}

/// The caller's buffer, filled from the front.
struct Packed<'a> {
    buffer: &'a mut [MaybeUninit<u8>],
    used: usize,
}

impl Packed<'_> {
    /// Room for the next value: what is left.
    fn room(&mut self) -> Room<'_> {
        Room::over(&mut self.buffer[self.used..])
    }

    /// Where the next value begins. Values of no bytes do not exist.
    fn next(&self) -> *const c_void {
        self.buffer[self.used..].as_ptr().cast()
    }
}

/// Reads several keys; their values lie one behind the other in the buffer.
///
/// # Safety
/// See [`super`]: handle, buffer; `items` is NULL with a count of 0, or as many items, whose keys
/// are keys and do not lie in the buffer; `done` is an out parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ucache_get_many(
    cache: *mut ucache,
    items: *mut ucache_read,
    count: usize,
    buffer: *mut c_void,
    size: usize,
    done: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for all arguments.
    unsafe {
        with_cache(cache, |tier| {
            let items = match (items.is_null(), count) {
                (_, 0) => &mut [],
                (true, _) => return Err(CallError::Argument("the items are NULL")),
                _ if count > isize::MAX as usize / size_of::<ucache_read>() => {
                    return Err(CallError::Argument("there are too many items"));
                }
                _ => slice::from_raw_parts_mut(items, count),
            };
            let mut packed = Packed { buffer: Room::new(buffer, size)?.into_buffer(), used: 0 };
            let mut answered = 0;
            let read = match tier.backed() {
                None => from_region(tier, items, &mut packed, &mut answered),
                Some(backed) => from_server((tier, backed), items, &mut packed, &mut answered),
            };
            arg::store(done, answered);
            read
        })
    }
}

/// # Safety
/// As [`ucache_get_many`].
unsafe fn from_region(
    tier: &Tier,
    items: &mut [ucache_read],
    packed: &mut Packed<'_>,
    answered: &mut usize,
) -> Result<Status, CallError> {
    for batch in items.chunks_mut(BATCH) {
        let mut keys = [&[][..]; BATCH];
        for (to, item) in keys.iter_mut().zip(&*batch) {
            // SAFETY: the caller vouches for the keys.
            *to = unsafe { key(tier, item.key, item.keylen) }?;
        }
        tier.prefetch_keys(keys[..batch.len()].iter().copied());
        for (item, key) in batch.iter_mut().zip(keys) {
            let start = packed.next();
            let mut room = packed.room();
            let found = match tier.get(key, Touch::Yes, &mut room) {
                Err(Error::BufferTooSmall { .. }) => {
                    item.vallen = room.len;
                    return Ok(Status::TooSmall);
                }
                found => found?.is_some(),
            };
            let len = if found { room.len } else { 0 };
            (item.value, item.vallen) = (if found { start } else { ptr::null() }, len);
            packed.used += len;
            *answered += 1;
        }
    }
    Ok(Status::Ok)
}

/// One round trip for all keys.
///
/// # Safety
/// As [`ucache_get_many`].
unsafe fn from_server(
    (tier, backed): (&Tier, &Backed),
    items: &mut [ucache_read],
    packed: &mut Packed<'_>,
    answered: &mut usize,
) -> Result<Status, CallError> {
    let mut keys = Vec::with_capacity(items.len());
    for item in &*items {
        // SAFETY: the caller vouches for the keys.
        keys.push(unsafe { key(tier, item.key, item.keylen) }?);
    }
    for (item, value) in items.iter_mut().zip(backed.get_all(&keys)?) {
        let start = packed.next();
        (item.value, item.vallen) = match value {
            None => (ptr::null(), 0),
            Some(value) => {
                if !packed.room().put(&value) {
                    item.vallen = value.len();
                    return Ok(Status::TooSmall);
                }
                packed.used += value.len();
                (start, value.len())
            }
        };
        *answered += 1;
    }
    Ok(Status::Ok)
}
