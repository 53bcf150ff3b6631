//! The network half of the C functions. What each requires of its caller is said once, in
//! [`capi`](crate::capi).

use std::{
    ffi::{c_char, c_void},
    ptr,
};

use crate::{
    capi::{
        arg,
        host::{cache::Cache, caches},
        panic::{guard, shielded},
        types::{uwsgi_buffer, uwsgi_cache, uwsgi_cache_magic_context},
    },
    net::conn,
    wire::{
        command::{AT_ONCE, MAGIC, MAX_TTL},
        packet::{self, Builder, PacketError},
    },
};

/// Resolves `nodes=` of a cache. An invalid address is logged and ends a host, as in native.
///
/// # Safety
/// `uc` is a *cache*.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_setup_nodes(uc: *mut uwsgi_cache) {
    shielded((), || {
        // SAFETY: passed on.
        if let Some(cache) = unsafe { Cache::of(uc) } {
            caches::setup_nodes(cache);
        }
    });
}

/// Copies a cache from the servers in its `sync_nodes`; blocks until one has succeeded or all have
/// failed.
///
/// # Safety
/// `uc` is a *cache*; its `sync_nodes` do not change meanwhile.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_sync_from_nodes(uc: *mut uwsgi_cache) {
    guard((), || {
        let _shield = conn::shield();
        // SAFETY: passed on.
        if let Some(cache) = unsafe { Cache::of(uc) } {
            caches::sync_from_nodes(cache);
        }
    });
}

/// Starts one thread for the UDP servers of each cache that has some, and one for each copy that
/// failed at start.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn uwsgi_cache_start_sync_servers() {
    shielded((), caches::start_servers);
}

/// The body of such a thread: receives changes for the cache `uc`. Returns NULL, and only if it
/// cannot run.
///
/// # Safety
/// `uc` is a *cache*.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cache_udp_server_loop(uc: *mut c_void) -> *mut c_void {
    shielded(ptr::null_mut(), || {
        // SAFETY: passed on.
        if let Some(cache) = unsafe { Cache::of(uc.cast()) } {
            caches::udp_loop(cache);
        }
        ptr::null_mut()
    })
}

/// Files one pair of a magic dictionary in `data`, a `struct uwsgi_cache_magic_context`; the
/// context then points into the dictionary. Pairs it has no field for, and invalid numbers, are
/// ignored.
///
/// # Safety
/// `key` and `value` like every *key*; `data` is NULL or points to a context.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_magic_context_hook(
    key: *mut c_char,
    key_len: u16,
    value: *mut c_char,
    value_len: u16,
    data: *mut c_void,
) {
    guard((), || {
        // SAFETY: the caller vouches for both, and for the context.
        let (name, bytes, context) = unsafe {
            let name = arg::bytes(key, key_len.into()).unwrap_or_default();
            let bytes = arg::bytes(value, value_len.into()).unwrap_or_default();
            (name, bytes, data.cast::<uwsgi_cache_magic_context>().as_mut())
        };
        let Some(c) = context else { return };
        match name {
            b"cmd" => (c.cmd, c.cmd_len) = (value, value_len),
            b"key" => (c.key, c.key_len) = (value, value_len),
            b"cache" => (c.cache, c.cache_len) = (value, value_len),
            b"status" => (c.status, c.status_len) = (value, value_len),
            b"expires" => c.expires = number(bytes),
            b"size" => c.size = packet::number(bytes, "size").unwrap_or(0),
            _ => {}
        }
    });
}

fn number(text: &[u8]) -> u64 {
    packet::number(text, "expires").unwrap_or(if text.first() == Some(&b'-') { AT_ONCE } else { 0 })
}

/// The request "does this key exist"; the result is that of [`prepare`].
///
/// # Safety
/// `cache` and `key` as every *key*.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_prepare_magic_exists(
    cache: *mut c_char,
    cache_len: u16,
    key: *mut c_char,
    key_len: u16,
) -> *mut uwsgi_buffer {
    // SAFETY: passed on.
    unsafe { prepare("exists", (cache, cache_len), Some((key, key_len)), None) }
}

