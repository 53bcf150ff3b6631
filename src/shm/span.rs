//! Spans: who owns which 4 KiB of the data area.
//!
//! ```text
//! word 0 of a span   state 8 | class 8 | shard 16 | run 32
//!   FREE -> (CAS) SMALL: part of an extent          class = place in it 4 | spans of it - 1 4
//!                                                   run = a code of the rest, against a flipped bit on disk
//!                 HEAD:  first span of a large block run = spans of the block
//!                 BODY:  the others                 run = number of the head
//!   SMALL -> LEAVING: part of an extent that is being emptied, else as SMALL
//!   owned -> DIRTY: free, with its pages
//!   DIRTY -> (pool lock) PUNCHING -> FREE in memory, HOLE in a store's file
//!   HOLE -> (pool lock, blocks on disk) FREE
//! word 1             of an extent's first span: see `tidy`
//! ```
#![forbid(unsafe_code)]

use std::ops::Range;

use super::{
    layout::{SPAN, SPAN_META, header},
    order::spans,
    region::{Region, sync::*},
};
use crate::error::Result;

pub(super) const FREE: u64 = 0;
pub(super) const DIRTY: u64 = 1;
pub(super) const SMALL: u64 = 2;
pub(super) const HEAD: u64 = 3;
pub(super) const BODY: u64 = 4;
pub(super) const PUNCHING: u64 = 5;
pub(super) const LEAVING: u64 = 6;
/// Without blocks on disk: nobody may write there.
pub(super) const HOLE: u64 = 7;

/// Most spans of an extent.
pub(super) const EXTENT_SPANS: u64 = 16;

/// How many span words a claim looks at behind the cursor before it takes fresh spans.
const SCAN: u64 = 1024;

#[inline]
pub(super) fn meta(r: &Region, span: u64, word: u64) -> &AtomicU64 {
    r.word(r.layout().span_table + span * SPAN_META + word * 8)
}

#[inline]
fn pack(state: u64, class: u64, owner: u64, run: u64) -> u64 {
    state | class << 8 | owner << 16 | run << 32
}

/// The word of a span of an extent. Two of them differ in at least four bits: a flipped bit can
/// be corrected, and does not cost all the items of a span.
fn coded(state: u64, class: u64, owner: u64) -> u64 {
    let low = pack(state, class, owner, 0) as u32;
    u64::from(low) | u64::from(low ^ low.rotate_left(5) ^ low.rotate_left(13) ^ 0xA5A5_A5A5) << 32
}

pub(super) fn state(word: u64) -> u64 {
    word & 0xFF
}

fn class(word: u64) -> u64 {
    word >> 8 & 0xFF
}

/// Of a span of an extent: its place there, and the extent's spans.
#[inline(always)]
pub(super) fn place(word: u64) -> (u64, u64) {
    (class(word) >> 4, (class(word) & 15) + 1)
}

/// Whether a span is part of an extent of the shard that gives blocks: both fields at once.
#[inline(always)]
pub(super) fn is_small_of(word: u64, shard_no: u64) -> bool {
    const STATE_AND_OWNER: u64 = 0xFFFF_00FF;
    (word ^ (shard_no << 16 | SMALL)) & STATE_AND_OWNER == 0
}

/// The word of a span of an extent.
pub(super) fn extent_word(pos: u64, n: u64, owner: u64) -> u64 {
    coded(SMALL, pos << 4 | (n - 1), owner)
}

/// The word of a span of an extent that is being emptied.
pub(super) fn leaving_word(pos: u64, n: u64, owner: u64) -> u64 {
    coded(LEAVING, pos << 4 | (n - 1), owner)
}

/// Whether a span is the `i`-th of a shard's extent of `n` spans from `first` on. A death can leave
/// only some of them marked as being emptied.
pub(super) fn is_part(r: &Region, shard_no: u64, (first, n): (u64, u64), i: u64) -> bool {
    let word = meta(r, first + i, 0).load(Acquire);
    word == extent_word(i, n, shard_no) || word == leaving_word(i, n, shard_no)
}

