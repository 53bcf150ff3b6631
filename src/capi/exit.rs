//! Marks stores as closed cleanly at exit: caches created through C are never dropped.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    capi::{host::cache, panic::guard},
    os::exit,
};

/// Registers marking this process's stores as closed cleanly at its exit.
pub(crate) fn at_exit() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::AcqRel) {
        // The handler is async-signal-safe: uWSGI calls exit() from signal handlers. If it cannot
        // be registered, the next opener reports that the store was not closed.
        exit::at_exit(close_stores);
    }
}

extern "C" fn close_stores() {
    guard((), || cache::all().for_each(|cache| cache.tier.engine().mark_closed()));
}
