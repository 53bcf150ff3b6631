//! What a cache's memory is used for: payload, overhead, fragmentation, by size class.
#![forbid(unsafe_code)]

use crate::{
    engine::Engine,
    shm::{
        heap_use::{self, HeapUse, Known},
        layout::SPAN,
        span,
    },
};

/// Bytes of extents that a [sample](Engine::memory_sample) walks, more or less.
const SAMPLE: u64 = 32 << 20;
/// Of how many pages a sample asks the kernel: so many pieces of so many bytes, of each area.
const PIECES: u64 = 128;
const PIECE: u64 = 256 << 10;

/// What the memory of a cache is used for, at one moment. All figures are bytes, if nothing else is
/// said.
///
/// Memory in use consists of extents, which hold entries of up to 16 KiB, and of large blocks, which
/// hold one entry each:
///
/// ```text
/// extents + large_blocks + leaving = entries + fragmentation
/// overhead = resident - payload
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct Memory {
    /// Keys and values of the items that readers find.
    pub payload: u64,
    /// Pages of the cache that are in memory, index and tables included, for all processes together.
    /// Of a store that was read or written since boot these are pages of the page cache, which the
    /// kernel may take back. 0 = the kernel does not tell.
    pub resident: u64,
    /// What is resident beside the payload: headers, padding, index, tables, fragmentation, free
    /// memory with pages.
    pub overhead: u64,
    /// Memory in extents and large blocks that no entry uses: free blocks, gaps, ends of extents,
    /// what a large block has beyond its entry, and what extents that are being emptied have beyond
    /// entries that still wait to be moved.
    pub fragmentation: u64,
    /// Blocks that the store has on disk, tables included; 0 = no store.
    pub disk: u64,
    /// Address space, pages or not.
    pub reserved: u64,
    /// Entries with header and padding: those of items, and those that were not reclaimed yet
    /// (expired, left behind by a clear, placeholders of a fill).
    pub entries: u64,
    /// Number of extents.
    pub extent_count: u64,
    /// Bytes of all extents that give blocks.
    pub extents: u64,
    /// Number of large blocks.
    pub large_block_count: u64,
    /// Bytes of all large blocks.
    pub large_blocks: u64,
    /// Extents that are being emptied, or wait for a sync of the store.
    pub leaving: u64,
    /// Pieces of extents that are too small for a block.
    pub gaps: u64,
    /// Ends of extents that never had a block.
    pub unused_ends: u64,
    /// Free spans that may have pages.
    pub idle: u64,
    /// Free spans of a store without blocks on disk.
    pub holes: u64,
    /// Whether figures about the contents of extents, and `resident`, are estimates from a sample.
    pub sampled: bool,
    /// Blocks by size, the smallest first, as far as there are some.
    pub classes: Vec<SizeClass>,
}

/// The blocks of a cache whose sizes lie between two powers of two. The allocator's own classes are
/// finer ([memory](crate::docs::memory)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct SizeClass {
    /// Bytes of the largest blocks: 32, 64, 128 and so on. The smallest are 8 bytes larger than the
    /// largest of the class before.
    pub size: u64,
    /// Number of items.
    pub items: u64,
    /// Bytes of their keys and values.
    pub payload: u64,
    /// Bytes of all entries, with header and padding.
    pub entries: u64,
    /// Number of free blocks.
    pub free_blocks: u64,
    /// Bytes of these.
    pub free: u64,
}

