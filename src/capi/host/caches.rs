//! The interface between the caches of this process and [`net`](crate::net).

use std::{any::Any, ffi::CStr, ptr, time::Duration};

use crate::{
    capi::{
        host::{
            cache::{self, Cache},
            env,
            hash::Algorithm,
        },
        panic,
        types::uwsgi_string_list,
    },
    engine::{Eviction, Expires, Touch},
    near::Tier,
    net::{
        fork_sockets::Owned,
        handler::{self, Peer},
        host::{self, Host, Served},
        keepalive::{self, Place},
        replicate::{self, Receiver},
        sync::{self, Job},
    },
    os::clock::unix_secs,
    wire::{image::Geometry, shown::shown},
};

/// The process of the C functions.
#[derive(Debug)]
struct Process;

static PROCESS: Process = Process;

impl Host for Process {
    fn cache(&self, name: &[u8]) -> Option<&'static dyn Served> {
        Cache::by_name(name).map(|cache| cache as &dyn Served)
    }

    fn log(&self, line: &str) {
        env::get().log(line);
    }

    fn timeout(&self) -> Duration {
        env::get().socket_timeout()
    }

    fn may_look_up(&self) -> bool {
        env::get().may_look_up()
    }

    fn panicked(&self, payload: Box<dyn Any + Send>) {
        panic::report(payload);
    }
}

impl Served for Cache {
    fn tier(&self) -> &Tier {
        &self.tier
    }

    fn geometry(&self) -> Geometry {
        let settings = &self.settings;
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

    fn store(&self, key: &[u8], value: &[u8], expires: u64, flags: u64) -> bool {
        Cache::store(self, key, value, expires, flags).is_ok()
    }

    fn remove(&self, key: &[u8]) -> bool {
        Cache::remove(self, key, 0).is_ok()
    }

    fn clear(&self) -> bool {
        self.empty().is_ok()
    }
}

/// Answers one request for a cache of this process; see [`handler::serve`].
pub fn serve(modifier2: u8, payload: &[u8], peer: &mut dyn Peer) {
    handler::serve(&PROCESS, modifier2, payload, peer);
}

/// Reserves a slot for a kept connection; see [`keepalive::reserve`].
#[must_use]
pub fn reserve() -> Option<Place> {
    keepalive::reserve(&PROCESS)
}

/// The key that the UDP nodes of a cache are registered under.
fn handle(cache: &Cache) -> usize {
    ptr::from_ref(cache).addr()
}

/// Network setup of a new cache, in native's order: its nodes, then a copy from another server.
pub(crate) fn start(cache: &'static Cache) {
    setup_nodes(cache);
    sync_from_nodes(cache);
}

/// Registers `nodes=`. An invalid address is logged and ends a host, as in native.
pub(crate) fn setup_nodes(cache: &Cache) {
    let nodes: Vec<_> = cache.settings.nodes.iter().map(|n| n.to_bytes().to_vec()).collect();
    if nodes.is_empty() {
        return;
    }
    if let Err(why) = replicate::setup_nodes(handle(cache), &nodes) {
        env::get().log(&format!("cache \"{}\": {why}", shown(cache.settings.name.to_bytes())));
        env::get().create_failed();
    }
}

/// Sends the value and expiry of `key` to the cache's nodes.
pub(crate) fn replicate_set(cache: &Cache, key: &[u8], value: &[u8], expires: Expires) {
    replicate::send_set(&PROCESS, handle(cache), key, value, host::ends(expires, unix_secs()));
}

/// Sends the value and expiry of `key` to the cache's nodes after a change that kept the expiry,
/// which is read from the item.
pub(crate) fn replicate_kept(cache: &Cache, key: &[u8]) {
    // If the item cannot be read any more, it was changed again, and that change is sent too.
    if let Ok(Some((value, meta))) = handler::read(&cache.tier, key, Touch::Unseen) {
        replicate::send_set(&PROCESS, handle(cache), key, &value, meta.expires_secs());
    }
}

/// Tells the cache's nodes that `key` was removed.
pub(crate) fn replicate_del(cache: &Cache, key: &[u8]) {
    replicate::send_del(&PROCESS, handle(cache), key);
}

/// Tells the cache's nodes that all keys were removed.
pub(crate) fn replicate_clear(cache: &Cache) {
    replicate::send_clear(&PROCESS, handle(cache));
}

/// Copies the cache from its `sync=` servers, or from those that a host has set instead.
pub(crate) fn sync_from_nodes(cache: &'static Cache) {
    let list = cache.view.as_ptr();
    // SAFETY: a view's struct is never unmapped; code that writes the list (legion-cache-fetch)
    // calls this function afterwards in the same thread.
    let servers = unsafe { strings((*list).sync_nodes) };
    sync::from_nodes(Job {
        host: &PROCESS,
        engine: cache.tier.engine(),
        name: cache.settings.name.to_bytes().to_vec(),
        geometry: cache.geometry(),
        servers,
    });
}

/// Starts receiving UDP changes, and retries failed copies. Errors are logged; one that ends native
/// (an address that cannot be bound) ends the host too.
pub(crate) fn start_servers() {
    sync::retry_pending();
    for cache in cache::all().filter(|c| !c.settings.udp_servers.is_empty()) {
        let started = bind(cache).and_then(|sockets| {
            panic::spawn("ucache-udp", move || replicate::receive_for_ever(sockets, receiver(cache)))
                .map_err(|e| format!("udp server: cannot start its thread: {e}"))
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
        Ok(sockets) => replicate::receive_for_ever(sockets, receiver(cache)),
        Err(why) => {
            env::get().log(&why);
            env::get().create_failed();
        }
    }
}

fn receiver(cache: &'static Cache) -> Receiver {
    Receiver {
        host: &PROCESS,
        engine: cache.tier.engine(),
        handle: handle(cache),
        clears: cache.settings.udp_clear,
    }
}

fn bind(cache: &Cache) -> Result<Vec<Owned<std::net::UdpSocket>>, String> {
    let name = shown(cache.settings.name.to_bytes());
    let addresses: Vec<_> = cache.settings.udp_servers.iter().map(|n| n.to_bytes().to_vec()).collect();
    let sockets = replicate::bind(&addresses)?;
    for address in &addresses {
        env::get().log(&format!("udp server for cache \"{name}\" on {}", shown(address)));
    }
    Ok(sockets)
}

/// Copies the strings of a C list.
///
/// # Safety
/// `list` is NULL or leads to nodes with NUL-terminated strings (or NULL), the last with `next`
/// NULL.
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
