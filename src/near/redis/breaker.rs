//! After a failure calls fail at once instead of waiting one after the other; one call at a time
//! tries again.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{engine::Engine, error::BackendFault, os::clock::coarse_millis};

/// How long calls fail at once after a failure, and how often one tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the time is from which a call may try again, milliseconds since boot; 0 = the server is
/// well.
#[derive(Debug)]
enum Word {
    Own(AtomicU64),
    /// In the region: one process's time-out spares the others.
    Shared(Arc<Engine>),
    /// The same of the node with this number, if the region has a place for it.
    OfNode(Arc<Engine>, u64, AtomicU64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    next_try: Word,
    /// The last failure of this process in words. Nobody waits for the lock: a fork may have copied it locked.
    reason: Mutex<String>,
}

impl Breaker {
    /// For this process, or for all that have the region.
    pub(super) fn new(region: Option<Arc<Engine>>) -> Self {
        let next_try = region.map_or_else(|| Word::Own(AtomicU64::new(0)), Word::Shared);
        Self { next_try, reason: Mutex::default() }
    }

    /// For a node of a cluster.
    pub(super) fn of_node(region: Option<Arc<Engine>>, number: u64) -> Self {
        let own = AtomicU64::new(0);
        let next_try = match region {
            Some(region) => Word::OfNode(region, number, own),
            None => Word::Own(own),
        };
        Self { next_try, reason: Mutex::default() }
    }

    fn next_try(&self) -> &AtomicU64 {
        match &self.next_try {
            Word::Own(word) => word,
            Word::Shared(engine) => engine.next_try(),
            Word::OfNode(engine, number, own) => engine.next_try_of(*number).unwrap_or(own),
        }
    }

    /// Whether the last call got its reply.
    pub(super) fn is_well(&self) -> bool {
        self.next_try().load(Ordering::Relaxed) == 0
    }

    /// Lets a call through, or not.
    pub(super) fn admit(&self) -> Result<(), BackendFault> {
        let next = self.next_try().load(Ordering::Relaxed);
        if next == 0 {
            return Ok(());
        }
        let (now, pause) = (coarse_millis(), PAUSE.as_millis() as u64);
        let mine = now >= next
            && self
                .next_try()
                .compare_exchange(next, now + pause, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine { Ok(()) } else { Err(self.refusal()) }
    }

    /// A call got its reply.
    pub(super) fn succeeded(&self) {
        // A store of each call would share the line among all threads.
        if self.next_try().load(Ordering::Relaxed) != 0 {
            self.next_try().store(0, Ordering::Relaxed);
        }
    }

    fn refusal(&self) -> BackendFault {
        let own = self.reason.try_lock().ok().filter(|reason| !reason.is_empty());
        let reason = own.map_or_else(|| "in another process".to_owned(), |reason| reason.clone());
        BackendFault::Down { pause: PAUSE, reason }
    }

    /// A call got none.
    pub(super) fn failed(&self, fault: &BackendFault) {
        if let Ok(mut reason) = self.reason.try_lock() {
            *reason = fault.to_string();
        }
        self.next_try().store(coarse_millis().max(1) + PAUSE.as_millis() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Config;

    #[test]
    fn one_tries_again_after_the_pause() {
        let breaker = Breaker::new(None);
        assert!(breaker.admit().is_ok() && breaker.admit().is_ok());
        breaker.failed(&BackendFault::Unreachable { reason: "refused".to_owned() });
        let refused = breaker.admit().expect_err("the pause").to_string();
        assert_eq!(refused, "not asked, because it failed less than 100ms ago (no connection: refused)");
        breaker.next_try().store(1, Ordering::Relaxed);
        assert!(breaker.admit().is_ok(), "the pause is over");
        assert!(breaker.admit().is_err(), "one at a time");
        breaker.succeeded();
        assert!(breaker.admit().is_ok());
    }

    #[test]
    fn each_node_of_a_cluster_has_a_pause_of_its_own() {
        let engine = Engine::create(&Config::new("spared nodes", 10)).expect("a region");
        let of = |number| Breaker::of_node(Some(Arc::clone(&engine)), number);
        let fault = BackendFault::Unreachable { reason: "refused".to_owned() };
        of(1).failed(&fault);
        assert!(of(1).admit().is_err() && of(2).admit().is_ok());
        of(2).succeeded();
        assert!(of(1).admit().is_err());
        of(1).succeeded();
        assert!(of(1).admit().is_ok());
        // Those that the region has no place for are spared in each process by itself.
        let many: Vec<_> = (1..=100).map(of).collect();
        many.iter().for_each(|one| one.failed(&fault));
        assert!(many.iter().all(|one| one.admit().is_err()));
    }

    #[test]
    fn processes_of_one_region_spare_each_other() {
        let engine = Engine::create(&Config::new("spared", 10)).expect("a region");
        let [one, other] = [(); 2].map(|()| Breaker::new(Some(Arc::clone(&engine))));
        one.failed(&BackendFault::Unreachable { reason: "refused".to_owned() });
        let refused = other.admit().expect_err("the pause").to_string();
        assert_eq!(refused, "not asked, because it failed less than 100ms ago (in another process)");
        other.succeeded();
        assert!(one.admit().is_ok());
    }
}