impl Engine {
    /// What the memory is used for, exactly if nobody writes meanwhile.
    ///
    /// Every block is looked at: 5 to 100 ns for each, and of a store each page is read. No lock is
    /// taken, so nobody waits.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.look(None)
    }

    /// [`Engine::memory`] at a bounded price, for figures that are read often: above 32 MiB of
    /// extents the contents of some are taken for those of all. It then takes some milliseconds,
    /// and 1 ms for each 250 MB for the states of spans and large blocks.
    #[must_use]
    pub fn memory_sample(&self) -> Memory {
        self.look(Some(SAMPLE))
    }

    fn look(&self, most: Option<u64>) -> Memory {
        // A store may have grown since this process last looked.
        self.region.refresh_committed();
        let known = |off, is_leaving| self.known(off, is_leaving);
        let heap = heap_use::look(&self.region, most.unwrap_or(u64::MAX), known);
        let tables = (0, self.layout.data);
        let data = (self.layout.data, self.layout.data + span::frontier(&self.region) * SPAN);
        let is_large = [tables, data].into_iter().any(|(from, to)| to - from > PIECES * PIECE);
        let sampled = most.is_some() && (heap.walked < heap.extent_bytes || is_large);
        let area = |area| self.resident(area, most.is_some());
        let resident = area(tables).zip(area(data)).map_or(0, |(tables, data)| tables + data);
        self.describe(&heap, resident, sampled)
    }

    /// What is known of the entry at an offset. Of extents that are being emptied only what the index
    /// leads to counts: they have old copies of entries that were moved, too.
    fn known(&self, off: u64, is_leaving: bool) -> Option<Known> {
        let header = if is_leaving { self.indexed_entry(off)?.0.header } else { self.header_of_block(off)? };
        Some(Known {
            is_item: self.exists_for_users(&header),
            payload: header.key_len + header.value_len,
            len: header.total(self.header_bytes),
        })
    }

    fn describe(&self, heap: &HeapUse, resident: u64, sampled: bool) -> Memory {
        let payload = heap.classes.iter().map(|class| class.payload).sum();
        let entries = heap.classes.iter().map(|class| class.used).sum();
        let classes = heap.classes.iter().enumerate().map(|(n, class)| SizeClass {
            size: 32 << n,
            items: class.items,
            payload: class.payload,
            entries: class.used,
            free_blocks: class.free_blocks,
            free: class.free,
        });
        Memory {
            payload,
            resident,
            overhead: resident.saturating_sub(payload),
            fragmentation: (heap.extent_bytes + heap.large_bytes + heap.leaving).saturating_sub(entries),
            disk: self.region.file().and_then(|file| file.disk().ok()).unwrap_or(0),
            reserved: self.layout.end,
            entries,
            extent_count: heap.extents,
            extents: heap.extent_bytes,
            large_block_count: heap.large,
            large_blocks: heap.large_bytes,
            leaving: heap.leaving,
            gaps: heap.gaps,
            unused_ends: heap.ends,
            idle: heap.idle,
            holes: heap.holes,
            sampled,
            classes: classes.filter(|class| class.entries + class.free != 0).collect(),
        }
    }

    /// Bytes of an area's pages that are in memory.
    fn resident(&self, (from, to): (u64, u64), bounded: bool) -> Option<u64> {
        let (mut asked, mut there) = (0, 0);
        for (from, to) in pieces(from, to, bounded) {
            there += self.region.resident(from, to)?;
            asked += to - from;
        }
        let scaled = u128::from(there) * u128::from(to - from) / u128::from(asked.max(1));
        Some(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

/// All of an area, or some pieces of it, evenly spread.
fn pieces(from: u64, to: u64, bounded: bool) -> impl Iterator<Item = (u64, u64)> {
    let all = !bounded || to - from <= PIECES * PIECE;
    let count = if all { (to - from).div_ceil(PIECE) } else { PIECES };
    (0..count).map(move |n| {
        let at = if all { n * PIECE } else { (to - from - PIECE) / SPAN * n / (PIECES - 1) * SPAN };
        (from + at, (from + at + PIECE).min(to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_or_evenly_spread() {
        let few: Vec<_> = pieces(4096, 4096 + 3 * PIECE + 100, true).collect();
        assert_eq!(few.first(), Some(&(4096, 4096 + PIECE)));
        assert_eq!(few.last(), Some(&(4096 + 3 * PIECE, 4096 + 3 * PIECE + 100)));
        let end = 1 << 40;
        let some: Vec<_> = pieces(0, end, true).collect();
        assert_eq!((some.len() as u64, some[0].0, some[127].1), (PIECES, 0, end));
        assert!(some.iter().all(|(from, to)| to - from == PIECE && from % SPAN == 0));
        assert!(some.windows(2).all(|two| two[0].1 < two[1].0));
        assert_eq!(pieces(0, end, false).map(|(from, to)| to - from).sum::<u64>(), end);
        assert_eq!(pieces(7, 7, true).count(), 0);
    }
}
