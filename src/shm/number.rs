//! Numbers: 8-byte values in memory that are not a store's. Arithmetic changes them in place and
//! without a lock, by one compare-and-swap of 16 bytes: the value, and its life.
//!
//! ```text
//! word 0   the value
//! word 1   its life: a number that no other entry ever has; 0 = ended, or only under the lock
//! ```
//! The two words are 16-aligned, so an entry has room for three. Where the life has ended the
//! exchange fails, whatever the memory is used for by then.

use super::{layout::round8, order::number, pair::Pair};

/// Bytes of the headers of entries that may have numbers: those without a checksum.
pub(super) const HEADER: u64 = 16;

/// Bytes of a number.
pub(crate) const NUMBER: u64 = 8;
/// Bytes of its two words, and of what aligns them.
pub(crate) const ROOM: u64 = 24;

/// Whether a value of this length has a life beside it.
#[inline(always)]
pub(crate) fn is_number(header_bytes: u64, value_len: u64) -> bool {
    value_len == NUMBER && header_bytes == HEADER
}

/// Bytes that a value takes.
#[inline(always)]
pub(super) fn value_room(header_bytes: u64, value_len: u64) -> u64 {
    if value_len == NUMBER { room_of_number(header_bytes) } else { round8(value_len) }
}

/// Out of line, so that other values pay one comparison.
#[cold]
fn room_of_number(header_bytes: u64) -> u64 {
    if is_number(header_bytes, NUMBER) { ROOM } else { NUMBER }
}

/// Where a number lies whose room begins here, at an offset or an address.
#[inline(always)]
pub(crate) fn aligned(at: u64) -> u64 {
    at + (at & 8)
}

/// The room of a number at this offset, as it is written before anybody can see it.
#[inline]
pub(crate) fn room(at: u64, value: u64, life: u64) -> [u8; ROOM as usize] {
    let mut bytes = [0; ROOM as usize];
    let from = (at & 8) as usize;
    bytes[from..from + 8].copy_from_slice(&value.to_ne_bytes());
    bytes[from + 8..from + 16].copy_from_slice(&life.to_ne_bytes());
    bytes
}

/// A number in a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a>(pub(super) &'a Pair);

impl Number<'_> {
    /// Its life now.
    #[inline(always)]
    pub(crate) fn life(self) -> u64 {
        self.0.0[1].load(number::LIFE)
    }

    /// Its value. Under the lock and after [`Number::freeze`], or as a hint.
    #[inline(always)]
    pub(crate) fn value(self) -> u64 {
        self.0.0[0].load(number::VALUE)
    }

    /// Changes the value in one step, if `life` has not ended; `None` = it has. Returns the new
    /// value.
    #[inline(always)]
    pub(crate) fn change(self, life: u64, f: impl Fn(u64) -> u64) -> Option<u64> {
        let mut seen = self.value();
        loop {
            let new = f(seen);
            // SAFETY: who has a life to pass knows that the processor has the instruction: only
            // regions that asked give lives (`Region::has_lives`).
            match unsafe { self.0.exchange((seen, life), new) } {
                None => return Some(new),
                Some((_, other)) if other != life => return None,
                Some((value, _)) => seen = value,
            }
        }
    }

    /// Ends its life, before the entry becomes unreachable (I15).
    #[inline(always)]
    pub(crate) fn end(self) {
        self.0.0[1].store(0, number::END);
    }

    /// Ends its life, so that only the holder of the lock changes it from here on, and what others
    /// have done is in [`Number::value`].
    #[inline]
    pub(crate) fn freeze(self) {
        self.0.0[1].swap(0, number::FREEZE);
    }

    /// Stores a value and a new life. Under the lock, after [`Number::freeze`].
    #[inline]
    pub(crate) fn restart(self, value: u64, life: u64) {
        self.0.0[0].store(value, number::VALUE);
        self.0.0[1].store(life, number::RESTART);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::{super::pair::exchanges_pairs, *};

    #[test]
    fn a_number_changes_in_its_life_only() {
        if !exchanges_pairs() {
            return;
        }
        let pair = Pair([AtomicU64::new(5), AtomicU64::new(77)]);
        let n = Number(&pair);
        assert_eq!((n.change(77, |v| v + 1), n.change(78, |v| v + 1)), (Some(6), None));
        assert_eq!((n.value(), n.life()), (6, 77));
        n.freeze();
        assert_eq!((n.change(77, |v| v + 1), n.value(), n.life()), (None, 6, 0));
        n.restart(9, 78);
        assert_eq!((n.change(77, |v| v + 1), n.change(78, |v| v * 2)), (None, Some(18)));
        n.end();
        assert_eq!((n.change(78, |v| v + 1), n.value()), (None, 18));
    }

    #[test]
    fn no_change_of_several_threads_is_lost() {
        if !exchanges_pairs() {
            return;
        }
        let pair = Pair([AtomicU64::new(0), AtomicU64::new(u64::MAX)]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        assert!(Number(&pair).change(u64::MAX, |v| v + 3).is_some());
                    }
                });
            }
        });
        assert_eq!(Number(&pair).value(), 120_000);
    }

    #[test]
    fn the_words_are_aligned_and_within_the_room() {
        for at in [0, 8, 16, 1 << 20, (1 << 20) + 8] {
            let to = aligned(at);
            assert!(to.is_multiple_of(16) && to >= at && to + 16 <= at + ROOM);
            let bytes = room(at, 3, 4);
            let word = |i: u64| {
                let from = (to - at + 8 * i) as usize;
                u64::from_ne_bytes(bytes[from..from + 8].try_into().expect("eight bytes"))
            };
            assert_eq!((word(0), word(1)), (3, 4));
        }
        assert_eq!((value_room(16, 8), value_room(24, 8), value_room(16, 9)), (24, 8, 16));
    }
}
