//! Import of stores of format 5, whose items are moved to a new store. Everything that is special
//! about that format is here: where its areas were, item ids in headers, expiries in seconds, and
//! links in the last slot of a bucket.
//!
//! The file is read, never mapped or changed. An item proves itself: its key belongs to the bucket
//! that it was found by, and its checksum holds.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, Eviction, generation,
        index::{
            entry::{self, GENERATIONS, LEASE},
            hash::Secret,
        },
        store::{convert::try_vec, disk::Disk, open::Opening},
    },
    error::{Error, Result, StoreFault},
    os::{clock, file::StoreFile, mutex::MUTEX_SIZE},
    shm::layout::{Geometry, header},
};

/// The format.
const FORMAT: u64 = 5;

const PAGE: u64 = 4096;
const SPAN: u64 = 64 << 10;
const BUCKET: u64 = 64;
const SLOTS: usize = 7;
const SHARD: u64 = 576;
const STATS: u64 = 256;
const STATS_SLOTS: u64 = 256;
const SPAN_META: u64 = 24;
/// Bytes of an entry's header, with its checksum.
const HEADER: u64 = 24;
/// Tag of a link in the last slot.
const LINK: u64 = 0xFFFF;
/// Buckets read at a time.
const TOGETHER: u64 = 4096;

/// The digest of the layout's constants in builds that wrote this format.
fn abi() -> u64 {
    let word = size_of::<usize>() as u64;
    let parts =
        [SPAN, BUCKET, SLOTS as u64, SHARD, STATS, STATS_SLOTS, SPAN_META, PAGE, MUTEX_SIZE as u64, word];
    parts.iter().fold(0xCBF2_9CE4_8422_2325, |h: u64, &p| (h ^ p).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The areas that items are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Areas {
    index: u64,
    stamps: u64,
    data: u64,
    /// The end of the file's data.
    end: u64,
}

impl Areas {
    fn new(geo: &Geometry, file_len: u64) -> Option<Self> {
        let id_words = geo.capacity / 64 + 1;
        let buckets = geo.shards.checked_mul(geo.overflow)?.checked_add(geo.homes)?;
        let before_index = [
            geo.shards.checked_mul(SHARD)?,
            STATS * STATS_SLOTS,
            geo.spans.checked_mul(SPAN_META)?,
            id_words * 8,
            id_words.div_ceil(64) * 8,
            id_words.div_ceil(4096) * 8,
            (geo.capacity + 1).checked_mul(4)?,
            (geo.capacity + 1).checked_mul(4)?,
        ];
        let sum = |at: u64, bytes: u64| at.checked_add(bytes.checked_next_multiple_of(64)?);
        let index = before_index.into_iter().try_fold(PAGE, sum)?;
        let lines = buckets.checked_mul(BUCKET)?;
        let stamps = sum(index, lines)?;
        let ghosts = sum(stamps, if geo.stamps { lines } else { 0 })?;
        let data = sum(ghosts, geo.ghost_words() * geo.shards * 8)?.checked_next_multiple_of(SPAN)?;
        (data <= file_len).then_some(Self { index, stamps, data, end: file_len })
    }
}

/// An item, where it was found and when it was used last.
#[derive(Clone, Copy, Debug)]
struct Found {
    stamp: u64,
    off: u64,
}

/// An item's content.
struct Item {
    key: Vec<u8>,
    value: Vec<u8>,
    flags: u64,
    /// Milliseconds; 0 = never.
    expires: u64,
}

struct OldStore<'a> {
    file: &'a StoreFile,
    geo: Geometry,
    areas: Areas,
    secret: Secret,
    generation: u64,
}

impl OldStore<'_> {
    /// Reads bytes; what lies behind the end of the file is 0.
    fn read_padded(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let got = self.file.read_at(bytes, at)?;
        bytes.iter_mut().skip(got).for_each(|byte| *byte = 0);
        Ok(())
    }

    /// All live items that prove themselves, the least recently used first.
    fn items(&self) -> Result<Vec<Found>> {
        let buckets = self.geo.homes + self.geo.shards * self.geo.overflow;
        let mut found = try_vec(usize::try_from(self.geo.capacity).unwrap_or(usize::MAX))?;
        let (mut lines, mut stamps) = (try_bytes(TOGETHER * BUCKET)?, try_bytes(TOGETHER * BUCKET)?);
        for first in (0..buckets).step_by(TOGETHER as usize) {
            self.read_padded(self.areas.index + first * BUCKET, &mut lines)?;
            if self.geo.stamps {
                self.read_padded(self.areas.stamps + first * BUCKET, &mut stamps)?;
            }
            let left = (buckets - first).min(TOGETHER);
            let each = (0..left).flat_map(|n| (1..=SLOTS as u64).map(move |slot| (n * 8 + slot) * 8));
            for at in each {
                let (slot, bucket) = (word(&lines, at), first + at / BUCKET);
                let is_item = slot != 0 && slot >> 48 != LINK && (found.len() as u64) < self.geo.capacity;
                if is_item && self.item(bucket, slot)?.is_some() {
                    // Stored inverted.
                    let stamp = if self.geo.stamps { !word(&stamps, at) } else { 0 };
                    found.push(Found { stamp, off: (slot & 0xFFFF_FFFF_FFFF) << 3 });
                }
            }
        }
        // Stable: without stamps they stay in the order of the index.
        found.sort_by_key(|found| found.stamp);
        Ok(found)
    }

    /// The item that a bucket's slot leads to, if it belongs there.
    fn item(&self, bucket: u64, slot: u64) -> Result<Option<Item>> {
        let Some((item, hash)) = self.entry((slot & 0xFFFF_FFFF_FFFF) << 3)? else { return Ok(None) };
        let home = ((hash >> 32) * self.geo.homes) >> 32;
        let per_shard = self.geo.homes / self.geo.shards;
        let belongs = match bucket.checked_sub(self.geo.homes) {
            None => bucket == home,
            Some(n) => n / self.geo.overflow == home / per_shard,
        };
        Ok((belongs && slot >> 48 == (hash & 0xFFFF).clamp(1, LINK - 1)).then_some(item))
    }

    /// The live entry at an offset whose checksum holds, and its key's hash.
    fn entry(&self, off: u64) -> Result<Option<(Item, u64)>> {
        let mut head = [0; HEADER as usize];
        if off < self.areas.data || off >= self.areas.end {
            return Ok(None);
        }
        self.read_padded(off, &mut head)?;
        let [w0, w1, told] = [0, 8, 16].map(|at| word(&head, at));
        let (value_len, key_len, flags) = (w0 & 0xFFFF_FFFF, w0 >> 32 & 0xFFFF, w0 >> 48 & 0xF);
        let live = flags & LEASE == 0 && w0 >> 52 == self.generation % GENERATIONS;
        let value_at = off + HEADER + key_len.next_multiple_of(8);
        if !live || key_len == 0 || value_len == 0 || value_at + value_len > self.areas.end {
            return Ok(None);
        }
        let (mut key, mut value) = (try_bytes(key_len)?, try_bytes(value_len)?);
        self.read_padded(off + HEADER, &mut key)?;
        self.read_padded(value_at, &mut value)?;
        let hash = self.secret.hash(&key);
        if told != entry::sum(&self.secret, [w0, w1, hash, self.secret.hash(&value)]) {
            return Ok(None);
        }
        Ok(Some((Item { key, value, flags, expires: entry::millis(w1 >> 28) }, hash)))
    }
}

