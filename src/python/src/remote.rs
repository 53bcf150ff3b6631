//! Caches of other servers, `name@host:port`: functions that ask over the network, without the GIL.

use std::{ffi::CStr, ptr, slice};

use crate::{
    cache::c_string,
    library::{Library, library},
    py::{Args, Data, Object, Py, Raised, Ref, import_error, overflow_error, released, type_error},
};

/// `UWSGI_CACHE_FLAG_UPDATE`.
const UPDATE: u64 = 1 << 1;

/// The name of the cache and the key, of at most 65535 bytes.
fn target<'a>(cache: Option<Ref<'a>>, key: Option<Ref<'a>>) -> Py<(std::ffi::CString, Data<'a>, u16)> {
    let (cache, key) = (c_string(cache.ok_or(Raised)?, "the name of a cache")?, key.ok_or(Raised)?);
    let Some(data) = key.data()? else {
        return Err(type_error(&format!("a key is str or bytes, not {}", key.type_name())));
    };
    let len = u16::try_from(data.len()).map_err(|_| overflow_error("a key has at most 65535 bytes"))?;
    Ok((cache, data, len))
}

fn functions() -> Py<&'static Library> {
    library().map_err(|reason| import_error(&reason))
}

/// `remote_get(cache, key)`: bytes or `None`.
pub(crate) fn get(args: Args<'_>) -> Py<Object> {
    let [cache, key] = args.bind("remote_get", [c"cache", c"key"], 2, 2)?;
    let ((cache, key, keylen), library) = (target(cache, key)?, functions()?);
    let mut len = 0;
    let value = released(|| {
        // SAFETY: name and key have their lengths, `len` is a place.
        unsafe {
            let (key, name) = (key.as_ptr().cast(), cache.as_ptr());
            (library.uwsgi_cache_magic_get)(key, keylen, &raw mut len, ptr::null_mut(), name)
        }
        .expose_provenance()
    });
    let value: *mut u8 = ptr::with_exposed_provenance_mut(value);
    if value.is_null() {
        return Ok(Object::none());
    }
    // SAFETY: `len` bytes of malloc memory, which are freed here.
    unsafe {
        let object = Object::bytes(slice::from_raw_parts(value, usize::try_from(len).map_err(|_| Raised)?));
        libc::free(value.cast());
        object
    }
}

/// `remote_set(cache, key, value, seconds, update)`: whether it was stored.
pub(crate) fn set(args: Args<'_>) -> Py<Object> {
    let names = [c"cache", c"key", c"value", c"seconds", c"update"];
    let [cache, key, value, seconds, update] = args.bind("remote_set", names, 5, 5)?;
    let ((cache, key, keylen), library) = (target(cache, key)?, functions()?);
    let value = value.ok_or(Raised)?.data()?.ok_or_else(|| type_error("a value is bytes"))?;
    let seconds = seconds.ok_or(Raised)?.to_i64()?.unwrap_or(0).cast_unsigned();
    let flags = if update.ok_or(Raised)?.truth()? { UPDATE } else { 0 };
    let stored = released(|| {
        // SAFETY: name, key and value have their lengths.
        unsafe {
            (library.uwsgi_cache_magic_set)(
                key.as_ptr().cast(),
                keylen,
                value.as_ptr().cast(),
                value.len() as u64,
                seconds,
                flags,
                cache.as_ptr(),
            )
        }
    });
    Ok(Object::bool(stored == 0))
}

/// `remote_delete(cache, key)`: whether it was there.
pub(crate) fn delete(args: Args<'_>) -> Py<Object> {
    let [cache, key] = args.bind("remote_delete", [c"cache", c"key"], 2, 2)?;
    let ((cache, key, len), library) = (target(cache, key)?, functions()?);
    // SAFETY: name and key have their lengths.
    let done =
        released(|| unsafe { (library.uwsgi_cache_magic_del)(key.as_ptr().cast(), len, cache.as_ptr()) });
    Ok(Object::bool(done == 0))
}

/// `remote_exists(cache, key)`
pub(crate) fn exists(args: Args<'_>) -> Py<Object> {
    let [cache, key] = args.bind("remote_exists", [c"cache", c"key"], 2, 2)?;
    let ((cache, key, len), library) = (target(cache, key)?, functions()?);
    // SAFETY: name and key have their lengths.
    let found =
        released(|| unsafe { (library.uwsgi_cache_magic_exists)(key.as_ptr().cast(), len, cache.as_ptr()) });
    Ok(Object::bool(found == 1))
}

/// `remote_clear(cache)`: whether it was done.
pub(crate) fn clear(args: Args<'_>) -> Py<Object> {
    let [cache] = args.bind("remote_clear", [c"cache"], 1, 1)?;
    let cache = c_string(cache.ok_or(Raised)?, "the name of a cache")?;
    let (library, name): (_, &CStr) = (functions()?, &cache);
    // SAFETY: a name.
    Ok(Object::bool(released(|| unsafe { (library.uwsgi_cache_magic_clear)(name.as_ptr()) }) == 0))
}
