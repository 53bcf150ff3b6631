//! Whether a shard's heap is as `coalesce`, `compact` and `block` say (H1 to H5 in `memory.md`).
//!
//! Under the shard's lock, and only while the shard is not dirty. It changes nothing.
#![forbid(unsafe_code)]

use std::fmt::Arguments;

use super::{
    bins::{all_bins, bin_of, is_mapped},
    block::{binned_len, link, met},
    class::MIN_BLOCK,
    coalesce::{extent_of, next_extent},
    compact::{BROKEN, EMPTY},
    extent::{Spans, spans_at, used_end},
    layout::{SPAN, shard as at},
    region::{Region, sync::*},
    scratch::{Bitmap, BlockBitmap},
    shard_cells::ShardCells,
    slab::kept_block,
    span::{
        BODY, DIRTY, FREE, HEAD, HOLE, KEPT, LEAVING, PUNCHING, SMALL, extent_word, frontier, head_word,
        leaving_word, meta, owner, run, start, state,
    },
};
use crate::error::Result;

/// What the heaps of all shards account for: their spans.
#[derive(Debug)]
pub(crate) struct Accounted(Bitmap);

/// Whose a span is that no look has met.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// Nobody's: it is free, or was met.
    None,
    /// This shard's, as its word says: it was claimed meanwhile, or is lost.
    Shard(u64),
    /// Its word is none that ucache writes.
    Impossible,
}

/// One look at a shard.
struct Look<'a> {
    r: &'a Region,
    shard: ShardCells<'a>,
    /// The bytes of entries to which slots lead.
    reached: &'a BlockBitmap,
    /// The first bytes of free blocks that have to be in a bin.
    free: BlockBitmap,
    free_blocks: u64,
    report: &'a mut dyn FnMut(Arguments<'_>),
}

impl Accounted {
    /// Nothing yet.
    pub(crate) fn new(r: &Region) -> Result<Self> {
        // Also for spans that are claimed while others are looked at.
        Ok(Self(Bitmap::new(r.layout().geo.spans)?))
    }

    /// Looks at a shard whose lock the caller holds; `reached` has the bytes of the entries to which
    /// its slots lead, of large blocks the first 8. Each fault is reported in one line.
    ///
    /// # Errors
    /// No scratch memory.
    pub(crate) fn check(
        &mut self,
        r: &Region,
        shard: ShardCells<'_>,
        reached: &BlockBitmap,
        report: &mut dyn FnMut(Arguments<'_>),
    ) -> Result<()> {
        let mut look = Look { r, shard, reached, free: BlockBitmap::new(r)?, free_blocks: 0, report };
        look.chain(self);
        look.bins();
        Ok(())
    }

    /// Who has to say more about a span that is not free, and that no look at a shard has met.
    pub(crate) fn claim(&self, r: &Region, span: u64) -> Claim {
        let word = owner_word(r, span);
        if is_free(word) || self.0.get(span) {
            return Claim::None;
        }
        let has_owner = matches!(state(word), SMALL | LEAVING | HEAD | BODY);
        if has_owner && owner(word) < r.layout().geo.shards {
            Claim::Shard(owner(word))
        } else {
            Claim::Impossible
        }
    }

    /// Notes the spans of the large block of an entry.
    pub(crate) fn note_large(&mut self, r: &Region, shard_no: u64, off: u64) {
        if let Some(s) = spans_at(r, shard_no, off).filter(|s| s.large) {
            (s.first..s.first + s.n).for_each(|span| _ = self.0.set(span));
        }
    }
}

fn is_free(word: u64) -> bool {
    matches!(word, FREE | DIRTY | PUNCHING | HOLE) || state(word) == KEPT
}

/// The word that says whose a span is: of a large block that of its head, if the span has one.
fn owner_word(r: &Region, span: u64) -> u64 {
    let word = meta(r, span, 0).load(Acquire);
    if state(word) == BODY { head_word(r, span, word).unwrap_or(word) } else { word }
}

/// Whether a span belongs to an extent of the shard's chain, or to a large block of which
/// `is_entry` tells that a slot leads there. The caller holds the shard's lock.
pub(crate) fn is_accounted(
    r: &Region,
    shard: ShardCells<'_>,
    span: u64,
    is_entry: impl FnOnce(u64) -> bool,
) -> bool {
    let word = owner_word(r, span);
    if is_free(word) || owner(word) != shard.no {
        return true; // It has changed meanwhile.
    }
    let word = meta(r, span, 0).load(Acquire);
    let head = match state(word) {
        SMALL | LEAVING => {
            let mut next = shard.word(at::EXTENTS).load(Relaxed);
            for _ in 0..frontier(r) {
                let Some((s, _)) = next_extent(r, shard.no, &mut next) else { return false };
                if (s.first..s.first + s.n).contains(&span) {
                    return true;
                }
            }
            return false;
        }
        HEAD => span,
        _ => run(word),
    };
    let block = (head <= span).then(|| spans_at(r, shard.no, start(r, head))).flatten();
    block.is_some_and(|s| s.large && span < head + s.n && is_entry(start(r, head)))
}

impl Look<'_> {
    fn fault(&mut self, what: Arguments<'_>) {
        (self.report)(format_args!("shard {}: {what}", self.shard.no));
    }

