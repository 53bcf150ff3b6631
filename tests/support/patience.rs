//! Waiting for what comes about sooner or later, on a machine however busy.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take. A test that passes never waits for it to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between two looks: short at first, for what comes at once.
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(20);

/// Looks again and again until something is found; `None` = not within `limit`.
pub(crate) fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let (start, mut pause) = (Instant::now(), SHORTEST);
    loop {
        // In this order: the last look comes after the limit, however long it was kept from looking.
        let is_last = start.elapsed() > limit;
        let found = look();
        if found.is_some() || is_last {
            return found;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
}

/// Waits until something is so.
///
/// # Panics
/// When it is not within [`PATIENCE`].
#[track_caller]
pub(crate) fn within(what: impl Display, mut ready: impl FnMut() -> bool) {
    let is_ready = poll(PATIENCE, || ready().then_some(())).is_some();
    assert!(is_ready, "not within {PATIENCE:?}: {what}");
}
