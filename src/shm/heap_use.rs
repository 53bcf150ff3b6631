//! What the spans of the data area are used for, and the blocks in them by size.
//!
//! It takes no lock and writes nothing. An extent that changes while it is walked is walked again,
//! and left out of the figures if it changes each time.
#![forbid(unsafe_code)]

use super::{
    block::walk,
    class::MIN_BLOCK,
    extent::{Spans, spans_at, used_end},
    layout::SPAN,
    region::{Region, sync::*},
    span::{
        BODY, DIRTY, HEAD, HOLE, KEPT, LEAVING, PUNCHING, SMALL, frontier, is_kept, meta, owner, place,
        start, state,
    },
};

/// Size classes: up to 32 bytes, up to 64 and so on to the largest value.
pub(crate) const CLASSES: usize = 29;
/// How often an extent is walked that changes meanwhile.
const TRIES: usize = 4;

/// The blocks of a size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClassUse {
    /// Entries that readers find.
    pub(crate) items: u64,
    /// Bytes of their keys and values.
    pub(crate) payload: u64,
    /// Bytes of all entries, with their headers and padding.
    pub(crate) used: u64,
    /// Free blocks.
    pub(crate) free_blocks: u64,
    /// Bytes of these.
    pub(crate) free: u64,
}

/// What is known of an entry: whether readers find it, and the bytes of its key and value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) is_item: bool,
    pub(crate) payload: u64,
    /// Bytes with header and padding.
    pub(crate) len: u64,
}

/// What the data area is used for. Bytes, if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeapUse {
    pub(crate) classes: [ClassUse; CLASSES],
    /// Pieces of extents that are too small for a block.
    pub(crate) gaps: u64,
    /// Ends of extents that never had a block.
    pub(crate) ends: u64,
    /// Number of extents that give blocks.
    pub(crate) extents: u64,
    pub(crate) extent_bytes: u64,
    /// Number of large blocks.
    pub(crate) large: u64,
    pub(crate) large_bytes: u64,
    /// Extents that are being emptied, or wait for a sync.
    pub(crate) leaving: u64,
    /// Free spans that may have pages.
    pub(crate) idle: u64,
    /// Free spans of a store without blocks on disk.
    pub(crate) holes: u64,
    /// Bytes of the extents that were walked.
    pub(crate) walked: u64,
}

impl HeapUse {
    /// What extents contain, as if all of them had been walked.
    fn scale(&mut self) {
        let (all, walked) = (u128::from(self.extent_bytes), u128::from(self.walked));
        if all == walked || walked == 0 {
            return;
        }
        let scale = |n: &mut u64| *n = u64::try_from(u128::from(*n) * all / walked).unwrap_or(u64::MAX);
        for c in &mut self.classes {
            [&mut c.items, &mut c.payload, &mut c.used, &mut c.free_blocks, &mut c.free]
                .into_iter()
                .for_each(scale);
        }
        scale(&mut self.gaps);
        scale(&mut self.ends);
    }

    fn add(&mut self, block: u64, known: Known) {
        let class = &mut self.classes[class_of(block)];
        class.used += known.len;
        class.items += u64::from(known.is_item);
        class.payload += if known.is_item { known.payload } else { 0 };
    }
}

/// The class of blocks of so many bytes.
fn class_of(len: u64) -> usize {
    let log = len.max(MIN_BLOCK).next_power_of_two().trailing_zeros() as usize;
    (log - MIN_BLOCK.trailing_zeros() as usize).min(CLASSES - 1)
}

/// Looks at all spans, at all large blocks, at all extents that are being emptied, and at so many
/// others, evenly spread, that they have about `most` bytes; the rest is taken to be like them.
/// `known` tells of the entry at an offset, given whether its extent is being emptied.
pub(crate) fn look(r: &Region, most: u64, known: impl Fn(u64, bool) -> Option<Known>) -> HeapUse {
    let mut found = count_spans(r);
    let every = found.extent_bytes.div_ceil(most.max(SPAN)).max(1);
    // What is counted as a whole, whatever the sample.
    let mut whole = HeapUse::default();
    let mut nth = 0;
    for span in 0..frontier(r) {
        let word = meta(r, span, 0).load(Acquire);
        match state(word) {
            SMALL if place(word).0 == 0 => {
                nth += 1;
                if nth % every == 0 || every == 1 {
                    look_into(r, span, word, &mut found, |off| known(off, false));
                }
            }
            HEAD => {
                if let Some(s) = owned(r, span, word)
                    && let Some(known) = known(s.start(r), false)
                    && known.len <= s.n * SPAN
                {
                    whole.add(s.n * SPAN, known);
                }
            }
            LEAVING if place(word).0 == 0 => {
                look_into_leaving(r, span, word, &mut whole, |off| known(off, true));
            }
            _ => {}
        }
    }
    found.scale();
    for (all, whole) in found.classes.iter_mut().zip(whole.classes) {
        all.items += whole.items;
        all.payload += whole.payload;
        all.used += whole.used;
    }
    found
}

