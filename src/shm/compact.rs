//! Compaction, which empties a shard's sparse extents, and rebuilding its heap after a death.
//!
//! ```text
//! word 1 of an extent's first span     what it is 32 | next extent of the shard, span + 1, 32
//!   of one that gives blocks           its bytes in use
//!   of one that is being emptied       EMPTY | BROKEN | when something was moved last: a ticket, see
//!                                      `begin_sync`
//! ```
//! An extent that is being emptied gives no blocks. In memory it becomes free spans when all its
//! blocks are free. In a store its entries stay as they are after they were moved, until a sync has
//! written their copies and the slots that lead there.
#![forbid(unsafe_code)]

use super::{
    bins::{add_heap, chain, claim_extent, give, set_bump},
    block::{poison, set_free_any, walk, wipe},
    class::MIN_BLOCK,
    coalesce::{coalesce, forget, next_extent},
    extent::{Spans, each_entry, used_end},
    kept_run,
    layout::{SPAN, header, shard as at},
    region::{Region, sync::*},
    scratch::BlockBitmap,
    shard_cells::ShardCells,
    span::{
        self, BODY, EXTENT_SPANS, HEAD, LEAVING, SMALL, extent_word, frontier, is_part, leaving_word, meta,
        owner, place, run, start, state,
    },
};

/// Extents that one visit releases at most: of a store their memory is written once more.
const MAX_RELEASED: u64 = 16;

/// Spans of a heap in which also extents that are nearly full are emptied for one that is saved.
const FEW: u64 = 16;

/// No slot leads to any of its entries.
pub(super) const EMPTY: u64 = 1 << 31;
/// Its blocks cannot be told any more.
pub(super) const BROKEN: u64 = 1 << 30;
const TICKET: u64 = BROKEN - 1;

/// A number greater than all before, except that it begins again.
fn ticket(r: &Region) -> u64 {
    // Acquire and release: whoever has a later one sees what was done before this one was taken.
    r.word(header::TICKETS).fetch_add(1, AcqRel) + 1
}

/// To be called right before a sync of the store: extents that were emptied before may be released
/// after it, whoever emptied them.
pub(crate) fn begin_sync(r: &Region) -> u64 {
    ticket(r)
}

/// Whether a ticket was taken before another one. Leases take tickets as well: one that is very old
/// counts as later.
fn is_before(one: u64, other: u64) -> bool {
    (1..=TICKET / 2).contains(&(other.wrapping_sub(one) & TICKET))
}

/// Joins a shard's free blocks, and releases its empty extents, if it has any.
pub(crate) fn release_idle(r: &Region, shard: ShardCells<'_>) {
    // Hot words first: what was never used is not looked at.
    kept_run::free_kept(r, shard.no);
    let cached = shard.word(at::CACHED_BLOCK).load(Relaxed) != 0;
    if cached || is_used(r, shard) && shard.word(at::FREED).load(Relaxed) != 0 {
        coalesce(r, shard);
    }
}

/// Whether a shard has freed so much since its sparse extents were emptied that it is worth a look.
pub(crate) fn may_be_sparse(r: &Region, shard: ShardCells<'_>) -> bool {
    if !is_used(r, shard) {
        return false;
    }
    let freed = shard.word(at::FREED).load(Relaxed).saturating_add(shard.word(at::SPARSE).load(Relaxed));
    freed.saturating_mul(16) > shard.word(at::HEAP).load(Relaxed)
}

/// Whether a shard has extents that are being emptied, or wait for a sync.
pub(crate) fn is_leaving(r: &Region, shard: ShardCells<'_>) -> bool {
    is_used(r, shard) && shard.word(at::LEAVING).load(Relaxed) != 0
}

/// Whether there may be anything in a shard's heap, by its hot words: of a shard that was never used
/// no other page is touched.
fn is_used(r: &Region, shard: ShardCells<'_>) -> bool {
    shard.used() != 0
        || shard.word(at::CACHED_BLOCK).load(Relaxed) != 0
        || r.word(header::EMPTIED).load(Relaxed) != 0
}

