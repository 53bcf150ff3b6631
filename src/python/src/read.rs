//! Reading: `get`, `in`, `take`, numbers, times to live, many keys, keys.

use std::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    ptr, slice,
};

use ::ucache::capi::handle::status::Status;

use crate::{
    cache::Core,
    py::{Args, Object, Py, Raised, Ref, released},
};

pub(crate) const OK: c_int = Status::Ok as c_int;
pub(crate) const NOT_FOUND: c_int = Status::NotFound as c_int;
pub(crate) const TOO_SMALL: c_int = Status::TooSmall as c_int;

/// Bytes of a value that is read without allocating memory for it.
const SHORT: usize = 4096;

/// A value that was read.
pub(crate) enum Found<'a> {
    /// Its bytes.
    Short(&'a [u8]),
    /// A bytes object, into which a long value was read.
    Long(Object),
}

impl Found<'_> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(value) => value,
            Self::Long(value) => value.borrow().content(),
        }
    }

    /// The value as a bytes object.
    #[inline]
    pub(crate) fn into_bytes(self) -> Py<Object> {
        match self {
            Self::Short(value) => Object::bytes(value),
            Self::Long(value) => Ok(value),
        }
    }
}

/// Reads a value with a function like `ucache_get`, and makes it what `found` makes of it. The
/// function returns the status for a buffer.
#[inline(always)]
pub(crate) fn with_value<T>(
    mut read: impl FnMut(*mut c_void, usize, *mut usize) -> Py<c_int>,
    found: impl FnOnce(Found<'_>) -> Py<T>,
) -> Py<Result<T, c_int>> {
    let mut short = [MaybeUninit::<u8>::uninit(); SHORT];
    let mut len = 0;
    let status = read(short.as_mut_ptr().cast(), SHORT, &raw mut len)?;
    if status == OK {
        // SAFETY: the function has written `len` bytes.
        return found(Found::Short(unsafe { slice::from_raw_parts(short.as_ptr().cast(), len) })).map(Ok);
    }
    if status != TOO_SMALL {
        return Ok(Err(status));
    }
    match long_value(read, len)? {
        Ok(value) => found(Found::Long(value)).map(Ok),
        Err(status) => Ok(Err(status)),
    }
}

/// A value that is longer than the first buffer, as a bytes object: it is copied once.
#[inline(never)]
fn long_value(
    mut read: impl FnMut(*mut c_void, usize, *mut usize) -> Py<c_int>,
    mut len: usize,
) -> Py<Result<Object, c_int>> {
    loop {
        let (value, size) = (Object::room(len)?, len);
        match read(value.room_at(), size, &raw mut len)? {
            OK if len == size => return Ok(Ok(value)),
            // A shorter value was stored meanwhile.
            OK => return Object::bytes(&value.borrow().content()[..len.min(size)]).map(Ok),
            // A longer one.
            TOO_SMALL => {}
            status => return Ok(Err(status)),
        }
    }
}

/// The value of a key as `found` makes it; `None` = not stored.
#[inline(always)]
fn value<T>(cache: &Core, key: &[u8], found: impl FnOnce(Found<'_>) -> Py<T>) -> Py<Option<T>> {
    let get = |buffer: *mut c_void, size, len: *mut usize| {
        cache.read(|library, handle| {
            // SAFETY: the handle is open; key and buffer have their lengths, and live in this call.
            unsafe { (library.ucache_get)(handle, key.as_ptr().cast(), key.len(), buffer, size, len) }
        })
    };
    match with_value(get, found)? {
        Ok(value) => Ok(Some(value)),
        Err(NOT_FOUND) => Ok(None),
        Err(status) => Err(cache.failed(status)),
    }
}

/// `get(key, *, default=None, as_int=False, setter=None, preserve_bytes=False)`
pub(crate) fn get(cache: &Core, args: Args<'_>) -> Py<Object> {
    if let Some(key) = args.single() {
        return Ok(get_item(cache, key)?.unwrap_or_else(Object::none));
    }
    let names = [c"key", c"default", c"as_int", c"setter", c"preserve_bytes"];
    let [key, default, as_int, setter, preserve_bytes] = args.bind("get", names, 1, 1)?;
    let key = key.ok_or(Raised)?;
    let truth = |flag: Option<Ref<'_>>| flag.map_or(Ok(false), Ref::truth);
    if truth(as_int)? {
        let number = number_of(cache, key, true)?.unwrap_or(0);
        return Object::int(number);
    }
    let found = match truth(preserve_bytes)? {
        true => value(cache, &cache.key(key)?, |value| value.into_bytes())?,
        false => get_item(cache, key)?,
    };
    let default = || default.map_or_else(Object::none, Ref::own);
    match (found, setter.filter(|setter| !setter.is_none())) {
        (Some(value), _) => Ok(value),
        (None, None) => Ok(default()),
        (None, Some(setter)) => {
            let made = setter.call(&[key])?;
            if made.borrow().is_none() {
                return Ok(default());
            }
            cache.object().attribute(c"set")?.borrow().call(&[key, made.borrow()])?;
            Ok(made)
        }
    }
}

/// The value of a key, decoded.
#[inline]
pub(crate) fn get_item(cache: &Core, key: Ref<'_>) -> Py<Option<Object>> {
    match key.plain() {
        Some(key) => value(cache, key, |value| cache.decode(value)),
        None => get_by_other(cache, key),
    }
}

/// The value of a key that is no plain str or bytes.
#[inline(never)]
fn get_by_other(cache: &Core, key: Ref<'_>) -> Py<Option<Object>> {
    value(cache, &cache.key(key)?, |value| cache.decode(value))
}

/// Whether a key is stored.
pub(crate) fn contains(cache: &Core, key: Ref<'_>) -> Py<bool> {
    match key.plain() {
        Some(key) => exists(cache, key),
        None => exists(cache, &cache.key(key)?),
    }
}

/// Whether a key is stored.
#[inline]
fn exists(cache: &Core, key: &[u8]) -> Py<bool> {
    let status = cache.read(|library, handle| {
        // SAFETY: the handle is open, the key has its length, the expiry may be NULL.
        unsafe { (library.ucache_exists)(handle, key.as_ptr().cast(), key.len(), ptr::null_mut()) }
    })?;
    match status {
        OK => Ok(true),
        NOT_FOUND => Ok(false),
        status => Err(cache.failed(status)),
    }
}

/// `_left(key)`: milliseconds until it expires, 0 = never, `None` = not stored.
pub(crate) fn left(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key] = args.bind("ttl", [c"key"], 1, 1)?;
    let (key, mut left) = (cache.key(key.ok_or(Raised)?)?, 0);
    let status = cache.read(|library, handle| {
        // SAFETY: the handle is open, the key has its length, `left` is a place.
        unsafe { (library.ucache_ttl)(handle, key.as_ptr().cast(), key.len(), &raw mut left) }
    })?;
    match status {
        OK => Object::unsigned(left),
        NOT_FOUND => Ok(Object::none()),
        status => Err(cache.failed(status)),
    }
}

/// A number; `lenient`: `None` also for a value that is none.
fn number_of(cache: &Core, key: Ref<'_>, lenient: bool) -> Py<Option<i64>> {
    const NOT_A_NUMBER: c_int = Status::Number as c_int;
    let key = cache.key(key)?;
    let mut number = 0;
    let status = cache.read(|library, handle| {
        // SAFETY: the handle is open, the key has its length, `number` is a place.
        unsafe { (library.ucache_number)(handle, key.as_ptr().cast(), key.len(), &raw mut number) }
    })?;
    match status {
        OK => Ok(Some(number)),
        NOT_FOUND => Ok(None),
        NOT_A_NUMBER if lenient => Ok(None),
        status => Err(cache.failed(status)),
    }
}

/// `number(key, default=None)`
pub(crate) fn number(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, default] = args.bind("number", [c"key", c"default"], 1, 2)?;
    match number_of(cache, key.ok_or(Raised)?, false)? {
        Some(number) => Object::int(number),
        None => Ok(default.map_or_else(Object::none, Ref::own)),
    }
}

