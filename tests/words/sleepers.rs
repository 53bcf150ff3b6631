//! `engine::lease`: no thread sleeps on a value that exists. The kernel compares the word as it
//! puts a waiter to sleep.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// The waiter is registered after it read the word.
    NotedLate,
    /// No fence between the two words.
    NoFence,
    /// The waker clears the registration, including that of a waiter that came in between.
    TakenBack,
}

struct Words {
    seq: AtomicU64,
    /// The latest value that a thread sleeps on, plus 1.
    waited: AtomicU64,
    value: AtomicU64,
    asleep: AtomicU64,
    woken: AtomicU64,
    bug: Bug,
}

fn between(w: &Words) {
    if w.bug != Bug::NoFence {
        fence(fillers::BETWEEN);
    }
}

fn note(w: &Words, seen: u64) {
    let _ =
        w.waited.fetch_update(fillers::WAIT, fillers::WAIT, |noted| (seen + 1 > noted).then_some(seen + 1));
    between(w);
}

fn waiter(w: &Words) {
    let seen = w.seq.load(Acquire);
    if w.value.load(Relaxed) != 0 {
        return;
    }
    if w.bug != Bug::NotedLate {
        note(w, seen);
    }
    // futex(FUTEX_WAIT).
    if w.seq.load(Relaxed) == seen {
        if w.bug == Bug::NotedLate {
            note(w, seen);
        }
        w.asleep.store(1, SeqCst);
    }
}

fn wake(w: &Words) {
    let ended = w.seq.fetch_add(1, fillers::SIGNAL);
    between(w);
    let waits = if w.bug == Bug::TakenBack {
        w.waited.swap(0, SeqCst) != 0 && w.asleep.load(SeqCst) != 0
    } else {
        w.waited.load(fillers::CHECK) == ended + 1
    };
    if waits {
        w.woken.store(1, SeqCst);
    }
}

pub(crate) fn are_woken(bug: Bug) -> bool {
    holds(move || {
        let word = || AtomicU64::new(0);
        let w = Words { seq: word(), waited: word(), value: word(), asleep: word(), woken: word(), bug };
        let w = Arc::new(w);
        let filler: fn(&Words) = |w| {
            w.value.store(7, Relaxed);
            wake(w);
        };
        // Another key's filler changes the same word.
        together(&w, vec![waiter, filler, wake]);
        assert!(w.asleep.load(SeqCst) <= w.woken.load(SeqCst), "a sleeper that is never woken");
    })
}