/// Recovery: calls `f` with the places where an entry can begin, in each extent and each large block
/// of a shard, and whether the extent is being emptied. What lies behind an extent may have no
/// blocks on disk: not even the words of a header are read there.
pub(crate) fn each_spans(r: &Region, shard_no: u64, mut f: impl FnMut(u64, u64, bool)) {
    for span in 0..frontier(r) {
        let word = meta(r, span, 0).load(Acquire);
        match state(word) {
            _ if owner(word) != shard_no => {}
            SMALL | LEAVING if place(word).0 == 0 => {
                // Of a damaged extent no span may be left.
                if let Some(last) = (whole_spans(r, shard_no, span) * SPAN).checked_sub(MIN_BLOCK - 8) {
                    f(start(r, span), start(r, span) + last, state(word) == LEAVING);
                }
            }
            HEAD => f(start(r, span), start(r, span) + 8, false),
            _ => {}
        }
    }
}

/// Spans at the beginning of an extent that belong to it.
fn whole_spans(r: &Region, shard_no: u64, head: u64) -> u64 {
    let n = place(meta(r, head, 0).load(Acquire)).1;
    let all = 0..n.min(frontier(r) - head);
    all.take_while(|&i| is_part(r, shard_no, (head, n), i)).count() as u64
}

/// Rebuilds a shard's lists from the marks of the entries that its index reaches.
pub(crate) fn rebuild(r: &Region, shard: ShardCells<'_>, reached: &BlockBitmap) {
    forget(r, shard);
    set_bump(shard, 0, 0);
    shard.word(at::LEAVING).store(0, Relaxed);
    // What was freed before is not known: it is worth a look.
    shard.word(at::SPARSE).store(u64::from(u32::MAX), Relaxed);
    // Nor is where the search for free spans was.
    span::note_free(r, 0);
    let mut span = 0;
    while span < frontier(r) {
        let word = meta(r, span, 0).load(Acquire);
        let mut whole = 1;
        match state(word) {
            _ if owner(word) != shard.no => {}
            SMALL | LEAVING => whole = rebuild_extent(r, shard, span, reached),
            HEAD if !reached.has(start(r, span)) => {
                poison(r, start(r, span));
                span::free_run(r, span, run(word));
            }
            BODY if !has_head(r, shard.no, (span, word), reached) => span::free_lost(r, span, word),
            _ => {}
        }
        span += whole;
    }
}

/// Whether a span with the word of a body belongs to the large block that it names. In memory that may be
/// another shard's, or kept.
fn has_head(r: &Region, shard_no: u64, (span, word): (u64, u64), reached: &BlockBitmap) -> bool {
    span::head_word(r, span, word)
        .is_some_and(|head| r.file().is_none() || owner(head) == shard_no && reached.has(start(r, run(word))))
}

/// What a span of an extent begins: an extent whose memory is free where nothing is reached, or
/// nothing that holds together. Returns its spans.
fn rebuild_extent(r: &Region, shard: ShardCells<'_>, head: u64, reached: &BlockBitmap) -> u64 {
    let whole = whole_spans(r, shard.no, head);
    if whole == 0 {
        // Of an extent that was being claimed, emptied or released.
        span::free_spans(r, head, 1);
        return 1;
    }
    let leaving = (0..whole).all(|i| state(meta(r, head + i, 0).load(Acquire)) == LEAVING);
    if leaving && r.file().is_some() && meta(r, head, 1).load(Relaxed) >> 32 & BROKEN == 0 {
        // What was moved away is on disk there only, perhaps.
        (0..whole).for_each(|i| meta(r, head + i, 0).store(leaving_word(i, whole, shard.no), Release));
        chain(r, shard, head, 0);
        shard.word(at::LEAVING).store(1, Relaxed);
        r.word(header::EMPTIED).store(1, Relaxed);
        return whole;
    }
    (0..whole).for_each(|i| meta(r, head + i, 0).store(extent_word(i, whole, shard.no), Release));
    let (from, end) = (start(r, head), start(r, head + whole));
    let live = reached.used_between(from, end);
    if live == 0 {
        wipe_store(r, shard.no, from, end);
        span::free_spans(r, head, whole);
        return whole;
    }
    reached.each_gap(from, end, |from, to| {
        wipe_store(r, shard.no, from, to);
        give(r, shard, from, to - from);
    });
    chain(r, shard, head, live);
    add_heap(shard, whole);
    whole
}

