//! The host's lock functions, wrapped to handle the locks of our caches.
//!
//! Code outside the cache locks `uc->lock` through the table `uwsgi.lock_ops` before it calls
//! functions that expect a held lock. The host fills the table after reading its options, so it is
//! wrapped when the first cache is created. `rwlock_check` stays: the host's own lock of our caches
//! is never held, so its answer 0 is correct.

use std::{
    ffi::CString,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use super::{host::Host, raw};
use crate::{
    capi::{compat::lock, host::standalone},
    os::process::fork_count,
};

type Op = unsafe extern "C" fn(*mut raw::uwsgi_lock_item);

/// The host's own functions, used for all its other locks.
#[derive(Debug)]
struct Original {
    rlock: Op,
    wlock: Op,
    rwunlock: Op,
}

static ORIGINAL: OnceLock<Original> = OnceLock::new();

/// Defines a wrapper that tries our function first. Our functions catch panics and then still claim
/// the item: the host's lock behind it is not in use, so unlocking it would be wrong.
macro_rules! wrapper {
    ($name:ident) => {
        /// # Safety
        /// `item` is a lock of the host.
        unsafe extern "C" fn $name(item: *mut raw::uwsgi_lock_item) {
            if lock::$name(item.cast()) {
                return;
            }
            if let Some(original) = ORIGINAL.get() {
                // SAFETY: an item of the host, passed to the host's own function.
                unsafe { (original.$name)(item) }
            }
        }
    };
}
wrapper!(rlock);
wrapper!(wlock);
wrapper!(rwunlock);

/// The process that may register locks with the host, as its fork count; 0 = too early in start-up.
static LISTER: AtomicU32 = AtomicU32::new(0);
/// Whether other processes may already have the list of locks.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// From now on only this process registers locks: a child forked while the application loads does
/// not.
pub(super) fn seal() {
    LISTER.store(fork_count(), Ordering::Relaxed);
}

/// From now on no process registers locks.
pub(super) fn close() {
    CLOSED.store(true, Ordering::Relaxed);
}

/// Whether every process that reads the list of locks will have the memory of a new one.
fn may_list() -> bool {
    let lister = LISTER.load(Ordering::Relaxed);
    !CLOSED.load(Ordering::Relaxed) && (lister == 0 || lister == fork_count())
}

/// Creates a lock for the cache `name`, and registers it with the host if all processes are still
/// to be forked. The list is shared by all of them: the memory of a lock created later would be
/// missing in the master, which walks the list when a process ends. Never NULL: the host exits on
/// failure.
pub(super) fn new(host: &Host, name: &str) -> *mut raw::uwsgi_lock_item {
    wrap(host);
    if !may_list() {
        return standalone::lock_item(name).cast();
    }
    // The host keeps the pointer.
    let id = CString::new(format!("cache_{name}")).unwrap_or_default().into_raw();
    // SAFETY: start-up is single-threaded, and the host has filled its table before it creates
    // caches.
    unsafe {
        let Some(init) = (*host.server).lock_ops.rwlock_init else {
            host.log("uWSGI has no lock functions yet: caches cannot be created before its start-up");
            libc::exit(1);
        };
        let item = init(id);
        // Not for the deadlock detector: the engine recovers from dead owners itself.
        (*item).can_deadlock = 0;
        item
    }
}

/// Puts our functions in the table, unless they are there already.
fn wrap(host: &Host) {
    // SAFETY: as in `new`; no other code holds a reference to the table.
    let ops = unsafe { &mut (*host.server).lock_ops };
    let (Some(r), Some(w), Some(u)) = (ops.rlock, ops.wlock, ops.rwunlock) else { return };
    let mut first = false;
    ORIGINAL.get_or_init(|| {
        first = true;
        Original { rlock: r, wlock: w, rwunlock: u }
    });
    if first {
        ops.rlock = Some(rlock);
        ops.wlock = Some(wlock);
        ops.rwunlock = Some(rwunlock);
    }
}
