//! One mapped region: bounds-checked atomics and copies.

use std::{
    marker::PhantomData,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use super::{
    copy,
    layout::{BUCKET, Layout, round8},
    number::Number,
    pair::{self, Pair},
    simd_tags,
};
use crate::{
    error::{Error, Result},
    os::{
        file::StoreFile,
        map::{Advice, Mapping},
        mutex::{MUTEX_SIZE, RobustMutex},
        page::page_size,
    },
};

/// The atomics and fences that other layers use on region words.
pub(crate) mod sync {
    pub(crate) use std::sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
        fence,
    };
}

/// Minimum length of a region: the header's page.
const MIN_REGION: u64 = 4096;

/// Bytes that a string of `len` occupies. A length over `isize::MAX`, which no slice has, stays
/// outside of every region.
#[inline]
fn padded(len: usize) -> u64 {
    round8((len as u64).min(1 << 62))
}

/// A mapped region. All shared bytes are accessed as atomics or by [`copy`]; no reference to plain
/// memory is made.
#[derive(Debug)]
pub(crate) struct Region {
    pub(super) areas: Areas,
    /// Buckets of the index.
    pub(super) buckets: u64,
    /// Number of home buckets; at most `buckets`.
    pub(super) homes: u64,
    /// Buckets that have stamps: all, or none.
    pub(super) stamped: u64,
    /// Bytes of the data area.
    pub(super) data_len: u64,
    /// How far the data area is known to be backed by memory or disk: bytes from its start on at
    /// which a piece may begin.
    pub(super) backed: AtomicU64,
    /// Whether parts of the index may have no memory: those of a store's file without blocks on
    /// disk.
    pub(super) sparse: bool,
    /// See [`simd_tags::compares_wide`].
    pub(super) wide: bool,
    /// See [`pair::exchanges_pairs`].
    pub(super) pairs: bool,
    map: Mapping,
    layout: Layout,
    file: Option<StoreFile>,
}

/// Start addresses of the areas that every operation uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Areas {
    start: *mut u8,
    pub(super) index: *mut u8,
    pub(super) stamps: *mut u8,
    pub(super) runs: *mut u8,
    pub(super) stats: *mut u8,
    pub(super) shards: *mut u8,
    pub(super) rests: *mut u8,
    pub(super) spans: *mut u8,
}

// SAFETY: addresses in a mapping, which is the whole process's; all access to its memory is atomic
// (I13).
unsafe impl Send for Areas {}
// SAFETY: as above.
unsafe impl Sync for Areas {}

impl Areas {
    fn new(map: &Mapping, layout: &Layout) -> Self {
        let start = map.start().as_ptr();
        let at = |off: u64| start.wrapping_add(off as usize);
        Self {
            start,
            index: at(layout.index),
            stamps: at(layout.stamps),
            runs: at(layout.runs),
            stats: at(layout.stats),
            shards: at(layout.shards),
            rests: at(layout.rests),
            spans: at(layout.span_table),
        }
    }
}

impl Region {
    /// Wraps a mapping of at least `layout.end` bytes.
    pub(crate) fn new(map: Mapping, layout: Layout, file: Option<StoreFile>) -> Result<Self> {
        if (map.len() as u64) < layout.end.max(MIN_REGION) {
            return Err(Error::Damaged("the mapping is shorter than the layout"));
        }
        let buckets = layout.buckets();
        if !layout.index.is_multiple_of(BUCKET) || (layout.end - layout.index) / BUCKET < buckets {
            return Err(Error::Damaged("the index is not inside the region"));
        }
        let stamped = if layout.geo.stamps { buckets } else { 0 };
        let room = layout.end.saturating_sub(layout.stamps);
        if !layout.stamps.is_multiple_of(BUCKET) || room / BUCKET < stamped {
            return Err(Error::Damaged("the stamps are not inside the region"));
        }
        let homes = layout.geo.homes.min(buckets);
        let areas = Areas::new(&map, &layout);
        copy::learn_processor();
        let (backed, wide, sparse) = (AtomicU64::new(0), simd_tags::compares_wide(), file.is_some());
        let (pairs, data_len) = (pair::exchanges_pairs(), layout.end.saturating_sub(layout.data));
        Ok(Self { areas, buckets, homes, stamped, data_len, backed, sparse, wide, pairs, map, layout, file })
    }

    /// First byte of the mapping.
    #[inline]
    pub(super) fn start(&self) -> *mut u8 {
        self.areas.start
    }

    /// The offsets of all areas.
    #[inline]
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The store file, if any.
    pub(crate) fn file(&self) -> Option<&StoreFile> {
        self.file.as_ref()
    }

