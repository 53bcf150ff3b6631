//! Blocks: each shard's heap in extents of its own, and large blocks of whole spans.
//!
//! ```text
//! heap      extents: one begins to be used where the last one ended (BUMP)
//! bins      lists of free blocks of one size, or of a size class (see `class`)
//! ```
//! A block in use never changes its bounds. Free blocks are split when they are taken, and joined by
//! [`coalesce`], all of a shard at once. Bins are only a cache of what the blocks themselves and the
//! index tell: recovery rebuilds them.
//! Of the blocks that became free a shard keeps one (`layout::shard::CACHED_BLOCK`): it is in no bin,
//! and the next entry of its size takes it.
#![forbid(unsafe_code)]

use std::num::NonZeroU64;

use super::{
    bins::{bin_of, claim_extent, give, next_used, push, set_bump},
    block::{binned_len, link, poison, set_free, set_free_any},
    class::{MAX_SMALL, MIN_BLOCK},
    extent::{is_in_span, spans_at},
    kept_run,
    layout::{SPAN, SPAN_META, shard as at},
    region::{Region, sync::*},
    shard_cells::ShardCells,
    span::{EXTENT_SPANS, start},
    span_claim,
};
pub(crate) use super::{
    coalesce::coalesce,
    compact::{
        begin_emptying, begin_sync, copy, discard_moved, each_spans, empty, is_leaving, may_be_sparse,
        rebuild, release_emptied, release_idle, stay,
    },
    extent::{
        Wanted, around, each_entry, each_entry_between, holds, is_for, is_large, owner_of, wanted,
        wanted_for, whole_owners,
    },
};

/// Where the length lies in the word of a block that a shard keeps: above its offset, both divided by 8.
const LEN_AT: u32 = 48;
/// There is no memory for the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AllocError;

/// Where the block lies that a shard keeps, by its word.
#[inline(always)]
fn cached_off(word: u64) -> u64 {
    (word & ((1 << LEN_AT) - 1)) << 3
}

/// The block that a shard keeps: its offset and length.
pub(super) fn kept_block(shard: ShardCells<'_>) -> Option<(u64, u64)> {
    let word = shard.word(at::CACHED_BLOCK).load(Relaxed);
    (word != 0).then(|| (cached_off(word), word >> LEN_AT << 3))
}

/// A block of the size wanted, for the shard whose lock the caller holds.
#[inline(always)]
pub(crate) fn alloc(r: &Region, shard: ShardCells<'_>, wanted: Wanted) -> Result<u64, AllocError> {
    let word = shard.word(at::CACHED_BLOCK);
    let cached = word.load(Relaxed);
    if cached >> LEN_AT == wanted.bytes >> 3 {
        word.store(0, Relaxed);
        return Ok(cached_off(cached));
    }
    alloc_uncached(r, shard.no, wanted)
}

/// [`alloc`] without the block that the shard keeps. Gets the shard's number: cells in a register
/// stay there.
#[inline(never)]
pub(crate) fn alloc_uncached(r: &Region, shard_no: u64, wanted: Wanted) -> Result<u64, AllocError> {
    let (shard, len) = (r.shard(shard_no), wanted.bytes);
    if len > MAX_SMALL {
        return alloc_large(r, shard.no, len);
    }
    let bin = bin_of(r, len);
    let first = r.bin(shard, bin);
    let off = first.load(Relaxed);
    if binned_len(r, shard.no, off) == Some(len) {
        first.store(link(r, off).load(Relaxed), Relaxed);
        return Ok(off);
    }
    let found = take_from(r, shard, bin, len).or_else(|| take_bump(r, shard, len));
    found.or_else(|| alloc_rest(r, shard, len)).ok_or(AllocError)
}

/// A block of the shard's holes, or of a new extent.
#[inline(never)]
fn alloc_rest(r: &Region, shard: ShardCells<'_>, len: u64) -> Option<u64> {
    if let Some(off) = take_larger(r, shard, len) {
        return Some(off);
    }
    // Where blocks have classes, what was freed fits again for longer.
    let part = if r.has_classes() { 4 } else { 8 };
    if shard.word(at::FREED).load(Relaxed) * part > shard.word(at::HEAP).load(Relaxed) {
        coalesce(r, shard);
        // A damaged heap is rebuilt before anything is stored there.
        let found = if shard.is_dirty() { return None } else { take_larger(r, shard, len) };
        if found.is_some() {
            return found;
        }
    }
    new_extent(r, shard, len).then(|| take_bump(r, shard, len)).flatten()
}

