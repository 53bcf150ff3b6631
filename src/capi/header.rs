//! Compares include/ucache.h with the library at compile time: the type of every exported function,
//! the size and offsets of every struct, the value of every flag. The functions are listed only
//! here.

use std::mem::{offset_of, size_of};

use super::{
    compat::{extras, keys, lifecycle, lock, magic, raw, remote, sweep, sync},
    handle::{error, lease, many, memory, open, read, stats, status, store, walk, write},
    types,
};

/// The header's functions, using the library's structs.
#[allow(clippy::all, clippy::pedantic, missing_docs, unused, unreachable_pub, reason = "written by bindgen")]
#[allow(non_camel_case_types, improper_ctypes, reason = "written by bindgen")]
mod declared {
    use crate::capi::{handle::*, types::*};
    include!(concat!(env!("OUT_DIR"), "/ucache_functions.rs"));
}

/// The header's structs and constants.
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unused,
    unreachable_pub,
    non_camel_case_types,
    reason = "written by bindgen"
)]
#[allow(clippy::undocumented_unsafe_blocks, missing_debug_implementations, reason = "written by bindgen")]
mod structs {
    include!(concat!(env!("OUT_DIR"), "/ucache_structs.rs"));
}

/// Asserts that two functions have the same type; each `_` is an argument.
macro_rules! same_type {
    ($abi:literal $($module:ident :: $name:ident ( $($arg:tt)* );)+) => {
        $(const _: () = {
            #[allow(unused_assignments, reason = "the assignment is the check")]
            let mut fixed: unsafe extern $abi fn($($arg)*) -> _ = declared::$name;
            fixed = $module::$name;
            let _ = fixed;
        };)+
    };
}

same_type! {
    "C-unwind"
    walk::ucache_keys(_, _, _, _, _);
    walk::ucache_get_or_set(_, _, _, _, _, _, _, _, _);
}

same_type! {
    "C"
    lifecycle::uwsgi_cache_create(_);
    lifecycle::uwsgi_cache_create_all();
    lifecycle::uwsgi_cache_by_name(_);
    lifecycle::uwsgi_cache_by_namelen(_, _);
    lifecycle::uwsgi_cache_init(_);
    lifecycle::uwsgi_cache_fix(_);
    magic::uwsgi_cache_magic_get(_, _, _, _, _);
    magic::uwsgi_cache_magic_set(_, _, _, _, _, _, _);
    magic::uwsgi_cache_magic_del(_, _, _);
    magic::uwsgi_cache_magic_exists(_, _, _);
    magic::uwsgi_cache_magic_clear(_);
    raw::uwsgi_cache_get2(_, _, _, _);
    raw::uwsgi_cache_get3(_, _, _, _, _);
    raw::uwsgi_cache_get4(_, _, _, _, _);
    raw::uwsgi_cache_num2(_, _, _);
    raw::uwsgi_cache_exists2(_, _, _);
    raw::uwsgi_cache_set2(_, _, _, _, _, _, _);
    raw::uwsgi_cache_del2(_, _, _, _, _);
    keys::uwsgi_cache_keys(_, _, _);
    keys::uwsgi_cache_item_key(_);
    lock::uwsgi_cache_rlock(_);
    lock::uwsgi_cache_rwunlock(_);
    sweep::uwsgi_cache_start_sweepers();
    sync::uwsgi_cache_sync_all();
    remote::uwsgi_cache_setup_nodes(_);
    remote::uwsgi_cache_sync_from_nodes(_);
    remote::uwsgi_cache_start_sync_servers();
    remote::cache_udp_server_loop(_);
    remote::uwsgi_cache_magic_context_hook(_, _, _, _, _);
    remote::uwsgi_cache_prepare_magic_exists(_, _, _, _);
    remote::uwsgi_cache_prepare_magic_del(_, _, _, _);
    remote::uwsgi_cache_prepare_magic_clear(_, _);
    remote::uwsgi_cache_prepare_magic_set(_, _, _, _, _, _);
    remote::uwsgi_cache_prepare_magic_update(_, _, _, _, _, _);
    extras::ucache_wlock(_);
    extras::ucache_version();
    status::ucache_strerror(_);
    error::ucache_error();
    open::ucache_open(_, _);
    open::ucache_attach(_, _);
    open::ucache_named(_, _);
    open::ucache_close(_);
    open::ucache_server(_, _, _, _);
    open::ucache_sync(_);
    read::ucache_get(_, _, _, _, _, _);
    read::ucache_take(_, _, _, _, _, _);
    read::ucache_exists(_, _, _, _);
    read::ucache_ttl(_, _, _, _);
    read::ucache_number(_, _, _, _);
    read::ucache_number_value(_, _, _, _, _);
    many::ucache_get_many(_, _, _, _, _, _);
    lease::ucache_lease_begin(_, _, _, _, _, _, _, _, _, _);
    lease::ucache_lease_end(_, _, _, _);
    lease::ucache_lease_drop(_);
    store::ucache_set(_, _, _, _, _, _);
    store::ucache_add(_, _, _, _, _, _);
    store::ucache_replace(_, _, _, _, _, _);
    store::ucache_append(_, _, _, _, _, _);
    store::ucache_prepend(_, _, _, _, _, _);
    write::ucache_cas(_, _, _, _, _, _, _, _);
    write::ucache_del(_, _, _);
    write::ucache_del_if(_, _, _, _, _);
    write::ucache_incr(_, _, _, _, _, _);
    write::ucache_mul(_, _, _, _, _, _);
    write::ucache_div(_, _, _, _, _, _);
    write::ucache_touch(_, _, _, _);
    write::ucache_clear(_);
    write::ucache_sweep(_);
    stats::ucache_stat(_, _, _);
    memory::ucache_memory(_, _, _);
}

