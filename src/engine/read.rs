//! Reads: no lock, no shared write. A version tells whether what was copied stood still.
#![forbid(unsafe_code)]

use super::{
    Engine, Eviction, ItemId, Meta, Sink, Touch,
    entry::{self, Header, LEASE, UNGETTABLE},
    find::{
        Glance, Match,
        purpose::{LOOK, READ},
    },
    index::Found,
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::{Error, Result},
    os::clock,
    shm::{Region, layout::header, order::chain, sync::*},
};

/// Tries without the lock before a reader asks for it.
pub(super) const TRIES: usize = 64;
/// Bytes that a reader copies in vain before it asks for the lock, beside the first try's: some milliseconds.
const WASTE: u64 = 32 << 20;

/// What a look found.
enum Look {
    Miss,
    /// There, but not to be read: neither a hit nor a miss, as native has it.
    Hidden,
    Hit(Found),
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
        let (head, bucket) = region.head(hash);
        let version = &bucket[0];
        // Acquire: the slots are read after the version.
        let v = version.load(chain::BEGIN);
        // The usual case, by itself so that it stays short: nothing changes meanwhile, and the item is a plain one.
        match self.glance::<READ>(region, (head, bucket), hash, key) {
            Glance::Entry(m) => {
                // Before any allocation or other effect: header and key belonged together, or this is not what was stored.
                fence(chain::RECHECK);
                if version.load(Relaxed) == v && self.is_readable(&m) {
                    let taken = sink.take(&m.value);
                    // The copy's loads come before the version's second load.
                    fence(chain::RECHECK);
                    if version.load(Relaxed) == v {
                        let f = m.found();
                        return if taken {
                            Ok(Some(self.count_hit(region, &f, touch)))
                        } else {
                            Err(too_small(&f.header))
                        };
                    }
                }
            }
            Glance::Nothing => {
                fence(chain::RECHECK);
                if version.load(Relaxed) == v {
                    return Ok(self.count_miss(region, touch));
                }
            }
            Glance::Unclear => {}
        }
        self.get_again(hash, key, touch, sink)
    }

    /// [`Engine::get`] from the start, for every case.
    #[inline(never)]
    fn get_again<S: Sink>(&self, hash: u64, key: &[u8], touch: Touch, sink: &mut S) -> Result<Option<Meta>> {
        let (head, tag) = (self.head_of(hash), entry::tag_of(hash));
        let version = self.version(head);
        let mut wasted = 0;
        for _ in 0..TRIES {
            // Acquire: the slots are read after the version.
            let v = version.load(chain::BEGIN);
            let found = self.probe(head, tag, key);
            // As in `get`, before and after the copy.
            fence(chain::RECHECK);
            if version.load(Relaxed) == v {
                let look = self.classify(found, touch);
                let taken = !matches!(&look, Look::Hit(f) if !self.take(f, sink));
                fence(chain::RECHECK);
                if version.load(Relaxed) == v {
                    return self.settle(look, taken, touch);
                }
                // One version stands for a whole chain: other keys' writers count, too.
                wasted += if let Look::Hit(f) = &look { f.header.value_len } else { 0 };
                if wasted > WASTE {
                    break;
                }
            }
            std::hint::spin_loop();
        }
        // The way out of a storm of writers: under the shard's lock; when that cannot be had in time, a miss.
        let Ok(_guard) = self.lock_to_read(self.shard_of(head)) else {
            return Ok(self.count_miss(&self.region, touch));
        };
        let look = self.classify(self.probe(head, tag, key), touch);
        let taken = !matches!(&look, Look::Hit(f) if !self.take(f, sink));
        self.settle(look, taken, touch)
    }

    /// Counts, and tells the caller.
    fn settle(&self, look: Look, taken: bool, touch: Touch) -> Result<Option<Meta>> {
        match look {
            Look::Hit(f) if !taken => Err(too_small(&f.header)),
            Look::Hit(f) => Ok(Some(self.count_hit(&self.region, &f, touch))),
            Look::Hidden => Ok(None),
            Look::Miss => Ok(self.count_miss(&self.region, touch)),
        }
    }

    #[inline(always)]
    fn count_hit(&self, region: &Region, f: &Found, touch: Touch) -> Meta {
        if touch != Touch::Unseen {
            self.count_in(region, Counter::Hits, 1);
        }
        if touch == Touch::Yes && self.config.eviction != Eviction::None {
            self.touch(f.bucket, f.slot);
        }
        meta(&f.header)
    }

    #[inline(always)]
    fn count_miss(&self, region: &Region, touch: Touch) -> Option<Meta> {
        if touch != Touch::Unseen {
            self.count_in(region, Counter::Misses, 1);
        }
        None
    }

    /// What an entry, or none, is to a reader.
    #[inline(always)]
    fn classify(&self, found: Option<Found>, touch: Touch) -> Look {
        match found {
            Some(f) if !self.exists_for_users(&f.header) => Look::Miss,
            Some(f) if f.header.flags & UNGETTABLE != 0 && touch != Touch::Unseen => Look::Hidden,
            Some(f) => Look::Hit(f),
            None => Look::Miss,
        }
    }

    /// Copies the value out.
    #[inline(always)]
    fn take<S: Sink>(&self, f: &Found, sink: &mut S) -> bool {
        sink.take(&entry::value(&self.region, f.off, self.entry_head, &f.header))
    }

    /// Whether the entry is of this clear generation and has not expired.
    #[inline]
    pub(super) fn is_live(&self, h: &Header) -> bool {
        h.generation == self.clear_gen() % entry::GENERATIONS && self.is_unexpired(h.expires)
    }

    /// Whether an entry that `glance` found is a live item: it finds none with flags, nor of an older clear.
    #[inline(always)]
    pub(super) fn is_readable(&self, m: &Match<'_>) -> bool {
        self.is_unexpired(entry::expires(m.words.1))
    }

    /// Whether an item that expires at this second (0 = never) is still there.
    #[inline(always)]
    fn is_unexpired(&self, expires: u64) -> bool {
        expires == 0 || self.config.no_expire || clock::unix_secs() < expires
    }

    /// Like [`Engine::get`] without a touch, but counts the item's own hits exactly, under its shard's lock (`get4`), which a
    /// thread that has the cache to itself does not keep. A hit is not counted where the lock cannot be had in time.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub fn get_counted<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<Option<Meta>> {
        let hash = self.hash(key);
        let (head, tag) = (self.head_of(hash), entry::tag_of(hash));
        let guard = match self.lock_to_read(self.shard_of(head)) {
            Err(Error::Timeout { .. } | Error::LockLost { .. } | Error::ForeignProcess(_)) => {
                let meta = self.get(key, Touch::No, sink)?;
                let hits = self.exists(key).and_then(|id| self.hits_word(id.0.get()));
                return Ok(meta.map(|meta| Meta { hits: hits.map_or(0, |w| w.load(Relaxed).into()), ..meta }));
            }
            guard => guard?,
        };
        let look = self.classify(self.probe(head, tag, key), Touch::No);
        let (taken, hits) = match &look {
            Look::Hit(f) if self.take(f, sink) => (true, self.item_hits(&guard, f.header.id)),
            _ => (false, 0),
        };
        guard.release();
        let meta = self.settle(look, taken, Touch::No)?;
        Ok(meta.map(|meta| Meta { hits, ..meta }))
    }

    /// Whether the key's item is one that reads miss (`UNGETTABLE`).
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn is_ungettable(&self, key: &[u8]) -> Result<bool> {
        let place = self.place_for(key);
        let guard = self.lock(place.shard)?;
        let found = self.probe(place.head, place.tag, key);
        guard.release();
        let flags = found.map_or(0, |f| f.header.flags);
        Ok(flags & (entry::UNGETTABLE | entry::LEASE) == entry::UNGETTABLE)
    }

    /// An item's hits before this one; counts it.
    fn item_hits(&self, _guard: &ShardGuard<'_>, id: u32) -> u64 {
        let Some(word) = self.hits_word(id) else { return 0 };
        self.region.word(header::HITS_USED).store(1, Relaxed);
        let hits = word.load(Relaxed);
        word.store(hits.saturating_add(1), Relaxed);
        u64::from(hits)
    }

    /// Where an item's hits are counted; `None` = no number of an item: a header that somebody scribbled over.
    pub(super) fn hits_word(&self, id: u32) -> Option<&AtomicU32> {
        (u64::from(id) <= self.geo.capacity).then(|| self.region.half(self.layout.hits + u64::from(id) * 4))
    }

    /// A new item starts without hits. The table is only touched once somebody counts.
    #[inline]
    pub(super) fn reset_hits(&self, id: u32) {
        if self.region.word(header::HITS_USED).load(Relaxed) != 0
            && let Some(word) = self.hits_word(id)
        {
            word.store(0, Relaxed);
        }
    }

    /// Whether `key` is stored; counts neither hit nor miss nor use.
    #[must_use]
    #[inline(always)]
    pub fn exists(&self, key: &[u8]) -> Option<ItemId> {
        let hash = self.hash(key);
        let region = &*self.region;
        let (head, bucket) = region.head(hash);
        // As in `get`.
        let v = bucket[0].load(chain::BEGIN);
        let glance = self.glance::<LOOK>(region, (head, bucket), hash, key);
        fence(chain::RECHECK);
        if bucket[0].load(Relaxed) == v {
            match glance {
                Glance::Entry(m) if self.is_readable(&m) => return item_id(m.found().header.id),
                Glance::Nothing => return None,
                _ => {}
            }
        }
        self.exists_again(hash, key)
    }

    /// [`Engine::exists`] from the start, for every case.
    #[inline(never)]
    fn exists_again(&self, hash: u64, key: &[u8]) -> Option<ItemId> {
        let (head, tag) = (self.head_of(hash), entry::tag_of(hash));
        let known = |found: Option<Found>| {
            found.filter(|f| self.exists_for_users(&f.header)).and_then(|f| item_id(f.header.id))
        };
        let version = self.version(head);
        for _ in 0..TRIES {
            let v = version.load(chain::BEGIN);
            let found = self.probe(head, tag, key);
            fence(chain::RECHECK);
            if version.load(Relaxed) == v {
                return known(found);
            }
            std::hint::spin_loop();
        }
        let _guard = self.lock_to_read(self.shard_of(head)).ok()?;
        known(self.probe(head, tag, key))
    }

    #[inline]
    pub(super) fn exists_for_users(&self, h: &Header) -> bool {
        h.flags & LEASE == 0 && self.is_live(h)
    }
}

#[inline]
pub(super) fn item_id(id: u32) -> Option<ItemId> {
    std::num::NonZeroU32::new(id).map(ItemId)
}

#[inline]
fn meta(h: &Header) -> Meta {
    let id = item_id(h.id).unwrap_or(ItemId(std::num::NonZeroU32::MIN));
    Meta { len: h.value_len, expires: h.expires, hits: 0, id }
}

fn too_small(h: &Header) -> Error {
    Error::BufferTooSmall { needed: h.value_len as usize, len: 0 }
}
