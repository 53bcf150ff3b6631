use std::ptr::null_mut;

use super::*;
use crate::wire::{
    command::{Command, Request},
    packet::HEADER_LEN,
};

fn c(bytes: &[u8]) -> (*mut c_char, u16) {
    (bytes.as_ptr().cast_mut().cast(), u16::try_from(bytes.len()).unwrap())
}

/// Takes the buffer as a C caller does: copies, then frees both.
fn take(buffer: *mut uwsgi_buffer) -> Vec<u8> {
    assert!(!buffer.is_null());
    // SAFETY: `to_c` returned it, from calloc and malloc.
    unsafe {
        let b = buffer.read();
        assert!(b.pos <= b.len && b.limit == 0);
        let packet = std::slice::from_raw_parts(b.buf.cast::<u8>(), b.pos).to_vec();
        libc::free(b.buf.cast());
        libc::free(buffer.cast());
        packet
    }
}

#[test]
fn prepared_requests_are_whole_packets_in_malloc_memory() {
    let ((cache, cl), (key, kl)) = (c(b"sessions"), c(b"key\0"));
    // SAFETY: pointers and lengths belong together.
    let prepared = unsafe {
        [
            (Command::Exists, uwsgi_cache_prepare_magic_exists(cache, cl, key, kl)),
            (Command::Del, uwsgi_cache_prepare_magic_del(cache, cl, key, kl)),
            (Command::Set, uwsgi_cache_prepare_magic_set(cache, cl, key, kl, 99, 0)),
            (Command::Update, uwsgi_cache_prepare_magic_update(cache, cl, key, kl, 99, u64::MAX)),
        ]
    };
    for (command, buffer) in prepared {
        let packet = take(buffer);
        assert_eq!((packet[0], packet[3]), (111, 17));
        assert_eq!(packet.len() - 4, usize::from(u16::from_le_bytes([packet[1], packet[2]])));
        let r = Request::parse(&packet[HEADER_LEN..]).unwrap();
        assert_eq!((r.command, r.cache, r.key), (command, &b"sessions"[..], &b"key\0"[..]));
        let value = matches!(command, Command::Set | Command::Update);
        assert_eq!(r.size, if value { 99 } else { 0 });
        assert_eq!(r.expires, if command == Command::Update { AT_ONCE } else { 0 });
    }
    // SAFETY: NULL is allowed.
    let packet = take(unsafe { uwsgi_cache_prepare_magic_clear(null_mut(), 0) });
    assert_eq!(packet, b"\x6f\x0c\0\x11\x03\0cmd\x05\0clear");
}

#[test]
fn a_request_that_fits_no_packet_is_null() {
    let key = vec![b'k'; 65_535];
    let (key, len) = c(&key);
    // SAFETY: as above.
    unsafe {
        assert!(uwsgi_cache_prepare_magic_exists(null_mut(), 0, key, len).is_null());
        assert!(uwsgi_cache_prepare_magic_set(null_mut(), 0, key, len, 1, 0).is_null());
    }
}

#[test]
fn the_hook_fills_a_context_and_takes_null() {
    // SAFETY: plain data, for which zero is valid.
    let mut context: uwsgi_cache_magic_context = unsafe { std::mem::zeroed() };
    let mut put = |name: &[u8], value: &[u8]| {
        let ((k, kl), (v, vl)) = (c(name), c(value));
        // SAFETY: pointers and lengths belong together; the context is this frame's.
        unsafe { uwsgi_cache_magic_context_hook(k, kl, v, vl, (&raw mut context).cast()) };
        v
    };
    let key = put(b"key", b"abc");
    let cmd = put(b"cmd", b"get");
    let cache = put(b"cache", b"");
    let status = put(b"status", b"ok");
    put(b"size", b"123");
    put(b"expires", b"-1");
    put(b"keys", b"x");
    assert_eq!((context.key, context.key_len), (key, 3));
    assert_eq!((context.cmd, context.cmd_len), (cmd, 3));
    assert_eq!((context.cache, context.cache_len), (cache, 0));
    assert_eq!((context.status, context.status_len), (status, 2));
    assert_eq!((context.size, context.expires), (123, u64::MAX));
    // SAFETY: NULL is allowed everywhere.
    unsafe {
        uwsgi_cache_magic_context_hook(null_mut(), 3, null_mut(), 3, (&raw mut context).cast());
        uwsgi_cache_magic_context_hook(key, 3, key, 3, null_mut());
        uwsgi_cache_setup_nodes(null_mut());
        uwsgi_cache_sync_from_nodes(null_mut());
        assert!(cache_udp_server_loop(null_mut()).is_null());
    }
}
