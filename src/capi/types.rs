//! The structs of `uwsgi.h` that the cache functions share with C, at the same offsets, and their
//! flag words.
//!
//! The layouts are those of every 64-bit Linux build of uWSGI 2.0.x; the assertions at the end of
//! the file stop the build where they differ.
#![allow(non_camel_case_types, reason = "the names are those of uwsgi.h")]

use std::{
    ffi::{c_char, c_int, c_void},
    mem::{offset_of, size_of},
};

/// A cache as C sees it: a mirror of the current statistics, never the cache itself (see
/// `view.rs`).
#[repr(C)]
#[derive(Debug)]
pub struct uwsgi_cache {
    /// The name, NUL-terminated.
    pub name: *mut c_char,
    /// Its length, bytes.
    pub name_len: u16,
    /// Longest key accepted, bytes.
    pub keysize: u64,
    /// Number of blocks, as configured.
    pub blocks: u64,
    /// Size of a block, bytes, as configured.
    pub blocksize: u64,
    /// The hash algorithm, as configured; names it in the statistics.
    pub hash: *mut uwsgi_hash_algo,
    /// `hashsize` zeros: every lookup by code that bypasses this library misses.
    pub hashtable: *mut u64,
    /// Entries of `hashtable`, as configured.
    pub hashsize: u32,
    /// Unused, 0.
    pub first_available_block: u64,
    /// Unused, NULL.
    pub unused_blocks_stack: *mut u64,
    /// 0, meaning full, for code that bypasses this library.
    pub unused_blocks_stack_ptr: u64,
    /// Always 0: see `blocks_bitmap`.
    pub use_blocks_bitmap: u8,
    /// NULL: code that bypasses this library marks no blocks.
    pub blocks_bitmap: *mut u8,
    /// Marks the struct as one of this library's (`view.rs`).
    pub blocks_bitmap_pos: u64,
    /// Unused, 0.
    pub blocks_bitmap_size: u64,
    /// `items` as configured; one more than the capacity.
    pub max_items: u64,
    /// Longest value accepted, bytes.
    pub max_item_size: u64,
    /// Items stored, at the last refresh.
    pub n_items: u64,
    /// One zeroed item.
    pub items: *mut uwsgi_cache_item,
    /// Whether `last_modified_at` is maintained.
    pub use_last_modified: u8,
    /// Unix time of the last change, seconds, at the last refresh.
    pub last_modified_at: libc::time_t,
    /// End of `items`.
    pub data: *mut c_void,
    /// Whether expiry is not enforced.
    pub no_expire: u8,
    /// How often the cache was found full, at the last refresh.
    pub full: u64,
    /// Reads that found their key, at the last refresh.
    pub hits: u64,
    /// Reads that missed, at the last refresh.
    pub miss: u64,
    /// Path of the store file, or NULL.
    pub store: *mut c_char,
    /// Bytes at `items`.
    pub filesize: u64,
    /// Seconds between two syncs of the store, 0 = none configured.
    pub store_sync: u64,
    /// Initial value of a missing key in arithmetic.
    pub math_initial: i64,
    /// UDP peers that receive this cache's changes, or NULL.
    pub nodes: *mut uwsgi_string_list,
    /// Unused, -1.
    pub udp_node_socket: c_int,
    /// Servers to copy the cache from at start, or NULL.
    pub sync_nodes: *mut uwsgi_string_list,
    /// UDP addresses on which changes are received, or NULL.
    pub udp_servers: *mut uwsgi_string_list,
    /// The lock that foreign code takes around the raw tier.
    pub lock: *mut uwsgi_lock_item,
    /// The next cache.
    pub next: *mut uwsgi_cache,
    /// Whether full caches are not logged.
    pub ignore_full: c_int,
    /// 0: a sweeper that bypasses this library does nothing.
    pub next_scan: u64,
    /// Always 0: code that bypasses this library must not relink items.
    pub purge_lru: c_int,
    /// Unused, 0.
    pub lru_head: u64,
    /// Unused, 0.
    pub lru_tail: u64,
    /// Whether an unusable store file is deleted.
    pub store_delete: c_int,
    /// As configured; expiry is always exact.
    pub lazy_expire: c_int,
    /// Seconds between two sweeps of a full cache, 0 = no limit configured.
    pub sweep_on_full: u64,
    /// Whether a full cache is cleared.
    pub clear_on_full: c_int,
}

/// A copy of an item, returned by the key walk; the key follows the struct.
#[repr(C, packed)]
#[derive(Debug)]
pub struct uwsgi_cache_item {
    /// [`FLAG_UNGETTABLE`] or 0.
    pub flags: u64,
    /// Length of the key, bytes.
    pub keysize: u64,
    /// Hash of the key.
    pub hash: u64,
    /// Length of the value, bytes.
    pub valsize: u64,
    /// The item's id, for `uwsgi_cache_del2`.
    pub first_block: u64,
    /// Unix time of expiry, seconds; 0 = never.
    pub expires: u64,
    /// Unused, 0.
    pub hits: u64,
    /// Unused, 0.
    pub prev: u64,
    /// Unused, 0.
    pub next: u64,
    /// Unused, 0.
    pub lru_prev: u64,
    /// Unused, 0.
    pub lru_next: u64,
    /// The key: `keysize` bytes.
    pub key: [c_char; 0],
}

