//! What stores are told when the process ends: the caches of C are never dropped.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{cache, guard::guard};

/// From now on the process's exit leaves the mark of a clean end in its stores.
pub(super) fn at_exit() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::AcqRel) {
        // SAFETY: the handler stays loaded (`-z nodelete`), and makes only async-signal-safe calls: uWSGI calls exit() from
        // signal handlers. When it cannot be registered, the next opener says that the store was not closed.
        unsafe { libc::atexit(leave) };
    }
}

extern "C" fn leave() {
    guard((), || cache::all().for_each(|cache| cache.engine.mark_closed()));
}
