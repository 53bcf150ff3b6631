//! Coalescing: joins neighbouring free blocks of a shard, in all its extents at once, because a block
//! does not say where the one before it begins.
#![forbid(unsafe_code)]

use super::{
    bins::{add_heap, chain, empty_bins, give, set_bump},
    block::{met, walk},
    extent::{Spans, used_end},
    layout::shard as at,
    region::{Region, sync::*},
    shard_cells::ShardCells,
    span::{self, LEAVING, SMALL, frontier, meta, owner, place, state},
};

/// Extents whose headers are read in turns.
const TOGETHER: usize = 16;

/// Joins neighbouring free blocks of a shard, releases its empty extents, and counts what is in use.
/// Where a block is damaged, the shard gets the mark of a dead writer's.
#[inline(never)]
pub(crate) fn coalesce(r: &Region, shard: ShardCells<'_>) {
    let mut next = shard.word(at::EXTENTS).load(Relaxed);
    let (freed, sparse) = (shard.word(at::FREED), shard.word(at::SPARSE));
    sparse.store(sparse.load(Relaxed).saturating_add(freed.load(Relaxed)), Relaxed);
    forget(r, shard);
    // No chain is longer than there are spans, whatever a damaged one says.
    for _ in 0..frontier(r).div_ceil(TOGETHER as u64) {
        let some = next_extents(r, shard.no, &mut next);
        load_headers(r, shard, &some);
        for (s, high) in some.iter().flatten() {
            if s.leaving {
                chain(r, shard, s.first, *high);
            } else if !coalesce_extent(r, shard, s) {
                forget(r, shard);
                shard.set_dirty(true);
                return;
            }
        }
        if some.iter().any(Option::is_none) {
            return;
        }
    }
}

/// Extents, each with the upper half of its word 1.
type Group = [Option<(Spans, u64)>; TOGETHER];

/// The next extents of a shard's chain; fewer at its end.
fn next_extents(r: &Region, shard_no: u64, next: &mut u64) -> Group {
    [(); TOGETHER].map(|()| next_extent(r, shard_no, next))
}

/// The extent to which `next` leads in a shard's chain, and the upper half of its word 1; `next` leads
/// to the one behind it then.
pub(super) fn next_extent(r: &Region, shard_no: u64, next: &mut u64) -> Option<(Spans, u64)> {
    let s = extent_of(r, shard_no, *next)?;
    let word = meta(r, s.first, 1).load(Relaxed);
    *next = word & 0xFFFF_FFFF;
    Some((s, word >> 32))
}

/// Reads the headers of all blocks of these extents, one of each in turn. A header says where the next
/// one is, so those of one extent come from memory one after another, but those of several at the
/// same time.
fn load_headers(r: &Region, shard: ShardCells<'_>, some: &Group) {
    let mut at = some.map(|of| match of {
        Some((s, _)) if !s.leaving => (s.start(r), used_end(r, shard, &s)),
        _ => (0, 0),
    });
    while at.iter().any(|(off, end)| off < end) {
        for (off, end) in &mut at {
            if off < end {
                *off = met(r, shard.no, *off, *end).map_or(*end, |block| *off + block.len);
            }
        }
    }
}

/// The extent whose first span has this number + 1, if it is one of the shard's.
pub(super) fn extent_of(r: &Region, shard_no: u64, number: u64) -> Option<Spans> {
    let first = number.checked_sub(1).filter(|&first| first < frontier(r))?;
    let word = meta(r, first, 0).load(Acquire);
    let (pos, n) = place(word);
    let is_first = matches!(state(word), SMALL | LEAVING) && owner(word) == shard_no && pos == 0;
    let leaving = state(word) == LEAVING;
    (is_first && first + n <= frontier(r)).then_some(Spans { first, n, large: false, leaving })
}

/// Empties a shard's lists; the blocks have all that is in them.
pub(super) fn forget(r: &Region, shard: ShardCells<'_>) {
    for word in [at::CACHED_BLOCK, at::EXTENTS, at::HEAP, at::FREED] {
        shard.word(word).store(0, Relaxed);
    }
    empty_bins(r, shard);
}

/// Joins an extent's neighbouring free blocks and puts them in their bins; one without an entry is
/// released. `false` = damage.
fn coalesce_extent(r: &Region, shard: ShardCells<'_>, s: &Spans) -> bool {
    let end = used_end(r, shard, s);
    let (mut live, mut free) = (0, None);
    let whole = walk(r, shard.no, s.start(r), end, |off, block| {
        if !block.free {
            live += block.len;
            if let Some(from) = free.take() {
                give(r, shard, from, off - from);
            }
        } else if free.is_none() {
            free = Some(off);
        } else if block.len > 8 {
            // It is no block of its own any more.
            r.word(off + 8).store(0, Relaxed);
        }
        true
    });
    if !whole {
        return false;
    }
    if live == 0 {
        if end != s.end(r) {
            set_bump(shard, 0, 0);
        }
        span::free_spans(r, s.first, s.n);
        return true;
    }
    match free {
        Some(from) if end != s.end(r) => set_bump(shard, from, s.end(r)),
        Some(from) => give(r, shard, from, end - from),
        None => {}
    }
    chain(r, shard, s.first, live);
    add_heap(shard, s.n);
    true
}
