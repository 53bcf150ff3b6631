//! A shard's cells, and writes of new entries: bounds are checked once, not word by word (I13).

use std::marker::PhantomData;

use super::{
    copy,
    layout::{SHARD, SHARD_REST, SPAN_META, STATS, STATS_SLOTS, round8, shard},
    order::earliest,
    region::{Region, outside, sync::*},
};
use crate::os::mutex::{MUTEX_SIZE, OwnerAt, RobustMutex};

/// Words of a shard behind its lock, in the lock's line and elsewhere.
const WORDS: usize = (SHARD - FROM) as usize / 8;
const REST_WORDS: usize = (shard::END - SHARD) as usize / 8;
/// Where they begin.
const FROM: u64 = shard::LOCK + MUTEX_SIZE as u64;
// A longer lock (64-bit ARM: 48 bytes) leaves the line one word less: `ITEMS` is with the rest there.
const _: () = assert!(FROM.is_multiple_of(8) && shard::CACHED_BLOCK == FROM && shard::STATE < SHARD);
const _: () = assert!(cfg!(not(target_arch = "x86_64")) || shard::EARLIEST == SHARD);

/// A shard's cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardCells<'a> {
    /// Its number.
    pub(crate) no: u64,
    at: *mut u8,
    rest: *mut u8,
    region: PhantomData<&'a Region>,
}

impl<'a> ShardCells<'a> {
    /// The word at a place that `layout::shard` names, behind the lock.
    #[inline(always)]
    pub(crate) fn word(self, at: u64) -> &'a AtomicU64 {
        if at < SHARD {
            // SAFETY: `at` is the first byte of a shard's line (`Region::shard`), and the words lie
            // within it, 8-aligned; the region outlives `'a`, and all access to them is atomic.
            let words = unsafe { &*self.at.add(FROM as usize).cast::<[AtomicU64; WORDS]>() };
            return &words[(at - FROM) as usize / 8];
        }
        // SAFETY: as above, for the words that lie elsewhere.
        let words = unsafe { &*self.rest.cast::<[AtomicU64; REST_WORDS]>() };
        &words[(at - SHARD) as usize / 8]
    }

    /// No item expires before this time (milliseconds); `u64::MAX` = none expires.
    #[inline(always)]
    pub(crate) fn earliest(self) -> u64 {
        // Stored inverted: 0 in a shard that was never used.
        !self.word(shard::EARLIEST).load(earliest::SHARD)
    }

    /// Sets it.
    #[inline(always)]
    pub(crate) fn set_earliest(self, millis: u64) {
        self.word(shard::EARLIEST).store(!millis, earliest::SHARD);
    }

    /// Items stored.
    #[inline(always)]
    pub(crate) fn used(self) -> u64 {
        self.word(shard::ITEMS).load(Relaxed) & 0xFFFF_FFFF
    }

    /// Whether it is not dirty, and reaped for the clear with this number.
    #[inline(always)]
    pub(crate) fn is_in_order(self, clear: u32) -> bool {
        self.word(shard::STATE).load(Acquire) == u64::from(clear)
    }

    /// Whether it must be rebuilt before use.
    #[inline]
    pub(crate) fn is_dirty(self) -> bool {
        self.word(shard::STATE).load(Acquire) >> 32 != 0
    }

    /// Says whether it must be rebuilt. Under its lock, or while the region is being opened.
    pub(crate) fn set_dirty(self, dirty: bool) {
        let state = self.word(shard::STATE);
        state.store(u64::from(dirty) << 32 | state.load(Relaxed) & 0xFFFF_FFFF, Release);
    }

    /// The number of the clear that it was last reaped for.
    #[inline]
    pub(crate) fn reaped(self) -> u32 {
        self.word(shard::STATE).load(Relaxed) as u32
    }

    /// Notes the number. Under its lock.
    pub(crate) fn set_reaped(self, clear: u32) {
        let state = self.word(shard::STATE);
        state.store(state.load(Relaxed) >> 32 << 32 | u64::from(clear), Relaxed);
    }

    /// The lock.
    #[inline(always)]
    pub(crate) fn lock(self) -> RobustMutex {
        // SAFETY: the cell lies in the shard and is 64-aligned; `engine::store` initialises it
        // before it publishes the region, and nothing else writes there.
        unsafe { RobustMutex::at(self.at.add(shard::LOCK as usize)) }
    }
}