    /// The chain of extents, and the blocks in each.
    fn chain(&mut self, all: &mut Accounted) {
        let (mut next, mut heap, mut leaving) = (self.shard.word(at::EXTENTS).load(Relaxed), 0, false);
        while next != 0 {
            let Some(s) = extent_of(self.r, self.shard.no, next) else {
                self.fault(format_args!(
                    "its chain leads to span {}, where no extent of it begins",
                    next - 1
                ));
                break;
            };
            if !all.0.set(s.first) {
                self.fault(format_args!("the extent at span {} is twice in the chain", s.first));
                break;
            }
            (s.first + 1..s.first + s.n).for_each(|span| _ = all.0.set(span));
            self.extent(&s);
            heap += if s.leaving { 0 } else { s.n * SPAN };
            leaving |= s.leaving;
            next = meta(self.r, s.first, 1).load(Relaxed) & 0xFFFF_FFFF;
        }
        let counted = self.shard.word(at::HEAP).load(Relaxed);
        if counted != heap {
            self.fault(format_args!("counts {counted} bytes of extents, but has {heap}"));
        }
        if leaving && self.shard.word(at::LEAVING).load(Relaxed) == 0 {
            self.fault(format_args!("has extents that are being emptied, but no note of that"));
        }
    }

    fn extent(&mut self, s: &Spans) {
        for i in 0..s.n {
            let is = meta(self.r, s.first + i, 0).load(Acquire);
            let wanted = if s.leaving { leaving_word } else { extent_word };
            if is != wanted(i, s.n, self.shard.no) {
                self.fault(format_args!(
                    "span {} does not belong to the extent at span {}",
                    s.first + i,
                    s.first
                ));
                return;
            }
        }
        if s.leaving {
            self.leaving(s);
        } else {
            self.blocks(s);
        }
    }

    /// An extent that is being emptied: what it says of itself.
    fn leaving(&mut self, s: &Spans) {
        let high = meta(self.r, s.first, 1).load(Relaxed) >> 32;
        let used = self.reached.used_between(s.start(self.r), s.end(self.r));
        if high & EMPTY != 0 && used != 0 {
            self.fault(format_args!(
                "the extent at span {} counts as emptied, but slots lead to {used} bytes there",
                s.first
            ));
        }
        if high & EMPTY != 0 && high & BROKEN != 0 {
            self.fault(format_args!("the extent at span {} is emptied and broken", s.first));
        }
    }

    /// The blocks of an extent tile it, and are what the index says.
    fn blocks(&mut self, s: &Spans) {
        let (r, no, end) = (self.r, self.shard.no, used_end(self.r, self.shard, s));
        let (mut off, mut lost) = (s.start(r), 0);
        while off < end {
            let Some(block) = met(r, no, off, end) else {
                self.fault(format_args!(
                    "span {}: at offset {off} is neither an entry nor a free block",
                    (off - r.layout().data) / SPAN
                ));
                return;
            };
            let used = self.reached.used_between(off, off + block.len);
            if block.free && used != 0 {
                self.fault(format_args!("the free block at offset {off} has {used} bytes of entries"));
            } else if !block.free && used == 0 {
                lost += block.len;
            } else if used != 0 && used != block.len {
                self.fault(format_args!("of the {} bytes at offset {off} slots lead to {used}", block.len));
            }
            if block.free && block.len >= MIN_BLOCK {
                self.free.take(off, 8);
                self.free_blocks += 1;
            }
            off += block.len;
        }
        if lost != 0 {
            self.fault(format_args!(
                "the extent at span {} has {lost} bytes of entries to which no slot leads",
                s.first
            ));
        }
        let beyond = self.reached.used_between(end, s.end(r));
        if beyond != 0 {
            self.fault(format_args!("{beyond} bytes of entries lie behind offset {end}, the end in use"));
        }
    }

    /// Each free block is in the bin of its size, once, or is the one that the shard keeps.
    fn bins(&mut self) {
        let (r, shard, no) = (self.r, self.shard, self.shard.no);
        let mut listed = 0;
        for bin in (0..all_bins(r)).filter(|&bin| is_mapped(r, shard, bin)) {
            let mut off = r.bin(shard, bin).load(Relaxed);
            while off != 0 {
                let begins = off % 8 == 0 && self.free.has(off);
                let Some(len) = begins.then(|| binned_len(r, no, off)).flatten() else {
                    self.fault(format_args!("bin {bin} leads to offset {off}, where no free block begins"));
                    break;
                };
                if bin_of(r, len) != bin {
                    self.fault(format_args!("bin {bin} has the free block of {len} bytes at offset {off}"));
                    break;
                }
                listed += 1;
                if listed > self.free_blocks {
                    self.fault(format_args!("a free block is twice in bin {bin}"));
                    return;
                }
                off = link(r, off).load(Relaxed);
            }
        }
        let kept = kept_block(self.shard);
        if let Some((off, len)) = kept {
            if !self.free.has(off) || binned_len(r, no, off) != Some(len) {
                self.fault(format_args!("keeps a block of {len} bytes at offset {off}, where none is free"));
            }
            listed += 1;
        }
        if listed != self.free_blocks {
            let all = self.free_blocks;
            self.fault(format_args!("has {all} free blocks, but {listed} in bins"));
        }
    }
}
