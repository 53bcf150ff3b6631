//! Claiming spans: a next-fit search among those that were freed, then spans that were never used.
//!
//! ```text
//! 0 ........ SPAN_CURSOR ........ frontier ........ committed
//!   searched             to search         never used
//! ```
//! A round of the search goes from the lowest span that was freed since the last round began
//! (`SPAN_FREED`) to the frontier, some span words a claim. While nothing is freed there is no round:
//! a cache that grows looks at no span twice.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{
    kept_run,
    layout::header,
    order::spans,
    region::{Region, sync::*},
    span::{
        BODY, DIRTY, HEAD, HOLE, KEPT, LEAVING, SMALL, committed, dirty_minus, extent_word, free_spans,
        frontier, is_body_of, is_free, is_kept, meta, note_free, pack, place, run, state,
    },
};

/// How many span words a claim looks at before it takes fresh spans.
const SCAN: u64 = 1024;
/// `SPAN_FREED`: nothing was freed since the last round began.
const NOTHING: u64 = u64::MAX;

/// Claims the `n` spans of a large block where one was freed last: its memory is in the caches, and updates of values of
/// one size go on in as little memory as there is.
pub(super) fn claim_last(r: &Region, n: u64, shard_no: u64) -> Option<u64> {
    if let Some(at) = kept_run::claim(r, n, shard_no) {
        return Some(at);
    }
    let at = r.word(header::LAST_RUN).load(Relaxed).checked_sub(1)?;
    // Only a hint: the number may be wrong, and the spans may have an owner.
    let fits = at.checked_add(n)? <= frontier(r);
    let free = fits && is_free(meta(r, at, 0).load(Relaxed));
    (free && claim_at(r, at, n, shard_no, true).is_ok()).then_some(at)
}

/// Claims `n` neighbouring spans: those that the search comes to, then fresh ones, then any.
pub(super) fn claim(r: &Region, n: u64, shard_no: u64, large: bool) -> Option<u64> {
    search(r, n, shard_no, large).or_else(|| claim_fresh(r, n, shard_no, large)).or_else(|| {
        kept_run::free_kept(r, shard_no);
        claim_in(r, 0..committed(r), n, shard_no, large)
    })
}

/// Claims spans that were never used.
fn claim_fresh(r: &Region, n: u64, shard_no: u64, large: bool) -> Option<u64> {
    let front = frontier(r);
    let at = claim_in(r, front..committed(r), n, shard_no, large)?;
    // A search that has come to the end need not look at them.
    let _ = r.word(header::SPAN_CURSOR).compare_exchange(front, at + n, Relaxed, Relaxed);
    Some(at)
}

/// The search's next step. Others may take steps at the same time: of several from the same place one
/// moves the cursor.
fn search(r: &Region, n: u64, shard_no: u64, large: bool) -> Option<u64> {
    let (front, cursor) = (frontier(r), r.word(header::SPAN_CURSOR));
    let mut from = cursor.load(Relaxed);
    if from >= front {
        let freed = r.word(header::SPAN_FREED);
        if freed.load(Relaxed) == NOTHING {
            return None;
        }
        let lowest = freed.swap(NOTHING, spans::NOTE);
        if cursor.compare_exchange(from, lowest, Relaxed, Relaxed).is_err() {
            note_free(r, lowest);
            return None;
        }
        from = lowest;
    }
    let to = from.saturating_add(SCAN).min(front);
    let found = claim_in(r, from..to, n, shard_no, large);
    let next = found.map_or(to, |at| at + n);
    let _ = cursor.compare_exchange(from, next, Relaxed, Relaxed);
    found
}

/// Claims the first `n` neighbouring free spans that begin in `range`.
fn claim_in(r: &Region, range: Range<u64>, n: u64, shard_no: u64, large: bool) -> Option<u64> {
    let (mut at, limit) = (range.start, committed(r));
    while at < range.end && at + n <= limit {
        let word = meta(r, at, 0).load(spans::LOOK);
        if state(word) == KEPT {
            kept_run::break_up(r, at, shard_no);
            continue;
        }
        if !is_free(word) {
            at += taken(r, at, word);
            continue;
        }
        let free = (1..n).take_while(|i| is_free(meta(r, at + i, 0).load(spans::LOOK))).count() as u64 + 1;
        if free < n {
            // Too few, for this claim.
            note_free(r, at);
            at += free;
            continue;
        }
        match claim_at(r, at, n, shard_no, large) {
            Ok(()) => return Some(at),
            Err(taken) => at = taken + 1,
        }
    }
    None
}

/// How many spans from this one on, which is not free, need no look.
#[inline]
fn taken(r: &Region, at: u64, word: u64) -> u64 {
    match state(word) {
        // To the end of this extent.
        SMALL => {
            let (position, spans) = place(word);
            spans.saturating_sub(position).max(1)
        }
        // To the end of this block, if its last span says the same.
        HEAD => {
            let n = run(word);
            let is_inside = n > 1 && at + n <= committed(r);
            if is_inside && is_body_of(meta(r, at + n - 1, 0).load(spans::LOOK), at) { n } else { 1 }
        }
        _ => 1,
    }
}

