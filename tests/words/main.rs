//! Words that several processes change without a common lock, each by "load, then compare-and-swap", under the memory model of
//! the language: loom tries every order of threads, and every value that a load may give.
//!
//! Each model has the steps of the engine's code with the engine's own orderings (`shm::order`), in a small world, and what
//! must hold at its end. Each can be run with a mistake in it: then loom must find a run in which it does not hold.

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, SeqCst},
            fence,
        },
    },
    thread,
};
use ucache::shm::order::{clear, earliest, exclusive, fillers, ids, quota, spans};

mod alone;
mod generations;
mod sleepers;

/// Runs `body` in all orders; whether it always held.
fn holds(body: impl Fn() + Sync + Send + 'static) -> bool {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.check(body))).is_ok()
}

/// Runs the threads and waits for their ends.
fn together<T: Sync + Send + 'static>(shared: &Arc<T>, threads: Vec<fn(&T)>) {
    let threads: Vec<_> = threads
        .into_iter()
        .map(|body| {
            let shared = Arc::clone(shared);
            thread::spawn(move || body(&shared))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().expect("a thread"));
}

/// `engine::sweep`: `note_expiry` and `note_earliest` beside `note_swept`.
mod expiry {
    use super::*;

    const TICKET: u64 = 1 << 63;
    const NEVER: u64 = u64::MAX;
    const SOON: u64 = 100;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Bug {
        None,
        /// The writer ignores that its exchange failed.
        LostExchange,
        /// No fence between the two words.
        NoFence,
        /// Two sweepers have one ticket.
        OneTicket,
    }

    struct Words {
        shard: AtomicU64,
        all: AtomicU64,
        tickets: AtomicU64,
        bug: Bug,
    }

    fn between(w: &Words) {
        if w.bug != Bug::NoFence {
            fence(earliest::BETWEEN);
        }
    }

    fn note(w: &Words) {
        w.shard.store(SOON, earliest::SHARD);
        between(w);
        let mut seen = w.all.load(earliest::ALL);
        loop {
            let lower = match seen {
                _ if seen & TICKET != 0 && seen != NEVER => 1,
                known if SOON < known => SOON,
                _ => return,
            };
            match w.all.compare_exchange(seen, lower, earliest::ALL, earliest::ALL) {
                Ok(_) => return,
                Err(_) if w.bug == Bug::LostExchange => return,
                Err(now) => seen = now,
            }
        }
    }

    fn swept(w: &Words) {
        let number = if w.bug == Bug::OneTicket { 0 } else { w.tickets.fetch_add(1, Relaxed) };
        let ticket = TICKET | number;
        w.all.swap(ticket, earliest::ALL);
        between(w);
        let until = w.shard.load(earliest::SHARD);
        let _ = w.all.compare_exchange(ticket, until, earliest::ALL, Relaxed);
    }

    pub(super) fn is_never_forgotten(bug: Bug) -> bool {
        holds(move || {
            let word = AtomicU64::new;
            // Something earlier was due, and was reaped.
            let w = Arc::new(Words { shard: word(NEVER), all: word(SOON / 2), tickets: word(0), bug });
            // The exchange that fails needs one sweeper, a ticket that is taken for another's needs two.
            let sweepers = if matches!(bug, Bug::None | Bug::OneTicket) { 2 } else { 1 };
            together(
                &w,
                std::iter::once(note as fn(&Words))
                    .chain(std::iter::repeat_n(swept as fn(&Words), sweepers))
                    .collect(),
            );
            let all = w.all.load(SeqCst);
            let due = all <= SOON || (all & TICKET != 0 && all != NEVER);
            assert!(due, "nothing seems to expire before {all}");
        })
    }
}

#[test]
fn an_expiry_is_never_forgotten() {
    use expiry::{Bug, is_never_forgotten};
    assert!(is_never_forgotten(Bug::None));
    for bug in [Bug::LostExchange, Bug::NoFence, Bug::OneTicket] {
        assert!(!is_never_forgotten(bug), "{bug:?} goes unnoticed");
    }
}