pub(super) fn owner(word: u64) -> u64 {
    word >> 16 & 0xFFFF
}

pub(super) fn run(word: u64) -> u64 {
    word >> 32
}

#[inline]
pub(super) fn start(r: &Region, span: u64) -> u64 {
    r.layout().data + span * SPAN
}

/// Spans that are backed by memory or disk.
fn committed(r: &Region) -> u64 {
    let bytes = r.word(header::COMMITTED).load(Acquire).saturating_sub(r.layout().data);
    (bytes / SPAN).min(r.layout().geo.spans)
}

/// Spans that were ever in use.
pub(crate) fn frontier(r: &Region) -> u64 {
    // Not beyond what is backed, whatever a damaged store says.
    r.word(header::SPAN_FRONTIER).load(Acquire).min(committed(r))
}

/// Frees a run from its end, the head last; bodies that have another owner by now are left alone. The
/// caller holds the owner's lock: nobody else changes a body.
pub(super) fn free_run(r: &Region, shard_no: u64, head: u64, n: u64) {
    let end = (head + n).min(r.layout().geo.spans);
    let mut freed = 1;
    for i in (head + 1..end).rev() {
        let word = meta(r, i, 0);
        if word.load(spans::LOOK) == pack(BODY, 0, shard_no, head) {
            word.store(DIRTY, spans::FREE);
            freed += 1;
        }
    }
    meta(r, head, 0).store(DIRTY, spans::FREE);
    dirty_plus(r, freed);
    r.word(header::LAST_RUN).store(head + 1, Relaxed);
}

/// Frees the spans of an extent from its end.
pub(super) fn free_extent(r: &Region, head: u64, n: u64) {
    for i in (head..head + n).rev() {
        meta(r, i, 0).store(DIRTY, spans::FREE);
    }
    dirty_plus(r, n);
}

/// Claims the `n` spans of a large block where one was freed last: its memory is in the caches, and updates of values of
/// one size go on in as little memory as there is.
pub(super) fn claim_last(r: &Region, n: u64, shard_no: u64) -> Option<u64> {
    let at = r.word(header::LAST_RUN).load(Relaxed).checked_sub(1)?;
    // Only a hint: the number may be wrong, and the spans may have an owner.
    let fits = at.checked_add(n)? <= frontier(r);
    let free = fits && matches!(state(meta(r, at, 0).load(Relaxed)), FREE | DIRTY);
    (free && claim_at(r, at, n, shard_no, true).is_ok()).then_some(at)
}

/// Claims `n` neighbouring spans: behind the cursor first, then fresh ones, then anywhere.
pub(super) fn claim(r: &Region, n: u64, shard_no: u64, large: bool) -> Option<u64> {
    let front = frontier(r);
    let cursor = r.word(header::SPAN_CURSOR).load(Relaxed).min(front);
    let limit = committed(r);
    let found = claim_in(r, cursor, (cursor + SCAN.max(n)).min(front), n, shard_no, large)
        .or_else(|| claim_in(r, front, limit, n, shard_no, large))
        .or_else(|| claim_in(r, 0, limit, n, shard_no, large))?;
    let next = if found + n >= front { 0 } else { found + n };
    r.word(header::SPAN_CURSOR).store(next, Relaxed);
    Some(found)
}

