//! Buckets and entries as readers see them: bounds are checked once for each, not word by word
//! (I7).

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    class::{EXACT, class_len},
    copy,
    layout::{BUCKET, header, round8},
    load_partial::load_partial,
    number::{self, NUMBER, ROOM, aligned, is_number, value_room},
    region::{Region, SharedBytes},
    simd_tags,
};

/// A bucket of the index: a sequence number and seven slots.
pub(crate) type Bucket = [AtomicU64; 8];

/// First slot in a non-empty mask of [`Region::match_tag`].
#[inline(always)]
pub(crate) fn first_match(matches: u32) -> usize {
    (matches.trailing_zeros() / 4) as usize & 7
}

/// Prefetches a bucket.
#[inline(always)]
pub(crate) fn prefetch_bucket(line: &Bucket) {
    copy::prefetch(line.as_ptr().cast());
}

/// Minimum length of a view: a header and a key, or the links of a free block.
const MIN_VIEW: u64 = 32;

const _: () = assert!(number::HEADER == HeaderLen::Plain as u64);

/// Length of an entry's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum HeaderLen {
    Plain = 16,
    /// With a checksum.
    Summed = 24,
}

impl HeaderLen {
    /// That of a cache whose entries have checksums, or not.
    #[inline]
    pub(crate) fn of(checksums: bool) -> Self {
        if checksums { Self::Summed } else { Self::Plain }
    }
}

/// Bytes of the value, by a header's first word.
#[inline(always)]
pub(crate) fn value_len(w0: u64) -> u32 {
    w0 as u32
}

/// Bytes of the key, by a header's first word.
#[inline(always)]
pub(crate) fn key_len(w0: u64) -> u32 {
    (w0 >> 32) as u32 & 0xFFFF
}

/// Bytes of an entry's block, given its header's length.
#[inline]
pub(crate) fn entry_size(header_bytes: u64, key_len: u64, value_len: u64) -> u64 {
    let used = header_bytes + round8(key_len) + value_room(header_bytes, value_len);
    // A store has no size classes.
    if used > EXACT && header_bytes == number::HEADER { class_len(used) } else { used }
}

/// What lies from some offset on, up to where the region is known to be backed: touching a store's
/// memory behind the end of its file would be a bus error. Its content may be another entry's at
/// any moment; a reader checks the bucket's sequence number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryView<'a> {
    at: *const u8,
    /// Bytes in view, a multiple of 8, minus `MIN_VIEW - 1`; 1 or more.
    rest: u64,
    region: PhantomData<&'a Region>,
}

impl Region {
    /// The bucket with this number.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub(crate) fn bucket(&self, number: u64) -> &Bucket {
        assert!(number < self.buckets, "there is no bucket with this number");
        // SAFETY: `Region::new` checked that the index, 64-aligned, has `buckets` lines in the
        // mapping, which lives as long as `self`; all access to it is atomic, and an array of
        // atomics has the layout of the words.
        unsafe { &*self.areas.index.add((number * BUCKET) as usize).cast::<Bucket>() }
    }

    /// The home bucket that a hash leads to, and its number: the share of the heads that the hash's
    /// high half says. Monotonic, so that shards are ranges of heads. Of a store, a line that is
    /// no bucket if it has no memory.
    #[inline(always)]
    pub(crate) fn home_bucket(&self, hash: u64) -> (u64, &Bucket) {
        let number = ((hash >> 32) * self.homes) >> 32;
        if self.sparse {
            return self.home_of_store(number);
        }
        // SAFETY: a number below 2^32 times `homes`, divided by 2^32, is less than `homes`, which
        // is at most `buckets` (`Region::new`); else as in `bucket`.
        (number, unsafe { &*self.areas.index.add((number * BUCKET) as usize).cast::<Bucket>() })
    }

    /// Which slots of the line have `tag` as their high 16 bits: bit `4 n + 3` for slot `n`, 1 to
    /// 7. A hint: a word may change right after.
    #[inline(always)]
    pub(crate) fn match_tag(&self, line: &Bucket, tag: u16) -> u32 {
        // SAFETY: a line has 64 bytes, and lines are 64-aligned (`bucket`, `home_bucket`); `new`
        // asked what the CPU can do.
        unsafe { simd_tags::match_tag(line.as_ptr().cast(), tag, self.wide) }
    }

    /// What lies at `off`, a multiple of 8, of the data area; `None` = outside of it, or of what is
    /// known to be backed.
    #[inline(always)]
    pub(crate) fn entry_view(&self, off: u64) -> Option<EntryView<'_>> {
        // An offset before the area wraps around to a value beyond its end.
        let (at, backed) = (off.wrapping_sub(self.layout().data), self.backed.load(Ordering::Relaxed));
        if at >= backed || off & 7 != 0 {
            return None;
        }
        // SAFETY: the bytes from `off` on end where the region is backed, which the mapping reaches
        // to (`refresh_committed`).
        let view = unsafe { self.start().add(off as usize) };
        Some(EntryView { at: view, rest: backed - at, region: PhantomData })
    }

    /// Whether the data area is backed up to `len` bytes from its start on.
    #[inline(always)]
    pub(super) fn is_backed(&self, len: u64) -> bool {
        let is_known = || self.backed.load(Ordering::Relaxed) + (MIN_VIEW - 1) >= len;
        is_known() || self.refresh_committed() && is_known()
    }

    /// Looks how far the region is backed by now; tells whether that is further than was known.
    #[cold]
    #[inline(never)]
    pub(crate) fn refresh_committed(&self) -> bool {
        // `Region::new` checked that the mapping is as long as the layout.
        let end = self.word(header::COMMITTED).load(Ordering::Acquire).min(self.layout().end);
        let len = end.saturating_sub(self.layout().data) & !7;
        let now = len.saturating_sub(MIN_VIEW - 1);
        self.backed.fetch_max(now, Ordering::Relaxed) < now
    }
}

