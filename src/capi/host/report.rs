//! Log lines that a busy cache would otherwise write by the thousand: one of each kind per cache
//! and minute, with a count, for all processes together.

use std::sync::atomic::Ordering;

use crate::{
    capi::host::{cache::Cache, env},
    engine::{Eviction, Stats},
    error::Error,
    os::clock::coarse_unix_secs,
    wire::shown::{shown, start_of},
};

/// Sets the baseline at start, so that counts kept in a store file are not logged again.
pub(crate) fn start(cache: &Cache) {
    let stats = cache.tier.engine().stats();
    cache.view.limits().full.count.store(stats.full, Ordering::Relaxed);
    cache.view.limits().repaired.count.store(repairs(&stats), Ordering::Relaxed);
    if stats.last_unclean {
        let (name, dropped) = (shown(cache.settings.name.to_bytes()), stats.dropped_corrupt);
        env::get().log(&format!(
            "cache \"{name}\": the store was not closed cleanly; it was checked, {dropped} damaged items were dropped"
        ));
    }
}

fn repairs(stats: &Stats) -> u64 {
    stats.owner_dead + stats.repaired + stats.dropped_corrupt
}

/// Logs repairs since the last such line.
pub(crate) fn repaired(cache: &Cache, stats: &Stats) {
    let pace = &cache.view.limits().repaired;
    if repairs(stats) == pace.count.load(Ordering::Relaxed) || !pace.take(coarse_unix_secs()) {
        return;
    }
    pace.count.store(repairs(stats), Ordering::Relaxed);
    let name = shown(cache.settings.name.to_bytes());
    let Stats { owner_dead, repaired, dropped_corrupt, .. } = stats;
    env::get().log(&format!(
        "cache \"{name}\": repaired after the death of a process; in all {owner_dead} locks of the dead, {repaired} \
         shards rebuilt, {dropped_corrupt} damaged items dropped"
    ));
}

/// Logs that the store could not grow since the last such line: the effect looks like a full cache.
fn cannot_grow(cache: &Cache) {
    let pace = &cache.view.limits().cannot_grow;
    let (times, why) = cache.tier.engine().grow_faults();
    let more = times.saturating_sub(pace.count.load(Ordering::Relaxed));
    if more == 0 || !pace.take(coarse_unix_secs()) {
        return;
    }
    pace.count.store(times, Ordering::Relaxed);
    let name = shown(cache.settings.name.to_bytes());
    env::get().log(&format!(
        "cache \"{name}\": its store cannot grow: {why} ({more} times since the last such line)"
    ));
}

/// Logs that the cache was found full since the last such line.
pub(crate) fn full(cache: &Cache, stats: &Stats) {
    cannot_grow(cache);
    let pace = &cache.view.limits().full;
    let seen = pace.count.load(Ordering::Relaxed);
    let times = stats.full.saturating_sub(seen);
    if cache.settings.ignore_full || times == 0 || !pace.take(coarse_unix_secs()) {
        return;
    }
    pace.count.store(stats.full, Ordering::Relaxed);
    let name = shown(cache.settings.name.to_bytes());
    let count = if times == 1 { String::new() } else { format!(" ({times} times since the last such line)") };
    let line = match cache.settings.config.eviction {
        Eviction::None => format!("*** DANGER cache \"{name}\" is FULL !!! ***{count}"),
        Eviction::Lru => format!("LRU item purged from full cache \"{name}\"{count}"),
        _ => format!("item evicted from full cache \"{name}\"{count}"),
    };
    env::get().log(&line);
}

/// Logs why the write lock could not be taken.
#[cold]
pub(crate) fn locked(cache: &Cache, error: &Error) {
    if cache.view.limits().locked.take(coarse_unix_secs()) {
        let name = shown(cache.settings.name.to_bytes());
        env::get().log(&format!("cache \"{name}\": the write lock could not be taken: {error}"));
    }
}

/// Logs why a store was refused.
#[cold]
pub(crate) fn refused(cache: &Cache, key: &[u8], error: &Error) {
    match error {
        // Native's "add only" logs nothing either.
        Error::Exists => {}
        Error::Full { .. } | Error::OutOfBlocks { .. } => {
            if !cache.settings.ignore_full && cache.view.limits().full.due(coarse_unix_secs()) {
                full(cache, &cache.tier.engine().stats());
            }
        }
        _ => {
            cannot_grow(cache);
            let pace = &cache.view.limits().refused[reason(error)];
            if !pace.take(coarse_unix_secs()) {
                pace.count.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let more = pace.count.swap(0, Ordering::Relaxed);
            let name = shown(cache.settings.name.to_bytes());
            let key = start_of(key);
            let more =
                if more == 0 { String::new() } else { format!(" ({more} more since the last such line)") };
            env::get().log(&format!("cache \"{name}\": {key} was not stored: {error}{more}"));
        }
    }
}

/// The index of the refusal's reason.
fn reason(error: &Error) -> usize {
    match error {
        Error::EmptyKey => 1,
        Error::KeyTooLong { .. } => 2,
        Error::EmptyValue => 3,
        Error::ValueTooLong { .. } => 4,
        Error::NotANumber { .. } => 5,
        Error::NoSpace { .. } => 6,
        _ => 0,
    }
}
