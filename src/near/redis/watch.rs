//! A thread beside the owner that asks the sentinels again and again, so that the owner never waits
//! for one of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    config::Settings,
    sentinel::{Finder, WATCH},
    url::Address,
};
use crate::os::worker;

/// How soon the thread ends with its owner's connection.
const STEP: Duration = Duration::from_millis(50);

/// See the module. Dropped, the thread ends soon.
#[derive(Debug)]
pub(super) struct Watch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    has_moved: AtomicBool,
    is_over: AtomicBool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.is_over.store(true, Relaxed);
    }
}

impl Watch {
    /// Watches for another primary than the one at `address`, whose number is `node`. `None` = no
    /// thread could be started: the server's own word must do.
    pub(super) fn start(settings: &Settings, address: Address, node: u64) -> Option<Self> {
        let (state, settings) = (Arc::new(State::default()), settings.clone());
        let shared = Arc::clone(&state);
        let watch = move || {
            let finder = Finder::default();
            loop {
                let next = Instant::now() + WATCH;
                while Instant::now() < next {
                    if shared.is_over.load(Relaxed) {
                        return;
                    }
                    thread::sleep(STEP);
                }
                if finder.successor(&settings, &address, node).is_some() {
                    return shared.has_moved.store(true, Relaxed);
                }
            }
        };
        worker::spawn("ucache-sentinel", watch).ok().map(|()| Self(state))
    }

    /// Whether the sentinels name another primary, which says so, too.
    pub(super) fn has_moved(&self) -> bool {
        self.0.has_moved.load(Relaxed)
    }
}
