//! Lengths of blocks, and the bins that free ones belong to.
//!
//! ```text
//! length             in memory                          in a store, whose format it is
//! up to 256 bytes    multiples of 8, a bin for each     the same
//! up to 16 KiB       size classes: 16 a doubling,       multiples of 8,
//!                    a bin for each                     four bins a doubling
//! above              whole spans                        the same
//! ```
//! A size class wastes 2 % of a block on average. It saves more where values have many lengths: what one
//! entry leaves fits the next one of its class, so blocks are seldom split, and little of what is free
//! lies in pieces that fit nothing. The classes begin [`SHIFT`] bytes above the powers of two, where
//! values of such lengths are with their header and a short key.
#![forbid(unsafe_code)]

use super::layout::{BINS, STORE_BINS};

/// Most bytes of a block that shares its extent with others.
pub(super) const MAX_SMALL: u64 = 16 << 10;
/// Least bytes of an entry, and of a free block that is in a bin.
pub(super) const MIN_BLOCK: u64 = 32;
/// Blocks of up to so many bytes have a bin for each length.
pub(super) const EXACT: u64 = 256;
/// How many bins that are.
pub(super) const EXACT_BINS: usize = ((EXACT - MIN_BLOCK) / 8 + 1) as usize;
/// How far the classes lie above the powers of two: a header and a key of up to 24 bytes.
const SHIFT: u64 = 40;
/// Classes of each doubling, as a power of two.
const LOG_CLASSES: u32 = 4;
/// Number of the first class, counted from that of `SHIFT + 128` bytes.
const FIRST: u64 = position(EXACT + 8);

/// The number of the class of `len` bytes, or of the largest class below.
#[inline(always)]
const fn position(len: u64) -> u64 {
    let above = len - SHIFT;
    let log = above.ilog2();
    ((log as u64 - 7) << LOG_CLASSES) + (above >> (log - LOG_CLASSES) & ((1 << LOG_CLASSES) - 1))
}

/// Bytes of the block of an entry of `len` bytes in memory, more than [`EXACT`] and a multiple of 8.
#[inline(always)]
pub(super) const fn class_len(len: u64) -> u64 {
    if len > MAX_SMALL {
        return len;
    }
    let last = len - SHIFT - 1;
    let in_class = (1 << (last.ilog2() - LOG_CLASSES)) - 1;
    let class = (last | in_class) + 1 + SHIFT;
    if class < MAX_SMALL { class } else { MAX_SMALL }
}

/// The bin of free blocks of `len` bytes in memory, or in a store. In memory the bin of a class has none that
/// are shorter.
#[inline(always)]
pub(super) fn bin(len: u64, in_memory: bool) -> usize {
    if len <= EXACT {
        (len.saturating_sub(MIN_BLOCK) >> 3) as usize
    } else if in_memory {
        (EXACT_BINS + (position(len) - FIRST) as usize).min(BINS as usize - 1)
    } else {
        let log = len.ilog2();
        let of_doubling = (log as usize - 8) * 4 + (len >> (log - 2) & 3) as usize;
        (EXACT_BINS + of_doubling).min(STORE_BINS as usize - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin_in_memory(len: u64) -> usize {
        bin(len, true)
    }

    fn lengths() -> impl Iterator<Item = u64> {
        (EXACT + 8..=MAX_SMALL).step_by(8)
    }

    #[test]
    fn a_class_is_its_own_and_holds_what_it_is_for() {
        let mut last = EXACT;
        for len in lengths() {
            let class = class_len(len);
            assert!(
                class >= len && class >= last && class.is_multiple_of(8) && class <= MAX_SMALL,
                "{len}: {class}"
            );
            assert_eq!(class_len(class), class);
            assert!((class - len) * 16 <= len, "{len} bytes waste {}", class - len);
            last = class;
        }
        assert_eq!([MAX_SMALL + 8, 100 << 10].map(class_len), [MAX_SMALL + 8, 100 << 10]);
    }

    #[test]
    fn values_of_a_power_of_two_waste_little() {
        for log in 8..14 {
            let entry = (1 << log) + 16 + 16;
            assert!((class_len(entry) - entry) * 50 <= entry, "{entry}: {}", class_len(entry));
        }
    }

    #[test]
    fn each_class_has_a_bin_and_no_bin_a_shorter_block() {
        let mut classes = lengths().map(class_len).collect::<Vec<_>>();
        classes.dedup();
        for pair in classes.windows(2) {
            let (bin, next) = (bin_in_memory(pair[0]), bin_in_memory(pair[1]));
            // The longest has the bin of the class before it.
            assert!(next == bin + 1 || pair[1] == MAX_SMALL && next == bin, "{pair:?}: {bin}, {next}");
            let between = (pair[0]..pair[1]).step_by(8);
            assert!(between.clone().all(|len| bin_in_memory(len) == bin), "{pair:?}");
        }
        assert_eq!([EXACT, EXACT + 8].map(bin_in_memory), [EXACT_BINS - 1, EXACT_BINS]);
        assert!(bin_in_memory(64 << 10) == BINS as usize - 1 && bin_in_memory(MAX_SMALL) < BINS as usize - 1);
    }

    #[test]
    fn the_bins_of_stores_are_those_of_their_format() {
        let known =
            [(32, 0), (256, 28), (264, 29), (320, 30), (512, 33), (1024, 37), (16384, 53), (1 << 20, 55)];
        for (len, number) in known {
            assert_eq!(bin(len, false), number, "{len} bytes");
        }
    }
}