/// The parsed fields of a magic request or answer (modifier 111, 17).
#[repr(C)]
#[derive(Debug)]
pub struct uwsgi_cache_magic_context {
    /// `cmd`
    pub cmd: *mut c_char,
    /// Its length, bytes.
    pub cmd_len: u16,
    /// `key`
    pub key: *mut c_char,
    /// Its length, bytes.
    pub key_len: u16,
    /// `size`: length of the value, bytes.
    pub size: u64,
    /// `expires`
    pub expires: u64,
    /// `status`
    pub status: *mut c_char,
    /// Its length, bytes.
    pub status_len: u16,
    /// `cache`
    pub cache: *mut c_char,
    /// Its length, bytes.
    pub cache_len: u16,
}

/// A lock as uWSGI lists it.
#[repr(C)]
#[derive(Debug)]
pub struct uwsgi_lock_item {
    /// Its name, NUL-terminated.
    pub id: *mut c_char,
    /// The lock itself.
    pub lock_ptr: *mut c_void,
    /// Whether it is a readers-writer lock.
    pub rw: c_int,
    /// The last process that took it.
    pub pid: libc::pid_t,
    /// Whether the deadlock detector watches it.
    pub can_deadlock: c_int,
    /// The next lock.
    pub next: *mut uwsgi_lock_item,
}

/// A hash algorithm.
#[repr(C)]
#[derive(Debug)]
pub struct uwsgi_hash_algo {
    /// Its name, NUL-terminated.
    pub name: *mut c_char,
    /// Hashes the given number of bytes.
    pub func: Option<unsafe extern "C" fn(*mut c_char, u64) -> u32>,
    /// The next algorithm.
    pub next: *mut uwsgi_hash_algo,
}

/// A list of strings.
#[repr(C)]
#[derive(Debug)]
pub struct uwsgi_string_list {
    /// The string, NUL-terminated.
    pub value: *mut c_char,
    /// Its length, bytes.
    pub len: usize,
    /// Free for the list's user.
    pub custom: u64,
    /// Free for the list's user.
    pub custom2: u64,
    /// Free for the list's user.
    pub custom_ptr: *mut c_void,
    /// The next string.
    pub next: *mut uwsgi_string_list,
}

/// A growing buffer; both it and `buf` come from `malloc`.
#[repr(C)]
#[derive(Debug)]
pub struct uwsgi_buffer {
    /// The bytes.
    pub buf: *mut c_char,
    /// Bytes in use.
    pub pos: usize,
    /// Bytes allocated.
    pub len: usize,
    /// Maximum number of bytes, 0 = no limit.
    pub limit: usize,
}

pub use crate::wire::flags::*;

macro_rules! layout {
    ($t:ty, $size:literal, $($field:ident $offset:literal),+) => {
        const _: () = assert!(size_of::<$t>() == $size);
        $(const _: () = assert!(offset_of!($t, $field) == $offset);)+
    };
}

layout!(uwsgi_cache, 352, name 0, name_len 8, keysize 16, blocks 24, blocksize 32, hash 40, hashtable 48,
    hashsize 56, first_available_block 64, unused_blocks_stack 72, unused_blocks_stack_ptr 80,
    use_blocks_bitmap 88, blocks_bitmap 96, blocks_bitmap_pos 104, blocks_bitmap_size 112, max_items 120,
    max_item_size 128, n_items 136, items 144, use_last_modified 152, last_modified_at 160, data 168,
    no_expire 176, full 184, hits 192, miss 200, store 208, filesize 216, store_sync 224, math_initial 232,
    nodes 240, udp_node_socket 248, sync_nodes 256, udp_servers 264, lock 272, next 280, ignore_full 288,
    next_scan 296, purge_lru 304, lru_head 312, lru_tail 320, store_delete 328, lazy_expire 332,
    sweep_on_full 336, clear_on_full 344);
layout!(uwsgi_cache_item, 88, flags 0, keysize 8, hash 16, valsize 24, first_block 32, expires 40, hits 48,
    prev 56, next 64, lru_prev 72, lru_next 80, key 88);
layout!(uwsgi_cache_magic_context, 80, cmd 0, cmd_len 8, key 16, key_len 24, size 32, expires 40, status 48,
    status_len 56, cache 64, cache_len 72);
layout!(uwsgi_lock_item, 40, id 0, lock_ptr 8, rw 16, pid 20, can_deadlock 24, next 32);
layout!(uwsgi_hash_algo, 24, name 0, func 8, next 16);
layout!(uwsgi_string_list, 48, value 0, len 8, custom 16, custom2 24, custom_ptr 32, next 40);
layout!(uwsgi_buffer, 32, buf 0, pos 8, len 16, limit 24);