    /// Pointer to `len` bytes at `off`, a multiple of 8.
    ///
    /// # Panics
    /// If they do not lie in the region: a caller's bug, or damage that a bounds check before
    /// should have caught.
    #[inline]
    fn at(&self, off: u64, len: u64) -> *mut u8 {
        let room = self.map.len() as u64;
        if len > room || off > room - len || off & 7 != 0 {
            outside(off, len);
        }
        // SAFETY: in bounds of the mapping, as just checked.
        unsafe { self.start().add(off as usize) }
    }

    /// Pointer to the `LEN` bytes (a power of two, at most a line) at `off`, a multiple of `LEN`.
    ///
    /// # Panics
    /// As [`Region::at`].
    #[inline(always)]
    fn cell<const LEN: u64>(&self, off: u64) -> *mut u8 {
        const { assert!(LEN.is_power_of_two() && LEN <= 64 && LEN <= MIN_REGION) };
        // A region is longer than any cell (`new`), so the difference does not wrap.
        if off > (self.map.len() as u64).wrapping_sub(LEN) || off & (LEN - 1) != 0 {
            outside(off, LEN);
        }
        // SAFETY: in bounds of the mapping, as just checked.
        unsafe { self.start().add(off as usize) }
    }

    /// The word at `off`, a multiple of 8.
    #[inline]
    pub(crate) fn word(&self, off: u64) -> &AtomicU64 {
        // SAFETY: in bounds and aligned (`cell`); the mapping lives as long as `self`; all access
        // to it is atomic.
        unsafe { AtomicU64::from_ptr(self.cell::<8>(off).cast()) }
    }

    /// The number at `off`, a multiple of 16.
    #[inline(always)]
    pub(crate) fn number(&self, off: u64) -> Number<'_> {
        // SAFETY: in bounds and aligned (`cell`); the mapping lives as long as `self`; all access to
        // it is atomic, and a pair has the layout of two words.
        Number(unsafe { &*self.cell::<16>(off).cast::<Pair>() })
    }

    /// Whether numbers can have lives.
    #[inline]
    pub(crate) fn has_lives(&self) -> bool {
        self.pairs
    }

    /// The four words at `off`, a multiple of 8.
    #[inline(always)]
    pub(super) fn four(&self, off: u64) -> &[AtomicU64; 4] {
        // A region is longer (`new`), so the difference does not wrap.
        if off > (self.map.len() as u64).wrapping_sub(32) || off & 7 != 0 {
            outside(off, 32);
        }
        // SAFETY: in bounds and aligned, as just checked; else as in `word`. An array of atomics has
        // the layout of the words.
        unsafe { &*self.start().add(off as usize).cast::<[AtomicU64; 4]>() }
    }

    /// The word at `AT`, a multiple of 8, of the region's first page.
    #[inline(always)]
    pub(crate) fn header_word<const AT: u64>(&self) -> &AtomicU64 {
        const { assert!(AT.is_multiple_of(8) && AT < MIN_REGION) };
        // SAFETY: as in `word`; a region has this page (`new`).
        unsafe { AtomicU64::from_ptr(self.start().add(AT as usize).cast()) }
    }

    /// Prefetches the cache line at `off`; any offset will do.
    #[inline]
    pub(crate) fn prefetch(&self, off: u64) {
        copy::prefetch(self.start().wrapping_add(off as usize));
    }

    /// Like [`Region::prefetch`], for writing a small entry at `off`.
    #[inline(always)]
    pub(crate) fn prefetch_entry(&self, off: u64) {
        copy::prefetch_to_write::<3>(self.start().wrapping_add(off as usize));
    }

    /// [`Region::prefetch_entry`] for the lines of a longer entry behind the first three.
    #[inline(always)]
    pub(crate) fn prefetch_rest(&self, off: u64, bytes: u64) {
        for line in (192..bytes.min(1024)).step_by(64) {
            copy::prefetch_to_write::<1>(self.start().wrapping_add((off + line) as usize));
        }
    }

    /// The half word at `off`, a multiple of 4. A half word and a word never share bytes in the
    /// layout.
    #[inline]
    pub(crate) fn half(&self, off: u64) -> &AtomicU32 {
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.cell::<4>(off).cast()) }
    }

    /// The lock cell at `off`: one of the layout's, initialised when the region was made or opened
    /// first.
    #[inline]
    pub(crate) fn mutex(&self, off: u64) -> RobustMutex {
        // SAFETY: in bounds and aligned; callers pass only the layout's lock cells, which
        // `engine::store` initialises before it publishes the region, and nothing else writes
        // there.
        unsafe { RobustMutex::at(self.at(off, MUTEX_SIZE as u64)) }
    }

    /// `len` bytes at `off` (a multiple of 8) as a source for copies.
    #[inline]
    pub(crate) fn source(&self, off: u64, len: usize) -> SharedBytes<'_> {
        let at = self.at(off, padded(len));
        SharedBytes { at, len, region: PhantomData }
    }

    /// Copies `bytes` to `off` (a multiple of 8), into memory that the caller owns. The last word
    /// is zero-padded or keeps its rest.
    #[inline]
    pub(crate) fn write(&self, off: u64, bytes: &[u8]) {
        let p = self.at(off, padded(bytes.len()));
        // SAFETY: in bounds and aligned (`at`); the engine owns the block under its shard's lock
        // (I4).
        unsafe { copy::store(bytes.as_ptr(), p, bytes.len()) };
    }

    /// Whether the `len` bytes at two offsets (multiples of 8) are equal.
    pub(crate) fn same(&self, a: u64, b: u64, len: u64) -> bool {
        let full = len / 8 * 8;
        let words = (0..full)
            .step_by(8)
            .all(|i| self.word(a + i).load(Ordering::Relaxed) == self.word(b + i).load(Ordering::Relaxed));
        words
            && (full == len || {
                let last = |off: u64| {
                    self.word(off + full).load(Ordering::Relaxed).to_le() << (64 - (len - full) * 8)
                };
                last(a) == last(b)
            })
    }

    /// Punches a hole: the pages of a range, and its blocks on disk, are released; it reads as
    /// zeros afterwards.
    pub(crate) fn punch_hole(&self, off: u64, len: u64) -> bool {
        match &self.file {
            Some(file) => file.punch_hole(off, len),
            None => self.map.advise(off as usize, len as usize, Advice::Remove),
        }
    }

    /// Bytes of the pages between two offsets that are in memory; `None` = the kernel does not tell.
    pub(crate) fn resident(&self, from: u64, to: u64) -> Option<u64> {
        let from = from - from % page_size() as u64;
        self.map.resident(from as usize, to.saturating_sub(from) as usize)
    }

    /// Excludes the region from core dumps.
    pub(crate) fn keep_out_of_dumps(&self) {
        self.map.advise(0, self.map.len(), Advice::DontDump);
    }

    /// Writes the first `len` bytes to the file and waits until they are on disk.
    pub(crate) fn sync(&self, len: u64) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        self.map.sync(0, len as usize)?;
        file.fsync()
    }
}

