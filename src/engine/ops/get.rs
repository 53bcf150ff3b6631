//! Reads take no lock and write nothing shared but stamps and counters. The sequence number tells
//! whether a copy is consistent (I2).
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, ItemId, Meta, Sink, Touch,
        geometry::id_of,
        index::{
            bucket::EntryRef,
            entry::{self, Header, UNGETTABLE},
            lookup::{
                FastLookup,
                access::{PEEK, READ},
            },
        },
        policy::Policy,
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::{Error, Result},
    shm::{Region, layout::header, order::seqlock, prefetch_bucket, sync::*},
};

/// Attempts without the lock before a reader takes it.
pub(in crate::engine) const TRIES: usize = 64;
/// Bytes that a reader copies in vain, after its first attempt, before it takes the lock: some
/// milliseconds of work.
const MAX_WASTED_BYTES: u64 = 32 << 20;

/// What a reader may see.
enum Visibility {
    Miss,
    /// Stored but not readable: neither a hit nor a miss, as in native uWSGI.
    Hidden,
    Hit(EntryRef),
}

impl Engine {
    /// Reads `key` into `sink`. `Ok(None)` = a miss. Never waits; counts a hit or a miss.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] when the sink declines.
    #[inline(always)]
    pub fn get<S: Sink>(&self, key: &[u8], touch: Touch, sink: &mut S) -> Result<Option<Meta>> {
        let hash = self.hash(key);
        let region = &*self.region;
        let (home, bucket) = region.home_bucket(hash);
        let seq = &bucket[0];
        // Acquire: the slots are read after the sequence number.
        let v = seq.load(seqlock::BEGIN);
        // The fast path, kept short: no writer interferes, and the item has no flags.
        match self.lookup_fast::<READ>(region, (home, bucket), hash, key) {
            FastLookup::Found(m) => {
                // Before any allocation or other effect: header and key belonged together only if
                // the sequence number did not change (I2).
                fence(seqlock::RECHECK);
                if seq.load(Relaxed) == v && self.is_readable(&m) {
                    let taken = sink.take(&m.value);
                    // The copy's loads come before the sequence number's second load.
                    fence(seqlock::RECHECK);
                    if seq.load(Relaxed) == v {
                        let f = m.decode();
                        return if taken {
                            Ok(Some(self.count_hit(region, &f, touch)))
                        } else {
                            Err(too_small(&f.header))
                        };
                    }
                }
            }
            FastLookup::Absent => {
                fence(seqlock::RECHECK);
                if seq.load(Relaxed) == v {
                    return Ok(self.count_miss(region, touch));
                }
            }
            FastLookup::Retry => {}
        }
        self.get_slow(hash, key, touch, sink)
    }

    /// [`Engine::get`] from the start, for all cases.
    #[inline(never)]
    fn get_slow<S: Sink>(&self, hash: u64, key: &[u8], touch: Touch, sink: &mut S) -> Result<Option<Meta>> {
        let (home, tag) = (self.home_of(hash), entry::tag_of(hash));
        if !self.region.has_bucket(home) {
            return Ok(self.count_miss(&self.region, touch));
        }
        let seq = self.seq(home);
        let mut wasted = 0;
        for _ in 0..TRIES {
            // Acquire: the slots are read after the sequence number.
            let v = seq.load(seqlock::BEGIN);
            let found = self.lookup(home, tag, key);
            // As in `get`, before and after the copy.
            fence(seqlock::RECHECK);
            if seq.load(Relaxed) == v {
                let visible = self.visibility(found, touch);
                let taken = !matches!(&visible, Visibility::Hit(f) if !self.take(f, sink));
                fence(seqlock::RECHECK);
                if seq.load(Relaxed) == v {
                    return self.finish(visible, taken, touch);
                }
                // One sequence number covers a whole chain: writers of other keys count, too.
                wasted += if let Visibility::Hit(f) = &visible { f.header.value_len } else { 0 };
                if wasted > MAX_WASTED_BYTES {
                    break;
                }
            }
            std::hint::spin_loop();
        }
        // Too many writers: read under the shard's lock. If it cannot be had in time, the read is a
        // miss.
        let Ok(_guard) = self.lock_to_read(self.shard_of(home)) else {
            return Ok(self.count_miss(&self.region, touch));
        };
        let visible = self.visibility(self.lookup(home, tag, key), touch);
        let taken = !matches!(&visible, Visibility::Hit(f) if !self.take(f, sink));
        self.finish(visible, taken, touch)
    }

