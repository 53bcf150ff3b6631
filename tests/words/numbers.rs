//! `engine::{index::numbers, ops::math, reclaim::compact}`: a number changes without the shard's
//! lock while its life lasts. A writer ends the life before it reads the value or gives up the
//! memory.
//!
//! The two words of a number are two halves of one word here: the engine's exchange is of both. A
//! store of one half is an exchange here.

use super::*;
use ucache::shm::order::{number, seqlock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// The value is copied before the life ends.
    CopiedFirst,
    /// The life does not end at all.
    NoEnd,
    /// The next number at the same place has the same life.
    SameLife,
    /// The life may be that of the next number at the same place: the sequence is not checked.
    NoRecheck,
    /// The exclusive owner leaves the numbers their lives.
    Alive,
}

const HALF: u32 = 32;
const LIFE: u64 = 7;
const START: u64 = 5;

struct Words {
    /// The two places where a number may lie.
    pairs: [AtomicU64; 2],
    /// Place + 1.
    slot: AtomicU64,
    seq: AtomicU64,
    shard: Mutex<()>,
    exclusive: AtomicU64,
    changes: AtomicU64,
    bug: Bug,
}

fn words(bug: Bug) -> Words {
    let word = AtomicU64::new;
    Words {
        pairs: [word(LIFE << HALF | START), word(0)],
        slot: word(1),
        seq: word(0),
        shard: Mutex::new(()),
        exclusive: word(0),
        changes: word(0),
        bug,
    }
}

fn value(pair: &AtomicU64) -> u64 {
    pair.load(number::VALUE) & ((1 << HALF) - 1)
}

fn end(pair: &AtomicU64, order: std::sync::atomic::Ordering) {
    pair.fetch_and((1 << HALF) - 1, order);
}

fn unlocked(w: &Words) -> bool {
    let v = w.seq.load(seqlock::BEGIN);
    let at = w.slot.load(seqlock::FOLLOW) as usize - 1;
    let life = w.pairs[at].load(number::LIFE) >> HALF;
    fence(seqlock::RECHECK);
    if life == 0 || w.bug != Bug::NoRecheck && w.seq.load(Relaxed) != v {
        return false;
    }
    let mut seen = life << HALF | value(&w.pairs[at]);
    loop {
        match w.pairs[at].compare_exchange(seen, seen + 1, number::CHANGE, Relaxed) {
            Ok(_) => return true,
            Err(other) if other >> HALF != life => return false,
            Err(other) => seen = other,
        }
    }
}

fn change(w: &Words) {
    if unlocked(w) {
        w.changes.fetch_add(1, Relaxed);
        return;
    }
    let _shard = w.shard.lock().expect("the shard");
    if w.exclusive.load(exclusive::CHECK) != 0 {
        return;
    }
    let pair = &w.pairs[w.slot.load(Relaxed) as usize - 1];
    end(pair, number::FREEZE);
    pair.store((LIFE + 10) << HALF | (value(pair) + 1), number::RESTART);
    w.changes.fetch_add(1, Relaxed);
}

/// The number moves, and another one takes its place: with the same value, if nothing else tells
/// them apart.
fn relocate(w: &Words) {
    let _shard = w.shard.lock().expect("the shard");
    let early = value(&w.pairs[0]);
    if w.bug != Bug::NoEnd {
        end(&w.pairs[0], number::FREEZE);
    }
    let copied = if w.bug == Bug::CopiedFirst { early } else { value(&w.pairs[0]) };
    w.pairs[1].store((LIFE + 1) << HALF | copied, Relaxed);
    w.slot.store(2, seqlock::PUBLISH);
    w.seq.store(1, seqlock::BUMP);
    fence(seqlock::RETIRE);
    let next = if w.bug == Bug::SameLife { LIFE } else { LIFE + 2 };
    w.pairs[0].store(next << HALF | START, Relaxed);
}

pub(crate) fn lose_nothing(bug: Bug) -> bool {
    holds(move || {
        let w = Arc::new(words(bug));
        together(&w, vec![change, relocate]);
        let changes = w.changes.load(SeqCst);
        assert_eq!((changes, value(&w.pairs[1])), (1, START + 1), "a change was lost");
        assert_eq!(value(&w.pairs[0]), START, "another number was changed");
    })
}

/// Twice the same value, as nobody else writes.
fn alone(w: &Words) {
    w.exclusive.store(1, exclusive::ANNOUNCE);
    {
        let _shard = w.shard.lock().expect("the shard");
        if w.bug != Bug::Alive {
            end(&w.pairs[0], number::FREEZE);
        }
    }
    let first = value(&w.pairs[0]);
    assert_eq!(value(&w.pairs[0]), first, "a change while another process is exclusive");
    w.exclusive.store(0, exclusive::ANNOUNCE);
}

pub(crate) fn are_still(bug: Bug) -> bool {
    holds(move || {
        let w = Arc::new(words(bug));
        together(&w, vec![change, alone]);
    })
}
