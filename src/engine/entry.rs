//! An entry: header, key, value, in one block; and the slot that points to it.
//!
//! ```text
//! slot     tag 16 | offset / 8 48          0 = empty; tag 0xFFFF = link to an overflow bucket (last slot only)
//! word 0   value length 32 | key length 16 | flags 4 | clear generation 12      0 = no entry (poisoned)
//! word 1   item number 28 | Unix time of expiry 36 (0 = never)
//! word 2   checksum (store files only)
//! then     key, padded with zeros to 8, then value
//! ```
//! Immutable once published, except for the value of an 8-byte number in anonymous memory, which is one atomic word.
#![forbid(unsafe_code)]

use super::{config::MAX_KEY, hash::Secret};
use crate::shm::{HeaderLen, Region, Source, sync::*};

/// Tag of a link.
pub(crate) const LINK: u64 = 0xFFFF;
/// Reads miss the item.
pub(crate) const UNGETTABLE: u64 = 1;
/// A placeholder: somebody is computing the value.
pub(crate) const LEASE: u64 = 2;
/// Clear generations that entries tell apart.
pub(crate) const GENERATIONS: u64 = 1 << 12;
/// Latest expiry that an entry can hold (the year 4147).
pub(crate) const MAX_EXPIRES: u64 = (1 << 36) - 1;

/// Tag of a hash: never 0 (an empty slot's) and never [`LINK`].
#[inline]
pub(crate) fn tag_of(hash: u64) -> u64 {
    (hash & 0xFFFF).clamp(1, LINK - 1)
}

/// Whether a hash's last 16 bits are not its tag, as they are of nearly all.
#[inline(always)]
pub(crate) fn is_unusual(tag: u16) -> bool {
    tag.wrapping_add(1) <= 1
}

/// A slot's word.
#[inline]
pub(crate) fn slot(tag: u64, off: u64) -> u64 {
    tag << 48 | off >> 3
}

/// Tag of a slot's word.
#[inline]
pub(crate) fn slot_tag(word: u64) -> u64 {
    word >> 48
}

/// Offset of a slot's word.
#[inline]
pub(crate) fn slot_off(word: u64) -> u64 {
    (word & 0xFFFF_FFFF_FFFF) << 3
}

/// Whether a slot's word is a link.
#[inline(always)]
pub(crate) fn is_link(word: u64) -> bool {
    word >= LINK << 48
}

/// Bytes of the value, by a header's first word.
#[inline(always)]
pub(crate) fn value_len(w0: u64) -> u32 {
    w0 as u32
}

/// Bytes of the key, by a header's first word.
#[inline(always)]
pub(crate) fn key_len(w0: u64) -> u32 {
    (w0 >> 32) as u32 & 0xFFFF
}

/// The high half of a header's first word, if the item has no flags and is of this clear generation, for a key of so many
/// bytes; `None` = no item has such a key.
#[inline(always)]
pub(crate) fn plain_head(key_len: usize, generation: u64) -> Option<u64> {
    let is_possible = (1..=MAX_KEY as usize).contains(&key_len);
    is_possible.then_some((generation % GENERATIONS) << 20 | key_len as u64)
}

/// When the item expires, by a header's second word.
#[inline(always)]
pub(crate) fn expires(w1: u64) -> u64 {
    w1 >> 28
}

/// A header's words with another value's length and expiry; key length, flags, generation and item number stay.
#[inline(always)]
pub(crate) fn renewed((w0, w1): (u64, u64), value_len: u32, expires: u64) -> (u64, u64) {
    (w0 >> 32 << 32 | u64::from(value_len), w1 & 0x0FFF_FFFF | expires << 28)
}

/// The item's number, by a header's second word.
#[inline(always)]
pub(crate) fn id(w1: u64) -> u32 {
    (w1 & 0x0FFF_FFFF) as u32
}

/// The decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) value_len: u64,
    pub(crate) key_len: u64,
    pub(crate) flags: u64,
    pub(crate) generation: u64,
    pub(crate) id: u32,
    pub(crate) expires: u64,
}

impl Header {
    /// From its two words.
    #[inline]
    pub(crate) fn unpack((w0, w1): (u64, u64)) -> Self {
        Self {
            value_len: value_len(w0).into(),
            key_len: key_len(w0).into(),
            flags: w0 >> 48 & 0xF,
            generation: w0 >> 52,
            id: id(w1),
            expires: expires(w1),
        }
    }

    #[inline(always)]
    pub(super) fn words(&self) -> (u64, u64) {
        (
            self.value_len | self.key_len << 32 | self.flags << 48 | self.generation << 52,
            u64::from(self.id) | self.expires << 28,
        )
    }

