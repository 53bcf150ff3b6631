//! The index: chains of 64-byte buckets, found by the high bits of the hash.
//!
//! ```text
//! bucket       sequence number 40, link 24 | slot 1 .. slot 7
//! link         number of the chain's next bucket among the overflow buckets of its shard, + 1; 0 = the end
//! ```
//! The home bucket's sequence number covers its whole chain. It changes after anything in the chain
//! became unreachable, and before the memory of that is used again; so a reader that finds the word
//! unchanged has seen nothing that was reused. An item stays in its slot as long as its key is
//! stored. Only the last bucket leaves a chain, and only when it is empty: what leads to an item
//! does not change while the item is there. The sequence number of an overflow bucket is not used;
//! in a free one it is the number of the next free one, + 1.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        geometry::id_of,
        index::entry::{self, Header},
        shard::guard::ShardGuard,
    },
    shm::{
        Bucket, SharedBytes, first_match,
        layout::{SLOTS, shard},
        order::seqlock,
        scratch::Buffer,
        sync::*,
    },
};

/// The bits of a bucket's first word that are its link; the others are the sequence number.
pub(in crate::engine) const LINK: u64 = (1 << LINK_BITS) - 1;
const LINK_BITS: u32 = 24;
/// Most overflow buckets of a shard.
pub(in crate::engine) const MAX_OVERFLOW: u64 = LINK - 1;

/// An entry found through its slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryRef {
    /// Bucket number and slot, 1 to 7.
    pub(crate) bucket: u64,
    pub(crate) slot: u64,
    /// Offset of the entry.
    pub(crate) off: u64,
    pub(crate) header: Header,
}

impl EntryRef {
    /// The item's id.
    #[inline(always)]
    pub(crate) fn id(&self) -> u32 {
        id_of(self.bucket, self.slot)
    }
}

impl Engine {
    /// Hash of a key.
    #[inline(always)]
    pub(in crate::engine) fn hash(&self, key: &[u8]) -> u64 {
        self.secret.hash_with(&self.seeds, key)
    }

    /// A bucket's first word: its link, and the sequence number of a home bucket.
    #[inline]
    pub(in crate::engine) fn seq(&self, home: u64) -> &AtomicU64 {
        &self.region.bucket(home)[0]
    }

    /// The slot's word.
    #[inline]
    pub(in crate::engine) fn slot(&self, bucket: u64, slot: u64) -> &AtomicU64 {
        &self.region.bucket(bucket)[slot as usize & 7]
    }

    /// The slot of an item id, if it is in use at this moment.
    pub(in crate::engine) fn slot_of(&self, id: u32) -> Option<(u64, u64)> {
        let n = u64::from(id).checked_sub(1)?;
        let (bucket, slot) = (n / SLOTS, n % SLOTS + 1);
        let there = bucket < self.buckets && self.region.has_bucket(bucket);
        (there && self.slot(bucket, slot).load(Acquire) != 0).then_some((bucket, slot))
    }

    /// The next bucket of the chain of `home`, from a bucket's first word.
    #[inline(always)]
    pub(in crate::engine) fn link_of(&self, home: u64, word: u64) -> Option<u64> {
        if word & LINK == 0 { None } else { self.linked(home, word & LINK) }
    }

    #[inline(never)]
    fn linked(&self, home: u64, link: u64) -> Option<u64> {
        (link <= self.region.overflow_ready())
            .then(|| self.geo.overflow_bucket(self.shard_of(home), link - 1))
    }

    /// The bucket after `bucket` in the chain of `home`.
    #[inline]
    pub(in crate::engine) fn next(&self, home: u64, bucket: u64) -> Option<u64> {
        self.link_of(home, self.seq(bucket).load(seqlock::FOLLOW))
    }

    /// Makes `next` (`None` = nothing) follow `bucket` in the chain of `home`, in one store; that of
    /// a home bucket also advances the sequence number.
    pub(in crate::engine) fn set_link(&self, bucket: u64, next: Option<u64>) {
        let link = next.map_or(0, |next| self.geo.overflow_number(next) + 1);
        let word = self.seq(bucket);
        word.store((word.load(Relaxed) & !LINK).wrapping_add(LINK + 1) | link, seqlock::PUBLISH);
        fence(seqlock::RETIRE);
    }

    /// The header at `off`, if an entry of plausible lengths can be there.
    #[inline]
    pub(in crate::engine) fn header_at(&self, off: u64) -> Option<Header> {
        self.entry_at(off).map(|(words, _)| Header::unpack(words))
    }

    /// The same of a block that may be free.
    pub(in crate::engine) fn header_of_block(&self, off: u64) -> Option<Header> {
        self.header_at(off).filter(|header| header.key_len > 0)
    }

    /// Header and key of the entry at `off`, if one of plausible lengths can be there.
    #[inline]
    pub(in crate::engine) fn entry_at(&self, off: u64) -> Option<((u64, u64), SharedBytes<'_>)> {
        match self.known_entry(off) {
            None => self.entry_refreshed(off),
            known => known,
        }
    }

