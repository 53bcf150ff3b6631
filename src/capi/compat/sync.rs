//! `uwsgi_cache_sync_all`: writes store files to disk.

use std::sync::atomic::Ordering;

use crate::{
    capi::{
        host::{
            cache::{self, Cache},
            env,
        },
        panic::{guard, shielded, spawn},
    },
    os::{clock::monotonic, worker::PerProcess},
};

static RUNNING: PerProcess = PerProcess::new();

/// Writes stores to disk. In a plain program all of them, before it returns. A host calls it every
/// second: there a store is due at the first call and then every `store_sync` seconds, and a thread
/// does the work.
#[unsafe(no_mangle)]
pub extern "C" fn uwsgi_cache_sync_all() {
    shielded((), || {
        let stores = cache::all().filter(|cache| cache.settings.config.store.is_some());
        if env::get().sync_at_once() {
            stores.for_each(write);
            return;
        }
        // Never 0, which means "not yet".
        let now = monotonic().as_secs() + 1;
        let due: Vec<_> = stores.filter(|cache| is_due(cache, now)).collect();
        if !due.is_empty() {
            in_background(due, now);
        }
    });
}

/// Writes the stores of a plain program that are due by their `store_sync`; called by the sweeper.
pub(crate) fn write_due() {
    let now = monotonic().as_secs() + 1;
    for cache in cache::all().filter(|cache| cache.settings.config.store.is_some()) {
        // The first call only starts the interval.
        if cache.synced.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
            && is_due(cache, now)
        {
            cache.synced.store(now, Ordering::Relaxed);
            write(cache);
        }
    }
}

fn is_due(cache: &Cache, now: u64) -> bool {
    let (last, every) = (cache.synced.load(Ordering::Relaxed), cache.settings.store_sync);
    last == 0 || (every > 0 && now - last >= every)
}

/// A pass that is still running replaces a second one; due stores stay due.
fn in_background(due: Vec<&'static Cache>, now: u64) {
    if !RUNNING.begin() {
        return;
    }
    for cache in &due {
        cache.synced.store(now, Ordering::Relaxed);
    }
    let started = spawn("ucache-sync", move || {
        guard((), || due.into_iter().for_each(write));
        RUNNING.end();
    });
    if let Err(e) = started {
        RUNNING.end();
        env::get().log(&format!("unable to run the store sync: {e}"));
    }
}

fn write(cache: &Cache) {
    if let Err(e) = cache.tier.engine().sync() {
        env::get().log(&format!("syncing the store of cache {:?}: {e}", cache.settings.config.name));
    }
}