impl<'a> EntryView<'a> {
    /// The first two words, each loaded once.
    #[inline(always)]
    pub(crate) fn words(self) -> (u64, u64) {
        let word = |i| {
            // SAFETY: a view is 8-aligned and has `MIN_VIEW` bytes.
            unsafe { AtomicU64::from_ptr(self.at.cast_mut().cast::<u64>().add(i)) }.load(Ordering::Relaxed)
        };
        (word(0), word(1))
    }

    /// Key and value of lengths that a header says, the value behind the key from the next multiple
    /// of 8 on (a number: of 16); `None` = the piece is shorter.
    #[inline(always)]
    pub(crate) fn key_value(
        self,
        header: HeaderLen,
        first: u32,
        second: u32,
    ) -> Option<(SharedBytes<'a>, SharedBytes<'a>)> {
        let from = header as u64;
        let mut middle = from + round8(first.into());
        // Where the second ends; rounded up to 8 that is in the piece, too, as the piece's bytes
        // are a multiple of 8.
        let mut end = middle + u64::from(second);
        if u64::from(second) == NUMBER {
            (middle, end) = self.number_in(header, middle);
        }
        if end.cast_signed() - (MIN_VIEW - 1).cast_signed() > self.rest.cast_signed() {
            return None;
        }
        // SAFETY: both lie in the piece, or at its end; none of these numbers reaches 2^63 (`rest`
        // is part of a mapping).
        let source = |at: u64, len: u32| unsafe {
            SharedBytes { at: self.at.add(at as usize), len: len as usize, region: PhantomData }
        };
        Some((source(from, first), source(middle, second)))
    }

    /// Where a value of a number's length begins, and its room ends. Out of line, so that other
    /// values pay one comparison.
    #[cold]
    fn number_in(self, header: HeaderLen, at: u64) -> (u64, u64) {
        if !is_number(header as u64, NUMBER) {
            return (at, at + NUMBER);
        }
        // Addresses are aligned as offsets are.
        let begin = self.at.addr() as u64;
        (aligned(begin + at) - begin, at + ROOM)
    }

    /// Prefetches the first two lines of the entry, for writing.
    #[inline(always)]
    pub(crate) fn prefetch_to_write(self) {
        copy::prefetch_to_write::<2>(self.at);
    }

    /// Prefetches the second line of the entry.
    #[inline(always)]
    pub(crate) fn prefetch_second(self) {
        copy::prefetch(self.at.wrapping_add(64));
    }
}

