//! Lists of a shard's free blocks by their size, and its extents in a chain.
#![forbid(unsafe_code)]

use super::{
    block::{link, set_free_any},
    class::{self, EXACT_BINS},
    extent::spans_at,
    layout::{SPAN, shard as at},
    region::{Region, sync::*},
    shard_cells::ShardCells,
    span::{meta, start},
    span_claim,
};

/// The bin of free blocks of so many bytes.
#[inline(always)]
pub(super) fn bin_of(r: &Region, len: u64) -> usize {
    class::bin(len, r.has_classes())
}

/// The bin's bit in the map of size classes, and the word that has it; `None` = it is no bin of a class.
#[inline(always)]
fn class_bit<'a>(r: &Region, shard: ShardCells<'a>, bin: usize) -> Option<(&'a AtomicU64, u64)> {
    let class = bin.checked_sub(EXACT_BINS).filter(|_| r.has_classes() && bin < all_bins(r))? as u64;
    Some((shard.word(at::CLASS_MAP + class / 64 * 8), 1 << (class % 64)))
}

/// How many bins a shard has.
#[inline(always)]
pub(super) fn all_bins(r: &Region) -> usize {
    r.layout().bins_of_shard() as usize
}

/// Puts a free block, which says so, in its bin.
#[inline(always)]
pub(super) fn push(r: &Region, shard: ShardCells<'_>, off: u64, len: u64) {
    let bin = bin_of(r, len);
    let first = r.bin(shard, bin);
    link(r, off).store(first.load(Relaxed), Relaxed);
    if let Some((word, bit)) = class_bit(r, shard, bin) {
        let map = word.load(Relaxed);
        if map & bit == 0 {
            word.store(map | bit, Relaxed);
        }
    }
    // Whenever a death comes, the map tells of each bin that has a block.
    first.store(off, Release);
}

/// Whether a bin may have blocks.
pub(super) fn is_mapped(r: &Region, shard: ShardCells<'_>, bin: usize) -> bool {
    class_bit(r, shard, bin).is_none_or(|(word, bit)| word.load(Relaxed) & bit != 0)
}

/// The first bin from `from` on that has a block.
#[inline(always)]
pub(super) fn next_used(r: &Region, shard: ShardCells<'_>, from: usize) -> Option<usize> {
    let each = if r.has_classes() { EXACT_BINS } else { all_bins(r) };
    let used = |bin: usize| r.bin(shard, bin).load(Relaxed) != 0;
    (from..each).find(|&bin| used(bin)).or_else(|| next_class(r, shard, from.max(each)))
}

/// [`next_used`] of size classes. A class whose last block was taken leaves the map here.
fn next_class(r: &Region, shard: ShardCells<'_>, mut from: usize) -> Option<usize> {
    while let Some((word, bit)) = class_bit(r, shard, from) {
        let map = word.load(Relaxed);
        // That of the next class in the map, or 64 behind the last one.
        let next = (map & !(bit - 1)).trailing_zeros();
        from += (next - bit.trailing_zeros()) as usize;
        if next == 64 {
            continue;
        }
        // What damage has set may be no class.
        if from < all_bins(r) && r.bin(shard, from).load(Relaxed) != 0 {
            return Some(from);
        }
        word.store(map & !(1 << next), Relaxed);
    }
    None
}

/// Empties a shard's bins: of those of size classes the ones in the map, as the others would only take
/// memory.
pub(super) fn empty_bins(r: &Region, shard: ShardCells<'_>) {
    (0..all_bins(r))
        .filter(|&bin| is_mapped(r, shard, bin))
        .for_each(|bin| r.bin(shard, bin).store(0, Relaxed));
    for word in [at::CLASS_MAP, at::CLASS_MAP + 8] {
        shard.word(word).store(0, Relaxed);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::{
        block::binned_len,
        class::{EXACT, MAX_SMALL, class_len},
        layout::{Geometry, header},
        testing::{self, SMALL},
    };

    fn region(checksums: bool) -> Region {
        let r = testing::region(Geometry { spans: 64, checksums, ..SMALL });
        r.word(header::COMMITTED).store(r.layout().end, Release);
        r.refresh_committed();
        r
    }

    /// The bins that have blocks, in the order in which they are found.
    fn found(r: &Region) -> Vec<usize> {
        let next = |from: usize| next_used(r, r.shard(0), from);
        std::iter::successors(next(0), |&bin| next(bin + 1)).collect()
    }

    #[test]
    fn each_free_block_is_found_by_its_bin() {
        for checksums in [false, true] {
            let r = region(checksums);
            let shard = r.shard(0);
            assert!(found(&r).is_empty());
            let mut off = r.layout().data;
            let mut bins = Vec::new();
            for len in [48, EXACT, 264, 1000, 1032, 4000, 9_000, MAX_SMALL, 60_000] {
                give(&r, shard, off, len);
                bins.push(bin_of(&r, len));
                off += 256;
            }
            bins.sort_unstable();
            bins.dedup();
            assert_eq!(found(&r), bins, "checksums: {checksums}");
            for &bin in &bins {
                assert!(
                    is_mapped(&r, shard, bin) && binned_len(&r, 0, r.bin(shard, bin).load(Relaxed)).is_some()
                );
                r.bin(shard, bin).store(0, Relaxed);
                assert_ne!(next_used(&r, shard, bin), Some(bin), "empty");
            }
            assert!(found(&r).is_empty());
            assert!(checksums || bins.iter().all(|&bin| bin < EXACT_BINS || !is_mapped(&r, shard, bin)));
        }
    }

    #[test]
    fn a_shorter_block_is_in_another_bin() {
        let r = region(false);
        for len in (264..MAX_SMALL).step_by(8).map(class_len).filter(|&len| len < MAX_SMALL) {
            assert!(bin_of(&r, len - 8) < bin_of(&r, len), "{len}");
        }
    }

    #[test]
    fn a_damaged_map_leads_nowhere() {
        let r = region(false);
        let shard = r.shard(0);
        for word in [at::CLASS_MAP, at::CLASS_MAP + 8] {
            shard.word(word).store(u64::MAX, Relaxed);
        }
        assert!(found(&r).is_empty());
        give(&r, shard, r.layout().data, 1000);
        assert_eq!(found(&r), [bin_of(&r, 1000)]);
        empty_bins(&r, shard);
        assert!(found(&r).is_empty());
    }
}