/// Claims exactly the spans `[at, at + n)`, ascending; `Err` = the one that is taken.
fn claim_at(r: &Region, at: u64, n: u64, shard_no: u64, large: bool) -> Result<(), u64> {
    // Before the first claim: a rebuild after our death looks at the spans up to here.
    if at + n > frontier(r) {
        r.word(header::SPAN_FRONTIER).fetch_max(at + n, AcqRel);
    }
    let mut dirty = 0;
    for i in 0..n {
        let new = match i {
            _ if !large => extent_word(i, n, shard_no),
            0 => pack(HEAD, 0, shard_no, n),
            _ => pack(BODY, 0, shard_no, at),
        };
        let word = meta(r, at + i, 0);
        let old = word.load(spans::LOOK);
        if !is_free(old) || word.compare_exchange(old, new, spans::TAKE, spans::LOOK).is_err() {
            dirty_minus(r, dirty);
            free_spans(r, at, i);
            return Err(at + i);
        }
        dirty += u64::from(state(old) == DIRTY);
    }
    dirty_minus(r, dirty);
    Ok(())
}

/// The run of `n` spans in which the fewest are in use, and none of `keep`, found from some place
/// on; `None` = there are not so many.
pub(crate) fn cheapest_run(r: &Region, n: u64, from: u64, keep: Range<u64>) -> Option<u64> {
    let limit = committed(r);
    let places = limit.checked_sub(n)? + 1;
    let used = |span: u64| match meta(r, span, 0).load(Relaxed) {
        _ if keep.contains(&span) => limit,
        // Eviction does not help there.
        word if word == HOLE || state(word) == LEAVING => limit,
        word => u64::from(!is_free(word) && !is_kept(r, word)),
    };
    let begin = from % places;
    let (mut best, mut least) = (begin, u64::MAX);
    for (first, end) in [(begin, limit), (0, (begin + n).min(limit))] {
        let mut now = 0;
        for span in first..end {
            now += used(span);
            if span >= first + n {
                now -= used(span - n);
            }
            if span + 1 >= first + n && now < least {
                (best, least) = (span + 1 - n, now);
            }
        }
    }
    (least < limit).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::{
        layout::Geometry,
        span::{free_run, free_spans},
        testing::{self, SMALL},
    };

    /// A region with this many spans, all backed.
    fn region(spans: u64) -> Region {
        let r = testing::region(Geometry { spans, ..SMALL });
        r.word(header::COMMITTED).store(r.layout().end, Release);
        r.refresh_committed();
        r
    }

    #[test]
    fn a_heap_that_grows_looks_at_no_span_twice() {
        let r = region(10_000);
        for n in 0..9_000 {
            assert_eq!(claim(&r, 1, 0, false), Some(n));
        }
        // Where a step of the search would begin.
        r.word(header::SPAN_CURSOR).store(9_000, Relaxed);
        assert_eq!(search(&r, 1, 0, false), None);
        assert_eq!(r.word(header::SPAN_CURSOR).load(Relaxed), 9_000, "no round began");
        // One that is freed is used before fresh ones, and begins one round.
        free_spans(&r, 5_000, 1);
        assert_eq!(claim(&r, 1, 0, false), Some(5_000));
        let claimed: Vec<_> = (0..5).map(|_| claim(&r, 1, 0, false)).collect();
        assert_eq!(claimed, (9_000..9_005).map(Some).collect::<Vec<_>>());
        assert_eq!(r.word(header::SPAN_FREED).load(Relaxed), NOTHING);
    }

    #[test]
    fn every_span_is_claimed_once_and_found_again_when_freed() {
        let r = region(3_000);
        let mut all = Vec::new();
        for n in [16, 3, 1] {
            while let Some(at) = claim(&r, n, 0, false) {
                all.push((at, n));
            }
        }
        assert_eq!(all.iter().map(|(_, n)| n).sum::<u64>(), 3_000);
        // Every third one, in any order.
        let third =
            |keep: bool| all.iter().enumerate().filter(move |(i, _)| (i % 3 == 0) != keep).map(|(_, &at)| at);
        let (freed, kept): (Vec<_>, Vec<_>) = (third(false).collect(), third(true).collect());
        for &(at, n) in freed.iter().rev() {
            free_spans(&r, at, n);
        }
        let mut again = Vec::new();
        for n in [16, 3, 1] {
            while let Some(at) = claim(&r, n, 0, true) {
                again.push((at, n));
            }
        }
        let is_kept = |at: u64| kept.iter().any(|&(from, n)| (from..from + n).contains(&at));
        assert!(again.iter().all(|&(at, n)| (at..at + n).all(|at| !is_kept(at))));
        let spans = |of: &[(u64, u64)]| of.iter().map(|(_, n)| n).sum::<u64>();
        assert_eq!(spans(&again), spans(&freed));
    }

    #[test]
    fn what_is_too_small_for_one_is_left_for_the_next() {
        let r = region(100);
        for n in [4, 2, 4] {
            assert!(claim(&r, n, 0, true).is_some());
        }
        free_run(&r, 4, 2);
        r.word(header::LAST_RUN).store(0, Relaxed);
        assert_eq!(claim(&r, 3, 0, true), Some(10), "two spans are no place for three");
        assert_eq!(claim(&r, 2, 0, true), Some(4));
        // At the end of what was used, it goes on in what never was.
        free_run(&r, 10, 3);
        assert_eq!(claim(&r, 5, 0, true), Some(10));
        assert_eq!(frontier(&r), 15);
    }
}
