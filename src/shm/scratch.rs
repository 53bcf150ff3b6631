//! Bitmaps and buffers of a rebuild, in scratch memory of its process: a death leaves nothing
//! behind, and malloc is not needed (I12).

use super::{Region, layout::SPAN, span};
use crate::{error::Result, os::map::Mapping};

/// Bits, all clear at first.
#[derive(Debug)]
pub(crate) struct Bitmap {
    map: Mapping,
    len: u64,
}

impl Bitmap {
    /// `len` clear bits.
    pub(crate) fn new(len: u64) -> Result<Self> {
        Ok(Self { map: Mapping::scratch(len.div_ceil(64) as usize * 8)?, len })
    }

    fn word(&self, bit: u64) -> Option<*mut u64> {
        // SAFETY: bits below `len` lie in the mapping, which `new` made large enough.
        (bit < self.len).then(|| unsafe { self.map.start().as_ptr().cast::<u64>().add((bit / 64) as usize) })
    }

    /// Whether the bit is set; outside = not.
    pub(crate) fn get(&self, bit: u64) -> bool {
        // SAFETY: in the mapping (`word`), which is private and borrowed.
        self.word(bit).is_some_and(|w| unsafe { w.read() } >> (bit % 64) & 1 == 1)
    }

    /// The first bit in `from..to` that is as `set` says; `to` = none.
    fn find(&self, from: u64, to: u64, set: bool) -> u64 {
        let mut at = from;
        while at < to {
            // SAFETY: as in `get`.
            let word = self.word(at).map_or(0, |w| unsafe { w.read() });
            let wanted = (if set { word } else { !word }) >> (at % 64);
            if wanted != 0 {
                return (at + u64::from(wanted.trailing_zeros())).min(to);
            }
            at = (at / 64 + 1) * 64;
        }
        to
    }

    /// Sets the bits in `from..to`.
    fn fill(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let end = ((at / 64 + 1) * 64).min(to);
            let ones = u64::MAX >> (64 - (end - at)) << (at % 64);
            if let Some(w) = self.word(at) {
                // SAFETY: as in `get`, and `self` is borrowed mutably.
                unsafe { w.write(w.read() | ones) };
            }
            at = end;
        }
    }

    /// Sets the bit; `false` = it was set already, or is outside.
    pub(crate) fn set(&mut self, bit: u64) -> bool {
        let Some(w) = self.word(bit) else { return false };
        // SAFETY: as in `get`, and `self` is borrowed mutably.
        unsafe {
            let old = w.read();
            w.write(old | 1 << (bit % 64));
            old >> (bit % 64) & 1 == 0
        }
    }
}

/// Bytes, all zero at first.
#[derive(Debug)]
pub(crate) struct Buffer {
    map: Mapping,
    len: usize,
}

impl Buffer {
    /// `len` bytes.
    pub(crate) fn new(len: usize) -> Result<Self> {
        Ok(Self { map: Mapping::scratch(len)?, len })
    }

    /// The first `len` of them, or all.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: private memory of at least `self.len` bytes, which was zeroed by the kernel,
        // lives as long as `self` and is borrowed mutably with it.
        unsafe { std::slice::from_raw_parts_mut(self.map.start().as_ptr(), len.min(self.len)) }
    }
}

/// A bit for each 8 bytes of the data area up to the frontier: whether they are an entry's.
#[derive(Debug)]
pub(crate) struct BlockBitmap {
    bits: Bitmap,
    data: u64,
}

impl BlockBitmap {
    /// All clear.
    pub(crate) fn new(r: &Region) -> Result<Self> {
        Ok(Self { bits: Bitmap::new(span::frontier(r) * (SPAN / 8))?, data: r.layout().data })
    }

    fn bit(&self, off: u64) -> u64 {
        off.wrapping_sub(self.data) / 8
    }

    /// Whether these 8 bytes are an entry's.
    pub(crate) fn has(&self, off: u64) -> bool {
        self.bits.get(self.bit(off))
    }

    /// Takes `len` bytes, a multiple of 8, for an entry; `false` = some are another's, or outside.
    pub(crate) fn take(&mut self, off: u64, len: u64) -> bool {
        let (from, to) = (self.bit(off), self.bit(off) + len / 8);
        if to > self.bits.len || self.bits.find(from, to, true) < to {
            return false;
        }
        self.bits.fill(from, to);
        true
    }

    /// Bytes between two places that are an entry's.
    pub(crate) fn used_between(&self, from: u64, end: u64) -> u64 {
        let mut used = end - from;
        self.each_gap(from, end, |from, to| used -= to - from);
        used
    }

    /// The first piece between two places that is no entry's.
    pub(crate) fn gap(&self, from: u64, end: u64) -> Option<(u64, u64)> {
        let to = self.bit(end);
        let begin = self.bits.find(self.bit(from).min(to), to, false);
        let behind = self.bits.find(begin, to, true);
        (begin < behind).then(|| (self.data + begin * 8, self.data + behind * 8))
    }

    /// Calls `f` with each piece between two places that is no entry's.
    pub(crate) fn each_gap(&self, from: u64, end: u64, mut f: impl FnMut(u64, u64)) {
        let mut at = from;
        while let Some((begin, to)) = self.gap(at, end) {
            f(begin, to);
            at = to;
        }
    }
}