    #[inline(always)]
    fn known_entry(&self, off: u64) -> Option<((u64, u64), SharedBytes<'_>)> {
        let view = self.region.entry_view(off)?;
        let words = view.words();
        let (key, _) = view.key_value(self.header_len, entry::key_len(words.0), entry::value_len(words.0))?;
        Some((words, key))
    }

    /// [`Engine::entry_at`] if a store may have grown since this process last checked.
    #[cold]
    #[inline(never)]
    fn entry_refreshed(&self, off: u64) -> Option<((u64, u64), SharedBytes<'_>)> {
        if self.region.refresh_committed() { self.known_entry(off) } else { None }
    }

    /// Calls `f` for each occupied slot of a chain (bucket, slot, word), until it returns `false`.
    pub(in crate::engine) fn each_slot(&self, home: u64, mut f: impl FnMut(u64, u64, u64) -> bool) {
        if !self.region.has_bucket(home) {
            return;
        }
        let mut bucket = home;
        for _ in 0..=self.geo.overflow {
            let line = self.region.bucket(bucket);
            for (slot, word) in (1u64..).zip(&line[1..]) {
                let word = word.load(Acquire);
                if word != 0 && !f(bucket, slot, word) {
                    return;
                }
            }
            match self.next(home, bucket) {
                Some(next) => bucket = next,
                None => return,
            }
        }
    }

    /// Advances the chain's sequence number: something became unreachable. After the
    /// change, before the memory is used again (I2).
    #[inline]
    pub(in crate::engine) fn bump_seq(&self, home: u64) {
        bump_seq(self.region.bucket(home));
    }

    /// An empty slot in the chain of `home`, which has memory; adds an overflow bucket if there is
    /// none.
    #[inline(always)]
    pub(in crate::engine) fn free_slot(&self, home: u64) -> Option<FreeSlot> {
        // An empty slot has tag 0, and nothing else has.
        match self.region.match_tag(self.region.bucket(home), 0) {
            0 => self.free_slot_behind(home),
            empty => Some(FreeSlot::Slot { bucket: home, slot: first_match(empty) as u64 }),
        }
    }

    /// [`Engine::free_slot`] if the home bucket is full.
    #[inline(never)]
    fn free_slot_behind(&self, home: u64) -> Option<FreeSlot> {
        let mut bucket = home;
        for _ in 0..=self.geo.overflow {
            let line = self.region.bucket(bucket);
            let empty = (1u64..).zip(&line[1..]).find(|(_, w)| w.load(Relaxed) == 0);
            if let Some((slot, _)) = empty {
                return Some(FreeSlot::Slot { bucket, slot });
            }
            match self.next(home, bucket) {
                Some(next) => bucket = next,
                None => {
                    return Some(FreeSlot::Overflow {
                        last: bucket,
                        new: self.take_overflow(self.shard_of(home))?,
                    });
                }
            }
        }
        None
    }

    /// Whether [`Engine::free_slot`] has one.
    #[inline(always)]
    pub(in crate::engine) fn has_free_slot(&self, home: u64) -> bool {
        self.region.match_tag(self.region.bucket(home), 0) != 0 || self.has_free_slot_behind(home)
    }

    #[inline(never)]
    fn has_free_slot_behind(&self, home: u64) -> bool {
        let cells = self.region.shard(self.shard_of(home));
        let word = |at| cells.word(at).load(Relaxed);
        if word(shard::OVERFLOW_FREE) != 0 || word(shard::OVERFLOW_BUMP) < self.region.overflow_ready() {
            return true;
        }
        let has_empty = |bucket| self.region.bucket(bucket)[1..].iter().any(|word| word.load(Relaxed) == 0);
        let chain = std::iter::successors(Some(home), |&bucket| self.next(home, bucket));
        chain.take(self.geo.overflow as usize + 1).any(has_empty)
    }

    /// Publishes a slot word in the chain of `home`, whose first bucket is `line`: the commit point
    /// of an insert (I1).
    #[inline(always)]
    pub(in crate::engine) fn publish(
        &self,
        (home, line): (u64, &Bucket),
        at: FreeSlot,
        word: u64,
        stamp: u64,
    ) {
        match at {
            FreeSlot::Slot { bucket, slot } if bucket == home => {
                self.set_stamp(bucket, slot, stamp);
                // The first item of a chain takes the first slot.
                if slot == 1 {
                    self.note_run(home);
                }
                line[slot as usize & 7].store(word, seqlock::PUBLISH);
            }
            _ => self.publish_behind(at, word, stamp),
        }
    }

    /// [`Engine::publish`] in an overflow bucket: the chain has items.
    #[inline(never)]
    fn publish_behind(&self, at: FreeSlot, word: u64, stamp: u64) {
        let (bucket, slot) = at.place();
        self.set_stamp(bucket, slot, stamp);
        match at {
            FreeSlot::Slot { .. } => self.slot(bucket, slot).store(word, seqlock::PUBLISH),
            FreeSlot::Overflow { last, new } => {
                self.slot(new, slot).store(word, Relaxed);
                self.set_link(last, Some(new));
            }
        }
    }