/// `engine::credit`: blocks that shards were granted and use, granted under a lock, taken from others without theirs.
mod blocks {
    use super::*;

    const LIMIT: u64 = 3;

    struct Words {
        shards: [AtomicU64; 2],
        lock: Mutex<()>,
        /// The mistake: a load and a store instead of an exchange.
        torn: bool,
    }

    fn change(w: &Words, shard: usize, f: impl Fn(u64, u64) -> Option<(u64, u64)>) -> bool {
        let f = |word: u64| f(word >> 32, word & 0xFFFF_FFFF).map(|(granted, used)| granted << 32 | used);
        if w.torn {
            let new = f(w.shards[shard].load(quota::READ));
            return new.is_some_and(|new| {
                w.shards[shard].store(new, Relaxed);
                true
            });
        }
        w.shards[shard].fetch_update(quota::CHANGE, quota::READ, f).is_ok()
    }

    fn take(w: &Words, shard: usize, n: u64) {
        let take =
            |granted: u64, used: u64| (granted.saturating_sub(used) >= n).then_some((granted, used + n));
        if change(w, shard, take) {
            return;
        }
        {
            let _lock = w.lock.lock().expect("the quota");
            let total: u64 = w.shards.iter().map(|s| s.load(quota::READ) >> 32).sum();
            let mut got = LIMIT.saturating_sub(total).min(n);
            if got < n {
                let spare = std::cell::Cell::new(0);
                let from_other = change(w, 1 - shard, |granted, used| {
                    spare.set(granted.saturating_sub(used).min(n - got));
                    (spare.get() > 0).then(|| (granted - spare.get(), used))
                });
                got += if from_other { spare.get() } else { 0 };
            }
            change(w, shard, |granted, used| Some((granted + got, used)));
        }
        change(w, shard, take);
    }

    pub(super) fn are_never_more_than_the_limit(torn: bool) -> bool {
        holds(move || {
            // Shard 0 has two more than it uses.
            let shards = [AtomicU64::new(2 << 32), AtomicU64::new(0)];
            let w = Arc::new(Words { shards, lock: Mutex::new(()), torn });
            together(&w, vec![|w| take(w, 0, 2), |w| take(w, 1, 2)]);
            let words = w.shards.each_ref().map(|s| s.load(SeqCst));
            let sum = |f: fn(u64) -> u64| words.iter().map(|&w| f(w)).sum::<u64>();
            assert!(sum(|w| w >> 32) <= LIMIT && sum(|w| w & 0xFFFF_FFFF) <= LIMIT, "{words:x?}");
            assert!(words.iter().all(|w| w >> 32 >= w & 0xFFFF_FFFF), "{words:x?}");
        })
    }
}

#[test]
fn blocks_are_never_more_than_the_limit() {
    assert!(blocks::are_never_more_than_the_limit(false));
    assert!(!blocks::are_never_more_than_the_limit(true), "a store instead of an exchange goes unnoticed");
}

/// `engine::ids`: a free number has its bit, whatever those who found the bit wrong do.
mod numbers {
    use super::*;

    const SHARD: u64 = 1 << 31;

    struct Words {
        /// 0 = free.
        number: AtomicU64,
        bit: AtomicU64,
        /// Whether who clears a bit looks again.
        looks: bool,
    }

    /// `claim_in_word`: another shard finds the bit, and the number in use.
    fn claim(w: &Words) -> bool {
        if w.bit.load(ids::LOOK) == 0 {
            return false;
        }
        if w.number.compare_exchange(0, SHARD, ids::CLAIM, Relaxed).is_ok() {
            w.bit.fetch_and(!1, ids::BIT);
            return true;
        }
        w.bit.fetch_and(!1, ids::BIT);
        if w.looks && w.number.load(ids::LOOK) == 0 {
            w.bit.fetch_or(1, ids::BIT);
        }
        false
    }

