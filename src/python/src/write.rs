//! Writing. All calls run without the GIL, because a write may wait for another process's lock.

use std::ffi::{CStr, c_int, c_void};

use ::ucache::capi::handle::{status::Status, ucache};

use crate::{
    cache::Core,
    library::Library,
    py::{Args, Data, Object, Py, Raised, Ref, type_error},
    read::{NOT_FOUND, OK},
};

const EXISTS: c_int = Status::Exists as c_int;
const CHANGED: c_int = Status::Changed as c_int;
const FULL: c_int = Status::Full as c_int;
const SPACE: c_int = Status::Space as c_int;

/// `ucache_set`, `ucache_add`, `ucache_replace`.
type Store = unsafe extern "C" fn(*mut ucache, *const c_void, usize, *const c_void, usize, u64) -> c_int;

fn store(cache: &Core, which: fn(&Library) -> Store, key: &[u8], value: &[u8], ttl: u64) -> Py<c_int> {
    cache.wait(|library, handle| {
        // SAFETY: the handle is open; key and value have their lengths.
        unsafe {
            which(library)(handle, key.as_ptr().cast(), key.len(), value.as_ptr().cast(), value.len(), ttl)
        }
    })
}

/// Whether a store was done; `refused` = the status that is `False`.
fn stored(cache: &Core, status: c_int, refused: c_int) -> Py<bool> {
    match status {
        OK => Ok(true),
        _ if status == refused => Ok(false),
        status => Err(cache.failed(status)),
    }
}

fn add_one(cache: &Core, key: Ref<'_>, value: Ref<'_>, ttl: u64) -> Py<bool> {
    let (key, value) = (cache.key(key)?, cache.encode(value)?);
    let status = store(cache, |library| library.ucache_add, &key, &value, ttl)?;
    stored(cache, status, EXISTS)
}

/// `set(key, value, *, timeout=None)`: where the key is missing, as uWSGI's `cache_set`.
pub(crate) fn set(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, value, timeout] = args.bind("set", [c"key", c"value", c"timeout"], 2, 2)?;
    add_one(cache, key.ok_or(Raised)?, value.ok_or(Raised)?, cache.ttl(timeout)?).map(Object::bool)
}

/// `cache[key] = value`
pub(crate) fn set_item(cache: &Core, key: Ref<'_>, value: Ref<'_>) -> Py<()> {
    add_one(cache, key, value, cache.ttl(None)?).map(|_| ())
}

/// `add(key, value, *, ttl=None)`
pub(crate) fn add(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, value, ttl] = args.bind("add", [c"key", c"value", c"ttl"], 2, 2)?;
    add_one(cache, key.ok_or(Raised)?, value.ok_or(Raised)?, cache.ttl(ttl)?).map(Object::bool)
}

/// `update(key, value, *, ttl=None)`
pub(crate) fn update(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, value, ttl] = args.bind("update", [c"key", c"value", c"ttl"], 2, 2)?;
    let ttl = cache.ttl_or_keep(ttl)?;
    let (key, value) = (cache.key(key.ok_or(Raised)?)?, cache.encode(value.ok_or(Raised)?)?);
    match store(cache, |library| library.ucache_set, &key, &value, ttl)? {
        OK => Ok(Object::none()),
        status => Err(cache.failed(status)),
    }
}

/// `replace(key, value, *, ttl=None)`
pub(crate) fn replace(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, value, ttl] = args.bind("replace", [c"key", c"value", c"ttl"], 2, 2)?;
    let ttl = cache.ttl_or_keep(ttl)?;
    let (key, value) = (cache.key(key.ok_or(Raised)?)?, cache.encode(value.ok_or(Raised)?)?);
    let status = store(cache, |library| library.ucache_replace, &key, &value, ttl)?;
    stored(cache, status, NOT_FOUND).map(Object::bool)
}

/// `cas(key, expected, value, *, ttl=KEEP)`
pub(crate) fn cas(cache: &Core, args: Args<'_>) -> Py<Object> {
    let names = [c"key", c"expected", c"value", c"ttl"];
    let [key, expected, value, ttl] = args.bind("cas", names, 3, 3)?;
    let ttl = match ttl {
        None => crate::cache::KEEP,
        ttl => cache.ttl_or_keep(ttl)?,
    };
    let key = cache.key(key.ok_or(Raised)?)?;
    let (expected, value) = (cache.encode(expected.ok_or(Raised)?)?, cache.encode(value.ok_or(Raised)?)?);
    let status = cache.wait(|library, handle| {
        let (key, keylen) = (key.as_ptr().cast(), key.len());
        let (expected, expectedlen) = (expected.as_ptr().cast(), expected.len());
        // SAFETY: the handle is open; key and values have their lengths.
        unsafe {
            (library.ucache_cas)(
                handle,
                key,
                keylen,
                expected,
                expectedlen,
                value.as_ptr().cast(),
                value.len(),
                ttl,
            )
        }
    })?;
    stored(cache, status, CHANGED).map(Object::bool)
}

