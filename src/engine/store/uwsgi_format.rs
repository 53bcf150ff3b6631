//! Store files of native uWSGI: an image of the cache's memory, without a header.
//!
//! ```text
//! items x (11 words, then keysize bytes of key), then blocks x blocksize bytes of values
//! words    flags | key length (0 = free) | hash | value length | first block | Unix time of expiry | hits
//!          | previous, next of its hash | previous, next of the LRU list        (numbers of items; item 0 is never used)
//! ```
//! Nothing in it proves itself but the key, by its hash. What cannot be right is left out; what
//! native has torn in a value cannot be seen.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::{
    engine::{Eviction, NativeShape, index::entry::UNGETTABLE, store::convert::try_vec},
    error::Result,
    os::file::StoreFile,
};

const HEAD: u64 = 88;
/// Bytes read at a time.
const BATCH: u64 = 1 << 20;
/// All flags of native uWSGI are below this one.
const FLAGS: u64 = 1 << 10;
/// What is less than this (September 2001) is no time but a TTL: native keeps that with
/// `purge_lru`.
const FIRST_TIME: u64 = 1_000_000_000;

impl NativeShape {
    /// Length of the store file, bytes; `None` = no such file is possible.
    pub(in crate::engine) fn file_len(&self) -> Option<u64> {
        let items = self.items.checked_mul(HEAD.checked_add(self.key_size)?)?;
        items.checked_add(self.blocks.checked_mul(self.block_size)?)
    }

    fn slot(&self) -> u64 {
        HEAD + self.key_size
    }

    fn value_off(&self, record: &Record) -> u64 {
        self.items * self.slot() + record.first_block * self.block_size
    }

    fn blocks_of(&self, record: &Record) -> u64 {
        record.value_len.div_ceil(self.block_size.max(1))
    }

    fn longest_value(&self) -> u64 {
        if self.bitmap { self.blocks.saturating_mul(self.block_size) } else { self.block_size }
    }
}

/// A plausible item.
#[derive(Clone, Copy, Debug)]
struct Record {
    no: u64,
    flags: u64,
    key_len: u64,
    hash: u32,
    value_len: u64,
    first_block: u64,
    expires: u64,
    is_head: bool,
    lru: [u64; 2],
}

/// How many items of a native store were imported or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Counts {
    pub(in crate::engine) imported: u64,
    pub(in crate::engine) expired: u64,
    pub(in crate::engine) damaged: u64,
    pub(in crate::engine) duplicates: u64,
}

/// An item to import.
#[derive(Debug)]
pub(in crate::engine) struct Native {
    pub(in crate::engine) key: Vec<u8>,
    pub(in crate::engine) value: Vec<u8>,
    /// Unix time, seconds; 0 = never.
    pub(in crate::engine) expires: u64,
    pub(in crate::engine) flags: u64,
}

/// A validated native store.
#[derive(Debug)]
pub(in crate::engine) struct NativeStore<'a> {
    file: &'a StoreFile,
    shape: NativeShape,
    /// Valid items, the least recently used first.
    records: Vec<Record>,
    pub(in crate::engine) counts: Counts,
}

impl<'a> NativeStore<'a> {
    /// Reads and validates all items. With `now`, expired ones are dropped.
    pub(in crate::engine) fn read(
        file: &'a StoreFile,
        shape: NativeShape,
        eviction: Eviction,
        now: Option<u64>,
    ) -> Result<Self> {
        let mut store = Self { file, shape, records: Vec::new(), counts: Counts::default() };
        store.scan()?;
        store.drop_overlapping();
        store.drop_duplicates()?;
        if let Some(now) = now {
            store.drop_expired(now);
        }
        if eviction == Eviction::Lru {
            store.sort_by_use();
        }
        store.counts.imported = store.records.len() as u64;
        Ok(store)
    }

    /// Whether nothing indicates a native store, and something speaks against it.
    pub(in crate::engine) fn is_foreign(&self) -> bool {
        let Counts { imported, expired, damaged, duplicates } = self.counts;
        imported + expired + duplicates == 0 && damaged > 0
    }

    fn scan(&mut self) -> Result<()> {
        let slot = self.shape.slot();
        let batch = (BATCH / slot).max(1);
        let mut bytes = Vec::new();
        for first in (0..self.shape.items).step_by(batch as usize) {
            let n = batch.min(self.shape.items - first);
            bytes.resize((n * slot) as usize, 0);
            let got = self.file.read_at(&mut bytes, first * slot)?;
            bytes[got..].fill(0);
            for (no, record) in (first..).zip(bytes.chunks_exact(slot as usize)) {
                match self.parse(no, record) {
                    Ok(Some(record)) => self.records.push(record),
                    Ok(None) => {}
                    Err(Damaged) => self.counts.damaged += 1,
                }
            }
        }
        Ok(())
    }

