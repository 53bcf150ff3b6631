//! The lines of the index and the pieces of the data area, for readers: what may be touched is decided once for each,
//! not word by word.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    copy,
    few::few,
    layout::{BUCKET, header},
    region::{Region, Source},
};

/// A bucket of the index: a version and seven slots.
pub(crate) type Line = [AtomicU64; 8];

/// Bytes that every piece has at least: a header and a key, or the links of a free block.
const LEAST: u64 = 32;

/// What lies from some offset on, up to where the region is backed: touching a store's memory behind the end of its file
/// would be a bus error. Its content may be another entry's at any moment; a reader checks the bucket's version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    at: *const u8,
    len: u64,
    region: &'a Region,
}

impl Region {
    /// The bucket with this number.
    ///
    /// # Panics
    /// If there is none.
    #[inline(always)]
    pub(crate) fn bucket(&self, number: u64) -> &Line {
        assert!(number < self.buckets, "there is no bucket with this number");
        // SAFETY: `Region::new` checked that the index, 64-aligned, has `buckets` lines in the mapping, which lives as
        // long as `self`; all access to it is atomic, and an array of atomics has the layout of the words.
        unsafe { &*self.start().add((self.layout().index + number * BUCKET) as usize).cast::<Line>() }
    }

    /// What lies at `off`, a multiple of 8, of the data area; `None` = outside of it or of what is backed. What this
    /// process knows of that is looked up again only when it is not enough.
    #[inline(always)]
    pub(crate) fn piece(&self, off: u64) -> Option<Piece<'_>> {
        if off < self.layout().data || off & 7 != 0 {
            return None;
        }
        let mut len = self.backed.load(Ordering::Relaxed).saturating_sub(off);
        if len < LEAST {
            len = self.backed_anew().saturating_sub(off);
            if len < LEAST {
                return None;
            }
        }
        // SAFETY: `len` bytes from `off` on end where the region is backed, which the mapping reaches to (`backed_anew`).
        let at = unsafe { self.start().add(off as usize) };
        Some(Piece { at, len, region: self })
    }

    #[cold]
    #[inline(never)]
    fn backed_anew(&self) -> u64 {
        // `Region::new` checked that the mapping is as long as the layout.
        let now = self.word(header::COMMITTED).load(Ordering::Acquire).min(self.layout().end);
        self.backed.store(now, Ordering::Relaxed);
        now
    }
}

/// Which words of the line have `tag` as their high 16 bits: bit `4 n + 3` for word `n`. A hint: a word may change right
/// after.
#[inline(always)]
pub(crate) fn tagged(line: &Line, tag: u16) -> u32 {
    // SAFETY: a line has 64 bytes, and lines are 64-aligned (`Region::bucket`).
    unsafe { copy::tagged(line.as_ptr().cast(), tag) }
}

impl<'a> Piece<'a> {
    /// The first two words, each loaded once.
    #[inline(always)]
    pub(crate) fn words(self) -> (u64, u64) {
        let word = |i| {
            // SAFETY: a piece is 8-aligned and has `LEAST` bytes.
            unsafe { AtomicU64::from_ptr(self.at.cast_mut().cast::<u64>().add(i)) }.load(Ordering::Relaxed)
        };
        (word(0), word(1))
    }

    /// `len` bytes from `at` (a multiple of 8) on; `None` = the piece is shorter.
    #[inline(always)]
    pub(crate) fn source(self, at: u32, len: u32) -> Option<Source<'a>> {
        let rounded = (u64::from(len) + 7) & !7;
        let end = u64::from(at) + rounded;
        if (end > self.len && !self.reaches(end)) || at & 7 != 0 {
            return None;
        }
        // SAFETY: `at` lies in the piece, or at its end.
        let at = unsafe { self.at.add(at as usize) };
        Some(Source { at, len: len as usize, region: PhantomData })
    }

    /// Whether the region is backed to `end` by now: a store grows, and a large entry begins before what was known.
    #[cold]
    #[inline(never)]
    fn reaches(self, end: u64) -> bool {
        let off = self.at.addr() - self.region.start().addr();
        self.region.backed_anew() >= off as u64 + end
    }

    /// Asks for the piece's second line ahead of its use.
    #[inline(always)]
    pub(crate) fn prefetch_second(self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch accesses no memory architecturally and never faults, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.at.wrapping_add(64).cast());
        }
    }
}