fn count_spans(r: &Region) -> HeapUse {
    let mut found = HeapUse::default();
    for span in 0..frontier(r) {
        let word = meta(r, span, 0).load(Relaxed);
        match state(word) {
            SMALL => {
                found.extents += u64::from(place(word).0 == 0);
                found.extent_bytes += SPAN;
            }
            HEAD | BODY if !is_kept(r, word) => {
                found.large += u64::from(state(word) == HEAD);
                found.large_bytes += SPAN;
            }
            LEAVING => found.leaving += SPAN,
            DIRTY | PUNCHING | KEPT | BODY => found.idle += SPAN,
            HOLE => found.holes += SPAN,
            _ => {}
        }
    }
    found
}

/// The extent or large block that begins with a span, if its word has an owner.
fn owned(r: &Region, span: u64, word: u64) -> Option<Spans> {
    let is_shard = owner(word) < r.layout().geo.shards;
    spans_at(r, owner(word), start(r, span)).filter(|s| is_shard && s.first == span)
}

/// Adds the blocks of the extent that begins with a span, if they hold still.
fn look_into(r: &Region, span: u64, word: u64, found: &mut HeapUse, known: impl Fn(u64) -> Option<Known>) {
    for _ in 0..TRIES {
        let Some(s) = owned(r, span, word).filter(|s| !s.large && !s.leaving) else { return };
        let (shard, mut with) = (r.shard(owner(word)), *found);
        let end = used_end(r, shard, &s);
        let whole = walk(r, shard.no, s.start(r), end, |off, block| {
            if block.free && block.len < MIN_BLOCK {
                with.gaps += block.len;
            } else if block.free {
                let class = &mut with.classes[class_of(block.len)];
                class.free_blocks += 1;
                class.free += block.len;
            } else if let Some(known) = known(off).filter(|known| known.len <= block.len) {
                with.add(block.len, known);
            }
            true
        });
        with.ends += s.end(r) - end;
        with.walked += s.n * SPAN;
        if whole && meta(r, span, 0).load(Acquire) == word {
            *found = with;
            return;
        }
    }
}

/// Adds the entries that are still in an extent that is being emptied.
fn look_into_leaving(
    r: &Region,
    span: u64,
    word: u64,
    found: &mut HeapUse,
    known: impl Fn(u64) -> Option<Known>,
) {
    let Some(s) = owned(r, span, word).filter(|s| s.leaving) else { return };
    let mut with = *found;
    let whole = walk(r, owner(word), s.start(r), used_end(r, r.shard(owner(word)), &s), |off, block| {
        if let Some(known) = known(off).filter(|known| !block.free && known.len <= block.len) {
            with.add(block.len, known);
        }
        true
    });
    if whole && meta(r, span, 0).load(Acquire) == word {
        *found = with;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_powers_of_two() {
        assert_eq!([8, 32, 33, 64, 65, 16 << 10, 5 << 12].map(class_of), [0, 0, 1, 1, 2, 9, 10]);
        assert_eq!([u64::from(u32::MAX), (4 << 30) + (1 << 17), 1 << 40].map(class_of), [27, 28, 28]);
    }

    #[test]
    fn what_was_not_walked_is_like_the_rest() {
        let mut all = HeapUse { extent_bytes: 3000, walked: 1000, gaps: 7, ..HeapUse::default() };
        all.classes[2].items = 5;
        all.scale();
        assert_eq!((all.classes[2].items, all.gaps, all.extent_bytes), (15, 21, 3000));
        let mut none = HeapUse { extent_bytes: 3000, ..HeapUse::default() };
        none.scale();
        assert_eq!(none.extent_bytes, 3000);
    }
}