/// What a dead writer wrote must not be found after a power failure.
fn wipe_store(r: &Region, shard_no: u64, from: u64, end: u64) {
    if r.layout().geo.checksums {
        wipe(r, shard_no, from, end);
    }
}

/// Chooses extents of a shard, the emptiest first, to be emptied: so many that what stays has few
/// holes, and at most `most` bytes in use. They give no blocks from here on. Returns whether the
/// shard has extents to empty. `short`: memory is, and no new extent is claimed for them first.
pub(crate) fn begin_emptying(r: &Region, shard: ShardCells<'_>, most: u64, short: bool) -> bool {
    coalesce(r, shard);
    let (mut live, mut any, mut more) = (0, 0, false);
    let mut chosen = false;
    let heap = shard.word(at::HEAP).load(Relaxed);
    each_extent(r, shard, |s, high| live += if s.leaving { 0 } else { high });
    let mut spare = heap.saturating_sub((live + live / 16).next_multiple_of(SPAN));
    // Of few extents also those that are nearly full: a span saved is much there.
    let quarters = if heap <= FEW * SPAN { 4 } else { 3 };
    for quarter in 1..=quarters {
        each_extent(r, shard, |s, used| {
            let sparse = !s.leaving && used * 4 < s.n * SPAN * quarter;
            more |= sparse && spare > 0 && used + any > most;
            if sparse && used + any <= most && spare > 0 {
                leave(r, shard, s);
                spare = spare.saturating_sub(s.n * SPAN - used);
                any += used;
                chosen = true;
            }
        });
    }
    if chosen {
        coalesce(r, shard);
        // One after another they fill what they come to, but for its end.
        let spans = ((any + SPAN / 2) / SPAN).min(EXTENT_SPANS);
        if spans > 1 && !short {
            claim_extent(r, shard, 1, spans);
        }
    }
    // What is left for the next visit.
    shard.word(at::SPARSE).store(if more { heap } else { 0 }, Relaxed);
    shard.word(at::LEAVING).load(Relaxed) != 0 && !shard.is_dirty()
}

fn leave(r: &Region, shard: ShardCells<'_>, s: &Spans) {
    shard.word(at::LEAVING).store(1, Relaxed);
    let used = used_end(r, shard, s);
    if used != s.end(r) {
        // Its end was never used, and is not any more.
        set_free_any(r, shard.no, used, s.end(r) - used);
        set_bump(shard, 0, 0);
    }
    let word = meta(r, s.first, 1);
    word.store(word.load(Relaxed) & 0xFFFF_FFFF, Relaxed);
    for i in 0..s.n {
        meta(r, s.first + i, 0).store(leaving_word(i, s.n, shard.no), Release);
    }
}

/// Calls `f` with each extent of a shard and the upper half of its word 1.
fn each_extent(r: &Region, shard: ShardCells<'_>, mut f: impl FnMut(&Spans, u64)) {
    let mut next = shard.word(at::EXTENTS).load(Relaxed);
    for _ in 0..frontier(r) {
        let Some((s, high)) = next_extent(r, shard.no, &mut next) else { return };
        f(&s, high);
    }
}

/// Calls `f` with the offset of each entry of the extents that are being emptied. It returns whether
/// no slot leads there any more. In memory, extents without entries may be released then; in a store
/// they wait for a sync that begins afterwards.
pub(crate) fn empty(r: &Region, shard: ShardCells<'_>, mut f: impl FnMut(u64) -> bool) {
    let mut next = shard.word(at::EXTENTS).load(Relaxed);
    for _ in 0..frontier(r) {
        let Some((s, mut high)) = next_extent(r, shard.no, &mut next) else { break };
        if !s.leaving {
            continue;
        }
        let is_known = high & EMPTY != 0;
        if !is_known {
            let mut all = true;
            each_entry(r, shard, &s, |off| {
                all &= f(off);
                all
            });
            high = if shard.is_dirty() {
                BROKEN
            } else if all {
                EMPTY
            } else {
                // See `discard_moved`.
                ticket(r) & TICKET
            };
        }
        // Taken after the last entry has moved. A ticket that is known stays: many that look here all
        // the time must not keep each other waiting.
        if high & EMPTY != 0 && !(is_known && is_before(high, r.word(header::TICKETS).load(Relaxed) + 1)) {
            high = EMPTY | ticket(r) & TICKET;
        }
        if r.file().is_some() {
            r.word(header::EMPTIED).store(1, Relaxed);
        }
        // Moving entries may have changed the chain.
        let word = meta(r, s.first, 1);
        word.store(word.load(Relaxed) & 0xFFFF_FFFF | high << 32, Relaxed);
        if shard.is_dirty() {
            return;
        }
    }
}

