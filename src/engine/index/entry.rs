//! An entry: header, key and value in one block, and the slot that points to it.
//!
//! ```text
//! slot     tag 16 | offset / 8 48          0 = empty
//! word 0   value length 32 | key length 16 | flags 4 | clear generation 12      0 = no entry (poisoned)
//! word 1   Unix time of expiry, milliseconds 44 (0 = never) | 0: 20
//! word 2   checksum (store files only)
//! then     key, padded with zeros to 8, then value (a number in memory: 16-aligned, and its life)
//! ```
//! Immutable once published, except for a number (an 8-byte value) in anonymous memory: see
//! `shm::number`.
#![forbid(unsafe_code)]

use crate::{
    engine::{config::MAX_KEY, geometry::MAX_SHARDS, index::hash::Secret},
    shm::{
        HeaderLen, Region, SharedBytes,
        layout::round8,
        number::{self, aligned},
        sync::*,
    },
};

pub(crate) use crate::shm::{entry_size as size, key_len, number::is_number, value_len};

/// Reads miss the item.
pub(crate) const UNGETTABLE: u64 = 1;
/// A placeholder: a filler is computing the value.
pub(crate) const LEASE: u64 = 2;
/// Bits of a life that are the shard's number.
const SHARD_BITS: u32 = 12;
/// Number of clear generations that entries distinguish.
pub(crate) const GENERATIONS: u64 = 1 << 12;
/// Latest expiry that an entry can hold, milliseconds (the year 2527).
pub(crate) const MAX_EXPIRES: u64 = (1 << 44) - 1;

/// An expiry in seconds as an entry holds it.
#[inline]
pub(crate) fn millis(secs: u64) -> u64 {
    secs.min(MAX_EXPIRES / 1000) * 1000
}

/// Tag of a hash: never 0, which an empty slot has.
#[inline]
pub(crate) fn tag_of(hash: u64) -> u64 {
    (hash & 0xFFFF).max(1)
}

/// Whether the tag of such a hash is not simply its last 16 bits; false for nearly all hashes.
#[inline(always)]
pub(crate) fn is_reserved_tag(tag: u16) -> bool {
    tag == 0
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

/// The high half of a header's first word, if the item has no flags and is of this clear
/// generation, for a key of this length; `None` = no item has such a key.
#[inline(always)]
pub(crate) fn plain_header(key_len: usize, generation: u64) -> Option<u64> {
    let is_possible = (1..=MAX_KEY as usize).contains(&key_len);
    is_possible.then_some((generation % GENERATIONS) << 20 | key_len as u64)
}

/// The item's expiry, milliseconds, from a header's second word: all of it.
#[inline(always)]
pub(crate) fn expires(w1: u64) -> u64 {
    w1
}

/// A header's words with another value's length and expiry; key length, flags and generation stay.
#[inline(always)]
pub(crate) fn renewed(w0: u64, value_len: u32, expires: u64) -> (u64, u64) {
    (w0 >> 32 << 32 | u64::from(value_len), expires)
}

/// The decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) value_len: u64,
    pub(crate) key_len: u64,
    pub(crate) flags: u64,
    pub(crate) generation: u64,
    /// Milliseconds since 1970; 0 = never.
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
            expires: expires(w1),
        }
    }

    #[inline(always)]
    pub(in crate::engine) fn words(&self) -> (u64, u64) {
        (self.value_len | self.key_len << 32 | self.flags << 48 | self.generation << 52, self.expires)
    }

    /// Bytes of the whole entry.
    #[inline]
    pub(crate) fn total(&self, header_bytes: u64) -> u64 {
        size(header_bytes, self.key_len, self.value_len)
    }
}

/// Bytes of the entry whose first word this is.
#[inline(always)]
pub(crate) fn packed_size(header_bytes: u64, w0: u64) -> u64 {
    size(header_bytes, key_len(w0).into(), value_len(w0).into())
}