/// `take(key, default=None)`
pub(crate) fn take(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, default] = args.bind("take", [c"key", c"default"], 1, 2)?;
    let key = cache.key(key.ok_or(Raised)?)?;
    let opened = cache.opened()?;
    let library = cache.library();
    let take = |buffer: *mut c_void, size, len: *mut usize| {
        // SAFETY: the handle is open; key and buffer have their lengths, and live in this call.
        Ok(released(|| unsafe {
            (library.ucache_take)(opened.handle(), key.as_ptr().cast(), key.len(), buffer, size, len)
        }))
    };
    match with_value(take, |value| cache.decode(value))? {
        Ok(value) => Ok(value),
        Err(NOT_FOUND) => Ok(default.map_or_else(Object::none, Ref::own)),
        Err(status) => Err(cache.failed(status)),
    }
}

/// `_keys(prefix)`: a list of str.
pub(crate) fn keys(cache: &Core, args: Args<'_>) -> Py<Object> {
    /// Adds a key to a list.
    ///
    /// # Safety
    /// `found` is the list; the key has its length.
    unsafe extern "C-unwind" fn each(
        found: *mut c_void,
        key: *const c_void,
        keylen: usize,
        _vallen: usize,
        _expires: u64,
    ) -> c_int {
        // SAFETY: the list of the call below; a key has its length.
        unsafe { (*found.cast::<Vec<Box<[u8]>>>()).push(slice::from_raw_parts(key.cast(), keylen).into()) };
        0
    }
    let [prefix] = args.bind("keys", [c"prefix"], 1, 1)?;
    let prefix = cache.key(prefix.ok_or(Raised)?)?;
    let mut found = Vec::<Box<[u8]>>::new();
    let status = cache.wait(|library, handle| {
        // SAFETY: the handle is open, the prefix has its length, the function fits its context.
        unsafe {
            let context = (&raw mut found).cast();
            (library.ucache_keys)(handle, prefix.as_ptr().cast(), prefix.len(), Some(each), context)
        }
    })?;
    if status != OK {
        return Err(cache.failed(status));
    }
    let keys = Object::list()?;
    for key in found {
        keys.append(Object::text(&key, true)?.borrow())?;
    }
    Ok(keys)
}

