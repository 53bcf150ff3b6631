//! The sweeper thread: reclaims expired items and refreshes the statistics in the C structs.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    capi::{
        compat::sync,
        host::{cache, create, env},
        panic::{guard, shielded, spawn},
    },
    os::worker::PerProcess,
};

static RUNNING: PerProcess = PerProcess::new();

/// Starts the sweeper of this process; in a host, only if a cache enforces expiry. Further calls do
/// nothing.
#[unsafe(no_mangle)]
pub extern "C" fn uwsgi_cache_start_sweepers() {
    shielded((), || {
        create::start_owners();
        // In a plain program more caches may be created later; a host has created all of its
        // caches.
        let is_host = !env::get().sync_at_once();
        if is_host && cache::all().all(|cache| cache.settings.config.no_expire) {
            return;
        }
        if !RUNNING.begin() {
            return;
        }
        match spawn("ucache-sweeper", run) {
            Ok(()) => env::get().log("cache sweeper thread enabled"),
            Err(e) => {
                RUNNING.end();
                env::get().log(&format!("unable to run the cache sweeper: {e}"));
            }
        }
    });
}

fn run() {
    let interval = env::get().sweep_interval().max(Duration::from_millis(1));
    let mut next = Instant::now();
    loop {
        guard((), sweep);
        // Intervals are measured from start to start; a pass that took longer skips the missed
        // ones.
        next += interval;
        let now = Instant::now();
        if next < now {
            next = now;
        }
        thread::sleep(next - now);
    }
}

fn sweep() {
    for cache in cache::all().filter(|cache| !cache.settings.config.no_expire) {
        match cache.tier.engine().sweep() {
            Ok(freed) if freed > 0 && env::get().report_freed() => {
                env::get().log(&format!("freed {freed} items for cache {:?}", cache.settings.config.name));
            }
            Ok(_) => {}
            // A writer holds a shard: its items are left to the next pass.
            Err(crate::Error::Timeout { .. }) => {}
            Err(e) => env::get().log(&format!("sweeping cache {:?}: {e}", cache.settings.config.name)),
        }
    }
    create::refresh_all();
    if env::get().sync_at_once() {
        sync::write_due();
    }
}
