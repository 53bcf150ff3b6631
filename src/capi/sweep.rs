//! The sweeper thread: gives back the memory of expired items and keeps the figures of the C structs fresh.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    cache, env,
    guard::{guard, shielded},
    sync,
    thread::{Once, spawn},
    view,
};

static RUNNING: Once = Once::new();

/// Starts the sweeper of this process; in a host, if expiry is enforced anywhere. Starting it again does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn uwsgi_cache_start_sweepers() {
    shielded((), || {
        // In a plain program more caches may come; a host has made all that it will.
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
        // Intervals are counted from start to start; a pass that took longer skips what it missed.
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
        match cache.engine.sweep() {
            Ok(freed) if freed > 0 && env::get().report_freed() => {
                env::get().log(&format!("freed {freed} items for cache {:?}", cache.settings.config.name));
            }
            Ok(_) => {}
            // A writer holds a shard: its items wait for the next pass.
            Err(crate::Error::Timeout { .. }) => {}
            Err(e) => env::get().log(&format!("sweeping cache {:?}: {e}", cache.settings.config.name)),
        }
    }
    view::refresh_all();
    if env::get().sync_at_once() {
        sync::write_due();
    }
}
