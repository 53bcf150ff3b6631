//! A whole cache as a memory image of a native one, the answer to command 6.
//!
//! The image equals the shared memory of a native cache: `items` slots, of which the first is never
//! used, then `blocks` blocks:
//!
//! ```text
//! slot:  11 x u64: flags, key length, hash, value length, first block, expiry, hits, prev, next, LRU prev, LRU next
//!        `keysize` bytes of key, padded with zeroes
//! block: `blocksize` bytes; a value starts at its first block. Without a block bitmap block n belongs to slot n.
//! ```
//! `prev` and `next` chain the slots of one hash bucket; 0 ends a chain. All numbers are in the
//! host's byte order.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read},
};

use super::{
    records::{Counts, Record, read_value},
    uwsgi_hash::Algorithm,
};

/// Bytes of a slot before its key.
pub const SLOT_HEADER: usize = 88;
const UNGETTABLE: u64 = 1;

/// The geometry of a native cache, which must be the same on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Slots, the unused first one included.
    pub items: u64,
    /// Blocks; at least as many as items.
    pub blocks: u64,
    /// Bytes of a block.
    pub blocksize: u64,
    /// Bytes kept for a key.
    pub keysize: u64,
    /// Buckets of the hash table.
    pub hashsize: u32,
    /// The hash function of keys.
    pub hash: fn(&[u8]) -> u32,
    /// Values may take several blocks.
    pub bitmap: bool,
    /// Slots are chained by use.
    pub lru: bool,
}

impl Geometry {
    /// Bytes of the image; `None` = more than 64 bits can count.
    #[must_use]
    pub fn image_len(&self) -> Option<u64> {
        self.slot_len().checked_mul(self.items)?.checked_add(self.blocks.checked_mul(self.blocksize)?)
    }

    fn slot_len(&self) -> u64 {
        SLOT_HEADER as u64 + self.keysize
    }

    /// Longest value, bytes.
    fn max_value(&self) -> u64 {
        if self.bitmap { self.blocks.saturating_mul(self.blocksize) } else { self.blocksize }
    }
}

/// Writes the image of a cache with `records`, in pieces of about 64 KiB. Records that do not fit
/// the geometry are left out. Stops early and returns `false` when `out` does.
pub fn write_image(g: &Geometry, records: &[Record], out: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let placed = place(g, records);
    let mut w = Pieces::new(out);
    let slots = usize::try_from(g.items).unwrap_or(usize::MAX);
    w.zeros(g.slot_len());
    for (i, p) in placed.iter().enumerate() {
        let slot = i as u64 + 1;
        let lru = |s: u64| if g.lru && s >= 1 && s <= placed.len() as u64 { s } else { 0 };
        let r = p.record;
        let words = [
            if r.ungettable { UNGETTABLE } else { 0 },
            r.key.len() as u64,
            p.hash.into(),
            r.value.len() as u64,
            p.first_block,
            r.expires,
            0,
            p.prev,
            p.next,
            lru(slot - 1),
            lru(slot + 1),
        ];
        words.iter().for_each(|word| w.bytes(&word.to_ne_bytes()));
        w.bytes(&r.key);
        w.zeros(g.keysize - r.key.len() as u64);
    }
    w.zeros((slots as u64 - 1 - placed.len() as u64) * g.slot_len());
    let mut block = 0;
    for p in &placed {
        w.zeros((p.first_block - block) * g.blocksize);
        let len = p.record.value.len() as u64;
        let blocks = len.div_ceil(g.blocksize);
        w.bytes(&p.record.value);
        w.zeros(blocks * g.blocksize - len);
        block = p.first_block + blocks;
    }
    w.zeros((g.blocks - block) * g.blocksize);
    w.finish()
}

struct Placed<'a> {
    record: &'a Record,
    hash: u32,
    first_block: u64,
    prev: u64,
    next: u64,
}

/// Assigns a slot, blocks and a position in the chain of its bucket to every record.
fn place<'a>(g: &Geometry, records: &'a [Record]) -> Vec<Placed<'a>> {
    let mut placed: Vec<Placed<'a>> = Vec::new();
    let mut tails: HashMap<u32, u64> = HashMap::new();
    let mut free_block = 1;
    for record in records {
        let len = record.value.len() as u64;
        let blocks = len.div_ceil(g.blocksize);
        let slot = placed.len() as u64 + 1;
        let first_block = if g.bitmap { free_block } else { slot };
        let fits = (1..=g.keysize).contains(&(record.key.len() as u64)) && (1..=g.max_value()).contains(&len);
        if slot >= g.items || !fits || first_block + blocks > g.blocks {
            continue;
        }
        free_block += blocks;
        let hash = (g.hash)(&record.key);
        let prev = tails.insert(hash % g.hashsize, slot).unwrap_or(0);
        if let Some(before) = prev.checked_sub(1) {
            placed[usize::try_from(before).unwrap_or(0)].next = slot;
        }
        placed.push(Placed { record, hash, first_block, prev, next: 0 });
    }
    placed
}

