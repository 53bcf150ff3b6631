//! The mirror: `struct uwsgi_cache` as C programs, the statistics and other parts of a host read
//! it.
//!
//! It lies in shared memory, so that one process refreshes it for all. On its own it is a valid
//! native cache that is both empty and full: native code that bypasses this library (inlined by a
//! link-time optimiser) finds no key and no free slot. The pointer to the real cache follows the
//! struct, where C does not look.

use std::{
    ffi::{CString, c_int},
    ptr,
    sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering},
};

use crate::{
    capi::{
        host::{cache::Cache, env, log_rate::Limits, mem, options::Settings},
        types::{uwsgi_cache, uwsgi_cache_item, uwsgi_lock_item, uwsgi_string_list},
    },
    engine::Stats,
    error::Result,
    os::process::fork_count,
};

/// With the struct's address it gives the word that marks the struct as ours; a copy elsewhere is
/// not marked.
const MARK: u64 = 0x7563_6163_6865_0001;

/// The struct with private data behind it.
#[repr(C)]
#[derive(Debug)]
struct Container {
    /// The struct for C.
    c: uwsgi_cache,
    /// The cache, at the same address in every process with this mapping: they are forks of its
    /// creator.
    cache: AtomicPtr<Cache>,
    /// The creator, as its fork count. A process forked from it cannot extend the list: its
    /// siblings would follow the pointer to memory that they do not have.
    maker: u32,
    /// Rate limits of log lines, for all processes.
    limits: Limits,
}

/// A struct in C's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View(*mut Container);

// SAFETY: the container is never unmapped. After `View::new` only `bind`, `link` and `refresh`
// write to it, all through atomics.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// The struct for a new cache; not in C's list yet.
    pub(crate) fn new(settings: &Settings, lock: *mut uwsgi_lock_item) -> Result<Self> {
        let one_item = size_of::<uwsgi_cache_item>() + usize::try_from(settings.config.max_key).unwrap_or(0);
        let table = mem::zeroes(settings.hashsize as usize * size_of::<u64>())?;
        let at = mem::shared(size_of::<Container>() + one_item)?.as_ptr();
        // SAFETY: the mapping is `one_item` bytes longer than the container.
        let items = unsafe { at.add(size_of::<Container>()) };
        let mut c = described(settings);
        c.hashtable = table.as_ptr().cast();
        c.items = items.cast();
        // SAFETY: as above; one past the end at most.
        c.data = unsafe { items.add(one_item) }.cast();
        c.filesize = one_item as u64;
        c.lock = lock;
        c.blocks_bitmap_pos = MARK ^ at.addr() as u64;
        let container = Container {
            c,
            cache: AtomicPtr::new(ptr::null_mut()),
            maker: fork_count(),
            limits: Limits::default(),
        };
        let view = Self(at.cast());
        // SAFETY: the mapping is new, page-aligned and large enough; no other code knows it.
        unsafe { view.0.write(container) };
        Ok(view)
    }

    /// The pointers in the struct. Leak checkers do not search shared memory for pointers, so the
    /// cache keeps these for them.
    pub(crate) fn strings(self) -> [usize; 6] {
        // SAFETY: `self.0` is a live container; these fields do not change after `new`.
        let c = unsafe { &(*self.0).c };
        let lists = [c.nodes, c.sync_nodes, c.udp_servers].map(|list| list.expose_provenance());
        [
            c.name.expose_provenance(),
            c.store.expose_provenance(),
            c.lock.expose_provenance(),
            lists[0],
            lists[1],
            lists[2],
        ]
    }

    /// Links the struct to its cache.
    pub(crate) fn bind(self, cache: &'static Cache) {
        // SAFETY: `self.0` is a live container (`new`).
        unsafe { &(*self.0).cache }.store(ptr::from_ref(cache).cast_mut(), Ordering::Release);
    }

    /// The cache behind a struct; `None` for NULL and for structs that are not ours.
    ///
    /// # Safety
    /// `c` is NULL or points to a `struct uwsgi_cache`.
    pub(crate) unsafe fn owner(c: *mut uwsgi_cache) -> Option<&'static Cache> {
        if c.is_null() || !c.is_aligned() {
            return None;
        }
        // SAFETY: the caller vouches for the struct, of which one word is read.
        let word = unsafe { (*c).blocks_bitmap_pos };
        if word != MARK ^ c.addr() as u64 {
            return None;
        }
        // SAFETY: the mark is only written by `new`, at the start of a container, and depends on
        // its address.
        unsafe { (*c.cast::<Container>()).cache.load(Ordering::Acquire).as_ref() }
    }

    /// The struct.
    pub(crate) fn as_ptr(self) -> *mut uwsgi_cache {
        self.0.cast()
    }

    /// The struct's lock.
    #[cfg_attr(not(feature = "uwsgi"), allow(dead_code, reason = "only a host calls it"))]
    pub(crate) fn lock(self) -> *mut uwsgi_lock_item {
        // SAFETY: `self.0` is a live container whose lock does not change after `new`.
        unsafe { (*self.0).c.lock }
    }

    /// The rate limits of log lines.
    pub(crate) fn limits(self) -> &'static Limits {
        // SAFETY: `self.0` is a live container, never unmapped; `Limits` holds atomics only.
        unsafe { &(*self.0).limits }
    }

    /// Appends the struct to C's list; `false` = the list belongs to another process.
    pub(crate) fn link(self) -> bool {
        let mut cell = env::get().head();
        let me = fork_count();
        let mut maker = me;
        loop {
            // SAFETY: `cell` is the list's head or the `next` of a struct in it: live and aligned;
            // ours are only written here.
            let next = unsafe { AtomicPtr::from_ptr(cell) };
            if maker == me
                && next
                    .compare_exchange(ptr::null_mut(), self.as_ptr(), Ordering::Release, Ordering::Acquire)
                    .is_ok()
            {
                return true;
            }
            let found = next.load(Ordering::Acquire);
            if found.is_null() {
                return false;
            }
            // SAFETY: C's list holds structs; `owner` recognises those within a container.
            unsafe {
                maker = if Self::owner(found).is_some() { (*found.cast::<Container>()).maker } else { me };
                cell = &raw mut (*found).next;
            }
        }
    }

    /// Refreshes the statistics.
    pub(crate) fn refresh(self, stats: &Stats) {
        // SAFETY: `self.0` is a live container and the fields are aligned. C reads them as plain
        // words, as it reads native's; on this side every access is atomic.
        unsafe {
            let c = &raw mut (*self.0).c;
            let put = |field: *mut u64, value| AtomicU64::from_ptr(field).store(value, Ordering::Relaxed);
            put(&raw mut (*c).n_items, stats.items);
            put(&raw mut (*c).hits, stats.hits);
            put(&raw mut (*c).miss, stats.misses);
            put(&raw mut (*c).full, stats.full);
            let changed = i64::try_from(stats.last_modified).unwrap_or(i64::MAX);
            AtomicI64::from_ptr(&raw mut (*c).last_modified_at).store(changed, Ordering::Relaxed);
        }
    }
}

