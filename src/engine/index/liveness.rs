//! What an entry is to readers and writers: live, expired, a placeholder; its access stamp and its
//! hits.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        geometry::id_of,
        index::{
            bucket::EntryRef,
            entry::{self, Header, LEASE},
            lookup::RawEntry,
        },
    },
    os::{clock, process::Owner},
    shm::{Bucket, layout::header, sync::*},
};

impl Engine {
    /// Whether the entry is of this clear generation and has not expired.
    #[inline]
    pub(in crate::engine) fn is_live(&self, h: &Header) -> bool {
        h.generation == self.clear_gen() % entry::GENERATIONS && self.is_unexpired(h.expires)
    }

    /// Whether an entry that `lookup_fast` found is a live item: it finds none with flags, nor of
    /// an older clear.
    #[inline(always)]
    pub(in crate::engine) fn is_readable(&self, m: &RawEntry<'_>) -> bool {
        self.is_unexpired(entry::expires(m.words.1))
    }

    /// Whether an item with this expiry (0 = never) has not expired.
    #[inline(always)]
    pub(in crate::engine) fn is_unexpired(&self, expires: u64) -> bool {
        expires == 0 || self.config.no_expire || clock::is_ahead(expires)
    }

    #[inline]
    pub(in crate::engine) fn exists_for_users(&self, h: &Header) -> bool {
        h.flags & LEASE == 0 && self.is_live(h)
    }

    /// Whether hits of items are counted: the table of hits is touched from the first counted read
    /// on.
    pub(in crate::engine) fn has_hits(&self) -> bool {
        self.region.header_word::<{ header::HITS_USED }>().load(Acquire) != 0
    }

    /// Where an item's hits are counted, if they are.
    pub(in crate::engine) fn hits_word(&self, id: u32) -> &AtomicU32 {
        self.region.half(self.layout.hits + u64::from(id) * 4)
    }

    /// A new item starts without hits.
    #[inline(always)]
    pub(in crate::engine) fn reset_hits(&self, (bucket, slot): (u64, u64)) {
        if self.has_hits() {
            self.hits_word(id_of(bucket, slot)).store(0, Relaxed);
        }
    }

    /// Blocks that an entry holds: a placeholder none, so that its value needs no more than a value
    /// does.
    #[inline(always)]
    pub(in crate::engine) fn blocks_of(&self, h: &Header) -> u64 {
        if self.config.blocks.is_some() && h.flags & LEASE == 0 { self.blocks_for(h.value_len) } else { 0 }
    }

    /// The access stamp of a slot, `u64::MAX` if stamps are not kept.
    #[inline(always)]
    pub(in crate::engine) fn stamp(&self, bucket: u64, slot: u64) -> u64 {
        if !self.geo.stamps {
            return u64::MAX;
        }
        // Stored inverted, so that fresh memory (0) reads as "never": u64::MAX.
        !self.region.stamps(bucket)[slot as usize & 7].load(Relaxed)
    }

    /// Changes it by compare-and-swap; tells whether it did.
    #[inline]
    pub(in crate::engine) fn change_stamp(&self, bucket: u64, slot: u64, from: u64, to: u64) -> bool {
        let word = &self.region.stamps(bucket)[slot as usize & 7];
        word.compare_exchange(!from, !to, Relaxed, Relaxed).is_ok()
    }

    /// Sets the stamp.
    #[inline(always)]
    pub(in crate::engine) fn set_stamp(&self, bucket: u64, slot: u64, stamp: u64) {
        if self.geo.stamps {
            self.region.stamps(bucket)[slot as usize & 7].store(!stamp, Relaxed);
        }
    }

    /// The stamps of a bucket, in the order of its slots.
    #[inline(always)]
    pub(in crate::engine) fn stamps_of(&self, bucket: u64) -> &Bucket {
        self.region.stamps_of(bucket)
    }

    pub(in crate::engine) fn lease_words(&self, f: &EntryRef) -> Option<[u64; 3]> {
        if f.header.flags & LEASE == 0 || f.header.value_len != 24 {
            return None;
        }
        let at = entry::value_off(f.off, self.header_bytes, f.header.key_len, f.header.value_len);
        Some([0, 8, 16].map(|i| self.region.word(at + i).load(Relaxed)))
    }

    /// Whether an entry is the placeholder of a filler that is alive and in time, whatever its
    /// expiry says: that is by the wall clock, which may have been set forward.
    #[cold]
    pub(in crate::engine) fn is_awaited(&self, f: &EntryRef) -> bool {
        f.header.flags & LEASE != 0
            && f.header.generation == self.clear_gen() % entry::GENERATIONS
            && self.is_pending(f)
    }

    /// Whether the filler is alive and within its deadline.
    pub(in crate::engine) fn is_pending(&self, f: &EntryRef) -> bool {
        self.lease_words(f).is_some_and(|[owner, _, deadline]| {
            clock::coarse_millis() < deadline && !Owner::from_word(owner).is_dead()
        })
    }
}