/// `server()`: the address of the server behind the cache, or `None`.
pub(crate) fn server(cache: &Core, _: Args<'_>) -> Py<Object> {
    match cache.opened()?.server() {
        Some(server) => Object::text(server, true),
        None => Ok(Object::none()),
    }
}

/// A dict of the figures with which a function of the library fills a struct.
macro_rules! dict_of {
    ($cache:ident, $function:ident: $($name:ident)+) => {{
        let mut figures = MaybeUninit::zeroed();
        let status = $cache.read(|library, handle| {
            // SAFETY: the handle is open, the struct has its size.
            unsafe { (library.$function)(handle, figures.as_mut_ptr(), size_of_val(&figures)) }
        })?;
        if status != OK {
            return Err($cache.failed(status));
        }
        // SAFETY: filled in, and zero is a value of every field.
        let figures = unsafe { figures.assume_init() };
        let result = Object::dict()?;
        for (name, value) in [$((stringify!($name), figures.$name)),+] {
            let name = Object::text(name.as_bytes(), false)?;
            result.insert(name.borrow(), Object::unsigned(value)?.borrow())?;
        }
        Ok(result)
    }};
}

/// `_stats()`: a dict of numbers.
pub(crate) fn stats(cache: &Core, _: Args<'_>) -> Py<Object> {
    dict_of!(cache, ucache_stat: items capacity bytes reserved_bytes blocks_used max_key max_value shards last_modified
        hits misses stored deleted evicted expired cleared full rejected_limit rejected_full rejected_blocks no_space
        lock_waits timeouts owner_dead repaired dropped_corrupt lock_lost moved compacted_bytes
        near_up near_beat_age_ms near_owner_pid near_hits near_misses near_bypassed near_fills near_fills_voided
        near_invalidated near_invalidated_absent near_flushes near_stale_served near_terms backend_up
        backend_requests backend_errors backend_timeouts backend_connects backend_elsewhere near_absent)
}

/// `_memory()`: a dict of numbers.
pub(crate) fn memory(cache: &Core, _: Args<'_>) -> Py<Object> {
    dict_of!(cache, ucache_memory: payload resident overhead fragmentation disk reserved entries extents large_blocks
        leaving idle holes sampled)
}