    /// Counts the result and returns it to the caller.
    fn finish(&self, visible: Visibility, taken: bool, touch: Touch) -> Result<Option<Meta>> {
        match visible {
            Visibility::Hit(f) if !taken => Err(too_small(&f.header)),
            Visibility::Hit(f) => Ok(Some(self.count_hit(&self.region, &f, touch))),
            Visibility::Hidden => Ok(None),
            Visibility::Miss => Ok(self.count_miss(&self.region, touch)),
        }
    }

    #[inline(always)]
    fn count_hit(&self, region: &Region, f: &EntryRef, touch: Touch) -> Meta {
        if touch != Touch::Unseen {
            self.count_in(region, Counter::Hits, 1);
        }
        if matches!(touch, Touch::Yes | Touch::Copy) && self.policy != Policy::None {
            self.touch(f.bucket, f.slot);
        }
        meta(f)
    }

    #[inline(always)]
    fn count_miss(&self, region: &Region, touch: Touch) -> Option<Meta> {
        if matches!(touch, Touch::Yes | Touch::No) {
            self.count_in(region, Counter::Misses, 1);
        }
        None
    }

    /// What a reader may see of an entry.
    #[inline(always)]
    fn visibility(&self, found: Option<EntryRef>, touch: Touch) -> Visibility {
        match found {
            Some(f) if !self.exists_for_users(&f.header) => Visibility::Miss,
            Some(f) if f.header.flags & UNGETTABLE != 0 && touch != Touch::Unseen => Visibility::Hidden,
            Some(f) => Visibility::Hit(f),
            None => Visibility::Miss,
        }
    }

    /// Copies the value into the sink.
    #[inline(always)]
    fn take<S: Sink>(&self, f: &EntryRef, sink: &mut S) -> bool {
        sink.take(&entry::value(&self.region, f.off, self.header_bytes, &f.header))
    }

