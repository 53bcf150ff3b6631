//! Reads: no lock, no shared write. A version tells whether what was copied stood still.
#![forbid(unsafe_code)]

use super::{
    Engine, Eviction, ItemId, Meta, Sink, Touch,
    entry::{self, Header, LEASE, UNGETTABLE},
    index::Found,
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::{Error, Result},
    os::clock,
    shm::{layout::header, sync::*},
};

/// Tries without the lock before a reader asks for it.
pub(super) const TRIES: usize = 64;
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
    #[inline]
    pub fn get<S: Sink>(&self, key: &[u8], touch: Touch, sink: &mut S) -> Result<Option<Meta>> {
        let hash = self.secret.hash(key);
        let (head, tag) = (self.head_of(hash), entry::tag_of(hash));
        let version = self.version(head);
        let mut settled = None;
        for _ in 0..TRIES {
            // Acquire: the slots are read after the version.
            let v = version.load(Acquire);
            match self.look(head, tag, key, v, touch) {
                None => std::hint::spin_loop(),
                Some(Look::Hit(f)) => {
                    let taken = self.take(&f, sink);
                    // The copy's loads come before the version's second load.
                    fence(Acquire);
                    if version.load(Relaxed) != v {
                        continue;
                    }
                    if !taken {
                        return Err(too_small(&f.header));
                    }
                    settled = Some(Look::Hit(f));
                    break;
                }
                nothing => {
                    settled = nothing;
                    break;
                }
            }
        }
        let look = match settled {
            Some(look) => look,
            None => self.get_locked(head, tag, key, touch, sink)?,
        };
        self.settle(look, touch)
    }

    /// Counts, and tells the caller.
    #[inline(always)]
    fn settle(&self, look: Look, touch: Touch) -> Result<Option<Meta>> {
        let f = match look {
            Look::Hit(f) => f,
            Look::Hidden => return Ok(None),
            Look::Miss => {
                if touch != Touch::Unseen {
                    self.count(Counter::Misses, 1);
                }
                return Ok(None);
            }
        };
        if touch != Touch::Unseen {
            self.count(Counter::Hits, 1);
        }
        if touch == Touch::Yes && self.config.eviction != Eviction::None {
            self.touch(f.bucket, f.slot);
        }
        Ok(Some(meta(&f.header, 0)))
    }

    /// One look at the chain: `None` = a writer came in between.
    #[inline(always)]
    fn look(&self, head: u64, tag: u64, key: &[u8], v: u64, touch: Touch) -> Option<Look> {
        let found = self.probe(head, tag, key);
        // Before any allocation or other effect: header and key belonged together, or this is not what was stored.
        fence(Acquire);
        if self.version(head).load(Relaxed) != v {
            return None;
        }
        Some(self.classify(found, touch))
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

    /// The way out of a storm of writers: under the shard's lock; when that cannot be had in time, a miss.
    #[cold]
    fn get_locked<S: Sink>(
        &self,
        head: u64,
        tag: u64,
        key: &[u8],
        touch: Touch,
        sink: &mut S,
    ) -> Result<Look> {
        let Ok(_guard) = self.lock_raw(self.shard_of(head)) else { return Ok(Look::Miss) };
        let look = self.classify(self.probe(head, tag, key), touch);
        match &look {
            Look::Hit(f) if !self.take(f, sink) => Err(too_small(&f.header)),
            _ => Ok(look),
        }
    }

    /// Whether the entry is of this clear generation and has not expired.
    #[inline]
    pub(super) fn is_live(&self, h: &Header) -> bool {
        h.generation == self.clear_gen() % entry::GENERATIONS
            && (h.expires == 0 || self.config.no_expire || clock::unix_secs() < h.expires)
    }

    /// Like [`Engine::get`] without a touch, but counts the item's own hits exactly, under its shard's lock (`get4`).
    ///
    /// # Errors
    /// As [`Engine::get`], and [`Error::Timeout`].
    pub fn get_counted<S: Sink>(&self, key: &[u8], sink: &mut S) -> Result<Option<Meta>> {
        let hash = self.secret.hash(key);
        let (head, tag) = (self.head_of(hash), entry::tag_of(hash));
        let guard = self.lock(self.shard_of(head))?;
        let f = match self.classify(self.probe(head, tag, key), Touch::No) {
            Look::Hit(f) => f,
            nothing => return self.settle(nothing, Touch::No),
        };
        if !self.take(&f, sink) {
            return Err(too_small(&f.header));
        }
        let hits = self.item_hits(&guard, f.header.id);
        self.settle(Look::Hit(f), Touch::No)?;
        Ok(Some(meta(&f.header, hits)))
    }

    /// An item's hits before this one; counts it.
    fn item_hits(&self, _guard: &ShardGuard<'_>, id: u32) -> u64 {
        if u64::from(id) > self.geo.capacity {
            return 0; // No number of an item: a header that somebody scribbled over.
        }
        self.region.word(header::HITS_USED).store(1, Relaxed);
        let word = self.region.half(self.layout.hits + u64::from(id) * 4);
        let hits = word.load(Relaxed);
        word.store(hits.saturating_add(1), Relaxed);
        u64::from(hits)
    }

    /// A new item starts without hits. The table is only touched once somebody counts.
    #[inline]
    pub(super) fn reset_hits(&self, id: u32) {
        if self.region.word(header::HITS_USED).load(Relaxed) != 0 {
            self.region.half(self.layout.hits + u64::from(id) * 4).store(0, Relaxed);
        }
    }

    /// Whether `key` is stored; counts neither hit nor miss nor use.
    #[must_use]
    pub fn exists(&self, key: &[u8]) -> Option<ItemId> {
        let hash = self.secret.hash(key);
        let (head, tag) = (self.head_of(hash), entry::tag_of(hash));
        for _ in 0..TRIES {
            let v = self.version(head).load(Acquire);
            let found = self.probe(head, tag, key);
            fence(Acquire);
            if self.version(head).load(Relaxed) == v {
                return found.filter(|f| self.exists_for_users(&f.header)).and_then(|f| item_id(f.header.id));
            }
            std::hint::spin_loop();
        }
        let _guard = self.lock_raw(self.shard_of(head)).ok()?;
        let found = self.probe(head, tag, key).filter(|f| self.exists_for_users(&f.header));
        found.and_then(|f| item_id(f.header.id))
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
pub(super) fn meta(h: &Header, hits: u64) -> Meta {
    let id = item_id(h.id).unwrap_or(ItemId(std::num::NonZeroU32::MIN));
    Meta { len: h.value_len, expires: h.expires, hits, id }
}

fn too_small(h: &Header) -> Error {
    Error::BufferTooSmall { needed: h.value_len as usize, len: 0 }
}
