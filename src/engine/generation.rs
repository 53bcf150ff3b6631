//! The clear generation: one word with an error-correcting code. Its low half counts clears; the
//! high half is a linear code of the low one, in which two numbers differ in at least four bits of
//! the word: a flipped bit on disk is found and corrected, and a clear is still one store.
#![forbid(unsafe_code)]

use crate::{
    engine::Engine,
    shm::{Region, layout::header, order::clear},
};

/// Three rotations: one bit of the number changes three of the code, and no number but 0 has the
/// code 0.
fn code(number: u32) -> u32 {
    number ^ number.rotate_left(5) ^ number.rotate_left(13)
}

fn word(number: u32) -> u64 {
    u64::from(number) | u64::from(code(number)) << 32
}

fn is_whole(w: u64) -> bool {
    word(w as u32) == w
}

/// The generation after `w`.
pub(in crate::engine) fn after(w: u64) -> u64 {
    word((w as u32).wrapping_add(1))
}

/// The region's current clear generation.
#[inline(always)]
pub(in crate::engine) fn current(region: &Region) -> u64 {
    region.header_word::<{ header::CLEAR_GEN }>().load(clear::READ)
}

/// Number of clears so far.
pub(in crate::engine) fn number(w: u64) -> u32 {
    w as u32
}

/// `w` with one flipped bit corrected. Of what is damaged further the low half is taken.
pub(in crate::engine) fn mended(w: u64) -> u64 {
    let near = (0..64).map(|bit| w ^ 1 << bit);
    std::iter::once(w).chain(near).find(|&w| is_whole(w)).unwrap_or_else(|| word(w as u32))
}

impl Engine {
    /// The current clear generation.
    #[inline]
    pub(in crate::engine) fn clear_gen(&self) -> u64 {
        current(&self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_corrected() {
        let mut w = 0;
        for n in 0..5000 {
            assert_eq!((u64::from(number(w)), mended(w)), (n, w));
            for bit in 0..64 {
                assert_eq!(mended(w ^ 1 << bit), w, "generation {n} bit {bit}");
            }
            w = after(w);
        }
        assert_eq!(after(word(u32::MAX)), 0);
    }
}
