//! The caches of this process, as the network half sees them.

use std::{ffi::CStr, ptr};

use super::{
    dump::Geometry,
    inherit::Owned,
    serve,
    sync::{self, Job},
    udp::{self, Receiver},
};
use crate::{
    capi::{
        cache::{self, Cache},
        env,
        hash::Algorithm,
        shown::shown,
        thread,
        types::uwsgi_string_list,
    },
    engine::{Eviction, Expires, Touch},
    os::clock::unix_secs,
};

/// What the UDP nodes of a cache are filed under.
fn handle(cache: &Cache) -> usize {
    ptr::from_ref(cache).addr()
}

pub(super) fn geometry(cache: &Cache) -> Geometry {
    let settings = &cache.settings;
    Geometry {
        items: settings.items,
        blocks: settings.blocks,
        blocksize: settings.blocksize,
        keysize: settings.config.max_key,
        hashsize: settings.hashsize,
        hash: match settings.hash {
            Algorithm::Murmur2 => |key| Algorithm::Murmur2.hash(key),
            _ => |key| Algorithm::Djb33x.hash(key),
        },
        bitmap: settings.config.blocks.is_some(),
        lru: settings.config.eviction == Eviction::Lru,
    }
}

/// What a new cache needs of the network, in native's order: its nodes, then a copy from elsewhere.
pub(crate) fn start(cache: &'static Cache) {
    setup_nodes(cache);
    sync_from_nodes(cache);
}

/// Registers `nodes=`. An address that is none is logged and ends a host, as with native.
pub(crate) fn setup_nodes(cache: &Cache) {
    let nodes: Vec<_> = cache.settings.nodes.iter().map(|n| n.to_bytes().to_vec()).collect();
    if nodes.is_empty() {
        return;
    }
    if let Err(why) = udp::setup_nodes(handle(cache), &nodes) {
        env::get().log(&format!("cache \"{}\": {why}", shown(cache.settings.name.to_bytes())));
        env::get().create_failed();
    }
}

/// Tells the nodes of a cache that `key` has a value, which ends as `expires` says.
pub(crate) fn tell_set(cache: &Cache, key: &[u8], value: &[u8], expires: Expires) {
    udp::send_set(handle(cache), key, value, super::ends(expires, unix_secs()));
}

/// Tells the nodes of a cache what `key` has now: after a change that kept the expiry, which only the item knows.
pub(crate) fn tell_kept(cache: &Cache, key: &[u8]) {
    // An item that cannot be read any more has been changed again, and the nodes hear of that.
    if let Ok(Some((value, meta))) = serve::read(cache, key, Touch::Unseen) {
        udp::send_set(handle(cache), key, &value, meta.expires);
    }
}

/// Tells the nodes of a cache that `key` is gone.
pub(crate) fn tell_del(cache: &Cache, key: &[u8]) {
    udp::send_del(handle(cache), key);
}

/// Tells the nodes of a cache that all keys are gone.
pub(crate) fn tell_clear(cache: &Cache) {
    udp::send_clear(handle(cache));
}

/// Copies the cache from its `sync=` servers, or from those that a host has put in their place.
pub(crate) fn sync_from_nodes(cache: &'static Cache) {
    let list = cache.view.as_ptr();
    // SAFETY: a view's struct is never unmapped; whoever writes the list (legion-cache-fetch) calls this function
    // in the same thread afterwards.
    let servers = unsafe { strings((*list).sync_nodes) };
    sync::from_nodes(Job {
        engine: &cache.engine,
        name: cache.settings.name.to_bytes().to_vec(),
        geometry: geometry(cache),
        servers,
    });
}

/// Starts what receives UDP changes, and tries failed copies again. Errors are logged; one that native ends at (an
/// address that cannot be bound) ends the host too.
pub(crate) fn start_servers() {
    sync::retry_pending();
    for cache in cache::all().filter(|c| !c.settings.udp_servers.is_empty()) {
        let started = bind(cache).and_then(|sockets| {
            thread::spawn("ucache-udp", move || udp::receive_for_ever(sockets, receiver(cache)))
                .map_err(|e| format!("udp server: no thread: {e}"))
        });
        if let Err(why) = started {
            env::get().log(&why);
            env::get().create_failed();
        }
    }
}

/// Receives UDP changes in the calling thread. Returns only if no address can be bound.
pub(crate) fn udp_loop(cache: &'static Cache) {
    match bind(cache) {
        Ok(sockets) => udp::receive_for_ever(sockets, receiver(cache)),
        Err(why) => {
            env::get().log(&why);
            env::get().create_failed();
        }
    }
}

fn receiver(cache: &'static Cache) -> Receiver {
    Receiver { engine: &cache.engine, handle: handle(cache), clears: cache.settings.udp_clear }
}

fn bind(cache: &Cache) -> Result<Vec<Owned<std::net::UdpSocket>>, String> {
    let name = shown(cache.settings.name.to_bytes());
    let addresses: Vec<_> = cache.settings.udp_servers.iter().map(|n| n.to_bytes().to_vec()).collect();
    let sockets = udp::bind(&addresses)?;
    for address in &addresses {
        env::get().log(&format!("udp server for cache \"{name}\" on {}", shown(address)));
    }
    Ok(sockets)
}

/// Copies of the strings of a C list.
///
/// # Safety
/// `list` is NULL or leads to nodes with NUL-terminated strings (or NULL), the last with `next` NULL.
unsafe fn strings(mut list: *const uwsgi_string_list) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    // SAFETY: the caller vouches for the list.
    while let Some(node) = unsafe { list.as_ref() } {
        if !node.value.is_null() {
            // SAFETY: the caller vouches for the NUL.
            found.push(unsafe { CStr::from_ptr(node.value) }.to_bytes().to_vec());
        }
        list = node.next;
    }
    found
}
