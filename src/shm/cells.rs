//! The cells that every write uses, and new entries: where they lie is checked once, not word by word.

use std::marker::PhantomData;

use super::{
    block::CLASSES,
    copy,
    layout::{SHARD, SPAN_META, STATS, STATS_SLOTS, shard},
    region::{Region, outside, sync::*},
};
use crate::os::mutex::{MUTEX_SIZE, RobustMutex};

/// Words of a shard between its lock and its lists; one of them is two half words.
const WORDS: usize = (shard::CLASSES - FROM) as usize / 8;
/// Where they begin.
const FROM: u64 = shard::LOCK + MUTEX_SIZE as u64;
const HALVES: u64 = shard::USED;
const _: () = {
    assert!(MUTEX_SIZE <= 64 && FROM.is_multiple_of(8) && HALVES.is_multiple_of(8));
    assert!(shard::ID_HINT == HALVES + 4 && shard::SPARE == FROM && shard::EARLIEST == HALVES + 8);
    assert!(shard::CLASSES + CLASSES * 4 <= SHARD && SHARD.is_multiple_of(64));
};

/// A shard's cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home<'a> {
    /// Its number.
    pub(crate) no: u64,
    at: *mut u8,
    region: PhantomData<&'a Region>,
}

impl<'a> Home<'a> {
    /// The word at a place that `layout::shard` names, between the lock and the lists.
    #[inline(always)]
    pub(crate) fn word(self, at: u64) -> &'a AtomicU64 {
        assert!(at != HALVES, "there are two half words");
        // SAFETY: `at` is a shard's first byte (`Region::shard`), and the words lie within it, 8-aligned; the region outlives
        // `'a`, and all access to them is atomic, and to that which is excepted by halves.
        let words = unsafe { &*self.at.add(FROM as usize).cast::<[AtomicU64; WORDS]>() };
        &words[(at - FROM) as usize / 8]
    }

    /// Items stored.
    #[inline(always)]
    pub(crate) fn used(self) -> &'a AtomicU32 {
        &self.halves()[0]
    }

    /// The hint for item numbers.
    #[inline(always)]
    pub(crate) fn id_hint(self) -> &'a AtomicU32 {
        &self.halves()[1]
    }

    /// Whether it is whole, and reaped for the clear with this number.
    #[inline(always)]
    pub(crate) fn is_in_order(self, clear: u32) -> bool {
        self.word(shard::STATE).load(Acquire) == u64::from(clear)
    }

    /// Whether it must be rebuilt before use.
    #[inline]
    pub(crate) fn is_dirty(self) -> bool {
        self.word(shard::STATE).load(Acquire) >> 32 != 0
    }

    /// Says whether it must be rebuilt. Under its lock, or where nobody else uses the region.
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

    #[inline(always)]
    fn halves(self) -> &'a [AtomicU32; 2] {
        // SAFETY: as in `word`, which leaves them out.
        unsafe { &*self.at.add(HALVES as usize).cast() }
    }

    /// Span + 1 of the first with free blocks of a class.
    #[inline(always)]
    pub(super) fn list(self, class: u64) -> &'a AtomicU32 {
        // SAFETY: as in `word`, for the lists behind the words.
        let lists = unsafe { &*self.at.add(shard::CLASSES as usize).cast::<[AtomicU32; CLASSES as usize]>() };
        &lists[class as usize]
    }

    /// The lock.
    #[inline(always)]
    pub(crate) fn lock(self) -> RobustMutex {
        // SAFETY: the cell lies in the shard and is 64-aligned; `engine::open` initialises it before it publishes the region,
        // and nothing else writes there.
        unsafe { RobustMutex::at(self.at.add(shard::LOCK as usize)) }
    }
}

impl Region {
    /// The shard with this number.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub(crate) fn shard(&self, no: u64) -> Home<'_> {
        assert!(no < self.layout().geo.shards, "there is no shard with this number");
        // SAFETY: `Layout::new` gave the shards, 64-aligned, `SHARD` bytes each before the layout's end, which the mapping
        // reaches to (`Region::new`).
        let at = unsafe { self.areas.shards.add((no * SHARD) as usize) };
        Home { no, at, region: PhantomData }
    }

    /// A word of a statistics slot, 0 to 31.
    #[inline(always)]
    pub(crate) fn stats(&self, slot: u8, word: usize) -> &AtomicU64 {
        const { assert!(STATS_SLOTS > u8::MAX as u64) };
        // SAFETY: `Layout::new` gave the slots, 64-aligned, `STATS` bytes each before the layout's end, which the mapping
        // reaches to (`Region::new`); all access to them is atomic.
        let slot = unsafe {
            let at = self.areas.stats.add((u64::from(slot) * STATS) as usize);
            &*at.cast::<[AtomicU64; STATS as usize / 8]>()
        };
        &slot[word]
    }

    /// A span's words; `None` = there is no such span.
    #[inline(always)]
    pub(super) fn span(&self, number: u64) -> Option<&[AtomicU64; 3]> {
        if number >= self.layout().geo.spans {
            return None;
        }
        // SAFETY: `Layout::new` gave the spans' words, 64-aligned, `SPAN_META` bytes each before the layout's end, which the
        // mapping reaches to (`Region::new`); all access to them is atomic.
        Some(unsafe { &*self.areas.spans.add((number * SPAN_META) as usize).cast() })
    }

    /// Writes `head`, `key` and `value`, each from a multiple of 8 on, into a block of the data area that no slot leads to: a
    /// late reader drops what it copied there.
    ///
    /// # Panics
    /// If the block does not lie in the data area: damage.
    #[inline(always)]
    pub(crate) fn put<const N: usize>(&self, off: u64, head: [u64; N], key: &[u8], value: &[u8]) {
        // Slices are shorter than half of what 64 bits can count: nothing overflows.
        let round8 = |len: usize| (len + 7) & !7;
        let value_at = 8 * N + round8(key.len());
        let len = (value_at + round8(value.len())) as u64;
        let layout = self.layout();
        if off < layout.data || off > layout.end || len > layout.end - off || off & 7 != 0 {
            outside(off, len);
        }
        // SAFETY: `len` bytes from `off` on lie before the layout's end, which the mapping reaches to (`Region::new`); the
        // places are multiples of 8, and the engine owns the block under its shard's lock.
        unsafe {
            let at = self.start().add(off as usize);
            for (i, word) in head.into_iter().enumerate() {
                AtomicU64::from_ptr(at.cast::<u64>().add(i)).store(word, Relaxed);
            }
            copy::store(key.as_ptr(), at.add(8 * N), key.len());
            copy::store(value.as_ptr(), at.add(value_at), value.len());
        }
    }
}
