//! Bits for recovery, in scratch memory of the recovering process: a death during recovery leaves nothing behind, and
//! malloc (whose locks a fork may have left locked) is not needed.

use super::{Region, size_class::MAX_BLOCKS, span};
use crate::{error::Result, os::map::Mapping};

/// Bits, all clear at first.
#[derive(Debug)]
pub(crate) struct Bits {
    map: Mapping,
    len: u64,
}

impl Bits {
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
        // SAFETY: private memory of at least `self.len` bytes, which was zeroed by the kernel, lives as long as `self` and
        // is borrowed mutably with it.
        unsafe { std::slice::from_raw_parts_mut(self.map.start().as_ptr(), len.min(self.len)) }
    }
}

/// A bit for each block of each span up to the frontier.
#[derive(Debug)]
pub(crate) struct Marks(Bits);

impl Marks {
    /// All clear.
    pub(crate) fn new(r: &Region) -> Result<Self> {
        Ok(Self(Bits::new(span::frontier(r) * MAX_BLOCKS)?))
    }

    /// Whether a block is marked.
    pub(crate) fn get(&self, span: u64, index: u64) -> bool {
        index < MAX_BLOCKS && self.0.get(span * MAX_BLOCKS + index)
    }

    /// Marks a block; `false` = it was marked already.
    pub(crate) fn set(&mut self, span: u64, index: u64) -> bool {
        index < MAX_BLOCKS && self.0.set(span * MAX_BLOCKS + index)
    }
}