/// Releases extents that were empty before a sync began, in a store a bounded number of them; `None`
/// = in memory, which needs none. Returns whether there may be more.
pub(crate) fn release_emptied(r: &Region, shard: ShardCells<'_>, sync: Option<u64>) -> bool {
    // So late that tickets may have begun again: the next sync does it.
    let now = r.word(header::TICKETS).load(Relaxed);
    let is_late = sync.is_some_and(|sync| now.saturating_sub(sync) > TICKET / 2);
    let mut next = shard.word(at::EXTENTS).load(Relaxed);
    shard.word(at::EXTENTS).store(0, Relaxed);
    let (mut released, mut left) = (0, false);
    for _ in 0..frontier(r) {
        let Some((s, high)) = next_extent(r, shard.no, &mut next) else { break };
        let is_store = r.layout().geo.checksums;
        let may = sync.is_none_or(|sync| !is_late && released < MAX_RELEASED && is_before(high, sync));
        if s.leaving && high & EMPTY != 0 && may {
            // A store's entries are still there: the next power failure must not bring them back.
            if is_store {
                (s.start(r)..s.end(r)).step_by(8).for_each(|off| r.word(off).store(0, Relaxed));
            }
            span::free_spans(r, s.first, s.n);
            released += 1;
        } else {
            left |= s.leaving;
            chain(r, shard, s.first, high);
        }
    }
    shard.word(at::LEAVING).store(left.into(), Relaxed);
    if left && r.file().is_some() {
        r.word(header::EMPTIED).store(1, Relaxed);
    }
    released == MAX_RELEASED
}

/// Frees what was moved out of extents that could not be emptied before a sync began: the copies are
/// on disk, and the next power failure must not bring back what was changed since. `is_moved` tells
/// of an entry's offset whether no slot leads there.
pub(crate) fn discard_moved(r: &Region, shard: ShardCells<'_>, sync: u64, is_moved: impl Fn(u64) -> bool) {
    let is_late = r.word(header::TICKETS).load(Relaxed).saturating_sub(sync) > TICKET / 2;
    each_extent(r, shard, |s, high| {
        let when = high & TICKET;
        if !s.leaving || high & (EMPTY | BROKEN) != 0 || when == 0 || is_late || !is_before(when, sync) {
            return;
        }
        let whole = walk(r, shard.no, s.start(r), s.end(r), |off, block| {
            if !block.free && is_moved(off) {
                set_free_any(r, shard.no, off, block.len);
            }
            true
        });
        if !whole {
            shard.set_dirty(true);
        }
    });
}

/// Ends the emptying of extents whose entries have nowhere to go: they give blocks again. Those from
/// which an entry was moved since the last sync stay as they are. `is_reached` tells of an entry's
/// offset whether a slot leads there.
pub(crate) fn stay(r: &Region, shard: ShardCells<'_>, is_reached: impl Fn(u64) -> bool) {
    let (mut any, mut left) = (false, false);
    each_extent(r, shard, |s, high| {
        if !s.leaving {
            return;
        }
        let mut all = high & (EMPTY | BROKEN) == 0;
        let whole = walk(r, shard.no, s.start(r), s.end(r), |off, block| {
            all &= block.free || is_reached(off);
            all
        });
        if all && whole {
            // A death in between leaves an extent that gives blocks, see `rebuild_extent`.
            (0..s.n).for_each(|i| meta(r, s.first + i, 0).store(extent_word(i, s.n, shard.no), Release));
            any = true;
        } else {
            left = true;
        }
    });
    if any {
        shard.word(at::LEAVING).store(left.into(), Relaxed);
        coalesce(r, shard);
    }
}

/// Copies a whole entry of `len` bytes into a block that no slot leads to.
pub(crate) fn copy(r: &Region, from: u64, to: u64, len: u64) {
    for i in (0..len).step_by(8) {
        r.word(to + i).store(r.word(from + i).load(Relaxed), Relaxed);
    }
}
