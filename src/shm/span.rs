//! Spans: who owns which 64 KiB of the data area.
//!
//! ```text
//! word 0 of a span   state 8 | class 8 | shard 16 | run 32
//!   FREE -> (CAS) SMALL: blocks of one class        run = a code of the rest, against a flipped bit on disk
//!                 HEAD:  first span of a large block run = spans of the block
//!                 BODY:  the others                 run = number of the head
//!   owned -> DIRTY: free, pages not given back; DIRTY -> (pool lock) PUNCHING -> FREE
//! words 1 and 2      of SMALL spans: see `block`
//! ```
#![forbid(unsafe_code)]

use super::{
    layout::{SPAN, SPAN_META, header},
    order::spans,
    region::{Region, sync::*},
};

const FREE: u64 = 0;
pub(super) const DIRTY: u64 = 1;
pub(super) const SMALL: u64 = 2;
pub(super) const HEAD: u64 = 3;
pub(super) const BODY: u64 = 4;
const PUNCHING: u64 = 5;

/// Stands for the class of a large block in a claim.
pub(super) const LARGE: u64 = 0xFF;

/// How many span words a claim looks at behind the cursor before it takes fresh spans.
const SCAN: u64 = 256;

#[inline]
pub(super) fn meta(r: &Region, span: u64, word: u64) -> &AtomicU64 {
    r.word(r.layout().span_table + span * SPAN_META + word * 8)
}

#[inline]
fn pack(state: u64, class: u64, owner: u64, run: u64) -> u64 {
    state | class << 8 | owner << 16 | run << 32
}

/// The word of a span of small blocks. Two of them differ in at least four bits: a flipped one can be put back, and does
/// not cost all the items of a span.
fn small(class: u64, owner: u64) -> u64 {
    let low = pack(SMALL, class, owner, 0) as u32;
    u64::from(low) | u64::from(low ^ low.rotate_left(5) ^ low.rotate_left(13) ^ 0xA5A5_A5A5) << 32
}

pub(super) fn state(word: u64) -> u64 {
    word & 0xFF
}