impl Region {
    /// The shard with this number.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub(crate) fn shard(&self, no: u64) -> ShardCells<'_> {
        assert!(no < self.layout().geo.shards, "there is no shard with this number");
        // SAFETY: `Layout::new` gave the shards, 64-aligned, `SHARD` and `SHARD_REST` bytes each
        // before the layout's end, which the mapping reaches to (`Region::new`).
        let (at, rest) = unsafe {
            let at = self.areas.shards.add((no * SHARD) as usize);
            (at, self.areas.rests.add((no * SHARD_REST) as usize))
        };
        ShardCells { no, at, rest, region: PhantomData }
    }

    /// Whether any shard must be rebuilt, or was left locked by a thread that died. Without a branch or a
    /// check for each: a full cache asks for every key that it refuses.
    pub(crate) fn has_dead(&self) -> bool {
        const STATE_AT: usize = shard::STATE as usize;
        let (shards, owner) = (self.layout().geo.shards, OwnerAt::known());
        let (mut states, mut owners) = (0, 0);
        for no in 0..shards {
            // SAFETY: `Layout::new` gave each shard a line, 64-aligned, before the layout's end, which the
            // mapping reaches to (`Region::new`); all access to its state is atomic, and the lock's cell
            // is as in `ShardCells::lock`.
            let (state, lock) = unsafe {
                let at = self.areas.shards.add((no * SHARD) as usize);
                (AtomicU64::from_ptr(at.add(STATE_AT).cast()), RobustMutex::at(at.add(shard::LOCK as usize)))
            };
            states |= state.load(Acquire);
            owners |= lock.owner_word(owner);
        }
        states >> 32 != 0 || owner.has_died(owners)
    }

    /// Offset of the first free block of a shard's bin.
    ///
    /// # Panics
    /// If there is no such bin.
    #[inline(always)]
    pub(super) fn bin(&self, shard: ShardCells<'_>, bin: usize) -> &AtomicU64 {
        assert!((bin as u64) < self.layout().bins_of_shard(), "there is no bin with this number");
        // SAFETY: `Layout::new` gave each shard so many words, from a multiple of 64 on, before the
        // layout's end, which the mapping reaches to (`Region::new`), and `shard` made sure that there
        // is such a shard; all access to them is atomic.
        unsafe {
            let at = self.start().add(self.layout().bin(shard.no, bin as u64) as usize);
            AtomicU64::from_ptr(at.cast())
        }
    }

    /// Prefetches a shard's bin.
    #[inline(always)]
    pub(super) fn prefetch_bin(&self, shard: ShardCells<'_>, bin: usize) {
        copy::prefetch(std::ptr::from_ref(self.bin(shard, bin)).cast());
    }

    /// Whether blocks have the lengths of size classes: in memory.
    #[inline(always)]
    pub(super) fn has_classes(&self) -> bool {
        !self.layout().geo.checksums
    }

    /// A word of a statistics slot, 0 to 47.
    #[inline(always)]
    pub(crate) fn stats(&self, slot: u8, word: usize) -> &AtomicU64 {
        const { assert!(STATS_SLOTS > u8::MAX as u64) };
        // SAFETY: `Layout::new` gave the slots, 64-aligned, `STATS` bytes each before the layout's
        // end, which the mapping reaches to (`Region::new`); all access to them is atomic.
        let slot = unsafe {
            let at = self.areas.stats.add((u64::from(slot) * STATS) as usize);
            &*at.cast::<[AtomicU64; STATS as usize / 8]>()
        };
        &slot[word]
    }

    /// A span's words; `None` = there is no such span.
    #[inline(always)]
    pub(super) fn span(&self, number: u64) -> Option<&[AtomicU64; 2]> {
        if number >= self.layout().geo.spans {
            return None;
        }
        // SAFETY: `Layout::new` gave the spans' words, 64-aligned, `SPAN_META` bytes each before
        // the layout's end, which the mapping reaches to (`Region::new`); all access to them is
        // atomic.
        Some(unsafe { &*self.areas.spans.add((number * SPAN_META) as usize).cast() })
    }

    /// Writes `header`, `key` and `value`, each from a multiple of 8 on, into a block of the data
    /// area that no slot leads to: a late reader drops what it copied there.
    ///
    /// # Panics
    /// If the block does not lie in the data area: damage.
    #[inline(always)]
    pub(crate) fn put<const N: usize>(&self, off: u64, header: [u64; N], key: &[u8], value: &[u8]) {
        // Slices are shorter than half of what 64 bits can count: nothing overflows.
        let value_at = 8 * N + round8(key.len() as u64) as usize;
        let len = value_at as u64 + round8(value.len() as u64);
        let Some(room) = self.data_len.checked_sub(off.wrapping_sub(self.layout().data)) else {
            outside(off, len)
        };
        if len > room || off & 7 != 0 {
            outside(off, len);
        }
        // SAFETY: `len` bytes from `off` on lie before the layout's end, which the mapping reaches
        // to (`Region::new`); the places are multiples of 8, and the engine owns the block under
        // its shard's lock (I4).
        unsafe {
            let at = self.start().add(off as usize);
            for (i, word) in header.into_iter().enumerate() {
                AtomicU64::from_ptr(at.cast::<u64>().add(i)).store(word, Relaxed);
            }
            copy::store_short(key.as_ptr(), at.add(8 * N), key.len());
            copy::store(value.as_ptr(), at.add(value_at), value.len());
        }
    }
}
