//! Size classes: how many bytes a small block has.
#![forbid(unsafe_code)]

use super::layout::SPAN;

/// Size classes; [`class_size`] gives their blocks' bytes.
pub(crate) const CLASSES: u64 = 99;
/// Most bytes of a block that shares its span with others.
pub(super) const MAX_SMALL: u64 = 32 << 10;
/// Most blocks of a span.
pub(super) const MAX_BLOCKS: u64 = SPAN / 32;

/// The class for `bytes`, `1..=`[`MAX_SMALL`].
#[inline(always)]
pub(super) fn class_of(bytes: u64) -> u64 {
    if bytes <= 512 {
        // Rounded up, of numbers that do not overflow.
        return ((bytes + 7) >> 3).saturating_sub(4);
    }
    if bytes <= 8192 {
        let doubling = u64::from((bytes - 1).ilog2()) - 9;
        return 61 + doubling * 8 + (bytes - (512 << doubling)).div_ceil(64 << doubling) - 1;
    }
    // So many blocks fill a span: 7, 6, 5, 4, 3, 2.
    let fit = (SPAN / bytes).min(7);
    93 + 7 - if SPAN / fit / 8 * 8 < bytes { fit - 1 } else { fit }
}

/// Bytes of a block of `class`: multiples of 8 that waste little of a span.
#[inline]
pub(crate) const fn class_size(class: u64) -> u64 {
    match class {
        0..=60 => 32 + class * 8,
        61..=92 => {
            let (doubling, step) = ((class - 61) / 8, (class - 61) % 8 + 1);
            (512 << doubling) + step * (64 << doubling)
        }
        93..=97 => SPAN / (7 - (class - 93)) / 8 * 8,
        _ => SPAN / 2 / 8 * 8,
    }
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
}