pub(super) fn class(word: u64) -> u64 {
    word >> 8 & 0xFF
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

/// Frees a run from its end, the head last; bodies that somebody else owns by now are left alone.
pub(super) fn free_run(r: &Region, shard_no: u64, head: u64, n: u64) {
    let end = (head + n).min(r.layout().geo.spans);
    let mut freed = 1;
    for i in (head + 1..end).rev() {
        let body = pack(BODY, 0, shard_no, head);
        if meta(r, i, 0).compare_exchange(body, DIRTY, spans::FREE, spans::LOOK).is_ok() {
            freed += 1;
        }
    }
    meta(r, head, 0).store(DIRTY, spans::FREE);
    dirty_plus(r, freed);
    r.word(header::LAST_RUN).store(head + 1, Relaxed);
}

/// Claims the `n` spans of a large block where one was freed last: its memory is in the caches, and updates of values of
/// one size go on in as little memory as there is.
pub(super) fn claim_last(r: &Region, n: u64, shard_no: u64) -> Option<u64> {
    let at = r.word(header::LAST_RUN).load(Relaxed).checked_sub(1)?;
    // Only a hint: any number may stand there, and the spans may be somebody's.
    let fits = at.checked_add(n)? <= frontier(r);
    let free = fits && matches!(state(meta(r, at, 0).load(Relaxed)), FREE | DIRTY);
    (free && claim_at(r, at, n, shard_no, LARGE).is_ok()).then_some(at)
}

/// Claims `n` neighbouring spans: behind the cursor first, then fresh ones, then anywhere.
pub(super) fn claim(r: &Region, n: u64, shard_no: u64, class: u64) -> Option<u64> {
    let front = frontier(r);
    let cursor = r.word(header::SPAN_CURSOR).load(Relaxed).min(front);
    let limit = committed(r);
    let found = claim_in(r, cursor, (cursor + SCAN.max(n)).min(front), n, shard_no, class)
        .or_else(|| claim_in(r, front, limit, n, shard_no, class))
        .or_else(|| claim_in(r, 0, limit, n, shard_no, class))?;
    let next = if found + n >= front { 0 } else { found + n };
    r.word(header::SPAN_CURSOR).store(next, Relaxed);
    Some(found)
}

/// The first run of `n` free spans in `[from, to)`.
fn claim_in(r: &Region, from: u64, to: u64, n: u64, shard_no: u64, class: u64) -> Option<u64> {
    let mut at = from;
    while at + n <= to {
        match claim_at(r, at, n, shard_no, class) {
            Ok(()) => return Some(at),
            Err(taken) => at = taken + 1,
        }
    }
    // Nothing here: the next search starts behind it.
    r.word(header::SPAN_CURSOR).store(if to >= frontier(r) { 0 } else { to }, Relaxed);
    None
}

/// Claims exactly the spans `[at, at + n)`, ascending; `Err` = the one that is taken.
fn claim_at(r: &Region, at: u64, n: u64, shard_no: u64, class: u64) -> Result<(), u64> {
    // Before the first claim: a rebuild after our death looks at the spans up to here.
    if at + n > frontier(r) {
        r.word(header::SPAN_FRONTIER).fetch_max(at + n, AcqRel);
    }
    for i in 0..n {
        let new = match (i, class) {
            (0, _) if class != LARGE => small(class, shard_no),
            (0, _) => pack(HEAD, 0, shard_no, n),
            _ => pack(BODY, 0, shard_no, at),
        };
        let word = meta(r, at + i, 0);
        let old = word.load(spans::LOOK);
        let free = matches!(state(old), FREE | DIRTY);
        if !free || word.compare_exchange(old, new, spans::TAKE, spans::LOOK).is_err() {
            for j in (0..i).rev() {
                meta(r, at + j, 0).store(DIRTY, spans::FREE);
            }
            dirty_plus(r, i);
            return Err(at + i);
        }
        if state(old) == DIRTY {
            dirty_minus(r, 1);
        }
    }
    Ok(())
}

pub(super) fn dirty_plus(r: &Region, n: u64) {
    r.word(header::SPAN_DIRTY).fetch_add(n, spans::DIRTY);
}

fn dirty_minus(r: &Region, n: u64) {
    // Only a hint: it must not wrap when it was lost in a crash.
    let _ =
        r.word(header::SPAN_DIRTY).fetch_update(spans::DIRTY, spans::DIRTY, |d| Some(d.saturating_sub(n)));
}

/// Spans that are free but still have pages.
pub(crate) fn dirty(r: &Region) -> u64 {
    r.header_word::<{ header::SPAN_DIRTY }>().load(Relaxed)
}

/// Gives the pages of up to `most` neighbouring free spans back, the next ones behind the last piece. The caller holds the
/// pool lock; `false` = there are none, or the kernel declines here.
pub(crate) fn trim(r: &Region, most: u64) -> bool {
    let front = frontier(r);
    let cursor = r.word(header::TRIM_CURSOR);
    let from = cursor.load(Relaxed).min(front);
    let begins = |&at: &u64| take_to_punch(r, at);
    let Some(at) = (from..front).chain(0..from).find(begins) else { return false };
    let n = (1..most.min(front - at)).find(|i| !take_to_punch(r, at + i)).unwrap_or(most.min(front - at));
    // First, so that others do not come to give the same ones back.
    dirty_minus(r, n);
    let gone = r.give_back(start(r, at), n * SPAN);
    for i in at..at + n {
        meta(r, i, 0).store(if gone { FREE } else { DIRTY }, spans::FREE);
    }
    if !gone {
        dirty_plus(r, n);
    }
    cursor.store(at + n, Relaxed);
    gone
}

/// Takes a free span with pages away from those who look for one, until its pages are given back.
fn take_to_punch(r: &Region, span: u64) -> bool {
    let word = meta(r, span, 0);
    word.load(spans::LOOK) == DIRTY
        && word.compare_exchange(DIRTY, PUNCHING, spans::TAKE, spans::LOOK).is_ok()
}

/// After the death of somebody under the pool lock: nobody is punching any more.
pub(crate) fn recover_pool(r: &Region) {
    let mut dirty = 0;
    for i in 0..frontier(r) {
        let word = meta(r, i, 0);
        if state(word.load(Relaxed)) == PUNCHING {
            word.store(DIRTY, Release);
        }
        dirty += u64::from(word.load(Relaxed) == DIRTY);
    }
    r.word(header::SPAN_DIRTY).store(dirty, Relaxed);
}

/// The first opener of a store: puts flipped bits of the words of spans of small blocks back.
pub(crate) fn mend(r: &Region) {
    let end = committed(r);
    let whole = |w: u64| state(w) == SMALL && small(class(w), owner(w)) == w;
    for i in 0..end {
        let word = meta(r, i, 0);
        let is = word.load(Relaxed);
        // A large block whose word is as near to another's by chance.
        if is == FREE || whole(is) || state(is) == HEAD && i + run(is) <= end {
            continue;
        }
        if let Some(was) = (0..64).map(|bit| is ^ 1 << bit).find(|&w| whole(w)) {
            word.store(was, Relaxed);
        }
    }
}

/// The first opener of a store: whatever is said, the spans that were ever in use reach to the last one that is.
pub(crate) fn recover_frontier(r: &Region) {
    let last = (0..committed(r)).rev().find(|&i| meta(r, i, 0).load(Relaxed) != FREE);
    r.word(header::SPAN_FRONTIER).store(last.map_or(0, |i| i + 1).max(frontier(r)), Release);
}

/// Spans in use.
pub(crate) fn in_use(r: &Region) -> u64 {
    (0..frontier(r)).filter(|&i| matches!(state(meta(r, i, 0).load(Relaxed)), SMALL | HEAD | BODY)).count()
        as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_small_spans_stand_apart() {
        let others = [FREE, DIRTY, PUNCHING, pack(BODY, 0, 3, 7), pack(HEAD, 0, 3, 2)];
        for (class, owner) in (0..99).flat_map(|class| (0..64).map(move |owner| (class, owner))) {
            let w = small(class, owner);
            assert_eq!((state(w), super::class(w), super::owner(w)), (SMALL, class, owner));
            let near = |other: u64| (w ^ other).count_ones() < 4;
            assert!(!near(small((class + 1) % 99, owner)) && !near(small(class, (owner + 1) % 64)));
            assert!(others.iter().all(|&other| (w ^ other).count_ones() > 1), "{class} {owner}");
        }
    }
}
