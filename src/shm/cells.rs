//! The cells that every write uses, and new blocks: where they lie is checked once, not word by word.

use std::marker::PhantomData;

use super::{
    block::CLASSES,
    copy,
    layout::{SHARD, SPAN_META, shard},
    region::{Region, round8, sync::*},
};
use crate::os::mutex::{MUTEX_SIZE, RobustMutex};

/// Words of a shard between its lock and its lists.
const WORDS: usize = 16;
const _: () = {
    assert!(shard::LOCK as usize + MUTEX_SIZE <= 64 && 64 + WORDS as u64 * 8 <= shard::CLASSES);
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
        // SAFETY: `at` is a shard's first byte (`Region::shard`), and the words lie within it, 8-aligned; the region outlives
        // `'a`, and all access to them is atomic.
        let words = unsafe { &*self.at.add(64).cast::<[AtomicU64; WORDS]>() };
        &words[(at - 64) as usize / 8]
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

/// A block that no slot leads to: whoever holds its shard's lock may write there, and a late reader drops what it copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blank<'a> {
    at: *mut u8,
    len: u64,
    region: PhantomData<&'a Region>,
}

impl Blank<'_> {
    /// Sets a word.
    #[inline(always)]
    pub(crate) fn set(self, word: u64, value: u64) {
        assert!(word * 8 + 8 <= self.len, "a word behind the block's end");
        // SAFETY: the word lies in the block, 8-aligned (`Region::blank`); all access to it is atomic.
        unsafe { AtomicU64::from_ptr(self.at.cast::<u64>().add(word as usize)) }.store(value, Relaxed);
    }

    /// Copies `bytes` to `at`, a multiple of 8. The last word is zero-padded or keeps its rest.
    #[inline(always)]
    pub(crate) fn write(self, at: u64, bytes: &[u8]) {
        let end = at.saturating_add(round8(bytes.len()));
        assert!(end <= self.len && at & 7 == 0, "bytes behind the block's end");
        // SAFETY: `at` to `end` lies in the block, 8-aligned; the engine owns it under its shard's lock.
        unsafe { copy::store(bytes.as_ptr(), self.at.add(at as usize), bytes.len()) };
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
        let at = unsafe { self.start().add((self.layout().shards + no * SHARD) as usize) };
        Home { no, at, region: PhantomData }
    }

    /// A span's words; `None` = there is no such span.
    #[inline(always)]
    pub(super) fn span(&self, number: u64) -> Option<&[AtomicU64; 3]> {
        if number >= self.layout().geo.spans {
            return None;
        }
        // SAFETY: `Layout::new` gave the spans' words, 64-aligned, `SPAN_META` bytes each before the layout's end, which the
        // mapping reaches to (`Region::new`); all access to them is atomic.
        Some(unsafe { &*self.start().add((self.layout().span_table + number * SPAN_META) as usize).cast() })
    }

    /// `len` bytes of the data area at `off`, a multiple of 8, as a block to be written.
    ///
    /// # Panics
    /// If they do not lie there: damage.
    #[inline(always)]
    pub(crate) fn blank(&self, off: u64, len: u64) -> Blank<'_> {
        let (first, end) = (self.layout().data, self.layout().end);
        assert!(
            off >= first && off <= end && len <= end - off && off & 7 == 0,
            "a block outside of the data"
        );
        // SAFETY: `off` lies before the layout's end, which the mapping reaches to (`Region::new`).
        Blank { at: unsafe { self.start().add(off as usize) }, len, region: PhantomData }
    }
}
