//! Lists of a shard's free blocks by their size, and its extents in a chain.
#![forbid(unsafe_code)]

use super::{
    block::{MAX_SMALL, MIN_BLOCK, link, set_free_any},
    extent::spans_at,
    layout::{BINS, SPAN, shard as at},
    region::{Region, sync::*},
    shard_cells::ShardCells,
    span::{meta, start},
    span_claim,
};

/// Blocks of up to so many bytes have a bin for each size.
pub(super) const EXACT: u64 = 256;

/// The bin of free blocks of so many bytes: one a size for small ones, four a doubling above.
#[inline(always)]
pub(super) fn bin_of(len: u64) -> usize {
    if len <= EXACT {
        return (len.saturating_sub(MIN_BLOCK) >> 3) as usize;
    }
    let len = len.min(4 * MAX_SMALL - 1);
    let log = 63 - len.leading_zeros();
    let exact = (EXACT - MIN_BLOCK) as usize / 8 + 1;
    (exact + (log as usize - 8) * 4 + (len >> (log - 2) & 3) as usize).min(BINS as usize - 1)
}

/// Puts a free block, which says so, in its bin.
#[inline(always)]
pub(super) fn push(r: &Region, shard: ShardCells<'_>, off: u64, len: u64) {
    let first = r.bin(shard, bin_of(len));
    link(r, off).store(first.load(Relaxed), Relaxed);
    first.store(off, Relaxed);
}

/// Makes a free block, and puts it in its bin if it is large enough.
pub(super) fn give(r: &Region, shard: ShardCells<'_>, off: u64, len: u64) {
    if set_free_any(r, shard.no, off, len) {
        push(r, shard, off, len);
    }
}

/// Puts an extent at the front of its shard's chain.
pub(super) fn chain(r: &Region, shard: ShardCells<'_>, head: u64, high: u64) {
    let extents = shard.word(at::EXTENTS);
    meta(r, head, 1).store(extents.load(Relaxed) & 0xFFFF_FFFF | high << 32, Relaxed);
    extents.store(head + 1, Relaxed);
}

/// Counts the memory of an extent that gives blocks.
pub(super) fn add_heap(shard: ShardCells<'_>, n: u64) {
    let heap = shard.word(at::HEAP);
    heap.store(heap.load(Relaxed) + n * SPAN, Relaxed);
}

/// Where the shard goes on in its newest extent.
pub(super) fn set_bump(shard: ShardCells<'_>, from: u64, end: u64) {
    shard.word(at::BUMP).store(from, Relaxed);
    shard.word(at::BUMP_END).store(end, Relaxed);
}

/// Claims an extent of `n` spans, or of fewer, but at least so many.
pub(super) fn claim_extent(r: &Region, shard: ShardCells<'_>, least: u64, mut n: u64) -> bool {
    let head = loop {
        match span_claim::claim(r, n, shard.no, false) {
            Some(head) => break head,
            None if n <= least => return false,
            None => n = (n / 2).max(least),
        }
    };
    let (left, left_end) = (shard.word(at::BUMP).load(Relaxed), shard.word(at::BUMP_END).load(Relaxed));
    let is_whole = left < left_end && spans_at(r, shard.no, left).is_some_and(|s| s.end(r) == left_end);
    set_bump(shard, start(r, head), start(r, head + n));
    chain(r, shard, head, 0);
    add_heap(shard, n);
    if is_whole {
        give(r, shard, left, left_end - left);
    }
    true
}