/// The first run of `n` free spans in `[from, to)`.
fn claim_in(r: &Region, from: u64, to: u64, n: u64, shard_no: u64, large: bool) -> Option<u64> {
    let mut at = from;
    while at + n <= to {
        let word = meta(r, at, 0).load(spans::LOOK);
        if state(word) == SMALL {
            // To the end of this extent.
            let (position, spans) = place(word);
            at += spans.saturating_sub(position).max(1);
            continue;
        }
        match claim_at(r, at, n, shard_no, large) {
            Ok(()) => return Some(at),
            Err(taken) => at = taken + 1,
        }
    }
    // Nothing here: the next search starts behind it.
    r.word(header::SPAN_CURSOR).store(if to >= frontier(r) { 0 } else { to }, Relaxed);
    None
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
        let free = matches!(state(old), FREE | DIRTY);
        if !free || word.compare_exchange(old, new, spans::TAKE, spans::LOOK).is_err() {
            for j in (0..i).rev() {
                meta(r, at + j, 0).store(DIRTY, spans::FREE);
            }
            dirty_plus(r, i - dirty);
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
        word => u64::from(!matches!(state(word), FREE | DIRTY)),
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

pub(super) fn dirty_plus(r: &Region, n: u64) {
    r.word(header::SPAN_DIRTY).fetch_add(n, spans::DIRTY);
}

fn dirty_minus(r: &Region, n: u64) {
    if n == 0 {
        return;
    }
    // Only a hint: it must not wrap when it was lost in a crash.
    let _ =
        r.word(header::SPAN_DIRTY).fetch_update(spans::DIRTY, spans::DIRTY, |d| Some(d.saturating_sub(n)));
}

/// Spans that are free but still have pages.
pub(crate) fn dirty(r: &Region) -> u64 {
    r.header_word::<{ header::SPAN_DIRTY }>().load(Relaxed)
}

/// Releases the pages of up to `most` neighbouring free spans, continuing behind the last ones. The
/// caller holds the pool lock; `false` = there are none, or the kernel declines.
pub(crate) fn release_pages(r: &Region, most: u64) -> bool {
    let front = frontier(r);
    let cursor = r.word(header::RELEASE_CURSOR);
    let from = cursor.load(Relaxed).min(front);
    let begins = |&at: &u64| take_to_punch(r, at);
    let Some(at) = (from..front).chain(0..from).find(begins) else { return false };
    let n = (1..most.min(front - at)).find(|i| !take_to_punch(r, at + i)).unwrap_or(most.min(front - at));
    // First, so that others do not come to give the same ones back.
    dirty_minus(r, n);
    let gone = r.punch_hole(start(r, at), n * SPAN);
    let state = match gone {
        false => DIRTY,
        true if r.file().is_some() => HOLE,
        true => FREE,
    };
    for i in at..at + n {
        meta(r, i, 0).store(state, spans::FREE);
    }
    if !gone {
        dirty_plus(r, n);
    } else if state == HOLE {
        r.word(header::SPAN_HOLES).fetch_add(n, Relaxed);
    }
    cursor.store(at + n, Relaxed);
    gone
}

/// Spans of a store without blocks on disk.
pub(crate) fn holes(r: &Region) -> u64 {
    r.word(header::SPAN_HOLES).load(Relaxed)
}

/// Gives spans without blocks on disk, in runs of `least` or more, their blocks again, with `back`,
/// until there are `ample`. The caller holds the pool lock. Returns how many.
pub(crate) fn fill_holes(r: &Region, least: u64, ample: u64, mut back: impl FnMut(u64, u64) -> bool) -> u64 {
    let (front, mut filled, mut at) = (frontier(r), 0, 0);
    while at < front && filled < ample {
        let most = ample.max(least).min(front - at);
        let n = (0..most).take_while(|i| meta(r, at + i, 0).load(Acquire) == HOLE).count() as u64;
        if n >= least && n > 0 {
            if !back(start(r, at), start(r, at + n)) {
                break;
            }
            (at..at + n).for_each(|i| meta(r, i, 0).store(FREE, spans::FREE));
            filled += n;
        }
        at += n.max(1);
    }
    let holes = r.word(header::SPAN_HOLES);
    holes.store(holes.load(Relaxed).saturating_sub(filled), Relaxed);
    filled
}

/// Leaves free spans that were not used since they got their blocks on disk, beyond `keep` of them, to
/// [`release_pages`]: the last ones.
pub(crate) fn release_unused(r: &Region, keep: u64) {
    let end = committed(r);
    let is_free = |&i: &u64| meta(r, i, 0).load(spans::LOOK) == FREE;
    let more = ((0..end).filter(is_free).count() as u64).saturating_sub(keep);
    for i in (0..end).rev().filter(is_free).take(more as usize) {
        // Only spans before the frontier are looked at later.
        r.word(header::SPAN_FRONTIER).fetch_max(i + 1, AcqRel);
        if meta(r, i, 0).compare_exchange(FREE, DIRTY, spans::FREE, spans::LOOK).is_ok() {
            dirty_plus(r, 1);
        }
    }
}

/// The first opener of a store: calls `f` with each piece of the data area that needs blocks on
/// disk.
pub(crate) fn each_backed(r: &Region, mut f: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let (end, mut from) = (committed(r), 0);
    for i in 0..=end {
        if i == end || meta(r, i, 0).load(Relaxed) == HOLE {
            if from < i {
                f(start(r, from), start(r, i))?;
            }
            from = i + 1;
        }
    }
    Ok(())
}

/// Reserves a free span with pages, until its pages are released.
fn take_to_punch(r: &Region, span: u64) -> bool {
    let word = meta(r, span, 0);
    word.load(spans::LOOK) == DIRTY
        && word.compare_exchange(DIRTY, PUNCHING, spans::TAKE, spans::LOOK).is_ok()
}

/// After a death under the pool's lock: no span is being released any more.
pub(crate) fn recover_pool(r: &Region) {
    let (mut dirty, mut holes) = (0, 0);
    for i in 0..frontier(r) {
        let word = meta(r, i, 0);
        if state(word.load(Relaxed)) == PUNCHING {
            // Of a file the blocks may be gone.
            word.store(if r.file().is_some() { HOLE } else { DIRTY }, Release);
        }
        dirty += u64::from(word.load(Relaxed) == DIRTY);
        holes += u64::from(word.load(Relaxed) == HOLE);
    }
    r.word(header::SPAN_DIRTY).store(dirty, Relaxed);
    r.word(header::SPAN_HOLES).store(holes, Relaxed);
}

/// The first opener of a store: corrects flipped bits in the words of small-block spans.
pub(crate) fn mend(r: &Region) {
    let end = committed(r);
    let whole = |w: u64| {
        let is_extent = matches!(state(w), SMALL | LEAVING) && place(w).0 < place(w).1;
        is_extent && coded(state(w), class(w), owner(w)) == w
    };
    for i in 0..end {
        let word = meta(r, i, 0);
        let is = word.load(Relaxed);
        // A large block whose word is by chance as near to another block's.
        if is == FREE || is == HOLE || whole(is) || state(is) == HEAD && i + run(is) <= end {
            continue;
        }
        if let Some(was) = (0..64).map(|bit| is ^ 1 << bit).find(|&w| whole(w)) {
            word.store(was, Relaxed);
        }
    }
}

/// The first opener of a store: whatever is said, the spans that were ever in use reach to the last
/// one that is.
pub(crate) fn recover_frontier(r: &Region) {
    let last = (0..committed(r)).rev().find(|&i| meta(r, i, 0).load(Relaxed) != FREE);
    r.word(header::SPAN_FRONTIER).store(last.map_or(0, |i| i + 1).max(frontier(r)), Release);
}

/// Spans in use.
pub(crate) fn in_use(r: &Region) -> u64 {
    (0..frontier(r))
        .filter(|&i| matches!(state(meta(r, i, 0).load(Relaxed)), SMALL | LEAVING | HEAD | BODY))
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_small_spans_stand_apart() {
        let others = [FREE, DIRTY, PUNCHING, HOLE, pack(BODY, 0, 3, 7), pack(HEAD, 0, 3, 2)];
        for (class, owner) in (0..99).flat_map(|class| (0..64).map(move |owner| (class, owner))) {
            let w = coded(SMALL, class, owner);
            assert_eq!((state(w), super::class(w), super::owner(w)), (SMALL, class, owner));
            let near = |other: u64| (w ^ other).count_ones() < 4;
            let near_small = |class: u64, owner: u64| near(coded(SMALL, class, owner));
            assert!(!near_small((class + 1) % 99, owner) && !near_small(class, (owner + 1) % 64));
            assert!(!near(coded(LEAVING, class, owner)));
            assert!(others.iter().all(|&other| (w ^ other).count_ones() > 1), "{class} {owner}");
        }
    }
}
