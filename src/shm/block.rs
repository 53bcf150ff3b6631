//! Blocks of an extent: each one describes itself, so that a walk goes from block to block.
//!
//! ```text
//! entry    a key length that is not 0 in its first word; its length follows from the key's and the value's
//! free     0, its length and a check, and (from 32 bytes on) the next free block of its bin in word 3
//! gap      8 bytes between two entries: a check in the low half, no key length
//! ```
//! The check of a free block depends on its place, its length and its shard. A word that was
//! written by somebody else is not believed: it costs space until the shard is rebuilt.
#![forbid(unsafe_code)]

use super::{
    class::{MAX_SMALL, MIN_BLOCK},
    entry_view::{HeaderLen, entry_size, key_len, value_len},
    region::{Region, sync::*},
};

/// Where the link of a bin lies in a free block: behind the checksum of the entry before it.
const LINK: u64 = 24;
/// Bits of a free block's length / 8.
const LEN_BITS: u32 = 14;

/// The second word of a free block.
#[inline(always)]
fn free_word(shard_no: u64, off: u64, len: u64) -> u64 {
    mix(off ^ shard_no << 40 ^ len << 46) & !((1 << LEN_BITS) - 1) | len >> 3
}

/// The first word of a gap.
fn gap_word(shard_no: u64, off: u64) -> u64 {
    mix(off ^ shard_no << 40) >> 32 | 1
}

#[inline(always)]
fn mix(word: u64) -> u64 {
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Bytes of the entry whose first word this is; `None` = it is none.
#[inline(always)]
fn entry_len(r: &Region, word: u64) -> Option<u64> {
    let (key, header) = (key_len(word), HeaderLen::of(r.layout().geo.checksums));
    (key != 0).then(|| entry_size(header as u64, key.into(), value_len(word).into()))
}

/// What is left of a freed block proves nothing. Its first word alone is not enough: after a power
/// failure the next entry's, which may be the same, can stand before the rest of the old one if
/// they lie in two sectors.
#[inline(always)]
pub(super) fn poison(r: &Region, off: u64) {
    r.word(off).store(0, Relaxed);
    if r.layout().geo.checksums {
        r.word(off + 16).store(0, Relaxed);
    }
}

/// Makes a free block of at least [`MIN_BLOCK`] bytes, in no bin.
#[inline(always)]
pub(super) fn set_free(r: &Region, shard_no: u64, off: u64, len: u64) {
    let words = r.four(off);
    words[0].store(0, Relaxed);
    words[1].store(free_word(shard_no, off, len), Relaxed);
    // Where a store has the checksum (see `poison`).
    words[2].store(0, Relaxed);
}

/// Makes a free block of any length. `true` = it is large enough for a bin.
pub(super) fn set_free_any(r: &Region, shard_no: u64, off: u64, len: u64) -> bool {
    match len {
        0 => {}
        8 => r.word(off).store(gap_word(shard_no, off), Relaxed),
        16..MIN_BLOCK => {
            r.word(off).store(0, Relaxed);
            r.word(off + 8).store(free_word(shard_no, off, len), Relaxed);
        }
        _ => set_free(r, shard_no, off, len),
    }
    len >= MIN_BLOCK
}

/// The length of the free block of a bin at `off`; `None` = there is none of the shard.
#[inline(always)]
pub(super) fn binned_len(r: &Region, shard_no: u64, off: u64) -> Option<u64> {
    let (first, word) = r.entry_view(off)?.words();
    let len = (word & ((1 << LEN_BITS) - 1)) << 3;
    (first == 0 && word == free_word(shard_no, off, len) && len >= MIN_BLOCK).then_some(len)
}

/// The link of a free block of a bin.
#[inline(always)]
pub(super) fn link(r: &Region, off: u64) -> &AtomicU64 {
    r.word(off + LINK)
}

/// A block that a walk meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) len: u64,
    pub(super) free: bool,
}

/// The block of the shard at `off`, which ends at `end` at most; `None` = damage.
pub(super) fn met(r: &Region, shard_no: u64, off: u64, end: u64) -> Option<Met> {
    let word = r.word(off).load(Relaxed);
    if let Some(len) = entry_len(r, word) {
        return (len <= MAX_SMALL.min(end - off)).then_some(Met { len, free: false });
    }
    if word != 0 || end - off < 16 {
        return (word == gap_word(shard_no, off)).then_some(Met { len: 8, free: true });
    }
    let second = r.word(off + 8).load(Relaxed);
    let len = (second & ((1 << LEN_BITS) - 1)) << 3;
    let good = second == free_word(shard_no, off, len) && (16..=end - off).contains(&len);
    good.then_some(Met { len, free: true })
}

/// Calls `f` with the place of each block between two places, until it returns `false`; `false` =
/// damage.
#[must_use]
pub(super) fn walk(
    r: &Region,
    shard_no: u64,
    from: u64,
    end: u64,
    mut f: impl FnMut(u64, Met) -> bool,
) -> bool {
    let mut off = from;
    while off < end {
        let Some(block) = met(r, shard_no, off, end) else { return false };
        if !f(off, block) {
            return true;
        }
        off += block.len;
    }
    true
}

/// A store's free memory in which entries may be left that nothing leads to: afterwards there are
/// none.
pub(super) fn wipe(r: &Region, shard_no: u64, from: u64, end: u64) {
    let mut clean = from;
    let whole = walk(r, shard_no, from, end, |off, block| {
        if !block.free {
            poison(r, off);
        }
        clean = off + block.len;
        true
    });
    if !whole {
        // Only what is written: pages that nobody used stay unused.
        let words = (clean..end).step_by(8).map(|off| r.word(off));
        words.filter(|word| word.load(Relaxed) != 0).for_each(|word| word.store(0, Relaxed));
    }
}