    /// Like [`Engine::get`] without a touch, but counts the item's own hits exactly, under its
    /// shard's lock (`get4`), which exclusive mode does not block. A hit is not counted where the
    /// lock cannot be had in time.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub fn get_counted<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<Option<Meta>> {
        let (hash, region) = (self.hash(key), &*self.region);
        let (home, line) = region.home_bucket(hash);
        prefetch_bucket(line);
        let guard = match self.lock_to_read(self.shard_of_hash(hash)) {
            Err(Error::Timeout { .. } | Error::LockLost { .. } | Error::ForeignProcess(_)) => {
                let meta = self.get(key, Touch::No, sink)?;
                return Ok(meta.map(|meta| Meta { hits: self.hits_of(meta.id).into(), ..meta }));
            }
            guard => guard?,
        };
        let visible = match self.lookup_fast::<READ>(region, (home, line), hash, key) {
            FastLookup::Found(m) if self.is_readable(&m) => Visibility::Hit(m.decode()),
            FastLookup::Absent => Visibility::Miss,
            _ => self.visibility(self.lookup(home, entry::tag_of(hash), key), Touch::No),
        };
        let (taken, hits) = match &visible {
            Visibility::Hit(f) if self.take(f, sink) => (true, self.item_hits(&guard, f.id())),
            _ => (false, 0),
        };
        guard.release();
        let meta = self.finish(visible, taken, Touch::No)?;
        Ok(meta.map(|meta| Meta { hits, ..meta }))
    }

    /// Whether the key's item is ungettable (readers miss it).
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn is_ungettable(&self, key: &[u8]) -> Result<bool> {
        let hashed = self.hash_key(key);
        let guard = self.lock(hashed.shard)?;
        let found = self.lookup(hashed.home, hashed.tag(), key);
        guard.release();
        let flags = found.map_or(0, |f| f.header.flags);
        Ok(flags & (entry::UNGETTABLE | entry::LEASE) == entry::UNGETTABLE)
    }

    /// Counted hits of an item.
    pub(super) fn hits_of(&self, id: ItemId) -> u32 {
        if self.has_hits() { self.hits_word(id.0.get()).load(Relaxed) } else { 0 }
    }

    /// Counts a hit; returns the item's hits before. None are counted where the disk has no space
    /// for their table.
    fn item_hits(&self, _guard: &ShardGuard<'_>, id: u32) -> u64 {
        if !self.has_hits() && !self.begin_hits() {
            return 0;
        }
        let word = self.hits_word(id);
        let hits = word.load(Relaxed);
        word.store(hits.saturating_add(1), Relaxed);
        u64::from(hits)
    }

    #[cold]
    #[inline(never)]
    fn begin_hits(&self) -> bool {
        let backed = self.region.back_hits().is_ok();
        if backed {
            self.region.word(header::HITS_USED).store(1, Release);
        }
        backed
    }

    /// Whether `key` is stored; counts neither as a hit or miss nor as a use.
    #[must_use]
    #[inline(always)]
    pub fn exists(&self, key: &[u8]) -> Option<ItemId> {
        let hash = self.hash(key);
        let region = &*self.region;
        let (home, bucket) = region.home_bucket(hash);
        // As in `get`.
        let v = bucket[0].load(seqlock::BEGIN);
        let found = self.lookup_fast::<PEEK>(region, (home, bucket), hash, key);
        fence(seqlock::RECHECK);
        if bucket[0].load(Relaxed) == v {
            match found {
                FastLookup::Found(m) if self.is_readable(&m) => {
                    return Some(item_id(id_of(m.bucket, m.slot)));
                }
                FastLookup::Absent => return None,
                _ => {}
            }
        }
        self.exists_slow(hash, key)
    }

    /// [`Engine::exists`] from the start, for all cases.
    #[inline(never)]
    fn exists_slow(&self, hash: u64, key: &[u8]) -> Option<ItemId> {
        let (home, tag) = (self.home_of(hash), entry::tag_of(hash));
        let known = |found: Option<EntryRef>| {
            found.filter(|f| self.exists_for_users(&f.header)).map(|f| item_id(f.id()))
        };
        if !self.region.has_bucket(home) {
            return None;
        }
        let seq = self.seq(home);
        for _ in 0..TRIES {
            let v = seq.load(seqlock::BEGIN);
            let found = self.lookup(home, tag, key);
            fence(seqlock::RECHECK);
            if seq.load(Relaxed) == v {
                return known(found);
            }
            std::hint::spin_loop();
        }
        let _guard = self.lock_to_read(self.shard_of(home)).ok()?;
        known(self.lookup(home, tag, key))
    }
}

/// An id of a slot, as callers get it: those are greater than 0.
#[inline(always)]
pub(in crate::engine) fn item_id(id: u32) -> ItemId {
    ItemId(std::num::NonZeroU32::new(id).unwrap_or(std::num::NonZeroU32::MIN))
}

#[inline(always)]
fn meta(f: &EntryRef) -> Meta {
    let h = &f.header;
    Meta { len: h.value_len, expires_millis: h.expires, hits: 0, id: item_id(f.id()) }
}

fn too_small(h: &Header) -> Error {
    Error::BufferTooSmall { needed: h.value_len as usize, len: 0 }
}
