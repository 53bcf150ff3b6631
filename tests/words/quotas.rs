//! `engine::quota::limit`: what shards have reserved and use of a limit, taken by others without a
//! lock, and found again after a death.

use loom::sync::atomic::AtomicU64;

use super::*;

const LIMIT: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// A load and a store instead of an exchange.
    Torn,
    /// A release notes that there is something to spare before there is.
    NotedEarly,
    /// A writer that found nothing clears the hint and does not look again.
    LooksOnce,
    /// A move is not marked.
    NoMark,
    /// The marks are looked at before the count only.
    MarksSeenOnce,
}

struct Words {
    shards: [AtomicU64; 2],
    moves: [AtomicU64; 2],
    hint: AtomicU64,
    bug: Bug,
}

impl Words {
    /// `words`: reserved and used of each shard.
    fn new(words: [(u64, u64); 2], bug: Bug) -> Arc<Self> {
        let moves = [AtomicU64::new(0), AtomicU64::new(0)];
        let shards = words.map(|(reserved, used)| AtomicU64::new(reserved << 32 | used));
        Arc::new(Self { shards, moves, hint: AtomicU64::new(1), bug })
    }

    /// Reserved and used together, when all threads have ended.
    fn sums(&self) -> (u64, u64) {
        let words = self.shards.each_ref().map(|word| word.load(SeqCst));
        assert!(words.iter().all(|w| w >> 32 >= w & 0xFFFF_FFFF), "{words:x?}");
        (words.iter().map(|w| w >> 32).sum(), words.iter().map(|w| w & 0xFFFF_FFFF).sum())
    }
}

/// loom takes an access with `SeqCst` for one with `AcqRel`: a fence stands for the order that the
/// engine's accesses have.
fn one_order() {
    assert!([quota::CHANGE, quota::LOOK, quota::HINT].iter().all(|order| *order == SeqCst));
    fence(SeqCst);
}

fn spare(w: u64) -> u64 {
    (w >> 32).saturating_sub(w & 0xFFFF_FFFF)
}

fn change(w: &Words, shard: usize, f: impl Fn(u64) -> Option<u64>) -> bool {
    let word = &w.shards[shard];
    if w.bug == Bug::Torn {
        let new = f(word.load(quota::READ));
        new.inspect(|new| word.store(*new, quota::CHANGE)).is_some()
    } else {
        word.fetch_update(quota::CHANGE, quota::READ, f).is_ok()
    }
}

fn acquire(w: &Words, shard: usize) -> bool {
    change(w, shard, |word| (spare(word) > 0).then(|| word + 1))
}

fn is_spare(w: &Words) -> bool {
    w.shards.iter().any(|word| spare(word.load(quota::LOOK)) > 0)
}

/// One more for a shard.
fn take(w: &Words, shard: usize) -> bool {
    if acquire(w, shard) {
        return true;
    }
    if !is_spare(w) {
        w.hint.store(0, quota::HINT);
        one_order();
        if w.bug == Bug::LooksOnce || !is_spare(w) {
            return false;
        }
        w.hint.store(1, quota::HINT);
    }
    let (moves, marks) = (&w.moves[shard], w.bug != Bug::NoMark);
    if marks {
        moves.store(1, quota::BEGIN);
    }
    let got = change(w, 1 - shard, |word| (spare(word) > 0).then(|| word - (1 << 32)));
    if got {
        change(w, shard, |word| Some(word + (1 << 32)));
    }
    if marks {
        moves.store(2, quota::END);
    }
    got && acquire(w, shard)
}

fn release(w: &Words, shard: usize) {
    let note = || {
        if w.hint.load(quota::HINT) == 0 {
            w.hint.store(1, quota::HINT);
        }
    };
    if w.bug == Bug::NotedEarly {
        note();
    }
    change(w, shard, |word| Some(word - 1));
    one_order();
    if w.bug != Bug::NotedEarly {
        note();
    }
}

fn settle(w: &Words) {
    let before = w.moves.each_ref().map(|moves| moves.load(quota::BEFORE));
    if before.iter().any(|moves| moves & 1 != 0) {
        return;
    }
    let reserved: u64 = w.shards.iter().map(|word| word.load(quota::LOOK) >> 32).sum();
    fence(quota::AGAIN);
    if w.bug == Bug::MarksSeenOnce || w.moves.each_ref().map(|moves| moves.load(Relaxed)) == before {
        change(w, 0, |word| Some(word + (LIMIT.saturating_sub(reserved) << 32)));
    }
}

/// Two shards take what one has reserved.
pub(super) fn keep_the_limit(bug: Bug) -> bool {
    holds(move || {
        let w = Words::new([(2, 0), (1, 1)], bug);
        together(&w, vec![|w| _ = take(w, 0), |w| _ = take(w, 1)]);
        let (reserved, used) = w.sums();
        assert!(reserved == LIMIT && used <= LIMIT, "{reserved} reserved, {used} used");
    })
}

/// One shard releases while the other looks for something.
pub(super) fn strand_nothing(bug: Bug) -> bool {
    holds(move || {
        let w = Words::new([(1, 1), (2, 2)], bug);
        together(&w, vec![|w| release(w, 0), |w| _ = take(w, 1)]);
        assert!(w.hint.load(SeqCst) == 1 || !is_spare(&w), "there is something to spare, and nobody looks");
    })
}

/// One was lost by a death; it is found again while another one moves.
pub(super) fn find_what_is_lost(bug: Bug) -> bool {
    holds(move || {
        let w = Words::new([(1, 0), (1, 1)], bug);
        together(&w, vec![settle, |w| _ = take(w, 1)]);
        assert!(w.sums().0 <= LIMIT, "more than the limit");
        // With nobody else there.
        settle(&w);
        assert_eq!(w.sums().0, LIMIT);
    })
}