    /// One slot: free, an item with plausible fields, or damaged.
    fn parse(&self, no: u64, bytes: &[u8]) -> Result<Option<Record>, Damaged> {
        let word = |i: usize| bytes[i * 8..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
        let [flags, key_len, hash, value_len, first_block, expires] = [0, 1, 2, 3, 4, 5].map(word);
        let links = [7, 8, 9, 10].map(word);
        if key_len == 0 {
            return Ok(None);
        }
        let s = &self.shape;
        let hash = u32::try_from(hash).map_err(|_| Damaged)?;
        let record = Record {
            no,
            flags,
            key_len,
            hash,
            value_len,
            first_block,
            expires,
            is_head: links[0] == 0,
            lru: [links[2], links[3]],
        };
        let fits = no != 0
            && key_len <= s.key_size.min(u64::from(u16::MAX))
            && (1..=s.longest_value()).contains(&value_len)
            && flags < FLAGS
            && links.iter().all(|&link| link < s.items)
            && if s.bitmap {
                first_block < s.blocks && s.blocks_of(&record) <= s.blocks - first_block
            } else {
                first_block == no
            };
        let key = bytes.get(HEAD as usize..).and_then(|k| k.get(..key_len as usize)).filter(|_| fits);
        let key = key.ok_or(Damaged)?;
        // Either hash: the settings may have changed since.
        if hash == djb33x(key) || hash == murmur2(key) { Ok(Some(record)) } else { Err(Damaged) }
    }

    /// Where two values share blocks, one was written over the other: native forgets at a restart
    /// which blocks are in use. Which one is intact is unknown.
    fn drop_overlapping(&mut self) {
        if !self.shape.bitmap {
            return;
        }
        let shape = self.shape;
        self.records.sort_by_key(|r| r.first_block);
        let mut bad = vec![false; self.records.len()];
        let (mut end, mut holder) = (0, 0);
        for (i, r) in self.records.iter().enumerate() {
            if r.first_block < end {
                bad[i] = true;
                bad[holder] = true;
            }
            let mine = r.first_block + shape.blocks_of(r);
            if mine > end {
                (end, holder) = (mine, i);
            }
        }
        self.counts.damaged += bad.iter().filter(|&&b| b).count() as u64;
        let mut bad = bad.into_iter();
        self.records.retain(|_| bad.next() != Some(true));
    }

    /// Of two items with one key stays the one that native would find: the head of a chain before
    /// its members, of two heads the later slot, of two members the earlier one.
    fn drop_duplicates(&mut self) -> Result<()> {
        let rank =
            |r: &Record| (r.hash, r.key_len, !r.is_head, if r.is_head { u64::MAX - r.no } else { r.no });
        self.records.sort_by_key(rank);
        let mut kept: Vec<Record> = Vec::with_capacity(self.records.len());
        let mut group = 0;
        for r in std::mem::take(&mut self.records) {
            if kept.get(group).is_none_or(|g| (g.hash, g.key_len) != (r.hash, r.key_len)) {
                group = kept.len();
            }
            let key = if group < kept.len() { self.key(&r)? } else { Vec::new() };
            let mut twice = false;
            for other in &kept[group..] {
                twice |= self.key(other)? == key;
            }
            if twice {
                self.counts.duplicates += 1;
            } else {
                kept.push(r);
            }
        }
        self.records = kept;
        Ok(())
    }

    fn drop_expired(&mut self, now: u64) {
        let before = self.records.len();
        self.records.retain(|r| !(expiry(r.expires, now) != 0 && expiry(r.expires, now) <= now));
        self.counts.expired += (before - self.records.len()) as u64;
    }

    /// Sorts by native's LRU list; items not in the list come first.
    fn sort_by_use(&mut self) {
        let by_no: HashMap<u64, [u64; 2]> = self.records.iter().map(|r| (r.no, r.lru)).collect();
        let mut order: HashMap<u64, u64> = HashMap::new();
        self.records.sort_by_key(|r| r.no);
        for head in self.records.iter().filter(|r| r.lru[0] == 0 && r.lru[1] != 0) {
            let mut at = head.no;
            while let Some(&[_, next]) = by_no.get(&at) {
                let place = order.len() as u64 + 1;
                if order.contains_key(&at) {
                    break;
                }
                order.insert(at, place);
                at = next;
            }
        }
        self.records.sort_by_key(|r| order.get(&r.no).copied().unwrap_or(0));
    }

    fn key(&self, r: &Record) -> Result<Vec<u8>> {
        self.bytes(r.no * self.shape.slot() + HEAD, r.key_len)
    }

    fn bytes(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = try_vec(len as usize)?;
        bytes.resize(len as usize, 0);
        self.file.read_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Passes the items on, one by one.
    pub(in crate::engine) fn each(&self, now: u64, mut f: impl FnMut(Native) -> Result<()>) -> Result<()> {
        self.records.iter().try_for_each(|r| {
            f(Native {
                key: self.key(r)?,
                value: self.bytes(self.shape.value_off(r), r.value_len)?,
                expires: expiry(r.expires, now),
                flags: r.flags & UNGETTABLE,
            })
        })
    }
}

/// A slot with an impossible field.
#[derive(Debug)]
struct Damaged;

/// Converts native's expiry to a time.
fn expiry(native: u64, now: u64) -> u64 {
    match native {
        0 => 0,
        // "At once" is the largest number; values near it mean the same.
        _ if native > u64::MAX / 2 => 1,
        _ if native < FIRST_TIME => now + native,
        time => time,
    }
}

/// uWSGI's `djb33x`: the variant of Bernstein's hash with exclusive or; bytes are signed, like C's
/// `char`.
pub(crate) fn djb33x(key: &[u8]) -> u32 {
    key.iter().fold(5381_u32, |h, &b| (h << 5).wrapping_add(h) ^ as_char(b))
}

/// Appleby's MurmurHash2 with seed 0, as native has it: where one to three bytes are left over it
/// mixes in the *first* bytes of the key instead, as `char`.
pub(crate) fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let (words, tail) = key.as_chunks::<4>();
    let mut h = u32::try_from(key.len()).unwrap_or(u32::MAX);
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (i, &b) in key[..tail.len()].iter().enumerate() {
        h ^= as_char(b) << (8 * i);
    }
    if !tail.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

fn as_char(byte: u8) -> u32 {
    i32::from(byte as std::ffi::c_char).cast_unsigned()
}