impl Source<'_> {
    /// Whether the bytes are these.
    #[inline(always)]
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        if self.len != bytes.len() {
            return false;
        }
        let (mut at, whole) = (0, bytes.len() & !7);
        while at < whole {
            // SAFETY: the source's bytes, rounded up to 8, are mapped and 8-aligned (`Region::source`, `Piece::source`), and
            // `bytes` has as many, 8 or more of them from `at` on.
            let (stored, wanted) =
                unsafe { (self.word(at), bytes.as_ptr().add(at).cast::<u64>().read_unaligned()) };
            if stored != wanted {
                return false;
            }
            at += 8;
        }
        // SAFETY: as above: what is left is part of a word.
        bytes.len() == whole || ends_with(unsafe { self.word(whole) }, bytes)
    }

    /// # Safety
    /// `at` is a multiple of 8, and less than the length.
    #[inline(always)]
    unsafe fn word(&self, at: usize) -> u64 {
        // SAFETY: the source's bytes, rounded up to 8, are mapped and 8-aligned (`Region::source`, `Piece::source`).
        let word = unsafe { AtomicU64::from_ptr(self.at.add(at).cast_mut().cast()) };
        word.load(Ordering::Relaxed)
    }
}

/// Whether the first bytes of `word` are the last of `bytes`, those behind the last whole word. A function of its own: what
/// it computes is not needed for every look at a bucket.
#[inline(never)]
fn ends_with(word: u64, bytes: &[u8]) -> bool {
    let tail = bytes.len() % 8;
    let unused = 64 - 8 * tail as u32;
    let last = match bytes.last_chunk::<8>() {
        // The last 8 bytes, those that were compared already shifted out.
        Some(c) => u64::from_le_bytes(*c) >> unused,
        None => few(bytes),
    };
    word.to_le() << unused == last << unused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        os::map::Mapping,
        shm::layout::{Geometry, Layout, SPAN},
    };

    fn region() -> Region {
        let geo = Geometry {
            capacity: 10,
            shards: 1,
            heads: 4,
            overflow: 2,
            spans: 1,
            stamps: false,
            ghosts: false,
            checksums: false,
        };
        let layout = Layout::new(geo).unwrap();
        let map = Mapping::anonymous(layout.end as usize).unwrap();
        Region::new(map, layout, None).unwrap()
    }

    #[test]
    fn pieces_end_where_the_region_is_backed() {
        let r = region();
        let (data, end) = (r.layout().data, r.layout().end);
        assert!(r.piece(data).is_none(), "nothing is backed yet");
        r.word(header::COMMITTED).store(data + 128, Ordering::Release);
        let piece = r.piece(data).expect("is backed now");
        assert!(piece.source(24, 104).is_some() && piece.source(24, 97).is_some());
        assert!(
            piece.source(24, 105).is_none() && piece.source(128, 1).is_none() && piece.source(4, 1).is_none()
        );
        assert!(piece.source(u32::MAX - 7, u32::MAX).is_none());
        assert!(r.piece(data + 96).is_some() && r.piece(data + 104).is_none());
        r.word(header::COMMITTED).store(data + 256, Ordering::Release);
        assert!(r.piece(data).is_some_and(|piece| piece.source(24, 200).is_some()), "it grew meanwhile");
        assert!(piece.source(24, 232).is_some() && piece.source(24, 233).is_none());
        // A word that says more than there is.
        r.word(header::COMMITTED).store(u64::MAX, Ordering::Release);
        assert!(r.piece(end - 32).is_some() && r.piece(end - 24).is_none() && r.piece(end).is_none());
        assert!(
            r.piece(data - 8).is_none() && r.piece(data + 4).is_none() && r.piece(u64::MAX - 7).is_none()
        );
        assert_eq!(end - data, SPAN);
    }

    #[test]
    #[should_panic(expected = "no bucket")]
    fn a_bucket_that_there_is_not() {
        let r = region();
        r.bucket(5);
        r.bucket(6);
    }

    #[test]
    fn every_byte_of_every_length_is_compared() {
        let r = region();
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