    /// Bytes of the whole entry.
    #[inline]
    pub(crate) fn total(&self, head: u64) -> u64 {
        size(head, self.key_len, self.value_len)
    }
}

/// Up to the next multiple of 8, for lengths that are far from the end of 64 bits.
#[inline]
fn round8(len: u64) -> u64 {
    (len + 7) & !7
}

/// Bytes of an entry whose header has `head` bytes.
#[inline]
pub(crate) fn size(head: u64, key_len: u64, value_len: u64) -> u64 {
    head + round8(key_len) + round8(value_len)
}

/// Bytes of a header.
#[inline]
pub(crate) fn header_len(checksums: bool) -> HeaderLen {
    if checksums { HeaderLen::Summed } else { HeaderLen::Plain }
}

/// Where the value starts.
#[inline]
pub(crate) fn value_off(off: u64, head: u64, key_len: u64) -> u64 {
    off + head + round8(key_len)
}

/// The value, to copy from.
#[inline]
pub(crate) fn value<'a>(r: &'a Region, off: u64, head: u64, h: &Header) -> Source<'a> {
    r.source(value_off(off, head, h.key_len), h.value_len as usize)
}

/// A copy of the key.
pub(crate) fn key(r: &Region, off: u64, head: u64, h: &Header) -> Vec<u8> {
    let mut key = Vec::new();
    r.source(off + head, h.key_len as usize).copy_to_vec(&mut key);
    key
}

/// Writes a whole entry into a block that no reader can reach.
#[inline(always)]
pub(crate) fn write(
    r: &Region,
    off: u64,
    checksums: Option<&Secret>,
    (w0, w1): (u64, u64),
    key: &[u8],
    value: &[u8],
) {
    match checksums {
        None => r.put(off, [w0, w1], key, value),
        Some(secret) => {
            let sum = sum(secret, [w0, w1, secret.hash(key), secret.hash(value)]);
            write_summed(r, off, [w0, w1, sum], key, value);
        }
    }
}

#[inline(never)]
fn write_summed(r: &Region, off: u64, head: [u64; 3], key: &[u8], value: &[u8]) {
    r.put(off, head, key, value);
}

#[inline(never)]
fn sum(secret: &Secret, parts: [u64; 4]) -> u64 {
    let mut bytes = [0u8; 32];
    for (to, from) in bytes.chunks_exact_mut(8).zip(parts) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    secret.hash(&bytes)
}

/// Whether the checksum holds, given the hash of the key. Under the lock of a shard that is being repaired: takes no memory.
pub(crate) fn checksum_holds(r: &Region, off: u64, secret: &Secret, h: &Header, key: u64) -> bool {
    let (w0, w1) = h.words();
    let at = value_off(off, HeaderLen::Summed as u64, h.key_len);
    let value = secret.hash_pieces(h.value_len as usize, |from, into| {
        r.source(at + from as u64, into.len()).copy_to_slice(into);
    });
    r.word(off + 16).load(Relaxed) == sum(secret, [w0, w1, key, value])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_words_keep_every_field() {
        let h = Header {
            value_len: u64::from(u32::MAX),
            key_len: 65_535,
            flags: UNGETTABLE | LEASE,
            generation: GENERATIONS - 1,
            id: (1 << 28) - 1,
            expires: MAX_EXPIRES,
        };
        let (w0, w1) = h.words();
        let renewed = Header { value_len: 7, expires: 5, ..h };
        assert_eq!(super::renewed((w0, w1), 7, 5), renewed.words());
        assert_eq!((w0, w1), (u64::from(u32::MAX) | 0xFFFF << 32 | 3 << 48 | 0xFFF << 52, u64::MAX));
        let plain = Header { flags: 0, ..h };
        assert_eq!(plain_head(65_535, h.generation + 3 * GENERATIONS), Some(plain.words().0 >> 32));
        assert_ne!(plain_head(65_535, h.generation), Some(w0 >> 32));
        assert_eq!((plain_head(0, 1), plain_head(65_536, 1)), (None, None));
        assert_eq!(slot_off(slot(0xABCD, 0x1234_5678)), 0x1234_5678);
        assert_eq!(slot_tag(slot(0xABCD, 0x1234_5678)), 0xABCD);
        assert_eq!((tag_of(u64::MAX), tag_of(0)), (LINK - 1, 1));
        for hash in 0..=0x1_FFFF {
            assert_eq!(is_unusual(hash as u16), tag_of(hash) != hash & 0xFFFF, "{hash:#x}");
        }
    }
}
