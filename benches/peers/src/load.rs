//! The load: processes or threads that start together and report how long they took.

use std::{
    hint::{black_box, spin_loop},
    sync::atomic::Ordering::SeqCst,
    thread,
};

use nix::time::{ClockId, clock_gettime};

use crate::engine_proc::{Scratch, in_children};

/// One worker's view of something that keeps values of 100 bytes under keys of 16.
pub(crate) trait Store {
    /// Hands the value to a caller who looks at it, in `out` or by value as the interface has it;
    /// whether it was there. [`black_box`] is the caller's look: without it the compiler drops
    /// copies that it can see through.
    fn get(&mut self, key: &[u8; 16], out: &mut [u8; 100]) -> bool;
    fn set(&mut self, key: &[u8; 16], value: &[u8; 100]);
}

/// What the workers of a run are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workers {
    Processes(usize),
    Threads(usize),
}

impl Workers {
    fn count(self) -> usize {
        match self {
            Self::Processes(n) | Self::Threads(n) => n,
        }
    }
}

/// The most workers that report.
const SEATS: usize = 64;

/// Nanoseconds, of processor time for a lone worker (what other programs take does not count), else
/// of the clock.
fn now(alone: bool) -> u64 {
    let clock = if alone { ClockId::CLOCK_THREAD_CPUTIME_ID } else { ClockId::CLOCK_MONOTONIC };
    let time = clock_gettime(clock).expect("a clock");
    let seconds = u64::try_from(time.tv_sec()).expect("after 1970");
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).expect("nanoseconds")
}

/// Millions of operations a second of all workers together. Each makes itself ready with `make`,
/// waits for the others, then does `work`, which says how many operations that was. `waits`: the
/// worker spends time in others' hands (a server), so that only the clock tells.
pub(crate) fn rate<S>(
    workers: Workers,
    waits: bool,
    make: impl Fn(usize) -> S + Sync,
    work: impl Fn(usize, &mut S) -> u64 + Sync,
) -> f64 {
    let seats = Scratch::new(2 * SEATS + 1);
    let count = workers.count();
    let alone = count == 1 && !waits;
    let body = |n: usize| {
        let mut own = make(n);
        let arrived = &seats[2 * SEATS];
        arrived.fetch_add(1, SeqCst);
        while arrived.load(SeqCst) < u64::try_from(count).expect("few") {
            spin_loop();
            thread::yield_now();
        }
        let start = now(alone);
        let done = work(n, &mut own);
        seats[2 * n].store(done, SeqCst);
        seats[2 * n + 1].store((now(alone) - start).max(1), SeqCst);
    };
    match workers {
        Workers::Processes(_) => in_children(count, body),
        Workers::Threads(_) => thread::scope(|scope| {
            for n in 0..count {
                let body = &body;
                scope.spawn(move || body(n));
            }
        }),
    }
    let figure = |at: usize| seats[at].load(SeqCst) as f64;
    (0..count).map(|n| figure(2 * n) / figure(2 * n + 1) * 1e3).sum()
}

/// Reads every key of `order`; how many reads that was. All must hit.
pub(crate) fn gets<S: Store>(store: &mut S, order: &[[u8; 16]]) -> u64 {
    let mut out = [0; 100];
    let found = order.iter().filter(|key| store.get(key, black_box(&mut out))).count();
    assert_eq!(found, order.len(), "a key was not found");
    u64::try_from(order.len()).expect("a count")
}

/// Stores every key of `order`.
pub(crate) fn sets<S: Store>(store: &mut S, order: &[[u8; 16]]) -> u64 {
    let value = black_box([b'w'; 100]);
    order.iter().for_each(|key| store.set(key, &value));
    u64::try_from(order.len()).expect("a count")
}
