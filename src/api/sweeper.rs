//! The background thread that returns the memory of expired items.
#![forbid(unsafe_code)]

use std::{
    mem::ManuallyDrop,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Cache;
use crate::error::{Error, Result};

/// A running background sweeper, from [`Cache::sweeper`]. Dropping it stops the thread and waits
/// for its end.
///
/// It holds a handle to the cache, whose name stays in use as long as the sweeper runs.
///
/// ```
/// use std::time::Duration;
///
/// let cache = ucache::Cache::builder("swept in background").items(10).build()?;
/// let _sweeper = cache.sweeper(Duration::from_secs(3))?;
/// # Ok::<(), ucache::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it stops the thread"]
pub struct Sweeper {
    stop: Arc<AtomicBool>,
    thread: Option<ManuallyDrop<JoinHandle<()>>>,
    process: u32,
}

impl Sweeper {
    pub(super) fn start(cache: Cache, interval: Duration) -> Result<Self> {
        if interval.is_zero() {
            return Err(Error::InvalidOption {
                option: "interval",
                value: format!("{interval:?}"),
                reason: "must be more than 0".to_owned(),
            });
        }
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("ucache-sweeper".to_owned())
            .spawn(move || run(&cache, interval, &seen))
            .map_err(|source| Error::Os { call: "pthread_create", source })?;
        Ok(Self { stop, thread: Some(ManuallyDrop::new(thread)), process: process::id() })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // A forked child has the handle but not the thread: joining or detaching it is undefined.
        if self.process != process::id() {
            return;
        }
        // Relaxed: the flag carries no data, and `unpark` orders it before the thread looks again.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take().map(ManuallyDrop::into_inner) {
            thread.thread().unpark();
            // The thread itself has already printed any panic.
            let _ = thread.join();
        }
    }
}

fn run(cache: &Cache, interval: Duration, stop: &AtomicBool) {
    loop {
        let asleep = Instant::now();
        while let Some(left) = interval.checked_sub(asleep.elapsed()) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            thread::park_timeout(left);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // Timeouts are counted in the statistics, and the next round tries again.
        let _ = cache.sweep();
    }
}
