//! Reading many keys with one call.

use std::{ffi::c_int, ptr, slice};

use ::ucache::capi::handle::{ucache, ucache_read};

use crate::{
    cache::Core,
    library::Library,
    py::{Args, Data, Items, Object, Py, Raised, Ref, type_error},
    read::{Found, OK, TOO_SMALL},
};

/// Bytes for the values, to begin with.
const ROOM: usize = 32 * 1024;

/// The keys of a call.
struct Keys<'a> {
    objects: Vec<Ref<'a>>,
    reads: Vec<ucache_read>,
    /// The bytes of keys that are no plain str or bytes. The items of `reads` lead to them.
    _others: Vec<Data<'a>>,
}

impl<'a> Keys<'a> {
    fn new(cache: &Core, items: &'a Items) -> Py<Self> {
        let (mut reads, mut others) = (Vec::with_capacity(items.iter().len()), Vec::new());
        for object in items.iter() {
            let (key, keylen) = match object.plain() {
                Some(key) => (key.as_ptr(), key.len()),
                None => {
                    // An owned one is an object, whose bytes do not move with it.
                    others.push(cache.key(object)?);
                    others.last().map_or((ptr::null(), 0), |key| (key.as_ptr(), key.len()))
                }
            };
            reads.push(ucache_read { key: key.cast(), keylen, value: ptr::null(), vallen: 0 });
        }
        Ok(Self { objects: items.iter().collect(), reads, _others: others })
    }
}

/// `get_many(keys)`: a dict of those that are stored.
pub(crate) fn get_many(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [keys] = args.bind("get_many", [c"keys"], 1, 1)?;
    let keys = keys.ok_or(Raised)?;
    if keys.is_text() {
        return Err(type_error("keys is an iterable of keys, not one str"));
    }
    let items = keys.items()?;
    let mut keys = Keys::new(cache, &items)?;
    let result = Object::dict()?;
    let mut buffer = Vec::<u8>::with_capacity(ROOM);
    let mut at = 0;
    while at < keys.reads.len() {
        let (mut done, size) = (0, buffer.capacity());
        let call = Many { items: &mut keys.reads[at..], buffer: buffer.as_mut_ptr(), size };
        let status = cache.read(|library, handle| call.run(library, handle, &mut done))?;
        if status != OK && status != TOO_SMALL {
            return Err(cache.failed(status));
        }
        for (key, read) in keys.objects[at..].iter().zip(&keys.reads[at..at + done]) {
            if !read.value.is_null() {
                // SAFETY: the value lies in the buffer with this length.
                let value = unsafe { slice::from_raw_parts(read.value.cast(), read.vallen) };
                result.insert(*key, cache.decode(Found::Short(value))?.borrow())?;
            }
        }
        at += done;
        if status == TOO_SMALL && done == 0 {
            buffer = Vec::with_capacity(keys.reads[at].vallen.max(ROOM));
        }
    }
    Ok(result)
}

/// One call of `ucache_get_many`.
struct Many<'a> {
    items: &'a mut [ucache_read],
    buffer: *mut u8,
    size: usize,
}

impl Many<'_> {
    fn run(self, library: &Library, handle: *mut ucache, done: &mut usize) -> c_int {
        let (items, count) = (self.items.as_mut_ptr(), self.items.len());
        // SAFETY: the handle is open; items and buffer have their sizes, and the keys live longer.
        unsafe { (library.ucache_get_many)(handle, items, count, self.buffer.cast(), self.size, done) }
    }
}
