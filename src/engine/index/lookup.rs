//! Lookups of a key in its chain: a straight-line fast path, and a loop for all cases.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, generation,
        index::{
            bucket::{EntryRef, LINK},
            entry::{self, Header},
        },
    },
    shm::{
        Bucket, Region, SharedBytes, first_match, layout::shard, order::seqlock, prefetch_bucket, sync::*,
    },
};
use access::{READ, WRITE};

/// Keys that [`Engine::prefetch_keys`] takes at a time: more lines than a core can fetch at once,
/// few enough to stay cached until used.
pub(crate) const BATCH: usize = 16;

/// An entry with the given key.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct RawEntry<'a> {
    pub(in crate::engine) bucket: u64,
    pub(in crate::engine) slot: u64,
    pub(in crate::engine) off: u64,
    /// The header.
    pub(in crate::engine) words: (u64, u64),
    pub(in crate::engine) value: SharedBytes<'a>,
}

/// A key with its hash and home bucket.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct HashedKey<'k> {
    pub(in crate::engine) key: &'k [u8],
    pub(in crate::engine) hash: u64,
    pub(in crate::engine) home: u64,
    /// The home bucket.
    pub(in crate::engine) bucket: &'k Bucket,
    pub(in crate::engine) shard: u64,
}

impl HashedKey<'_> {
    /// The tag of its slot.
    #[inline(always)]
    pub(in crate::engine) fn tag(&self) -> u64 {
        entry::tag_of(self.hash)
    }
}

impl RawEntry<'_> {
    /// Decodes the header.
    #[inline(always)]
    pub(in crate::engine) fn decode(&self) -> EntryRef {
        EntryRef { bucket: self.bucket, slot: self.slot, off: self.off, header: Header::unpack(self.words) }
    }
}

/// How the caller will use the entry; decides what to prefetch.
pub(in crate::engine) mod access {
    /// Reads key and header only.
    pub(crate) const PEEK: u8 = 0;
    /// Reads the value.
    pub(crate) const READ: u8 = 1;
    /// Replaces or removes the entry.
    pub(crate) const WRITE: u8 = 2;
}

/// The result of a fast lookup.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum FastLookup<'a> {
    /// The key's entry, without flags and of the current generation; it may have expired.
    Found(RawEntry<'a>),
    /// The key is not stored.
    Absent,
    /// Only [`Engine::lookup`] can decide.
    Retry,
}

impl Engine {
    /// Looks `key` up in the chain of `home`, whatever kind of item it is. Without the shard's lock
    /// the caller must check the sequence number afterwards.
    pub(in crate::engine) fn lookup(&self, home: u64, tag: u64, key: &[u8]) -> Option<EntryRef> {
        // No item has an empty key, but a free block may look like one.
        if key.is_empty() || !self.region.has_bucket(home) {
            return None;
        }
        let (mut bucket, mut line, mut hops) = (home, self.region.bucket(home), 0);
        loop {
            let mut matches = self.region.match_tag(line, tag as u16);
            while matches != 0 {
                let slot = first_match(matches);
                matches &= matches - 1;
                // Acquire: the entry was written before (I1).
                let off = entry::slot_off(line[slot].load(seqlock::FOLLOW));
                if let Some((words, stored)) = self.entry_at(off)
                    && stored.is(key)
                {
                    return Some(EntryRef { bucket, slot: slot as u64, off, header: Header::unpack(words) });
                }
            }
            bucket = self.link_of(home, line[0].load(seqlock::FOLLOW))?;
            hops += 1;
            if hops > self.geo.overflow {
                return None;
            }
            line = self.region.bucket(bucket);
        }
    }

