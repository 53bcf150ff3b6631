//! Loom models of words that several processes change without a common lock, each by "load, then
//! compare-and-swap". loom tries every order of threads, and every value that a load may return
//! under the language's memory model.
//!
//! Each model has the steps of the engine's code with the engine's own orderings (`shm::order`), on
//! a small scale, and an invariant to hold at the end. Each can be run with a bug: then loom must
//! find a run that violates the invariant.

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
use ucache::shm::order::{clear, earliest, exclusive, fillers, quota, spans};

mod alone;
mod generations;
mod numbers;
mod quotas;
mod sleepers;

/// Runs `body` in all orders; returns whether the invariant always held.
fn holds(body: impl Fn() + Sync + Send + 'static) -> bool {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.check(body))).is_ok()
}

/// Runs the threads and waits for all of them.
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

/// Takes a span whose word is `from`; the bug: with a store instead of an exchange.
fn take(word: &AtomicU64, (from, to): (u64, u64), stored: bool) -> bool {
    word.load(spans::LOOK) == from
        && if stored {
            word.store(to, Relaxed);
            true
        } else {
            word.compare_exchange(from, to, spans::TAKE, spans::LOOK).is_ok()
        }
}

/// `engine::shard::expiry`: `note_expiry` and `note_earliest` beside `note_swept`.
mod expiry {
    use super::*;

    const TICKET: u64 = 1 << 63;
    const NEVER: u64 = u64::MAX;
    const SOON: u64 = 100;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Bug {
        None,
        /// The writer ignores a failed exchange.
        LostExchange,
        /// No fence between the two words.
        NoFence,
        /// Two sweepers share one ticket.
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
            // A failed exchange needs one sweeper; a shared ticket needs two.
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

#[test]
fn a_quota_is_exact() {
    use quotas::{Bug, find_what_is_lost, keep_the_limit, strand_nothing};
    assert!(keep_the_limit(Bug::None) && strand_nothing(Bug::None) && find_what_is_lost(Bug::None));
    assert!(!keep_the_limit(Bug::Torn), "a store instead of an exchange goes unnoticed");
    for bug in [Bug::NotedEarly, Bug::LooksOnce] {
        assert!(!strand_nothing(bug), "{bug:?} goes unnoticed");
    }
    for bug in [Bug::NoMark, Bug::MarksSeenOnce] {
        assert!(!find_what_is_lost(bug), "{bug:?} goes unnoticed");
    }
}

/// `shm::span`: a free span with pages goes either to a claimer or to a thread that releases its
/// pages.
mod span {
    use super::*;

    const FREE: u64 = 0;
    const DIRTY: u64 = 1;
    const SMALL: u64 = 2;
    const PUNCHING: u64 = 5;

    struct Words {
        span: AtomicU64,
        /// Content of the span: the owner's data, or zeros after its pages were released.
        data: AtomicU64,
        dirty: AtomicU64,
        owned: AtomicU64,
        /// The bug: the mark is stored without an exchange.
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
        if take(&w.span, (DIRTY, PUNCHING), w.stored) {
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
                assert_eq!(
                    (w.span.load(SeqCst), w.data.load(SeqCst)),
                    (SMALL, 7),
                    "another thread used the span"
                );
            }
            assert_eq!(w.dirty.load(SeqCst), u64::from(w.span.load(SeqCst) == DIRTY));
        })
    }
}

/// `shm::kept_run`: the run goes either to the next block of its size, or span by span to others.
mod kept_run {
    use super::*;

    const DIRTY: u64 = 1;
    const SMALL: u64 = 2;
    const HEAD: u64 = 3;
    const BODY: u64 = 4;
    const KEPT: u64 = 8;

    struct Words {
        head: AtomicU64,
        body: AtomicU64,
        /// Content of the second span.
        data: AtomicU64,
        /// Who owns it: the block, or somebody else.
        block: AtomicU64,
        other: AtomicU64,
        /// The bug: the run is broken up without an exchange.
        stored: bool,
    }

    /// `claim`, and the block's first write.
    fn claim(w: &Words) {
        if take(&w.head, (KEPT, HEAD), false) {
            assert_eq!(w.body.load(Relaxed), BODY);
            w.block.store(1, Relaxed);
            w.data.store(7, Relaxed);
        }
    }

    /// `break_up`, which frees the bodies before the head, and a claim of the body.
    fn take_apart(w: &Words) {
        if take(&w.head, (KEPT, HEAD), w.stored) {
            w.body.store(DIRTY, spans::FREE);
            w.head.store(DIRTY, spans::FREE);
            if w.body.compare_exchange(DIRTY, SMALL, spans::TAKE, spans::LOOK).is_ok() {
                w.other.store(1, Relaxed);
                w.data.store(9, Relaxed);
            }
        }
    }

    pub(super) fn has_one_user(stored: bool) -> bool {
        holds(move || {
            let word = AtomicU64::new;
            let (head, body, data) = (word(KEPT), word(BODY), word(3));
            let w = Arc::new(Words { head, body, data, block: word(0), other: word(0), stored });
            together(&w, vec![claim, take_apart]);
            let (block, other) = (w.block.load(SeqCst), w.other.load(SeqCst));
            assert_eq!(block + other, 1, "nobody or both have the span");
            let expected = if block == 1 { (HEAD, BODY, 7) } else { (DIRTY, SMALL, 9) };
            assert_eq!((w.head.load(SeqCst), w.body.load(SeqCst), w.data.load(SeqCst)), expected);
        })
    }
}

#[test]
fn a_kept_run_has_one_user() {
    assert!(kept_run::has_one_user(false));
    assert!(!kept_run::has_one_user(true), "a store instead of an exchange goes unnoticed");
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

#[test]
fn a_number_loses_no_change() {
    use numbers::{Bug, are_still, lose_nothing};
    assert!(lose_nothing(Bug::None) && are_still(Bug::None));
    for bug in [Bug::CopiedFirst, Bug::NoEnd, Bug::SameLife, Bug::NoRecheck] {
        assert!(!lose_nothing(bug), "{bug:?} goes unnoticed");
    }
    assert!(!are_still(Bug::Alive), "a change beside an exclusive owner goes unnoticed");
}