macro_rules! same_layout {
    ($($name:ident { $($field:ident),+ })+) => {
        $(
            const _: () = assert!(size_of::<structs::$name>() == size_of::<types::$name>());
            $(const _: () = assert!(
                offset_of!(structs::$name, $field) == offset_of!(types::$name, $field),
                concat!(stringify!($name), ".", stringify!($field))
            );)+
        )+
    };
}

same_layout! {
    uwsgi_cache {
        name, name_len, keysize, blocks, blocksize, hash, hashtable, hashsize, first_available_block,
        unused_blocks_stack, unused_blocks_stack_ptr, use_blocks_bitmap, blocks_bitmap, blocks_bitmap_pos,
        blocks_bitmap_size, max_items, max_item_size, n_items, items, use_last_modified, last_modified_at, data,
        no_expire, full, hits, miss, store, filesize, store_sync, math_initial, nodes, udp_node_socket, sync_nodes,
        udp_servers, lock, next, ignore_full, next_scan, purge_lru, lru_head, lru_tail, store_delete, lazy_expire,
        sweep_on_full, clear_on_full
    }
    uwsgi_cache_item { flags, keysize, hash, valsize, first_block, expires, hits, prev, next, lru_prev, lru_next, key }
    uwsgi_cache_magic_context { cmd, cmd_len, key, key_len, size, expires, status, status_len, cache, cache_len }
    uwsgi_lock_item { id, lock_ptr, rw, pid, can_deadlock, next }
    uwsgi_buffer { buf, pos, len, limit }
}

macro_rules! same_value {
    ($($declared:ident $ours:ident),+) => {
        $(const _: () = assert!(structs::$declared as u64 == types::$ours);)+
    };
}

same_value!(UWSGI_CACHE_FLAG_UNGETTABLE FLAG_UNGETTABLE, UWSGI_CACHE_FLAG_UPDATE FLAG_UPDATE,
    UWSGI_CACHE_FLAG_LOCAL FLAG_LOCAL, UWSGI_CACHE_FLAG_ABSEXPIRE FLAG_ABSEXPIRE,
    UWSGI_CACHE_FLAG_MATH FLAG_MATH, UWSGI_CACHE_FLAG_INC FLAG_INC, UWSGI_CACHE_FLAG_DEC FLAG_DEC,
    UWSGI_CACHE_FLAG_MUL FLAG_MUL, UWSGI_CACHE_FLAG_DIV FLAG_DIV, UWSGI_CACHE_FLAG_FIXEXPIRE FLAG_FIXEXPIRE);

/// Compares the names and their order in a struct that may grow.
macro_rules! same_figures {
    ($file:ident::$name:ident { $($field:ident)+ }) => {
        const _: () = assert!(size_of::<structs::$name>() == size_of::<$file::$name>());
        $(const _: () = assert!(
            offset_of!(structs::$name, $field) == offset_of!($file::$name, $field),
            stringify!($field)
        );)+
    };
}

same_figures!(stats::ucache_stats { items capacity bytes reserved_bytes blocks_used max_key max_value shards last_modified hits misses stored
    deleted evicted expired cleared full rejected_limit rejected_full rejected_blocks no_space lock_waits timeouts
    owner_dead repaired dropped_corrupt lock_lost moved compacted_bytes
    near_up near_beat_age_ms near_owner_pid near_hits near_misses near_bypassed near_fills near_fills_voided
    near_invalidated near_invalidated_absent near_flushes near_stale_served near_terms backend_up
    backend_requests backend_errors backend_timeouts backend_connects backend_elsewhere near_absent });
same_figures!(memory::ucache_memory { payload resident overhead fragmentation disk reserved entries extents large_blocks
    leaving idle holes sampled });

macro_rules! same_status {
    ($($declared:ident $ours:ident),+) => {
        $(const _: () = assert!(structs::$declared as i32 == status::Status::$ours as i32);)+
    };
}

same_status!(UCACHE_OK Ok, UCACHE_NOT_FOUND NotFound,
    UCACHE_EXISTS Exists, UCACHE_CHANGED Changed,
    UCACHE_TOO_SMALL TooSmall, UCACHE_STOPPED Stopped,
    UCACHE_E_ARGUMENT Argument, UCACHE_E_OPTION Option,
    UCACHE_E_NAME Name, UCACHE_E_KEY Key,
    UCACHE_E_VALUE Value, UCACHE_E_NUMBER Number,
    UCACHE_E_FULL Full, UCACHE_E_SPACE Space,
    UCACHE_E_TIMEOUT Timeout, UCACHE_E_DEADLOCK Deadlock,
    UCACHE_E_STORE Store, UCACHE_E_DAMAGED Damaged,
    UCACHE_E_MEMORY Memory, UCACHE_E_SYSTEM System,
    UCACHE_E_INTERNAL Internal, UCACHE_E_PROCESS Process,
    UCACHE_LEASE Lease, UCACHE_BUSY Busy);

const _: () = assert!(size_of::<structs::ucache_read>() == size_of::<many::ucache_read>());
