//! One mapped region: bounds-checked atomics and copies.

use std::{
    marker::PhantomData,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use super::{
    copy,
    layout::{BUCKET, Layout},
    tags,
};
use crate::{
    error::{Error, Result},
    os::{
        file::StoreFile,
        map::{Advice, Mapping},
        mutex::{MUTEX_SIZE, RobustMutex},
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

/// Least bytes of a region: a header's page.
const LEAST: u64 = 4096;

/// Up to the next multiple of 8. A length over `isize::MAX`, which no slice has, stays outside of every region.
#[inline]
fn round8(len: usize) -> u64 {
    (len as u64).saturating_add(7) & !7
}

/// A mapped region. All shared bytes are accessed as atomics or by [`copy`]; no reference to plain memory is made.
#[derive(Debug)]
pub(crate) struct Region {
    pub(super) areas: Areas,
    /// Buckets of the index.
    pub(super) buckets: u64,
    /// Those of them that a hash leads to; at most all.
    pub(super) heads: u64,
    /// How far the data area is known to be backed by memory or disk: bytes from its start on at which a piece may begin.
    pub(super) backed: AtomicU64,
    /// See [`tags::compares_wide`].
    pub(super) wide: bool,
    map: Mapping,
    layout: Layout,
    file: Option<StoreFile>,
}

/// Where the areas begin that every operation uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Areas {
    start: *mut u8,
    pub(super) index: *mut u8,
    pub(super) stats: *mut u8,
    pub(super) shards: *mut u8,
    pub(super) spans: *mut u8,
}

// SAFETY: addresses in a mapping, which is the whole process's; all access to its memory is atomic.
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
            stats: at(layout.stats),
            shards: at(layout.shards),
            spans: at(layout.span_table),
        }
    }
}

impl Region {
    /// Wraps a mapping of at least `layout.end` bytes.
    pub(crate) fn new(map: Mapping, layout: Layout, file: Option<StoreFile>) -> Result<Self> {
        if (map.len() as u64) < layout.end.max(LEAST) {
            return Err(Error::Damaged("the mapping is shorter than the layout"));
        }
        let buckets = layout.buckets();
        if !layout.index.is_multiple_of(BUCKET) || (layout.end - layout.index) / BUCKET < buckets {
            return Err(Error::Damaged("the index does not lie in the region"));
        }
        let heads = layout.geo.heads.min(buckets);
        let areas = Areas::new(&map, &layout);
        let (backed, wide) = (AtomicU64::new(0), tags::compares_wide());
        Ok(Self { areas, buckets, heads, backed, wide, map, layout, file })
    }

    /// First byte of the mapping.
    #[inline]
    pub(super) fn start(&self) -> *mut u8 {
        self.areas.start
    }

    /// Where everything lies.
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
    /// If they do not lie in the region: a caller's bug, or damage that a bounds check before should have caught.
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
        const { assert!(LEN.is_power_of_two() && LEN <= 64 && LEN <= LEAST) };
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
        // SAFETY: in bounds and aligned (`cell`); the mapping lives as long as `self`; all access to it is atomic.
        unsafe { AtomicU64::from_ptr(self.cell::<8>(off).cast()) }
    }

    /// The word at `AT`, a multiple of 8, of the region's first page.
    #[inline(always)]
    pub(crate) fn header_word<const AT: u64>(&self) -> &AtomicU64 {
        const { assert!(AT.is_multiple_of(8) && AT < LEAST) };
        // SAFETY: as in `word`; a region has this page (`new`).
        unsafe { AtomicU64::from_ptr(self.start().add(AT as usize).cast()) }
    }

    /// The eight words of the cache line at `off`, a multiple of 64.
    #[inline]
    pub(crate) fn line(&self, off: u64) -> &[AtomicU64; 8] {
        // SAFETY: as in `word`, for 64 bytes; an array of atomics has the layout of the words.
        unsafe { &*self.cell::<64>(off).cast::<[AtomicU64; 8]>() }
    }

    /// Asks for the cache line at `off` ahead of its use; any offset will do.
    #[inline]
    pub(crate) fn prefetch(&self, off: u64) {
        copy::prefetch(self.start().wrapping_add(off as usize));
    }

    /// As [`Region::prefetch`], of the lines that a small entry at `off` has, to be written.
    #[inline(always)]
    pub(crate) fn prefetch_entry(&self, off: u64) {
        copy::prefetch_to_write::<3>(self.start().wrapping_add(off as usize));
    }

    /// Asks for the line of the half word at `off`, to be written; any offset will do.
    #[inline(always)]
    pub(crate) fn prefetch_half(&self, off: u64) {
        copy::prefetch_to_write::<1>(self.start().wrapping_add(off as usize));
    }

    /// The half word at `off`, a multiple of 4. A half word and a word never share bytes in the layout.
    #[inline]
    pub(crate) fn half(&self, off: u64) -> &AtomicU32 {
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.cell::<4>(off).cast()) }
    }

    /// The lock cell at `off`: one of the layout's, initialised when the region was made or opened first.
    #[inline]
    pub(crate) fn mutex(&self, off: u64) -> RobustMutex {
        // SAFETY: in bounds and aligned; callers pass only the layout's lock cells, which `engine::open` initialises
        // before it publishes the region, and nothing else writes there.
        unsafe { RobustMutex::at(self.at(off, MUTEX_SIZE as u64)) }
    }

    /// `len` bytes at `off` (a multiple of 8) as something to copy from.
    #[inline]
    pub(crate) fn source(&self, off: u64, len: usize) -> Source<'_> {
        let at = self.at(off, round8(len));
        Source { at, len, region: PhantomData }
    }

    /// Copies `bytes` to `off` (a multiple of 8), into memory that the caller owns. The last word is zero-padded or keeps its rest.
    #[inline]
    pub(crate) fn write(&self, off: u64, bytes: &[u8]) {
        let p = self.at(off, round8(bytes.len()));
        // SAFETY: in bounds and aligned (`at`); the engine owns the block under its shard's lock.
        unsafe { copy::store(bytes.as_ptr(), p, bytes.len()) };
    }

    /// Whether the `len` bytes at two offsets (multiples of 8) are the same.
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

    /// Gives the pages of a range back; they read as zeros afterwards.
    pub(crate) fn give_back(&self, off: u64, len: u64) -> bool {
        self.map.advise(off as usize, len as usize, Advice::Remove)
    }

    /// Keeps the region out of core dumps.
    pub(crate) fn keep_out_of_dumps(&self) {
        self.map.advise(0, self.map.len(), Advice::DontDump);
    }

    /// Writes the first `len` bytes to the file and waits.
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
pub struct Source<'a> {
    pub(super) at: *const u8,
    pub(super) len: usize,
    pub(super) region: PhantomData<&'a Region>,
}

impl Source<'_> {
    /// Length, bytes.
    #[must_use]
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a value has at least one byte")]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn copy_to(&self, dst: *mut u8) {
        // SAFETY: `Region::source` checked the range; the region outlives `self`; the callers below pass a destination
        // of `len` bytes.
        unsafe { copy::load(self.at, dst, self.len) };
    }

    /// Copies into `dst`.
    ///
    /// # Panics
    /// If the length of `dst` is not [`Source::len`].
    #[inline]
    pub fn copy_to_slice(&self, dst: &mut [u8]) {
        assert_eq!(dst.len(), self.len, "the buffer has another length than the value");
        self.copy_to(dst.as_mut_ptr());
    }

    /// Copies into `dst`; all of it is initialised afterwards.
    ///
    /// # Panics
    /// If the length of `dst` is not [`Source::len`].
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