type Join =
    unsafe extern "C" fn(*mut ucache, *const c_void, usize, *const c_void, usize, *mut usize) -> c_int;

/// `append(key, data)`, `prepend(key, data)`: the new length, or `None`.
fn join(cache: &Core, args: Args<'_>, function: &str, which: fn(&Library) -> Join) -> Py<Object> {
    let [key, data] = args.bind(function, [c"key", c"data"], 2, 2)?;
    let (key, data) = (cache.key(key.ok_or(Raised)?)?, data.ok_or(Raised)?);
    let Some(data) = data.data()? else {
        return Err(type_error(&format!("data is str or bytes, not {}", data.type_name())));
    };
    let mut len = 0;
    let status = cache.wait(|library, handle| {
        // SAFETY: the handle is open; key and data have their lengths; `len` is a place.
        unsafe {
            let (key, keylen) = (key.as_ptr().cast(), key.len());
            which(library)(handle, key, keylen, data.as_ptr().cast(), data.len(), &raw mut len)
        }
    })?;
    match status {
        OK => Object::unsigned(len as u64),
        NOT_FOUND => Ok(Object::none()),
        status => Err(cache.failed(status)),
    }
}

/// `append(key, data)`
pub(crate) fn append(cache: &Core, args: Args<'_>) -> Py<Object> {
    join(cache, args, "append", |library| library.ucache_append)
}

/// `prepend(key, data)`
pub(crate) fn prepend(cache: &Core, args: Args<'_>) -> Py<Object> {
    join(cache, args, "prepend", |library| library.ucache_prepend)
}

/// Whether a key was there, for a call that changes it.
fn was_there(
    cache: &Core,
    key: &[u8],
    call: impl FnOnce(&'static Library, *mut ucache, *const c_void, usize) -> c_int,
) -> Py<bool> {
    let status = cache.wait(|library, handle| call(library, handle, key.as_ptr().cast(), key.len()))?;
    stored(cache, status, NOT_FOUND)
}

/// `delete(key)`
pub(crate) fn delete(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key] = args.bind("delete", [c"key"], 1, 1)?;
    delete_item(cache, key.ok_or(Raised)?).map(Object::bool)
}

/// `del cache[key]`
pub(crate) fn delete_item(cache: &Core, key: Ref<'_>) -> Py<bool> {
    was_there(cache, &cache.key(key)?, |library, handle, key, len| {
        // SAFETY: the handle is open, the key has its length.
        unsafe { (library.ucache_del)(handle, key, len) }
    })
}

/// `_delete_if(key, expected)`
pub(crate) fn delete_if(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, expected] = args.bind("_delete_if", [c"key", c"expected"], 2, 2)?;
    let (key, expected) = (cache.key(key.ok_or(Raised)?)?, cache.encode(expected.ok_or(Raised)?)?);
    let status = cache.wait(|library, handle| {
        let (key, keylen) = (key.as_ptr().cast(), key.len());
        // SAFETY: the handle is open; key and value have their lengths.
        unsafe { (library.ucache_del_if)(handle, key, keylen, expected.as_ptr().cast(), expected.len()) }
    })?;
    stored(cache, status, CHANGED).map(Object::bool)
}

/// `touch(key, ttl=None)`
pub(crate) fn touch(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [key, ttl] = args.bind("touch", [c"key", c"ttl"], 1, 2)?;
    let ttl = cache.ttl(ttl)?;
    let there = was_there(cache, &cache.key(key.ok_or(Raised)?)?, |library, handle, key, len| {
        // SAFETY: the handle is open, the key has its length.
        unsafe { (library.ucache_touch)(handle, key, len, ttl) }
    })?;
    Ok(Object::bool(there))
}

/// The number that a call of Python adds, multiplies by and so on; `None` = out of range.
type Operand = fn(Option<i64>) -> Option<i64>;

type Math = unsafe extern "C" fn(*mut ucache, *const c_void, usize, i64, u64, *mut i64) -> c_int;

/// Changes a number and returns the new one.
fn math(
    cache: &Core,
    args: Args<'_>,
    (function, operand): (&str, &CStr),
    (which, change): (fn(&Library) -> Math, Operand),
) -> Py<Object> {
    let [key, value, ttl] = args.bind(function, [c"key", operand, c"ttl"], 1, 2)?;
    let given =
        match value {
            None => None,
            Some(value) if value.is_int() => Some(value.to_i64()?.ok_or_else(|| {
                crate::py::overflow_error(&format!("{function}() changes numbers of 64 bits"))
            })?),
            Some(value) => {
                let (operand, kind) = (operand.to_string_lossy(), value.type_name());
                return Err(type_error(&format!("{operand} is an int, not {kind}")));
            }
        };
    let operand = change(given)
        .ok_or_else(|| crate::py::overflow_error(&format!("{function}() changes numbers of 64 bits")))?;
    let (key, ttl) = (cache.key(key.ok_or(Raised)?)?, cache.ttl(ttl)?);
    let mut number = 0;
    let status = cache.wait(|library, handle| {
        // SAFETY: the handle is open, the key has its length, `number` is a place.
        unsafe { which(library)(handle, key.as_ptr().cast(), key.len(), operand, ttl, &raw mut number) }
    })?;
    match status {
        OK => Object::int(number),
        status => Err(cache.failed(status)),
    }
}