    /// `give_id`.
    fn free(w: &Words) {
        w.number.store(0, ids::FREE);
        w.bit.fetch_or(1, ids::BIT);
    }

    pub(super) fn are_never_lost(looks: bool) -> bool {
        holds(move || {
            // In use, its bit still set: its owner has not cleared it yet.
            let w = Arc::new(Words { number: AtomicU64::new(5), bit: AtomicU64::new(1), looks });
            together(&w, vec![free, |w| _ = claim(w), |w| _ = claim(w)]);
            let free = w.number.load(SeqCst) == 0;
            assert!(!free || w.bit.load(SeqCst) == 1, "a free number that nobody finds");
        })
    }
}

#[test]
fn numbers_are_never_lost() {
    assert!(numbers::are_never_lost(true));
    assert!(!numbers::are_never_lost(false), "a bit that is cleared too late goes unnoticed");
}

/// `shm::span`: a free span with pages goes to one of those who claim it and who give its pages back.
mod span {
    use super::*;

    const FREE: u64 = 0;
    const DIRTY: u64 = 1;
    const SMALL: u64 = 2;
    const PUNCHING: u64 = 5;

    struct Words {
        span: AtomicU64,
        /// What is in the span: the owner's data, or zeroes after its pages were given back.
        data: AtomicU64,
        dirty: AtomicU64,
        owned: AtomicU64,
        /// The mistake: the mark is stored without an exchange.
        stored: bool,
    }

    fn claim(w: &Words) {
        let old = w.span.load(spans::LOOK);
        if matches!(old, FREE | DIRTY)
            && w.span.compare_exchange(old, SMALL, spans::TAKE, spans::LOOK).is_ok()
        {
            if old == DIRTY {
                w.dirty.fetch_sub(1, spans::DIRTY);
            }
            w.owned.store(1, Relaxed);
            w.data.store(7, Relaxed);
        }
    }

    fn trim(w: &Words) {
        let taken = w.span.load(spans::LOOK) == DIRTY
            && if w.stored {
                w.span.store(PUNCHING, Relaxed);
                true
            } else {
                w.span.compare_exchange(DIRTY, PUNCHING, spans::TAKE, spans::LOOK).is_ok()
            };
        if taken {
            let _ = w.dirty.fetch_update(spans::DIRTY, spans::DIRTY, |d| Some(d.saturating_sub(1)));
            w.data.store(0, Relaxed);
            w.span.store(FREE, spans::FREE);
        }
    }

    pub(super) fn has_one_user(stored: bool) -> bool {
        holds(move || {
            let word = AtomicU64::new;
            let w = Words { span: word(DIRTY), data: word(3), dirty: word(1), owned: word(0), stored };
            let w = Arc::new(w);
            together(&w, vec![claim, trim]);
            if w.owned.load(SeqCst) == 1 {
                assert_eq!((w.span.load(SeqCst), w.data.load(SeqCst)), (SMALL, 7), "somebody else was at it");
            }
            assert_eq!(w.dirty.load(SeqCst), u64::from(w.span.load(SeqCst) == DIRTY));
        })
    }
}

#[test]
fn a_span_has_one_user() {
    assert!(span::has_one_user(false));
    assert!(!span::has_one_user(true), "a store instead of an exchange goes unnoticed");
}

#[test]
fn who_is_alone_is_alone() {
    use alone::{Bug, is_alone};
    assert!(is_alone(Bug::None));
    for bug in [Bug::LookFirst, Bug::NoLocks] {
        assert!(!is_alone(bug), "{bug:?} goes unnoticed");
    }
}

#[test]
fn sleepers_are_woken() {
    use sleepers::{Bug, are_woken};
    assert!(are_woken(Bug::None));
    for bug in [Bug::NotedLate, Bug::NoFence, Bug::TakenBack] {
        assert!(!are_woken(bug), "{bug:?} goes unnoticed");
    }
}

#[test]
fn cleared_entries_never_return() {
    assert!(generations::never_return(false));
    assert!(!generations::never_return(true), "a check apart from the clear goes unnoticed");
}