/// Asks for the first lines of the block that [`alloc`] will give, as far as that can be told: whoever unlocks waits until all
/// that was written has reached the cache, and these lines have long left it. `binned`: also of one that the shard does not
/// keep. Returns the one that it keeps, if that is it.
#[inline(always)]
pub(crate) fn prefetch_next(
    r: &Region,
    shard: ShardCells<'_>,
    wanted: Wanted,
    binned: bool,
) -> Option<NonZeroU64> {
    let cached = shard.word(at::CACHED_BLOCK).load(Relaxed);
    if cached >> LEN_AT == wanted.bytes >> 3 {
        r.prefetch_entry(cached_off(cached));
        return NonZeroU64::new(cached_off(cached));
    }
    if binned && wanted.bytes <= MAX_SMALL {
        let first = r.bin(shard, bin_of(r, wanted.bytes)).load(Relaxed);
        let next = if first == 0 { shard.word(at::BUMP).load(Relaxed) } else { first };
        r.prefetch_entry(next);
        if wanted.bytes > 192 {
            r.prefetch_rest(next, wanted.bytes);
        }
    }
    None
}

/// Asks for the lines that [`free`] of this block will need, beside the block's own.
#[inline(always)]
pub(crate) fn prefetch_free(r: &Region, shard: ShardCells<'_>, off: u64, bytes: u64) {
    r.prefetch(r.layout().span_table + off.wrapping_sub(r.layout().data) / SPAN * SPAN_META);
    if bytes <= MAX_SMALL {
        r.prefetch_bin(shard, bin_of(r, bytes));
    }
}

/// Takes the block that the shard keeps.
#[inline(always)]
pub(crate) fn take_kept(shard: ShardCells<'_>) {
    shard.word(at::CACHED_BLOCK).store(0, Relaxed);
}

#[inline(never)]
fn alloc_large(r: &Region, shard_no: u64, bytes: u64) -> Result<u64, AllocError> {
    let n = bytes.div_ceil(SPAN);
    let at = span_claim::claim_last(r, n, shard_no).or_else(|| span_claim::claim(r, n, shard_no, true));
    at.map(|at| start(r, at)).ok_or(AllocError)
}

/// The first block of a bin, if it is long enough.
fn take_from(r: &Region, shard: ShardCells<'_>, bin: usize, len: u64) -> Option<u64> {
    let first = r.bin(shard, bin);
    let off = first.load(Relaxed);
    if off == 0 {
        return None;
    }
    // The link lies among the data: what is no free block of the shard's ends the list, until the
    // next look at all.
    let Some(has) = binned_len(r, shard.no, off) else {
        first.store(0, Relaxed);
        return None;
    };
    if has < len {
        return None;
    }
    first.store(link(r, off).load(Relaxed), Relaxed);
    give(r, shard, off + len, has - len);
    Some(off)
}

/// A block of the first bin of larger ones that has any.
fn take_larger(r: &Region, shard: ShardCells<'_>, len: u64) -> Option<u64> {
    let mut from = bin_of(r, len);
    while let Some(bin) = next_used(r, shard, from) {
        if let Some(off) = take_from(r, shard, bin, len) {
            return Some(off);
        }
        from = bin + 1;
    }
    None
}

/// A block of the end of the newest extent, which was never handed out.
fn take_bump(r: &Region, shard: ShardCells<'_>, len: u64) -> Option<u64> {
    let (off, end) = (shard.word(at::BUMP).load(Relaxed), shard.word(at::BUMP_END).load(Relaxed));
    let left = end.saturating_sub(off);
    if left < len || spans_at(r, shard.no, off)?.end(r) != end {
        return None;
    }
    if left - len >= MIN_BLOCK {
        shard.word(at::BUMP).store(off + len, Relaxed);
    } else {
        set_free_any(r, shard.no, off + len, left - len);
        set_bump(shard, 0, 0);
    }
    Some(off)
}

