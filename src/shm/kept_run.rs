//! The large block that was freed last, in memory: kept in one piece for the next one of its size.
//!
//! Its first span's word becomes `KEPT` and those of its bodies stay, so that it is freed by one store
//! and claimed by one exchange of that word, however long it is. It belongs to no shard: the owner in
//! its bodies is the one that claimed their spans one by one.
//!
//! `LAST_RUN` leads to it. Whoever replaces that hint frees the spans of the run that it led to. One
//! whose hint was lost, by a death between both, is freed by the search that comes across it.
#![forbid(unsafe_code)]

use super::{
    layout::header,
    order::spans,
    region::{Region, sync::*},
    span::{HEAD, KEPT, free_run, frontier, is_body_of, meta, note_free, pack, run, state},
};

/// Most spans of a run that is kept: 4 MiB.
const MAX_KEPT: u64 = 1024;

/// Frees the `n` spans of a large block. The caller holds the owner's lock.
pub(super) fn free_or_keep(r: &Region, shard_no: u64, head: u64, n: u64) {
    // A store's file says for each span whose it is.
    let may_keep = r.file().is_none() && (2..=MAX_KEPT).contains(&n);
    if may_keep && (1..n).all(|i| is_body_of(meta(r, head + i, 0).load(spans::LOOK), head)) {
        meta(r, head, 0).store(pack(KEPT, 0, 0, n), spans::FREE);
    } else {
        free_run(r, head, n);
    }
    let before = r.word(header::LAST_RUN).swap(head + 1, Relaxed);
    if before != head + 1 {
        release(r, before, shard_no);
    }
}

/// Claims the kept run if it has `n` spans; frees its spans if it has not.
pub(super) fn claim(r: &Region, n: u64, shard_no: u64) -> Option<u64> {
    let (at, word) = at_hint(r, r.word(header::LAST_RUN).load(Relaxed))?;
    let is_mine = word == pack(KEPT, 0, 0, n) && take(r, (at, word), shard_no);
    if !is_mine {
        break_up(r, at, shard_no);
    }
    is_mine.then_some(at)
}

/// Frees the spans of the kept run, so that they can be claimed for anything and lose their pages.
/// The caller holds the shard's lock.
pub(crate) fn free_kept(r: &Region, shard_no: u64) {
    release(r, r.word(header::LAST_RUN).load(Relaxed), shard_no);
}

/// Makes `at` the first place where a large block is looked for. Without a lock: a run that was kept
/// is left to the search.
pub(crate) fn look_first_at(r: &Region, at: u64) {
    let before = r.word(header::LAST_RUN).swap(at + 1, Relaxed);
    if let Some((kept, _)) = at_hint(r, before) {
        note_free(r, kept);
    }
}

/// Frees the spans of the kept run that begins with `at`, if one does: its head becomes the shard's, whose
/// rebuild goes on with it after a death.
pub(super) fn break_up(r: &Region, at: u64, shard_no: u64) {
    let word = meta(r, at, 0).load(spans::LOOK);
    if state(word) == KEPT && take(r, (at, word), shard_no) {
        free_run(r, at, run(word));
    }
}

/// Makes the head of a kept run, if its word is still this one, that of a block of the shard.
fn take(r: &Region, (at, word): (u64, u64), shard_no: u64) -> bool {
    let owned = pack(HEAD, 0, shard_no, run(word));
    meta(r, at, 0).compare_exchange(word, owned, spans::TAKE, spans::LOOK).is_ok()
}

fn release(r: &Region, hint: u64, shard_no: u64) {
    if let Some((at, _)) = at_hint(r, hint) {
        break_up(r, at, shard_no);
    }
}