/// Collects small writes; stops for good when the receiver does.
struct Pieces<'a> {
    buf: Vec<u8>,
    out: &'a mut dyn FnMut(&[u8]) -> bool,
    open: bool,
}

impl<'a> Pieces<'a> {
    const LEN: usize = 65_536;

    fn new(out: &'a mut dyn FnMut(&[u8]) -> bool) -> Self {
        Self { buf: Vec::with_capacity(Self::LEN), out, open: true }
    }

    fn bytes(&mut self, mut bytes: &[u8]) {
        while self.open && !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(Self::LEN - self.buf.len()));
            self.buf.extend_from_slice(now);
            bytes = later;
            self.flush_if(Self::LEN);
        }
    }

    fn zeros(&mut self, mut n: u64) {
        while self.open && n > 0 {
            let now = usize::try_from(n).unwrap_or(usize::MAX).min(Self::LEN - self.buf.len());
            self.buf.resize(self.buf.len() + now, 0);
            n -= now as u64;
            self.flush_if(Self::LEN);
        }
    }

    fn flush_if(&mut self, len: usize) {
        if self.open && self.buf.len() >= len {
            self.open = (self.out)(&self.buf);
            self.buf.clear();
        }
    }

    fn finish(mut self) -> bool {
        self.flush_if(1);
        self.open
    }
}

struct Found {
    key: Vec<u8>,
    offset: u64,
    len: u64,
    expires: u64,
    ungettable: bool,
}

/// Reads an image and passes its items on, in the order of their blocks. Memory: the keys, and one
/// value at a time.
///
/// # Errors
/// Errors of `from`; [`ErrorKind::UnexpectedEof`] if the image is shorter than the geometry says,
/// which also happens if the peer has another `keysize` or `blocks`. Items passed on before are
/// complete.
pub fn read_image(g: &Geometry, from: &mut impl Read, each: &mut dyn FnMut(Record)) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut found = Vec::new();
    let too_long = || io::Error::new(ErrorKind::InvalidInput, "the geometry is larger than any memory");
    let mut slot = vec![0; usize::try_from(g.slot_len()).map_err(|_| too_long())?];
    for i in 0..g.items {
        from.read_exact(&mut slot)?;
        match parse_slot(g, i, &slot) {
            Ok(None) => {}
            Ok(Some(item)) => found.push(item),
            Err(()) => counts.damaged += 1,
        }
    }
    found.sort_by_key(|f| f.offset);
    let mut at = 0;
    for f in found {
        // Two items share a block: the second one's value has already been read past.
        let Some(gap) = f.offset.checked_sub(at) else {
            counts.damaged += 1;
            continue;
        };
        skip(from, gap)?;
        let value = read_value(from, f.len)?;
        at = f.offset + f.len;
        counts.items += 1;
        each(Record { key: f.key, value, expires: f.expires, ungettable: f.ungettable });
    }
    skip(from, (g.blocks * g.blocksize).saturating_sub(at))?;
    Ok(counts)
}

fn skip(from: &mut impl Read, n: u64) -> io::Result<()> {
    let skipped = io::copy(&mut from.take(n), &mut io::sink())?;
    if skipped == n { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// `Ok(None)` = not in use.
fn parse_slot(g: &Geometry, index: u64, slot: &[u8]) -> Result<Option<Found>, ()> {
    let (words, key) = slot.split_at_checked(SLOT_HEADER).ok_or(())?;
    let word = |i: usize| words.as_chunks::<8>().0.get(i).map_or(0, |w| u64::from_ne_bytes(*w));
    let (flags, keylen, hash, len, first_block, expires) =
        (word(0), word(1), word(2), word(3), word(4), word(5));
    if keylen == 0 {
        return Ok(None);
    }
    let key = usize::try_from(keylen).ok().and_then(|n| key.get(..n)).ok_or(())?;
    let known_hash = [Algorithm::Djb33x, Algorithm::Murmur2].iter().any(|a| u64::from(a.hash(key)) == hash);
    let offset = first_block.checked_mul(g.blocksize).ok_or(())?;
    let end = offset.checked_add(len).ok_or(())?;
    let room = g.blocks.checked_mul(g.blocksize).ok_or(())?;
    if index == 0 || !known_hash || len == 0 || len > g.max_value() || end > room {
        return Err(());
    }
    Ok(Some(Found { key: key.to_vec(), offset, len, expires, ungettable: flags & UNGETTABLE != 0 }))
}

#[cfg(test)]
mod tests;
