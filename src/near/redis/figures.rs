//! Counts of this process's calls to the server.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::engine::{Counter, Engine};

/// Figures of one backend in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Round trips that were tried.
    pub requests: u64,
    /// Calls that failed because the server could not be asked or refused.
    pub errors: u64,
    /// Those of them that waited for the whole `backend_timeout`.
    pub timeouts: u64,
    /// Those of them that were not sent, because the server had failed a moment ago.
    pub skipped: u64,
    /// Connections made.
    pub connects: u64,
    /// Keys that hold no string (another client's list or hash), read as misses.
    pub wrong_type: u64,
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Requests,
    Errors,
    Timeouts,
    Skipped,
    Connects,
    WrongType,
}

/// The cells behind [`Figures`]. The region has those of all processes.
#[derive(Debug)]
pub(super) struct Counts {
    own: [AtomicU64; 6],
    region: Option<Arc<Engine>>,
}

impl Counts {
    pub(super) fn new(region: Option<Arc<Engine>>) -> Self {
        Self { own: Default::default(), region }
    }

    pub(super) fn add(&self, count: Count) {
        self.cell(count).fetch_add(1, Ordering::Relaxed);
        let Some(region) = &self.region else { return };
        match count {
            Count::Requests => region.count(Counter::Requests, 1),
            Count::Errors => region.count(Counter::RequestErrors, 1),
            Count::Timeouts => region.count(Counter::RequestTimeouts, 1),
            Count::Connects => region.count(Counter::Connects, 1),
            Count::Skipped | Count::WrongType => {}
        }
    }

    fn cell(&self, count: Count) -> &AtomicU64 {
        let [requests, errors, timeouts, skipped, connects, wrong_type] = &self.own;
        match count {
            Count::Requests => requests,
            Count::Errors => errors,
            Count::Timeouts => timeouts,
            Count::Skipped => skipped,
            Count::Connects => connects,
            Count::WrongType => wrong_type,
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let of = |count| self.cell(count).load(Ordering::Relaxed);
        Figures {
            requests: of(Count::Requests),
            errors: of(Count::Errors),
            timeouts: of(Count::Timeouts),
            skipped: of(Count::Skipped),
            connects: of(Count::Connects),
            wrong_type: of(Count::WrongType),
        }
    }
}
