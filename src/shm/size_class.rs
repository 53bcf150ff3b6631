//! Size classes: how many bytes a small block has.
#![forbid(unsafe_code)]

use super::layout::SPAN;

/// Size classes; [`class_size`] gives their blocks' bytes.
pub(crate) const CLASSES: u64 = STEPS + FILLS.len() as u64;
/// Most bytes of a block that shares its span with others.
pub(super) const MAX_SMALL: u64 = SPAN / 2;
/// Most blocks of a span.
pub(super) const MAX_BLOCKS: u64 = SPAN / LEAST;
/// Least bytes of a block.
const LEAST: u64 = 32;
/// Classes up to [`MAX_STEPS`] are 8 bytes apart: what is left of a span is little there.
const STEPS: u64 = (MAX_STEPS - LEAST) / 8 + 1;
const MAX_STEPS: u64 = 512;
/// Larger blocks are those that fill a span, so many of them: each class has a seventeenth fewer than the one before, at least
/// one. Values of 1, 2 and 4 KB fit 61, 30 and 15 blocks
/// with their headers and usual keys.
const FILLS: [u8; 42] = {
    let mut fills = [120_u8; 42];
    let mut at = 1;
    while at < fills.len() {
        let before = fills[at - 1];
        fills[at] = before - before.div_ceil(17);
        at += 1;
    }
    assert!(fills[at - 1] as u64 == SPAN / MAX_SMALL);
    fills
};
/// The class of blocks of which a span holds so many.
const OF_FILL: [u8; 128] = {
    let (mut classes, mut at) = ([0; 128], FILLS.len());
    let mut fill = FILLS[at - 1] as usize;
    while at > 0 {
        at -= 1;
        while fill < 128 && (at == 0 || fill < FILLS[at - 1] as usize) {
            classes[fill] = STEPS as u8 + at as u8;
            fill += 1;
        }
    }
    classes
};

/// The class for `bytes`, `1..=`[`MAX_SMALL`].
#[inline(always)]
pub(super) fn class_of(bytes: u64) -> u64 {
    // Rounded up, of numbers that do not overflow.
    let words = (bytes + 7) >> 3;
    if bytes <= MAX_STEPS {
        return words.saturating_sub(LEAST / 8);
    }
    // A short division: it takes half the time of one of 64 bits.
    let fill = SPAN as u32 / 8 / words as u32;
    OF_FILL[fill as usize & 127].into()
}

/// Bytes of a block of `class`: a multiple of 8.
#[inline]
pub(crate) const fn class_size(class: u64) -> u64 {
    if class < STEPS {
        return LEAST + class * 8;
    }
    SPAN / FILLS[(class - STEPS) as usize] as u64 / 8 * 8
}

/// [`class_size`] of a class below [`CLASSES`].
#[inline(always)]
pub(super) fn size_of(class: u64) -> u64 {
    const SIZES: [u16; CLASSES as usize] = {
        let mut sizes = [0; CLASSES as usize];
        let mut class = 0;
        while class < CLASSES {
            sizes[class as usize] = class_size(class) as u16;
            class += 1;
        }
        sizes
    };
    SIZES[class as usize].into()
}

/// Classes that entries of up to `bytes` have.
pub(crate) fn classes(bytes: u64) -> u64 {
    class_of(bytes.min(MAX_SMALL)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_its_class_and_wastes_little() {
        for bytes in 1..=MAX_SMALL {
            let c = class_of(bytes);
            assert!(c < CLASSES, "{bytes}");
            let size = class_size(c);
            assert!(size >= bytes, "{bytes} in class {c} of {size}");
            assert!(size.is_multiple_of(8) && SPAN / size <= MAX_BLOCKS, "{bytes}");
            if bytes > 32 {
                assert!(c == 0 || class_size(c - 1) < bytes, "{bytes} would fit class {}", c - 1);
            }
            assert_eq!(class_of(size), c, "{bytes}");
        }
    }

    /// What an entry occupies with its part of what is left of the span, in its own bytes.
    fn share(bytes: u64) -> f64 {
        let blocks = SPAN / class_size(class_of(bytes));
        SPAN as f64 / blocks as f64 / bytes as f64
    }

    #[test]
    fn little_of_a_span_is_wasted() {
        let sizes: Vec<f64> = (64..=8192).map(share).collect();
        assert!(sizes.iter().sum::<f64>() / sizes.len() as f64 <= 1.05);
        assert!(sizes.iter().all(|&share| share <= 1.13));
        for value in [1024, 2048, 4096] {
            assert!(share(value + 48) <= 1.06, "{value}: {}", share(value + 48));
        }
    }
}