impl SharedBytes<'_> {
    /// Whether the bytes are equal to `bytes`.
    #[inline(always)]
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        if self.len != bytes.len() {
            return false;
        }
        let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) else {
            // SAFETY: there is a byte, hence a word.
            return bytes.is_empty() || starts_with(unsafe { self.word(0) }, bytes);
        };
        if bytes.len() > 16 {
            return self.is_long(bytes);
        }
        // SAFETY: there are at least 8 bytes, and a complete second word if there are more.
        let eight = |at| unsafe { copy::peek(self.at.add(at)) };
        eight(0) == u64::from_ne_bytes(*first) && eight(bytes.len() - 8) == u64::from_ne_bytes(*last)
    }

    /// [`SharedBytes::is`] for more than 16 bytes.
    #[inline(never)]
    fn is_long(&self, bytes: &[u8]) -> bool {
        let (mut at, mut rest) = (0, bytes);
        while let Some((next, behind)) = rest.split_first_chunk::<8>() {
            // SAFETY: at least 8 bytes are left at `at`, a multiple of 8.
            if unsafe { self.word(at) }.to_le() != u64::from_le_bytes(*next) {
                return false;
            }
            (at, rest) = (at + 8, behind);
        }
        // SAFETY: if a byte is left, so is its word.
        rest.is_empty() || starts_with(unsafe { self.word(at) }, rest)
    }

    /// # Safety
    /// `at` is a multiple of 8, and less than the length.
    #[inline(always)]
    unsafe fn word(&self, at: usize) -> u64 {
        // SAFETY: the source's bytes, rounded up to 8, are mapped and 8-aligned (`Region::source`,
        // `EntryView::source`).
        let word = unsafe { AtomicU64::from_ptr(self.at.add(at).cast_mut().cast()) };
        word.load(Ordering::Relaxed)
    }
}

/// Whether the first bytes of `word` are these, 1 to 7. Kept out of line: such keys are rare.
#[inline(never)]
fn starts_with(word: u64, bytes: &[u8]) -> bool {
    let unused = 64 - 8 * bytes.len() as u32;
    word.to_le() << unused == load_partial(bytes) << unused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::{
        layout::SPAN,
        testing::{SMALL, region},
    };

    #[test]
    fn pieces_end_where_the_region_is_backed() {
        let r = region(SMALL);
        let (data, end) = (r.layout().data, r.layout().end);
        assert!(r.entry_view(data).is_none() && !r.refresh_committed(), "nothing is backed yet");
        r.word(header::COMMITTED).store(data + 128, Ordering::Release);
        assert!(r.entry_view(data).is_none() && r.refresh_committed() && !r.refresh_committed());
        let view = r.entry_view(data).expect("it is backed now");
        let lens =
            |first, second| view.key_value(HeaderLen::Summed, first, second).map(|(a, b)| (a.len(), b.len()));
        assert_eq!((lens(96, 8), lens(89, 1), lens(0, 104)), (Some((96, 8)), Some((89, 1)), Some((0, 104))));
        assert_eq!(
            (lens(97, 1), lens(96, 9), lens(0, 105), lens(u32::MAX, u32::MAX)),
            (None, None, None, None)
        );
        assert!(view.key_value(HeaderLen::Plain, u32::MAX, u32::MAX).is_none());
        assert!(r.entry_view(data + 96).is_some() && r.entry_view(data + 104).is_none());
        r.word(header::COMMITTED).store(data + 256, Ordering::Release);
        assert!(
            r.entry_view(data + 128).is_none() && r.refresh_committed() && r.entry_view(data + 128).is_some(),
            "it grew"
        );
        r.word(header::COMMITTED).store(data + 64, Ordering::Release);
        assert!(!r.refresh_committed() && r.entry_view(data + 128).is_some(), "backed memory stays backed");
        // Impossible values: half a word more, and more than the region.
        r.word(header::COMMITTED).store(data + 260, Ordering::Release);
        assert!(
            !r.refresh_committed()
                && r.entry_view(data + 224).is_some()
                && r.entry_view(data + 232).is_none()
        );
        r.word(header::COMMITTED).store(u64::MAX, Ordering::Release);
        assert!(
            r.refresh_committed() && r.entry_view(end - 32).is_some() && r.entry_view(end - 24).is_none()
        );
        assert!(
            r.entry_view(end).is_none()
                && r.entry_view(data - 8).is_none()
                && r.entry_view(data + 4).is_none()
        );
        assert!(r.entry_view(u64::MAX - 7).is_none());
        assert_eq!(end - data, SPAN);
    }

    #[test]
    #[should_panic(expected = "no bucket")]
    fn a_bucket_number_out_of_range_panics() {
        let r = region(SMALL);
        r.bucket(5);
        r.bucket(6);
    }

    #[test]
    fn every_byte_of_every_length_is_compared() {
        let r = region(SMALL);
        let at = r.layout().data;
        let bytes: Vec<u8> = (1..60).collect();
        for len in 0..bytes.len() {
            r.write(at, &[0xEE; 64]);
            r.write(at, &bytes[..len]);
            let source = r.source(at, len);
            assert!(source.is(&bytes[..len]), "length {len}");
            assert!(
                !source.is(&bytes[..len + 1]) && (len == 0 || !source.is(&bytes[..len - 1])),
                "length {len}"
            );
            for i in 0..len {
                let mut other = bytes[..len].to_vec();
                other[i] ^= 0x80;
                assert!(!source.is(&other), "length {len} byte {i}");
            }
        }
    }
}