/// Offset of the value.
#[inline]
pub(crate) fn value_off(off: u64, header_bytes: u64, key_len: u64, value_len: u64) -> u64 {
    let at = off + header_bytes + round8(key_len);
    if is_number(header_bytes, value_len) { aligned(at) } else { at }
}

/// A life of a number: no other in the region is the same, and no user can guess one.
#[inline]
pub(crate) fn life(secret: &Secret, shard_no: u64, nth: u64) -> u64 {
    const { assert!(MAX_SHARDS <= 1 << SHARD_BITS) };
    // Each step has an inverse, so different arguments have different results.
    (nth << SHARD_BITS | shard_no).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ secret.0[0]
}

/// The value, to copy from.
#[inline]
pub(crate) fn value<'a>(r: &'a Region, off: u64, header_bytes: u64, h: &Header) -> SharedBytes<'a> {
    r.source(value_off(off, header_bytes, h.key_len, h.value_len), h.value_len as usize)
}

/// A copy of the key.
pub(crate) fn key(r: &Region, off: u64, header_bytes: u64, h: &Header) -> Vec<u8> {
    let mut key = Vec::new();
    r.source(off + header_bytes, h.key_len as usize).copy_to_vec(&mut key);
    key
}

/// Writes an entry into a block that no reader can reach (I1).
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

/// [`write`] of a number, with its life.
#[inline(never)]
pub(crate) fn write_number(r: &Region, off: u64, words: (u64, u64), key: &[u8], value: u64, life: u64) {
    let at = off + HeaderLen::Plain as u64 + round8(key.len() as u64);
    r.put(off, [words.0, words.1], key, &number::room(at, value, life));
}

#[inline(never)]
fn write_summed(r: &Region, off: u64, header: [u64; 3], key: &[u8], value: &[u8]) {
    r.put(off, header, key, value);
}

#[inline(never)]
pub(in crate::engine) fn sum(secret: &Secret, parts: [u64; 4]) -> u64 {
    let mut bytes = [0u8; 32];
    for (to, from) in bytes.chunks_exact_mut(8).zip(parts) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    secret.hash(&bytes)
}

/// Whether the checksum holds, given the hash of the key. Under the lock of a shard that is being
/// repaired: takes no memory.
pub(crate) fn checksum_holds(r: &Region, off: u64, secret: &Secret, h: &Header, key: u64) -> bool {
    let (w0, w1) = h.words();
    let at = value_off(off, HeaderLen::Summed as u64, h.key_len, h.value_len);
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
            expires: MAX_EXPIRES,
        };
        let (w0, w1) = h.words();
        let renewed = Header { value_len: 7, expires: 5, ..h };
        assert_eq!(super::renewed(w0, 7, 5), renewed.words());
        assert_eq!((w0, w1), (u64::from(u32::MAX) | 0xFFFF << 32 | 3 << 48 | 0xFFF << 52, MAX_EXPIRES));
        assert_eq!(Header::unpack((w0, w1)), h);
        let plain = Header { flags: 0, ..h };
        assert_eq!(plain_header(65_535, h.generation + 3 * GENERATIONS), Some(plain.words().0 >> 32));
        assert_ne!(plain_header(65_535, h.generation), Some(w0 >> 32));
        assert_eq!((plain_header(0, 1), plain_header(65_536, 1)), (None, None));
        assert_eq!(slot_off(slot(0xABCD, 0x1234_5678)), 0x1234_5678);
        assert_eq!(slot_tag(slot(0xABCD, 0x1234_5678)), 0xABCD);
        assert_eq!((tag_of(u64::MAX), tag_of(0)), (0xFFFF, 1));
        for hash in 0..=0x1_FFFF {
            assert_eq!(is_reserved_tag(hash as u16), tag_of(hash) != hash & 0xFFFF, "{hash:#x}");
        }
    }

    #[test]
    fn expiries_in_seconds_are_never_earlier_than_in_milliseconds() {
        assert_eq!((millis(0), millis(7)), (0, 7000));
        assert!(millis(u64::MAX) <= MAX_EXPIRES && millis(u64::MAX) > MAX_EXPIRES - 1000);
    }
}