    /// Empties a slot and notifies readers; drops overflow buckets that became empty.
    pub(in crate::engine) fn unpublish(&self, home: u64, bucket: u64, slot: u64) {
        self.slot(bucket, slot).store(0, seqlock::PUBLISH);
        self.set_stamp(bucket, slot, u64::MAX);
        if bucket != home {
            self.drop_empty_tail(home);
        }
        self.bump_seq(home);
    }

    /// Takes empty overflow buckets at the end of a chain out of it. The caller bumps the sequence
    /// number before the lock is released, and until then the bucket's slots and link stay 0: a
    /// reader that still walks through it sees an end and rechecks.
    fn drop_empty_tail(&self, home: u64) {
        for _ in 0..=self.geo.overflow {
            let (mut before, mut last) = (home, home);
            for _ in 0..=self.geo.overflow {
                let Some(next) = self.next(home, last) else { break };
                (before, last) = (last, next);
            }
            if last == home || self.region.bucket(last)[1..].iter().any(|word| word.load(Relaxed) != 0) {
                return;
            }
            self.set_link(before, None);
            self.give_overflow(self.shard_of(home), last);
        }
    }

    /// An unused overflow bucket of the shard, its slots and link 0.
    fn take_overflow(&self, shard_no: u64) -> Option<u64> {
        let cells = self.region.shard(shard_no);
        let free = cells.word(shard::OVERFLOW_FREE);
        let number = free.load(Relaxed);
        if number != 0 {
            let bucket = self.geo.overflow_bucket(shard_no, number - 1);
            free.store(self.seq(bucket).load(Relaxed) >> LINK_BITS, Relaxed);
            return Some(bucket);
        }
        let bump = cells.word(shard::OVERFLOW_BUMP);
        let used = bump.load(Relaxed);
        if used >= self.region.overflow_ready() {
            return None;
        }
        bump.store(used + 1, Relaxed);
        Some(self.geo.overflow_bucket(shard_no, used))
    }

    /// Puts an empty overflow bucket on its shard's free list.
    pub(in crate::engine) fn give_overflow(&self, shard_no: u64, bucket: u64) {
        let free = self.region.shard(shard_no).word(shard::OVERFLOW_FREE);
        self.seq(bucket).store(free.load(Relaxed) << LINK_BITS, Relaxed);
        free.store(self.geo.overflow_number(bucket) + 1, Relaxed);
    }

    /// The hash of an entry's key, under its shard's lock and without malloc (I12).
    pub(in crate::engine) fn hash_of(&self, f: &EntryRef) -> u64 {
        let len = f.header.key_len as usize;
        let source = self.region.source(f.off + self.header_bytes, len);
        let mut short = [0; 256];
        if let Some(key) = short.get_mut(..len) {
            source.copy_to_slice(key);
            return self.secret.hash(key);
        }
        let Ok(mut buffer) = Buffer::new(len) else {
            return self.secret.hash(&entry::key(&self.region, f.off, self.header_bytes, &f.header));
        };
        let key = buffer.first(len);
        source.copy_to_slice(key);
        self.secret.hash(key)
    }

    /// The item of a slot, under its shard's lock. A late reader's stamp on a slot that became
    /// empty is taken away.
    #[inline(always)]
    pub(in crate::engine) fn found_at(&self, (bucket, slot): (u64, u64)) -> Option<EntryRef> {
        let word = self.slot(bucket, slot).load(Acquire);
        if word == 0 {
            self.set_stamp(bucket, slot, u64::MAX);
            return None;
        }
        let off = entry::slot_off(word);
        let header = self.header_at(off).filter(|h| h.key_len > 0)?;
        Some(EntryRef { bucket, slot, off, header })
    }

    #[cold]
    pub(in crate::engine) fn return_free_slot(&self, guard: &ShardGuard<'_>, free_slot: FreeSlot) {
        if let FreeSlot::Overflow { new, .. } = free_slot {
            self.give_overflow(guard.no, new);
        }
    }
}

/// [`Engine::bump_seq`] for a caller that has the home bucket at hand.
#[inline(always)]
pub(in crate::engine) fn bump_seq(home: &Bucket) {
    let v = &home[0];
    // Only the holder of the shard's lock writes sequence numbers: no read-modify-write is needed.
    // Release orders the change of the slot before it; the fence orders it before the writes that
    // reuse the memory.
    // The link stays.
    v.store(v.load(Relaxed).wrapping_add(LINK + 1), seqlock::BUMP);
    fence(seqlock::RETIRE);
}

/// Target of a new slot word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FreeSlot {
    /// An empty slot.
    Slot { bucket: u64, slot: u64 },
    /// The chain is full: `new` follows `last`.
    Overflow { last: u64, new: u64 },
}

impl FreeSlot {
    /// Bucket and slot of the item to come.
    #[inline(always)]
    pub(crate) fn place(self) -> (u64, u64) {
        match self {
            Self::Slot { bucket, slot } => (bucket, slot),
            Self::Overflow { new, .. } => (new, 1),
        }
    }
}