/// Claims an extent: of as few spans as possible at first, then of a sixteenth of what the shard
/// has.
#[inline(never)]
fn new_extent(r: &Region, shard: ShardCells<'_>, len: u64) -> bool {
    let heap = shard.word(at::HEAP).load(Relaxed);
    let least = len.div_ceil(SPAN);
    let usual = (heap / SPAN / 16).clamp(least, EXTENT_SPANS);
    // Somewhat more where less is left at the end: an eighth of what the shard has, or as much again
    // for entries that would leave more than what is not used yet.
    let most = if len <= SPAN / 8 { usual + heap / SPAN / 8 } else { 1 + heap / SPAN };
    let most = most.clamp(usual, EXTENT_SPANS);
    let rest = |n: &u64| (n * SPAN % len) * EXTENT_SPANS / n;
    // In memory, what is not used yet takes none.
    let little = if r.file().is_some() { 64 } else { 512 };
    let is_little = |n: &u64| n * SPAN % len <= n * SPAN / little;
    let best = (usual..=most).find(is_little).or_else(|| (usual..=most).min_by_key(rest));
    claim_extent(r, shard, least, best.unwrap_or(usual))
}

/// Frees a block of the shard whose lock the caller holds, after its entry of `bytes` became
/// unreachable. It is kept for the next entry of this size, if none is kept: where one value replaces
/// another, or comes after it, no bin is looked at.
#[inline(always)]
pub(crate) fn free(r: &Region, shard: ShardCells<'_>, off: u64, bytes: u64) {
    if !is_in_span(r, shard.no, off, bytes) {
        free_rest(r, shard.no, off, bytes);
    } else {
        free_small(r, shard, off, bytes);
    }
}

#[inline(always)]
fn free_small(r: &Region, shard: ShardCells<'_>, off: u64, bytes: u64) {
    if shard.word(at::CACHED_BLOCK).load(Relaxed) == 0 {
        free_to_keep(r, shard, off, bytes);
    } else {
        free_to_bin(r, shard.no, off, bytes);
    }
}

/// [`free`] after [`take_kept`].
#[inline(always)]
pub(crate) fn free_for_kept(r: &Region, shard: ShardCells<'_>, off: u64, bytes: u64) {
    if is_in_span(r, shard.no, off, bytes) {
        free_to_keep(r, shard, off, bytes);
    } else {
        free_rest(r, shard.no, off, bytes);
    }
}

/// Frees a block that the shard keeps from now on: it keeps none.
#[inline(always)]
fn free_to_keep(r: &Region, shard: ShardCells<'_>, off: u64, bytes: u64) {
    set_free(r, shard.no, off, bytes);
    shard.word(at::CACHED_BLOCK).store(bytes << (LEN_AT - 3) | off >> 3, Relaxed);
}

#[inline(never)]
fn free_to_bin(r: &Region, shard_no: u64, off: u64, bytes: u64) {
    let shard = r.shard(shard_no);
    set_free(r, shard_no, off, bytes);
    push(r, shard, off, bytes);
    let freed = shard.word(at::FREED);
    freed.store(freed.load(Relaxed) + bytes, Relaxed);
}

/// [`free`] of a block that does not lie in one span of an extent that gives blocks.
#[inline(never)]
fn free_rest(r: &Region, shard_no: u64, off: u64, bytes: u64) {
    let shard = r.shard(shard_no);
    let Some(s) = spans_at(r, shard.no, off) else { return };
    if s.large && off == s.start(r) {
        poison(r, off);
        return kept_run::free_or_keep(r, shard.no, s.first, s.n);
    }
    // The length is the entry's: if it ends outside of its extent, nothing there is certain.
    if s.large || !(MIN_BLOCK..=MAX_SMALL).contains(&bytes) || off + bytes > s.end(r) {
        shard.set_dirty(true);
    } else if s.leaving {
        set_free(r, shard.no, off, bytes);
    } else {
        free_small(r, shard, off, bytes);
    }
}

/// Takes a block out of use without giving it to anybody, until the next [`coalesce`].
pub(crate) fn discard(r: &Region, shard: ShardCells<'_>, off: u64, bytes: u64) {
    set_free(r, shard.no, off, bytes);
}