/// Zeros; a lack of memory is an error.
fn try_bytes(len: u64) -> Result<Vec<u8>> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut bytes = try_vec(len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

fn word(bytes: &[u8], at: u64) -> u64 {
    let at = at as usize;
    bytes.get(at..at + 8).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Whether the file is a complete store of this format.
pub(super) fn is_of_format_5(disk: &Disk<'_>) -> bool {
    disk.is_ours() && disk.word(header::VERSION) == FORMAT && !disk.is_unfinished()
}

impl Engine {
    /// Opens a store of format 5: its items move to a new store. The caller holds it alone.
    pub(super) fn import_v5(mut disk: Disk<'_>, file: &StoreFile, attempt: &mut Opening<'_>) -> Result<Self> {
        let geo = disk.check_as(FORMAT, abi())?;
        let limits = disk.limits(&geo);
        let damaged = |part| Error::store(disk.path, StoreFault::Damaged { part });
        let config = attempt.config.cloned().or(limits).ok_or_else(|| damaged("limits"))?;
        config.check()?;
        let areas = Areas::new(&geo, disk.len).ok_or_else(|| damaged("geometry"))?;
        let secret = Secret([0, 1, 2, 3].map(|i| disk.word(header::SECRET + i * 8)));
        let generation = generation::number(generation::mended(disk.word(header::CLEAR_GEN))).into();
        let old = OldStore { file, geo, areas, secret, generation };
        let difference = format!("had format {FORMAT}");
        let mut items = old.items()?;
        // Expired items stay behind.
        if items.len() as u64 > config.capacity && config.eviction == Eviction::None {
            let items = items.len() as u64;
            return Err(Error::store(disk.path, StoreFault::DoesNotFit { difference, items }));
        }
        let left = items.len().saturating_sub(usize::try_from(config.capacity).unwrap_or(usize::MAX));
        items.drain(..left);
        let now = clock::unix_millis();
        let each = |new: &Self| {
            items.iter().try_for_each(|found| match old.entry(found.off)? {
                Some((item, _)) if config.no_expire || item.expires == 0 || item.expires > now => {
                    new.restore(&item.key, &item.value, item.expires, item.flags)
                }
                _ => Ok(()),
            })
        };
        Self::move_items(file, &config, (&difference, left), attempt, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_where_they_were() {
        let geo = Geometry {
            capacity: 1000,
            shards: 2,
            homes: 224,
            overflow: 120,
            spans: 7,
            stamps: true,
            ghosts: true,
            sieve: false,
            checksums: true,
        };
        let areas = Areas::new(&geo, 1 << 20).expect("areas");
        let (index, lines) = (4096 + 1152 + 65_536 + 192 + 128 + 64 + 64 + 4032 + 4032, 464 * 64);
        let stamps = index + lines;
        assert_eq!(areas, Areas { index, stamps, data: 3 * SPAN, end: 1 << 20 });
        assert!(stamps + lines + 2 * 512 * 8 <= 3 * SPAN);
        assert_eq!(Areas::new(&geo, 2 * SPAN), None, "the file ends before its data");
    }
}