#[cold]
#[inline(never)]
pub(super) fn outside(off: u64, len: u64) -> ! {
    panic!("offset {off} + {len} outside of the region");
}

/// A value inside the region that a writer may be replacing: it can be copied, never borrowed.
#[derive(Clone, Copy, Debug)]
pub struct SharedBytes<'a> {
    pub(super) at: *const u8,
    pub(super) len: usize,
    pub(super) region: PhantomData<&'a Region>,
}

impl<'a> SharedBytes<'a> {
    /// The first `len` bytes of memory that is not shared: a value from elsewhere, for a reader of
    /// shared ones.
    ///
    /// # Panics
    /// If there are fewer.
    #[cfg(any(feature = "capi", feature = "redis"))]
    pub(crate) fn of(words: &'a [u64], len: usize) -> Self {
        assert!(len <= size_of_val(words), "the value is longer than its memory");
        Self { at: words.as_ptr().cast(), len, region: PhantomData }
    }
}

impl SharedBytes<'_> {
    /// Length, bytes.
    #[must_use]
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a value has at least one byte")]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn copy_to(&self, dst: *mut u8) {
        // SAFETY: `Region::source` or `SharedBytes::of` checked the range; the region or the words outlive `self`, and both
        // are aligned to 8; the callers below pass a destination of `len` bytes.
        unsafe { copy::load(self.at, dst, self.len) };
    }

    /// Copies into `dst`.
    ///
    /// # Panics
    /// If the length of `dst` is not [`SharedBytes::len`].
    #[inline]
    pub fn copy_to_slice(&self, dst: &mut [u8]) {
        assert_eq!(dst.len(), self.len, "the buffer has another length than the value");
        self.copy_to(dst.as_mut_ptr());
    }

    /// Copies into `dst`; all of it is initialised afterwards.
    ///
    /// # Panics
    /// If the length of `dst` is not [`SharedBytes::len`].
    #[inline]
    pub fn copy_to_uninit(&self, dst: &mut [MaybeUninit<u8>]) {
        assert_eq!(dst.len(), self.len, "the buffer has another length than the value");
        self.copy_to(dst.as_mut_ptr().cast());
    }

    /// Replaces the content of `dst`.
    #[inline]
    pub fn copy_to_vec(&self, dst: &mut Vec<u8>) {
        dst.clear();
        self.append_to(dst);
    }

    /// Appends to `dst`.
    #[inline]
    pub fn append_to(&self, dst: &mut Vec<u8>) {
        dst.reserve(self.len);
        self.copy_to(dst.spare_capacity_mut().as_mut_ptr().cast());
        // SAFETY: `reserve` made room and `copy_to` has written `len` bytes behind the old end.
        unsafe { dst.set_len(dst.len() + self.len) };
    }
}
