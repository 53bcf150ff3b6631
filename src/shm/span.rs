//! Spans: who owns which 4 KiB of the data area.
//!
//! ```text
//! word 0 of a span   state 8 | class 8 | shard 16 | run 32
//!   FREE -> (CAS) SMALL: part of an extent          class = place in it 4 | spans of it - 1 4
//!                                                   run = a code of the rest, against a flipped bit on disk
//!                 HEAD:  first span of a large block run = spans of the block
//!                 BODY:  the others                 run = number of the head; in memory the shard may be one
//!                                                   that the block had before
//!   HEAD -> KEPT: the large block freed last, see `kept_run`
//!   SMALL -> LEAVING: part of an extent that is being emptied, else as SMALL
//!   owned -> DIRTY: free, with its pages
//!   DIRTY -> (pool lock) PUNCHING -> FREE in memory, HOLE in a store's file
//!   HOLE -> (pool lock, blocks on disk) FREE
//! word 1             of an extent's first span: see `compact`
//! ```
#![forbid(unsafe_code)]

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
/// First of a large block that is kept for the next one of its size.
pub(super) const KEPT: u64 = 8;

/// Most spans of an extent.
pub(super) const EXTENT_SPANS: u64 = 16;

#[inline]
pub(super) fn meta(r: &Region, span: u64, word: u64) -> &AtomicU64 {
    r.word(r.layout().span_table + span * SPAN_META + word * 8)
}

#[inline]
pub(super) fn pack(state: u64, class: u64, owner: u64, run: u64) -> u64 {
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

/// Whether a span may be claimed.
#[inline]
pub(super) fn is_free(word: u64) -> bool {
    matches!(state(word), FREE | DIRTY)
}

/// Whether a span's word is that of a body of the large block that begins with `head`.
pub(super) fn is_body_of(word: u64, head: u64) -> bool {
    state(word) == BODY && run(word) == head
}

/// The word of the head that a body's word names, if a large block or a kept run begins there and reaches
/// to the body's span.
pub(super) fn head_word(r: &Region, span: u64, word: u64) -> Option<u64> {
    let head = run(word);
    let h = (head < span).then(|| meta(r, head, 0).load(Acquire))?;
    (matches!(state(h), HEAD | KEPT) && span < head + run(h)).then_some(h)
}

/// Whether a span with this word belongs to a kept run, see `kept_run`.
pub(super) fn is_kept(r: &Region, word: u64) -> bool {
    match state(word) {
        KEPT => true,
        BODY => run(word) < frontier(r) && state(meta(r, run(word), 0).load(spans::LOOK)) == KEPT,
        _ => false,
    }
}

/// Spans that are backed by memory or disk.
pub(super) fn committed(r: &Region) -> u64 {
    let bytes = r.word(header::COMMITTED).load(Acquire).saturating_sub(r.layout().data);
    (bytes / SPAN).min(r.layout().geo.spans)
}

/// Spans that were ever in use.
pub(crate) fn frontier(r: &Region) -> u64 {
    // Not beyond what is backed, whatever a damaged store says.
    r.word(header::SPAN_FRONTIER).load(Acquire).min(committed(r))
}

/// Frees a run from its end, the head last; bodies that have another head by now are left alone. The
/// caller holds the owner's lock: nobody else changes a body.
pub(super) fn free_run(r: &Region, head: u64, n: u64) {
    let end = (head + n).min(r.layout().geo.spans);
    let mut freed = 1;
    for i in (head + 1..end).rev() {
        let word = meta(r, i, 0);
        if is_body_of(word.load(spans::LOOK), head) {
            word.store(DIRTY, spans::FREE);
            freed += 1;
        }
    }
    meta(r, head, 0).store(DIRTY, spans::FREE);
    dirty_plus(r, freed);
    note_free(r, head);
}

/// Frees a body whose head is lost, if its word is still this one.
pub(super) fn free_lost(r: &Region, span: u64, word: u64) {
    if meta(r, span, 0).compare_exchange(word, DIRTY, spans::FREE, spans::LOOK).is_ok() {
        dirty_plus(r, 1);
        note_free(r, span);
    }
}

/// Frees neighbouring spans, as those of an extent, from their end.
pub(super) fn free_spans(r: &Region, head: u64, n: u64) {
    if n == 0 {
        return;
    }
    for i in (head..head + n).rev() {
        meta(r, i, 0).store(DIRTY, spans::FREE);
    }
    dirty_plus(r, n);
    note_free(r, head);
}

/// To be called after spans from `span` on became free: the next round of the search begins there, or
/// before. An exchange even if the word stays, so that the search sees these spans or the next round
/// does. A death before it leaves them to the round after the rebuild.
pub(super) fn note_free(r: &Region, span: u64) {
    r.word(header::SPAN_FREED).fetch_min(span, spans::NOTE);
}

fn dirty_plus(r: &Region, n: u64) {
    r.word(header::SPAN_DIRTY).fetch_add(n, spans::DIRTY);
}

pub(super) fn dirty_minus(r: &Region, n: u64) {
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
    note_free(r, at);
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
            note_free(r, at);
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
            note_free(r, i);
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
    note_free(r, 0);
}

/// Frees the spans whose words are none that ucache writes, as `is_impossible` says: nobody can have
/// or claim them. The caller holds the pool's lock.
pub(crate) fn free_impossible(r: &Region, is_impossible: impl Fn(u64) -> bool) {
    // Whether they have blocks on disk is not known.
    let free = if r.file().is_some() { HOLE } else { DIRTY };
    (0..frontier(r)).filter(|&i| is_impossible(i)).for_each(|i| meta(r, i, 0).store(free, Release));
    recover_pool(r);
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
        .map(|i| meta(r, i, 0).load(Relaxed))
        .filter(|&word| matches!(state(word), SMALL | LEAVING | HEAD | BODY) && !is_kept(r, word))
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