/// The request "delete this key"; the result is that of [`prepare`].
///
/// # Safety
/// `cache` and `key` as every *key*.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_prepare_magic_del(
    cache: *mut c_char,
    cache_len: u16,
    key: *mut c_char,
    key_len: u16,
) -> *mut uwsgi_buffer {
    // SAFETY: passed on.
    unsafe { prepare("del", (cache, cache_len), Some((key, key_len)), None) }
}

/// The request "delete all keys"; the result is that of [`prepare`].
///
/// # Safety
/// `cache` as every *key*.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_prepare_magic_clear(
    cache: *mut c_char,
    cache_len: u16,
) -> *mut uwsgi_buffer {
    // SAFETY: passed on.
    unsafe { prepare("clear", (cache, cache_len), None, None) }
}

/// The request "store the `len` bytes that follow, unless the key exists"; the result is that of
/// [`prepare`].
///
/// # Safety
/// `cache` and `key` as every *key*.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_prepare_magic_set(
    cache: *mut c_char,
    cache_len: u16,
    key: *mut c_char,
    key_len: u16,
    len: u64,
    expires: u64,
) -> *mut uwsgi_buffer {
    // SAFETY: passed on.
    unsafe { prepare("set", (cache, cache_len), Some((key, key_len)), Some((len, expires))) }
}

/// The request "store the `len` bytes that follow"; the result is that of [`prepare`].
///
/// # Safety
/// `cache` and `key` as every *key*.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn uwsgi_cache_prepare_magic_update(
    cache: *mut c_char,
    cache_len: u16,
    key: *mut c_char,
    key_len: u16,
    len: u64,
    expires: u64,
) -> *mut uwsgi_buffer {
    // SAFETY: passed on.
    unsafe { prepare("update", (cache, cache_len), Some((key, key_len)), Some((len, expires))) }
}

type CBytes = (*mut c_char, u16);

/// A packet for modifier 111, 17, including its header, in a buffer that the caller frees with
/// `free` (first `buf`, then the struct) or with the host's `uwsgi_buffer_destroy`; NULL = no
/// memory, or too long for a packet.
///
/// # Safety
/// `cache` and `key` as every *key*. A `cache` of NULL leaves the field out.
unsafe fn prepare(
    command: &str,
    cache: CBytes,
    key: Option<CBytes>,
    value: Option<(u64, u64)>,
) -> *mut uwsgi_buffer {
    guard(ptr::null_mut(), || {
        // SAFETY: the caller vouches for both.
        let bytes = |b: CBytes| unsafe { arg::bytes(b.0, b.1.into()) }.unwrap_or_default();
        let encode = || -> Result<Vec<u8>, PacketError> {
            let mut b = Builder::new();
            b.pair("cmd", command.as_bytes())?;
            if let Some(key) = key {
                b.pair("key", bytes(key))?;
            }
            if let Some((len, expires)) = value {
                b.number("size", len)?;
                match expires {
                    0 => {}
                    1..=MAX_TTL => b.number("expires", expires)?,
                    _ => b.pair("expires", b"-1")?,
                }
            }
            if !cache.0.is_null() {
                b.pair("cache", bytes(cache))?;
            }
            b.finish(MAGIC)
        };
        encode().map_or(ptr::null_mut(), |packet| to_c(&packet))
    })
}

/// A copy in `malloc` memory; NULL = no memory.
fn to_c(packet: &[u8]) -> *mut uwsgi_buffer {
    // Debug builds of uWSGI have an additional int in the struct, which must be 0.
    let size = size_of::<uwsgi_buffer>() + size_of::<u64>();
    // SAFETY: calloc and malloc have no preconditions, and their results are checked before use.
    // The struct gets memory of its size, the copy that of the packet.
    unsafe {
        let buffer = libc::calloc(1, size).cast::<uwsgi_buffer>();
        let data = libc::malloc(packet.len()).cast::<u8>();
        if buffer.is_null() || data.is_null() {
            libc::free(buffer.cast());
            libc::free(data.cast());
            return ptr::null_mut();
        }
        data.copy_from_nonoverlapping(packet.as_ptr(), packet.len());
        buffer.write(uwsgi_buffer { buf: data.cast(), pos: packet.len(), len: packet.len(), limit: 0 });
        buffer
    }
}

#[cfg(test)]
mod tests;
