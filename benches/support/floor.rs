//! The least that can be called a cache: a hash, the line of one bucket, the lines of one entry, a
//! copy. What it takes is what the memory takes; it has no allocator, limits, expiry, eviction,
//! counters or safety against a death. Slots are compared and values copied by the engine's own
//! code: the fewer instructions a get has, the more of them wait at the same time.
#![allow(dead_code, reason = "every bench uses its own part")]

#[allow(unused_imports, reason = "its tests run with the library's")]
#[path = "../../src/shm/copy.rs"]
mod copy;
#[allow(unused_imports, reason = "as above")]
#[path = "../../src/shm/simd_tags.rs"]
mod simd_tags;

use std::{
    hint::spin_loop,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};

use crate::{
    engine_proc::Scratch,
    support::{VALUE, key},
};

/// Words of an entry: two of header, two of key, the value.
const ENTRY: usize = 4 + VALUE.div_ceil(8);
/// Items that the buckets are made for, of 7 that they hold: about the index bytes of an item in
/// ucache.
const LOAD_TENTHS: usize = 35;

/// Buckets of one version word and seven slots, then the entries, in memory shared with processes
/// forked later.
pub(crate) struct Floor {
    words: Scratch,
    buckets: usize,
    /// What the processor can do.
    wide: bool,
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

fn hash(key: &[u8; 16]) -> u64 {
    let wide = u128::from(word(&key[..8]) ^ 0x2d35_8dcc_aa6c_78a5)
        * u128::from(word(&key[8..]) ^ 0x8bb8_4b93_962e_acc9);
    let folded = (wide >> 64) as u64 ^ wide as u64;
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Floor {
    /// With `count` keys of [`key`], each with a value.
    pub(crate) fn new(count: u32) -> Self {
        let count = count as usize;
        let buckets = (count * 10).div_ceil(LOAD_TENTHS);
        let floor = Self {
            words: Scratch::new(buckets * 8 + count * ENTRY),
            buckets,
            wide: simd_tags::compares_wide(),
        };
        for n in 0..count {
            let key = key(n as u32);
            let at = floor.buckets * 8 + n * ENTRY;
            floor.words[at].store(VALUE as u64, Relaxed);
            floor.words[at + 2].store(word(&key[..8]), Relaxed);
            floor.words[at + 3].store(word(&key[8..]), Relaxed);
            let (mut bucket, tag) = floor.place(&key);
            let free = loop {
                let free = floor.line(bucket)[1..].iter().find(|slot| slot.load(Relaxed) == 0);
                if let Some(free) = free {
                    break free;
                }
                bucket = (bucket + 1) % floor.buckets;
            };
            free.store(tag << 48 | at as u64, Release);
            assert!(floor.update(&key, &[b'v'; VALUE]));
        }
        floor
    }

    /// Bucket and tag; no tag is that of an empty slot.
    fn place(&self, key: &[u8; 16]) -> (usize, u64) {
        let hash = hash(key);
        ((((hash >> 32) * self.buckets as u64) >> 32) as usize, (hash & 0xFFFF).max(1))
    }

    fn line(&self, bucket: usize) -> &[AtomicU64; 8] {
        self.words[bucket * 8..].first_chunk().expect("8 words")
    }

    fn find(&self, key: &[u8; 16], (mut bucket, tag): (usize, u64)) -> Option<&[AtomicU64; ENTRY]> {
        let (low, high) = (word(&key[..8]), word(&key[8..]));
        loop {
            let line = self.line(bucket);
            // SAFETY: a whole line; buckets begin where a page does.
            let mut same = unsafe { simd_tags::match_tag(line.as_ptr().cast(), tag as u16, self.wide) };
            while same != 0 {
                let slot = line[same.trailing_zeros() as usize / 4].load(Acquire);
                let at = (slot & ((1 << 48) - 1)) as usize;
                let entry = self.words[at..].first_chunk::<ENTRY>().expect("an entry");
                if entry[2].load(Relaxed) == low && entry[3].load(Relaxed) == high {
                    return Some(entry);
                }
                same &= same - 1;
            }
            // What did not fit went on to the next bucket.
            if line[7].load(Relaxed) == 0 {
                return None;
            }
            bucket = (bucket + 1) % self.buckets;
        }
    }

    /// Copies the value; whether it was there.
    #[inline]
    pub(crate) fn get(&self, key: &[u8; 16], out: &mut [u8; VALUE]) -> bool {
        let place = self.place(key);
        let version = &self.line(place.0)[0];
        loop {
            let before = version.load(Acquire);
            let found = self.find(key, place);
            if let Some(entry) = found {
                // SAFETY: an entry has room for a value, in whole words, and so has `out`.
                unsafe { copy::load(entry[4..].as_ptr().cast(), out.as_mut_ptr(), VALUE) };
            }
            fence(Acquire);
            if before & 1 == 0 && version.load(Relaxed) == before {
                return found.is_some();
            }
            spin_loop();
        }
    }

    /// Overwrites in place, readers and other writers kept out by the bucket's version; whether it
    /// was there.
    #[inline]
    pub(crate) fn update(&self, key: &[u8; 16], value: &[u8; VALUE]) -> bool {
        let place = self.place(key);
        let version = &self.line(place.0)[0];
        // Keys never move here; a look at the line right after the exchange would wait for it.
        let Some(entry) = self.find(key, place) else { return false };
        let mut before = version.load(Relaxed) & !1;
        while let Err(now) = version.compare_exchange_weak(before, before + 1, Acquire, Relaxed) {
            before = now & !1;
            spin_loop();
        }
        fence(Release);
        for (word, chunk) in entry[4..].iter().zip(value.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Relaxed);
        }
        version.store(before + 2, Release);
        true
    }
}
