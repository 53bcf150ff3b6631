//! Log lines that a busy cache would write by the thousand: one of a kind per cache and minute, with a count, for
//! all processes together.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    cache::Cache,
    env,
    shown::{shown, start_of},
};
use crate::{
    engine::{Eviction, Stats},
    error::Error,
    os::clock::unix_secs,
};

/// Seconds between two lines of a kind.
const INTERVAL: u64 = 60;

/// When each kind of line was written last. Lies in shared memory; zeroed = never.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Limits {
    full: Pace,
    refused: [Pace; REASONS],
    locked: Pace,
    repaired: Pace,
    cannot_grow: Pace,
}

#[repr(C)]
#[derive(Debug, Default)]
struct Pace {
    /// Unix time of the last line, seconds.
    at: AtomicU64,
    /// What the count stood at then (full), or what was not logged since (refused).
    count: AtomicU64,
}

impl Pace {
    fn due(&self, now: u64) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        // A clock set back must not silence the log.
        at == 0 || now.abs_diff(at) >= INTERVAL
    }

    /// Takes the right to write the line of this minute; one process gets it.
    fn take(&self, now: u64) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        self.due(now) && self.at.compare_exchange(at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Takes what a store file remembers as not worth a line.
pub(super) fn start(cache: &Cache) {
    let stats = cache.engine.stats();
    cache.view.limits().full.count.store(stats.full, Ordering::Relaxed);
    cache.view.limits().repaired.count.store(repairs(&stats), Ordering::Relaxed);
    if stats.last_unclean {
        let (name, dropped) = (shown(cache.settings.name.to_bytes()), stats.dropped_corrupt);
        env::get().log(&format!(
            "cache \"{name}\": the store was not closed by its last users: checked, {dropped} damaged items dropped"
        ));
    }
}

fn repairs(stats: &Stats) -> u64 {
    stats.owner_dead + stats.repaired + stats.dropped_corrupt
}

/// Says that something was repaired, if it was since the last such line.
pub(super) fn repaired(cache: &Cache, stats: &Stats) {
    let pace = &cache.view.limits().repaired;
    if repairs(stats) == pace.count.load(Ordering::Relaxed) || !pace.take(unix_secs()) {
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

/// Says that the store could not grow, if it could not since the last such line: what follows looks like a full cache.
fn cannot_grow(cache: &Cache) {
    let pace = &cache.view.limits().cannot_grow;
    let (times, why) = cache.engine.grow_faults();
    let more = times.saturating_sub(pace.count.load(Ordering::Relaxed));
    if more == 0 || !pace.take(unix_secs()) {
        return;
    }
    pace.count.store(times, Ordering::Relaxed);
    let name = shown(cache.settings.name.to_bytes());
    env::get().log(&format!(
        "cache \"{name}\": its store cannot grow: {why} ({more} times since the last such line)"
    ));
}

/// Says that the cache was found full, if it was since the last such line.
pub(super) fn full(cache: &Cache, stats: &Stats) {
    cannot_grow(cache);
    let pace = &cache.view.limits().full;
    let seen = pace.count.load(Ordering::Relaxed);
    let times = stats.full.saturating_sub(seen);
    if cache.settings.ignore_full || times == 0 || !pace.take(unix_secs()) {
        return;
    }
    pace.count.store(stats.full, Ordering::Relaxed);
    let name = shown(cache.settings.name.to_bytes());
    let count = if times == 1 { String::new() } else { format!(" ({times} times since the last such line)") };
    let line = match cache.settings.config.eviction {
        Eviction::None => format!("*** DANGER cache \"{name}\" is FULL !!! ***{count}"),
        Eviction::Lru => format!("LRU item purged from full cache \"{name}\"{count}"),
        Eviction::S3Fifo => format!("item evicted from full cache \"{name}\"{count}"),
    };
    env::get().log(&line);
}

/// Says why the write lock could not be had.
#[cold]
pub(super) fn locked(cache: &Cache, error: &Error) {
    if cache.view.limits().locked.take(unix_secs()) {
        let name = shown(cache.settings.name.to_bytes());
        env::get().log(&format!("cache \"{name}\": the write lock could not be taken: {error}"));
    }
}

/// Says why a store was refused.
#[cold]
pub(super) fn refused(cache: &Cache, key: &[u8], error: &Error) {
    match error {
        // Native's "add only" says nothing either.
        Error::Exists => {}
        Error::Full { .. } | Error::OutOfBlocks { .. } => {
            if !cache.settings.ignore_full && cache.view.limits().full.due(unix_secs()) {
                full(cache, &cache.engine.stats());
            }
        }
        _ => {
            cannot_grow(cache);
            let pace = &cache.view.limits().refused[reason(error)];
            if !pace.take(unix_secs()) {
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

/// Reasons of refusals that have lines of their own.
const REASONS: usize = 7;

/// Which of them this is.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_whoever_asks() {
        let pace = Pace::default();
        assert!(pace.take(1000) && !pace.take(1000) && !pace.take(1059));
        assert!(pace.due(1060) && pace.take(1060) && !pace.due(1061));
        // A clock that was set back.
        assert!(pace.take(1000));
    }
}
