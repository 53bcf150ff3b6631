//! The host's lock functions, with ours in front for the locks of our caches.
//!
//! Code outside the cache locks `uc->lock` through the table `uwsgi.lock_ops` before it calls the functions that
//! expect a held lock. The host fills the table when it has read its options, so it is wrapped when the first cache
//! is made. `rwlock_check` stays: nobody ever holds the host's lock of our caches, so it truthfully says 0.

use std::{ffi::CString, sync::OnceLock};

use super::{host::Host, raw};
use crate::capi::lock;

type Op = unsafe extern "C" fn(*mut raw::uwsgi_lock_item);

/// The host's own functions, which serve all its other locks.
#[derive(Debug)]
struct Original {
    rlock: Op,
    wlock: Op,
    rwunlock: Op,
}

static ORIGINAL: OnceLock<Original> = OnceLock::new();

/// Defines a lock function that asks ours first. Ours let no panic out, and say after one that the item is theirs:
/// the host's lock behind it is not in use, and to unlock it would be wrong.
macro_rules! wrapper {
    ($name:ident) => {
        /// # Safety
        /// `item` is a lock of the host.
        unsafe extern "C" fn $name(item: *mut raw::uwsgi_lock_item) {
            if lock::$name(item.cast()) {
                return;
            }
            if let Some(original) = ORIGINAL.get() {
                // SAFETY: an item of the host, for the function that the host had put in the table.
                unsafe { (original.$name)(item) }
            }
        }
    };
}
wrapper!(rlock);
wrapper!(wlock);
wrapper!(rwunlock);

/// Makes and lists a lock of the host for the cache `name`. Never NULL: the host ends when it cannot.
pub(super) fn new(host: &Host, name: &str) -> *mut raw::uwsgi_lock_item {
    wrap(host);
    // The host keeps the pointer.
    let id = CString::new(format!("cache_{name}")).unwrap_or_default().into_raw();
    // SAFETY: start-up is single-threaded, the host has filled its table before it makes caches.
    unsafe {
        let Some(init) = (*host.server).lock_ops.rwlock_init else {
            host.log("uWSGI has no lock functions yet: caches cannot be made before its start-up");
            libc::exit(1);
        };
        let item = init(id);
        // Not for the deadlock detector: the engine recovers from dead holders by itself.
        (*item).can_deadlock = 0;
        item
    }
}

/// Puts our functions in the table, unless they are there.
fn wrap(host: &Host) {
    // SAFETY: as in `new`; nobody else holds a reference to the table.
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