/// The kept run to which a value of the hint leads, and its word.
fn at_hint(r: &Region, hint: u64) -> Option<(u64, u64)> {
    // The number may be wrong.
    let at = hint.checked_sub(1).filter(|&at| at < frontier(r))?;
    let word = meta(r, at, 0).load(spans::LOOK);
    (state(word) == KEPT).then_some((at, word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::{
        layout::Geometry,
        span::{self, BODY, DIRTY, dirty, in_use},
        span_claim,
        testing::{self, SMALL},
    };

    /// A region with this many spans, all backed, and `blocks` large blocks of `n` spans.
    fn region(spans: u64, (blocks, n): (u64, u64)) -> Region {
        let r = testing::region(Geometry { spans, ..SMALL });
        r.word(header::COMMITTED).store(r.layout().end, Release);
        r.refresh_committed();
        (0..blocks).for_each(|i| assert_eq!(span_claim::claim(&r, n, 0, true), Some(i * n)));
        r
    }

    fn word(r: &Region, span: u64) -> u64 {
        meta(r, span, 0).load(Relaxed)
    }

    #[test]
    fn the_next_block_of_its_size_takes_the_run_whole() {
        let r = region(100, (3, 8));
        free_or_keep(&r, 0, 8, 8);
        assert_eq!((in_use(&r), dirty(&r), word(&r, 8)), (16, 0, pack(KEPT, 0, 0, 8)));
        assert_eq!(span_claim::claim_last(&r, 8, 1), Some(8));
        assert_eq!((in_use(&r), word(&r, 8)), (24, pack(HEAD, 0, 1, 8)));
        assert_eq!(span_claim::claim_last(&r, 8, 1), None, "it was taken");
        // The bodies name the shard that claimed them, and the head whose they are.
        assert!((9..16).all(|span| word(&r, span) == pack(BODY, 0, 0, 8)));
    }

    #[test]
    fn one_run_is_kept_at_a_time() {
        let r = region(100, (3, 8));
        for head in [0, 16, 8] {
            free_or_keep(&r, 0, head, 8);
        }
        assert_eq!((dirty(&r), in_use(&r)), (16, 0));
        assert!((0..8).chain(16..24).all(|span| word(&r, span) == DIRTY));
        free_kept(&r, 3);
        assert_eq!((dirty(&r), in_use(&r)), (24, 0));
    }

    #[test]
    fn a_block_of_another_size_takes_the_place() {
        let r = region(100, (3, 8));
        free_or_keep(&r, 0, 8, 8);
        assert_eq!(span_claim::claim_last(&r, 5, 2), Some(8));
        assert_eq!((dirty(&r), in_use(&r)), (3, 21));
        free_or_keep(&r, 2, 8, 5);
        assert_eq!(span_claim::claim_last(&r, 9, 2), None, "it has five spans");
        assert_eq!((dirty(&r), in_use(&r)), (8, 16));
    }

    #[test]
    fn who_finds_nothing_else_breaks_it_up() {
        for (n, large) in [(2, false), (3, true)] {
            let r = region(24, (3, 8));
            free_or_keep(&r, 0, 8, 8);
            let found: Vec<_> = std::iter::from_fn(|| span_claim::claim(&r, n, 1, large)).collect();
            assert_eq!(found, (8..=16 - n).step_by(n as usize).collect::<Vec<_>>());
        }
    }

    /// A death between the word and the hint, or a wrong hint.
    #[test]
    fn a_run_without_a_hint_is_found() {
        for hint in [0, 1, 3, 25, u64::MAX] {
            let r = region(24, (3, 8));
            free_or_keep(&r, 0, 8, 8);
            r.word(header::LAST_RUN).store(hint, Relaxed);
            assert_eq!(span_claim::claim_last(&r, 8, 1), None);
            free_kept(&r, 1);
            assert_eq!(span_claim::claim(&r, 8, 1, true), Some(8), "{hint}");
        }
        let r = region(24, (3, 8));
        free_or_keep(&r, 0, 8, 8);
        look_first_at(&r, 0);
        r.word(header::SPAN_CURSOR).store(24, Relaxed);
        assert_eq!(span_claim::claim(&r, 1, 1, false), Some(8), "the search was told");
    }

    #[test]
    fn what_is_not_whole_or_too_long_is_freed_span_by_span() {
        let r = region(100, (3, 8));
        meta(&r, 12, 0).store(pack(BODY, 0, 0, 3), Relaxed);
        free_or_keep(&r, 0, 8, 8);
        assert_eq!((dirty(&r), word(&r, 12)), (7, pack(BODY, 0, 0, 3)), "another block's body");
        let long = MAX_KEPT + 1;
        let r = region(2 * long, (1, long));
        free_or_keep(&r, 0, 0, long);
        assert_eq!((dirty(&r), span::in_use(&r)), (long, 0));
    }
}