    /// Prefetches what reads or writes of these keys need, at most [`BATCH`] keys at a time: first
    /// their home buckets, then the entries that slots with their tags lead to.
    pub(crate) fn prefetch_keys<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let mut wanted = [None; BATCH];
        for (entry, key) in wanted.iter_mut().zip(keys) {
            let hash = self.hash(key);
            let (_, line) = self.region.home_bucket(hash);
            prefetch_bucket(line);
            *entry = Some((line, hash));
        }
        for (line, hash) in wanted.into_iter().flatten() {
            let matches = self.region.match_tag(line, hash as u16);
            if matches != 0 {
                let word = line[first_match(matches)].load(Relaxed);
                [0, 64, 128].iter().for_each(|at| self.region.prefetch(entry::slot_off(word) + at));
            }
        }
    }

    /// [`Engine::lookup_fast`] for writers.
    #[inline(always)]
    pub(in crate::engine) fn lookup_fast_for<const ACCESS: u8>(
        &self,
        hashed: &HashedKey<'_>,
    ) -> FastLookup<'_> {
        self.lookup_fast::<ACCESS>(&self.region, (hashed.home, hashed.bucket), hashed.hash, hashed.key)
    }

    /// [`Engine::lookup`] without its loops, for items without flags that no clear has emptied: the
    /// first slot of the home bucket that has the hash's tag, or none has, nor one of the only bucket
    /// that may follow. Small enough for out-of-order execution to overlap several lookups. `region` is the
    /// engine's: found once, as the compiler could not know that it stays.
    #[inline(always)]
    pub(in crate::engine) fn lookup_fast<'r, const ACCESS: u8>(
        &self,
        region: &'r Region,
        (home, first): (u64, &Bucket),
        hash: u64,
        key: &[u8],
    ) -> FastLookup<'r> {
        // The hash's last bits are the tag of all keys but a few, whose tag is not 0. Those find
        // empty slots, which lead to no entry.
        let tag = hash as u16;
        let matches = region.match_tag(first, tag);
        if matches == 0 {
            let link = first[0].load(seqlock::FOLLOW) & LINK;
            let is_absent = !entry::is_reserved_tag(tag) && (link == 0 || self.ends_without(home, link, tag));
            return if is_absent { FastLookup::Absent } else { FastLookup::Retry };
        }
        let slot = first_match(matches);
        // Acquire: the entry was written before (I1).
        let off = entry::slot_off(first[slot].load(seqlock::FOLLOW));
        match self.entry_fast::<ACCESS>(region, off, key) {
            Some((words, value)) => {
                FastLookup::Found(RawEntry { bucket: home, slot: slot as u64, off, words, value })
            }
            None => FastLookup::Retry,
        }
    }

    /// Whether the chain's second bucket is its last one, and no slot of it has the tag.
    #[inline(never)]
    fn ends_without(&self, home: u64, link: u64, tag: u16) -> bool {
        self.link_of(home, link).is_some_and(|bucket| {
            let line = self.region.bucket(bucket);
            self.region.match_tag(line, tag) == 0 && line[0].load(seqlock::FOLLOW) & LINK == 0
        })
    }

    /// Header and value of the entry at `off`, if it is an item without flags with this key.
    #[inline(always)]
    fn entry_fast<'r, const ACCESS: u8>(
        &self,
        region: &'r Region,
        off: u64,
        key: &[u8],
    ) -> Option<((u64, u64), SharedBytes<'r>)> {
        let usual = entry::plain_header(key.len(), generation::current(region))?;
        let view = region.entry_view(off)?;
        match ACCESS {
            // Most entries extend into a second line.
            READ => view.prefetch_second(),
            // Its first word will be poisoned, and the next entry will use the block.
            WRITE => view.prefetch_to_write(),
            _ => {}
        }
        let words = view.words();
        if words.0 >> 32 != usual {
            return None;
        }
        let (stored, value) = view.key_value(self.header_len, key.len() as u32, entry::value_len(words.0))?;
        stored.is(key).then_some((words, value))
    }

    #[inline(always)]
    pub(in crate::engine) fn hash_key<'k>(&'k self, key: &'k [u8]) -> HashedKey<'k> {
        let hash = self.hash(key);
        let (home, line) = self.region.home_bucket(hash);
        // Overlaps with taking the lock, which is on another line.
        prefetch_bucket(line);
        let shard = self.shard_of_hash(hash);
        if self.geo.stamps {
            self.region.prefetch(self.layout.stamp(home, 0));
            self.region.prefetch(self.layout.shard_word(shard, shard::RNG_STATE));
        }
        HashedKey { key, hash, home, bucket: line, shard }
    }
}
