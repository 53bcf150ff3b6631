//! The index: chains of 64-byte buckets, found by the high bits of the hash.
//!
//! ```text
//! bucket   version | slot 1 .. slot 7        slot 7 may be a link: tag 0xFFFF | number of an overflow bucket
//! ```
//! The head's version covers its whole chain. It changes after anything in the chain became unreachable or moved, and
//! before the memory of that is used again; so a reader that finds it unchanged has seen nothing that was reused.
//! An overflow bucket's own first word links free buckets; readers never look at it.
#![forbid(unsafe_code)]

use super::{
    Engine,
    entry::{self, Header, LINK},
};
use crate::shm::{
    Line, Source, first_slot,
    layout::{SLOTS, shard},
    order::chain,
    sync::*,
};

/// An entry that a slot leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Bucket number and slot, 1 to 7.
    pub(crate) bucket: u64,
    pub(crate) slot: u64,
    /// Where the entry is.
    pub(crate) off: u64,
    pub(crate) header: Header,
}

/// The place of a slot as one number, for the item numbers' table.
#[inline]
pub(crate) fn position(bucket: u64, slot: u64) -> u32 {
    (bucket * 8 + slot) as u32
}

impl Engine {
    /// Hash of a key.
    #[inline(always)]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.secret.hash_with(&self.seeds, key)
    }

    /// Head bucket of a hash.
    #[inline(always)]
    pub(super) fn head_of(&self, hash: u64) -> u64 {
        self.region.head(hash).0
    }

    /// Shard of a hash's head: `head / heads_per_shard`, where the quotient's two roundings down make one.
    #[inline]
    pub(super) fn shard_of_hash(&self, hash: u64) -> u64 {
        ((hash >> 32) * self.geo.shards) >> 32
    }

    /// Shard of a bucket.
    #[inline]
    pub(super) fn shard_of(&self, bucket: u64) -> u64 {
        if bucket < self.geo.heads {
            bucket / self.heads_per_shard
        } else {
            ((bucket - self.geo.heads) / self.geo.overflow.max(1)).min(self.geo.shards - 1)
        }
    }

    /// The version word of a head.
    #[inline]
    pub(super) fn version(&self, head: u64) -> &AtomicU64 {
        &self.region.bucket(head)[0]
    }

    /// The slot's word.
    #[inline]
    pub(super) fn slot(&self, bucket: u64, slot: u64) -> &AtomicU64 {
        &self.region.bucket(bucket)[slot as usize & 7]
    }

    /// The overflow bucket that a slot links to.
    #[inline]
    pub(super) fn link_of(&self, word: u64) -> Option<u64> {
        if entry::slot_tag(word) != LINK {
            return None;
        }
        let number = entry::slot_off(word) >> 3;
        (number >= self.geo.heads && number < self.buckets).then_some(number)
    }

    /// The bucket after `bucket` in its chain.
    #[inline]
    pub(super) fn next(&self, bucket: u64) -> Option<u64> {
        self.link_of(self.slot(bucket, SLOTS).load(Acquire))
    }

    /// The header at `off`, if an entry of plausible lengths can be there.
    #[inline]
    pub(super) fn header_at(&self, off: u64) -> Option<Header> {
        self.entry_at(off).map(|(words, _)| Header::unpack(words))
    }

    /// Header and key of the entry at `off`, if one of plausible lengths can be there.
    #[inline]
    pub(super) fn entry_at(&self, off: u64) -> Option<((u64, u64), Source<'_>)> {
        match self.known_entry(off) {
            None => self.entry_behind(off),
            known => known,
        }
    }

    #[inline(always)]
    fn known_entry(&self, off: u64) -> Option<((u64, u64), Source<'_>)> {
        let piece = self.region.piece(off)?;
        let words = piece.words();
        let (key, _) = piece.pair(self.header_len, entry::key_len(words.0), entry::value_len(words.0))?;
        Some((words, key))
    }

    /// [`Engine::entry_at`] where a store may have grown since this process looked.
    #[cold]
    #[inline(never)]
    fn entry_behind(&self, off: u64) -> Option<((u64, u64), Source<'_>)> {
        if self.region.look_again() { self.known_entry(off) } else { None }
    }

    /// Calls `f` for each occupied slot of a chain (bucket, slot, word), links excepted, until it returns `false`.
    pub(super) fn each_slot(&self, head: u64, mut f: impl FnMut(u64, u64, u64) -> bool) {
        let mut bucket = head;
        for _ in 0..=self.geo.overflow {
            let line = self.region.bucket(bucket);
            for (slot, word) in (1u64..).zip(&line[1..]) {
                let word = word.load(Acquire);
                if word != 0 && entry::slot_tag(word) != LINK && !f(bucket, slot, word) {
                    return;
                }
            }
            match self.next(bucket) {
                Some(next) => bucket = next,
                None => return,
            }
        }
    }

    /// Tells readers that something of the chain became unreachable or moved. After the change, before the memory is
    /// used again.
    #[inline]
    pub(super) fn bump(&self, head: u64) {
        bump(self.region.bucket(head));
    }

    /// An empty slot in the chain of `head`; makes one by adding an overflow bucket when there is none.
    #[inline(always)]
    pub(super) fn vacancy(&self, head: u64) -> Option<Vacancy> {
        // An empty slot has the tag 0, and nothing else has.
        match self.region.tagged(self.region.bucket(head), 0) {
            0 => self.vacancy_behind(head),
            empty => Some(Vacancy::Slot { bucket: head, slot: first_slot(empty) as u64 }),
        }
    }

    /// [`Engine::vacancy`] where the head has none.
    #[inline(never)]
    fn vacancy_behind(&self, head: u64) -> Option<Vacancy> {
        let mut bucket = head;
        for _ in 0..=self.geo.overflow {
            let line = self.region.bucket(bucket);
            let empty = (1u64..).zip(&line[1..]).find(|(_, w)| w.load(Relaxed) == 0);
            if let Some((slot, _)) = empty {
                return Some(Vacancy::Slot { bucket, slot });
            }
            match self.next(bucket) {
                Some(next) => bucket = next,
                None => {
                    return Some(Vacancy::Overflow {
                        last: bucket,
                        new: self.take_overflow(self.shard_of(head))?,
                    });
                }
            }
        }
        None
    }

    /// Publishes a slot word (the commit point of an insert).
    #[inline]
    pub(super) fn publish(&self, head: u64, at: Vacancy, word: u64, id: u32, stamp: u64) {
        match at {
            Vacancy::Slot { bucket, slot } => {
                self.set_stamp(bucket, slot, stamp);
                self.place(id, bucket, slot);
                self.slot(bucket, slot).store(word, chain::PUBLISH);
            }
            Vacancy::Overflow { last, new } => {
                // The last slot's item moves to the new bucket, then one store makes both it and the new item reachable.
                let moved = self.slot(last, SLOTS).load(Relaxed);
                self.slot(new, 1).store(moved, Relaxed);
                self.slot(new, 2).store(word, Relaxed);
                self.set_stamp(new, 1, self.stamp(last, SLOTS));
                self.set_stamp(new, 2, stamp);
                if let Some(h) = self.header_at(entry::slot_off(moved)) {
                    self.place(h.id, new, 1);
                }
                self.place(id, new, 2);
                self.slot(last, SLOTS).store(entry::slot(LINK, new << 3), chain::PUBLISH);
                self.set_stamp(last, SLOTS, u64::MAX);
                self.bump(head);
            }
        }
    }

    /// Empties a slot and tells readers; drops overflow buckets that became empty.
    pub(super) fn unpublish(&self, head: u64, bucket: u64, slot: u64) {
        self.slot(bucket, slot).store(0, chain::PUBLISH);
        self.set_stamp(bucket, slot, u64::MAX);
        if bucket != head {
            self.drop_if_empty(head, bucket);
        }
        self.bump(head);
    }

    /// Takes an empty overflow bucket out of its chain. The caller bumps the version before the lock is released, and
    /// the bucket's slots stay 0 until then, so a reader that still walks through it sees an end and rechecks.
    fn drop_if_empty(&self, head: u64, bucket: u64) {
        if (1..SLOTS).any(|s| self.slot(bucket, s).load(Relaxed) != 0) {
            return;
        }
        let rest = self.slot(bucket, SLOTS).load(Relaxed);
        if rest != 0 && self.link_of(rest).is_none() {
            return;
        }
        let mut before = head;
        for _ in 0..=self.geo.overflow {
            match self.next(before) {
                Some(next) if next == bucket => {
                    self.slot(before, SLOTS).store(rest, chain::PUBLISH);
                    self.bump(head);
                    self.slot(bucket, SLOTS).store(0, Relaxed);
                    self.give_overflow(self.shard_of(head), bucket);
                    return;
                }
                Some(next) => before = next,
                None => return,
            }
        }
    }

    /// An unused overflow bucket of the shard, all slots 0.
    fn take_overflow(&self, shard_no: u64) -> Option<u64> {
        let s = self.shard_off(shard_no);
        let free = self.region.word(s + shard::OVERFLOW_FREE);
        let number = free.load(Relaxed);
        if number != 0 {
            let bucket = number - 1;
            free.store(self.version(bucket).load(Relaxed), Relaxed);
            return Some(bucket);
        }
        let bump = self.region.word(s + shard::OVERFLOW_BUMP);
        let used = bump.load(Relaxed);
        if used >= self.geo.overflow {
            return None;
        }
        bump.store(used + 1, Relaxed);
        Some(self.geo.heads + shard_no * self.geo.overflow + used)
    }

    /// Puts an empty overflow bucket on its shard's free list.
    pub(super) fn give_overflow(&self, shard_no: u64, bucket: u64) {
        let free = self.region.word(self.shard_off(shard_no) + shard::OVERFLOW_FREE);
        self.version(bucket).store(free.load(Relaxed), Relaxed);
        free.store(bucket + 1, Relaxed);
    }

    /// The LRU stamp of a slot, `u64::MAX` where stamps are not kept.
    #[inline(always)]
    pub(super) fn stamp(&self, bucket: u64, slot: u64) -> u64 {
        if !self.geo.stamps {
            return u64::MAX;
        }
        // Kept inverted, so that fresh memory (0) reads as "never": u64::MAX.
        !self.region.word(self.layout.stamp(bucket, slot - 1)).load(Relaxed)
    }

    /// Changes it, unless somebody else did; tells whether.
    #[inline]
    pub(super) fn change_stamp(&self, bucket: u64, slot: u64, from: u64, to: u64) -> bool {
        let word = self.region.word(self.layout.stamp(bucket, slot - 1));
        word.compare_exchange(!from, !to, Relaxed, Relaxed).is_ok()
    }

    /// Sets it.
    #[inline(always)]
    pub(super) fn set_stamp(&self, bucket: u64, slot: u64, stamp: u64) {
        if self.geo.stamps {
            self.region.word(self.layout.stamp(bucket, slot - 1)).store(!stamp, Relaxed);
        }
    }
}

/// [`Engine::bump`] for who has the head at hand.
#[inline(always)]
pub(super) fn bump(head: &Line) {
    let v = &head[0];
    // Only the holder of the shard's lock writes versions: no read-modify-write is needed. Release orders the
    // change of the slot before it; the fence orders it before the writes that reuse the memory.
    v.store(v.load(Relaxed).wrapping_add(1), chain::BUMP);
    fence(chain::RETIRE);
}

/// Where a new slot word goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Vacancy {
    /// An empty slot.
    Slot { bucket: u64, slot: u64 },
    /// The chain is full: `new` follows `last`.
    Overflow { last: u64, new: u64 },
}