/// `incr(key, delta=1, *, ttl=None)`
pub(crate) fn incr(cache: &Core, args: Args<'_>) -> Py<Object> {
    math(cache, args, ("incr", c"delta"), (|library| library.ucache_incr, |delta| Some(delta.unwrap_or(1))))
}

/// `decr(key, delta=1, *, ttl=None)`
pub(crate) fn decr(cache: &Core, args: Args<'_>) -> Py<Object> {
    let change = |delta: Option<i64>| delta.unwrap_or(1).checked_neg();
    math(cache, args, ("decr", c"delta"), (|library| library.ucache_incr, change))
}

/// `mul(key, value=2, *, ttl=None)`
pub(crate) fn mul(cache: &Core, args: Args<'_>) -> Py<Object> {
    math(cache, args, ("mul", c"value"), (|library| library.ucache_mul, |value| Some(value.unwrap_or(2))))
}

/// `div(key, value=2, *, ttl=None)`
pub(crate) fn div(cache: &Core, args: Args<'_>) -> Py<Object> {
    math(cache, args, ("div", c"value"), (|library| library.ucache_div, |value| Some(value.unwrap_or(2))))
}

/// `set_many(mapping, *, ttl=None)`: a list of the keys for which there was no room.
pub(crate) fn set_many(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [mapping, ttl] = args.bind("set_many", [c"mapping", c"ttl"], 1, 1)?;
    let ttl = cache.ttl(ttl)?;
    let items = mapping.ok_or(Raised)?.pairs()?;
    let pairs = items.iter().map(Ref::pair).collect::<Py<Vec<_>>>()?;
    // All of them before the first store: an object of a wrong type stores nothing.
    let encoded = pairs
        .iter()
        .map(|(key, value)| Ok((cache.key(*key)?, cache.encode(*value)?)))
        .collect::<Py<Vec<(Data<'_>, Data<'_>)>>>()?;
    let bytes: Vec<(&[u8], &[u8])> = encoded.iter().map(|(key, value)| (&**key, &**value)).collect();
    let mut refused = Vec::new();
    let status = cache.wait(|library, handle| {
        for (at, (key, value)) in bytes.iter().enumerate() {
            let (data, len) = (value.as_ptr().cast(), value.len());
            // SAFETY: the handle is open; key and value have their lengths.
            match unsafe { (library.ucache_set)(handle, key.as_ptr().cast(), key.len(), data, len, ttl) } {
                OK => {}
                FULL | SPACE => refused.push(at),
                status => return status,
            }
        }
        OK
    })?;
    if status != OK {
        return Err(cache.failed(status));
    }
    let keys = Object::list()?;
    for at in refused {
        keys.append(pairs[at].0)?;
    }
    Ok(keys)
}

/// `delete_many(keys)`: how many were stored.
pub(crate) fn delete_many(cache: &Core, args: Args<'_>) -> Py<Object> {
    let [keys] = args.bind("delete_many", [c"keys"], 1, 1)?;
    let keys = keys.ok_or(Raised)?;
    if keys.is_text() {
        return Err(type_error("keys is an iterable of keys, not one str"));
    }
    let keys = keys.items()?;
    let data = keys.iter().map(|key| cache.key(key)).collect::<Py<Vec<Data<'_>>>>()?;
    let bytes: Vec<&[u8]> = data.iter().map(|key| &**key).collect();
    let mut deleted = 0;
    let status = cache.wait(|library, handle| {
        for key in bytes {
            // SAFETY: the handle is open, the key has its length.
            match unsafe { (library.ucache_del)(handle, key.as_ptr().cast(), key.len()) } {
                OK => deleted += 1,
                NOT_FOUND => {}
                status => return status,
            }
        }
        OK
    })?;
    if status == OK { Object::int(deleted) } else { Err(cache.failed(status)) }
}

fn whole(cache: &Core, call: impl FnOnce(&'static Library, *mut ucache) -> c_int) -> Py<Object> {
    match cache.wait(call)? {
        OK => Ok(Object::none()),
        status => Err(cache.failed(status)),
    }
}

/// `clear()`
pub(crate) fn clear(cache: &Core, _: Args<'_>) -> Py<Object> {
    // SAFETY: the handle is open.
    whole(cache, |library, handle| unsafe { (library.ucache_clear)(handle) })
}

/// `sweep()`
pub(crate) fn sweep(cache: &Core, _: Args<'_>) -> Py<Object> {
    // SAFETY: the handle is open.
    whole(cache, |library, handle| unsafe { (library.ucache_sweep)(handle) })
}

/// `sync()`
pub(crate) fn sync(cache: &Core, _: Args<'_>) -> Py<Object> {
    // SAFETY: the handle is open.
    whole(cache, |library, handle| unsafe { (library.ucache_sync)(handle) })
}