/// The struct with the settings filled in and everything else 0.
fn described(settings: &Settings) -> uwsgi_cache {
    let config = &settings.config;
    // SAFETY: all fields are integers and raw pointers, for which zero bytes are valid.
    let mut c: uwsgi_cache = unsafe { std::mem::zeroed() };
    c.name = settings.name.clone().into_raw();
    c.name_len = u16::try_from(settings.name.count_bytes()).unwrap_or(u16::MAX);
    c.keysize = config.max_key;
    c.blocks = settings.blocks;
    c.blocksize = settings.blocksize;
    c.hash = settings.hash.as_c();
    c.hashsize = settings.hashsize;
    c.max_items = settings.items;
    c.max_item_size = config.max_value;
    c.use_last_modified = config.last_modified.into();
    c.no_expire = config.no_expire.into();
    c.store_sync = settings.store_sync;
    c.math_initial = config.math_initial;
    c.nodes = string_list(&settings.nodes);
    c.udp_node_socket = -1;
    c.sync_nodes = string_list(&settings.sync_nodes);
    c.udp_servers = string_list(&settings.udp_servers);
    c.ignore_full = settings.ignore_full.into();
    c.lazy_expire = settings.lazy_expire.into();
    c.sweep_on_full = config.sweep_on_full.into();
    c.clear_on_full = config.clear_on_full.into();
    if let Some(store) = &config.store {
        use std::os::unix::ffi::OsStrExt;
        c.store = CString::new(store.path.as_os_str().as_bytes()).map_or(ptr::null_mut(), CString::into_raw);
        c.store_delete = c_int::from(store.delete_unusable);
    }
    c
}

/// A list that C may read and extend; NULL if empty.
fn string_list(strings: &[CString]) -> *mut uwsgi_string_list {
    strings.iter().rev().fold(ptr::null_mut(), |next, s| {
        Box::into_raw(Box::new(uwsgi_string_list {
            value: s.clone().into_raw(),
            len: s.count_bytes(),
            custom: 0,
            custom2: 0,
            custom_ptr: ptr::null_mut(),
            next,
        }))
    })
}
