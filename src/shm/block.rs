//! Blocks: pieces of spans in size classes, and large blocks of whole spans.
//!
//! ```text
//! word 1 of a span   used 16 | free list 16 | bump 16 | listed 16         (of SMALL spans, under the shard's lock)
//! word 2             previous 32 | next 32: the shard's list of spans of the class with free blocks, numbers + 1
//! ```
//! A free block has 0 in its first word (a reader with an old slot finds no key there) and the next free block's
//! number + 1 in its second. Lists are only a cache of the entries that the index reaches: recovery rebuilds them.
//! Of the blocks that became free a shard keeps one (`layout::shard::SPARE`): it is on no list, its span counts it as used,
//! and the next entry of its class takes it. A sweep puts it on its list, and so does who finds no memory.
#![forbid(unsafe_code)]

pub(crate) use super::size_class::{CLASSES, class_size, classes};
use super::{
    cells::Home,
    layout::{SPAN, shard as at},
    marks::Marks,
    region::{Region, sync::*},
    size_class::{MAX_BLOCKS, MAX_SMALL, class_of, size_of},
    span::{self, BODY, DIRTY, HEAD, LARGE, SMALL, class, frontier, meta, owner, run, start, state},
};

/// Where the class lies in the word of a block that a shard keeps.
const CLASS_AT: u32 = 56;

/// Where the block lies that a shard keeps, by its word.
#[inline(always)]
fn kept_off(word: u64) -> u64 {
    word & !(0xFF << CLASS_AT)
}

/// No block could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// A block found from its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Span number.
    pub(crate) span: u64,
    /// Block number in the span; 0 for a large block.
    pub(crate) index: u64,
    /// Size class; [`LARGE`] for a large block.
    class: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// How large a block is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) bytes: u64,
    /// Size class; [`CLASSES`] for a large block.
    class: u64,
}

impl Wanted {
    /// Bytes that the block has.
    #[inline]
    pub(crate) fn len(self) -> u64 {
        if self.class < CLASSES { size_of(self.class) } else { self.bytes.next_multiple_of(SPAN) }
    }
}

/// A block of at least `bytes`.
#[inline(always)]
pub(crate) fn wanted(bytes: u64) -> Wanted {
    Wanted { bytes, class: if bytes > MAX_SMALL { CLASSES } else { class_of(bytes) } }
}

/// A block of the size wanted, for the shard whose lock the caller holds.
#[inline(always)]
pub(crate) fn alloc(r: &Region, shard: Home<'_>, wanted: Wanted) -> Result<u64, NoRoom> {
    let word = shard.word(at::SPARE);
    let spare = word.load(Relaxed);
    if spare >> CLASS_AT == wanted.class + 1 {
        word.store(0, Relaxed);
        return Ok(kept_off(spare));
    }
    alloc_other(r, shard, wanted)
}

/// [`alloc`] of another block than the one that the shard keeps.
#[inline(never)]
fn alloc_other(r: &Region, shard: Home<'_>, wanted: Wanted) -> Result<u64, NoRoom> {
    if wanted.class == CLASSES {
        return alloc_large(r, shard.no, wanted.bytes);
    }
    let first = shard.list(wanted.class);
    if first.load(Relaxed) == 0 {
        let span = span::claim(r, 1, shard.no, wanted.class).ok_or(NoRoom)?;
        meta(r, span, 1).store(0, Relaxed);
        list(r, shard, span, wanted.class);
    }
    let span = u64::from(first.load(Relaxed)) - 1;
    Ok(take(r, shard, span, wanted.class))
}

/// Asks for the first lines of the block that [`alloc`] will give, as far as that can be told: whoever unlocks waits until all
/// that was written has reached the cache, and these lines have long left it. `listed`: also of one that the shard does not
/// keep.
#[inline(always)]
pub(crate) fn expect(r: &Region, shard: Home<'_>, wanted: Wanted, listed: bool) {
    let spare = shard.word(at::SPARE).load(Relaxed);
    if spare >> CLASS_AT == wanted.class + 1 {
        r.prefetch_entry(kept_off(spare));
    } else if listed && wanted.class < CLASSES {
        expect_listed(r, shard, wanted.class);
    }
}

/// [`expect`] of a block that the shard does not keep.
#[inline(never)]
fn expect_listed(r: &Region, shard: Home<'_>, class: u64) {
    let first = u64::from(shard.list(class).load(Relaxed));
    let Some(words) = r.span(first.wrapping_sub(1)) else { return };
    let w = Small::unpack(words[1].load(Relaxed));
    let index = if w.free != 0 { w.free - 1 } else { w.bump };
    r.prefetch_entry(start(r, first - 1) + index * size_of(class));
}

#[inline(never)]
fn alloc_large(r: &Region, shard_no: u64, bytes: u64) -> Result<u64, NoRoom> {
    let n = bytes.div_ceil(SPAN);
    let at = span::claim_last(r, n, shard_no).or_else(|| span::claim(r, n, shard_no, LARGE));
    at.map(|at| start(r, at)).ok_or(NoRoom)
}

/// Takes a block of a listed span.
fn take(r: &Region, shard: Home<'_>, span: u64, class: u64) -> u64 {
    let size = size_of(class);
    let m = meta(r, span, 1);
    let mut w = Small::unpack(m.load(Relaxed));
    let index = if w.free != 0 {
        let index = w.free - 1;
        // The link lies among the data: what is no block's number ends the list, until the next rebuild.
        let next = r.word(start(r, span) + index * size + 8).load(Relaxed).min(MAX_BLOCKS + 1);
        w.free = if next * size <= SPAN { next } else { 0 };
        index
    } else {
        w.bump += 1;
        w.bump - 1
    };
    w.used += 1;
    m.store(w.pack(), Relaxed);
    if w.free == 0 && (w.bump + 1) * size > SPAN {
        unlist(r, shard, span, class);
    }
    start(r, span) + index * size
}

/// What is left of a freed block proves nothing. Its first word alone would not do: after a crash of the machine the
/// next entry's, which may be the same, can stand before the rest of the old one when they lie in two sectors.
#[inline(always)]
fn poison(r: &Region, off: u64) {
    r.word(off).store(0, Relaxed);
    if r.layout().geo.checksums {
        r.word(off + 16).store(0, Relaxed);
    }
}

/// Frees a block of the shard whose lock the caller holds, after it became unreachable: its first word becomes 0. It is kept
/// for the next entry of its class, if none is kept: where one value replaces another, or comes after it, no span's counts
/// and no list change.
#[inline(always)]
pub(crate) fn free(r: &Region, shard: Home<'_>, off: u64) {
    let Some(b) = locate(r, shard.no, off) else { return };
    poison(r, off);
    let spare = shard.word(at::SPARE);
    if b.class < CLASSES && spare.load(Relaxed) == 0 {
        spare.store((b.class + 1) << CLASS_AT | off, Relaxed);
    } else {
        free_block(r, shard, off, &b);
    }
}

/// Puts the block that a shard keeps back on its list.
#[cold]
fn list_spare(r: &Region, shard: Home<'_>) {
    let word = shard.word(at::SPARE);
    let off = kept_off(word.load(Relaxed));
    word.store(0, Relaxed);
    if let Some(b) = locate(r, shard.no, off) {
        free_block(r, shard, off, &b);
    }
}

#[inline(never)]
fn free_block(r: &Region, shard: Home<'_>, off: u64, b: &Block) {
    if b.class == LARGE {
        span::free_run(r, shard.no, b.span, b.len / SPAN);
        return;
    }
    let m = meta(r, b.span, 1);
    let mut w = Small::unpack(m.load(Relaxed));
    r.word(off + 8).store(w.free, Relaxed);
    w.free = b.index + 1;
    w.used = w.used.saturating_sub(1);
    m.store(w.pack(), Relaxed);
    if !w.listed {
        list(r, shard, b.span, b.class);
    } else if w.used == 0 && (links(r, b.span) != (0, 0)) {
        release_small(r, shard, b.span, b.class);
    }
}

/// Gives back the spans of a shard that have no block in use (one a class is kept for the next store).
pub(crate) fn release_idle(r: &Region, shard: Home<'_>) {
    list_spare(r, shard);
    for class in 0..CLASSES {
        let first = shard.list(class).load(Relaxed);
        if first != 0 && Small::unpack(meta(r, u64::from(first) - 1, 1).load(Relaxed)).used == 0 {
            release_small(r, shard, u64::from(first) - 1, class);
        }
    }
}

fn release_small(r: &Region, shard: Home<'_>, span: u64, class: u64) {
    unlist(r, shard, span, class);
    meta(r, span, 0).store(DIRTY, Release);
    span::dirty_plus(r, 1);
}

/// The block that starts at `off`, if a span of `shard_no` has one there. Sizes come from the span, never from the entry.
#[inline(always)]
pub(crate) fn locate(r: &Region, shard_no: u64, off: u64) -> Option<Block> {
    let l = r.layout();
    let rel = off.checked_sub(l.data)?;
    let span = rel / SPAN;
    let word = r.span(span)?[0].load(Acquire);
    if owner(word) != shard_no {
        return None;
    }
    match state(word) {
        SMALL if class(word) < CLASSES => {
            let class = class(word);
            let size = size_of(class);
            // Half-width division is twice as fast.
            let index = u64::from((rel % SPAN) as u32 / size as u32);
            let whole = rel % SPAN == index * size && (index + 1) * size <= SPAN;
            whole.then_some(Block { span, index, class, len: size })
        }
        HEAD if rel.is_multiple_of(SPAN) && span + run(word) <= l.geo.spans => {
            Some(Block { span, index: 0, class: LARGE, len: run(word) * SPAN })
        }
        _ => None,
    }
}

/// Recovery: whether all spans of a large block are its own. After a crash of the machine one can be another block's.
pub(crate) fn owns_its_spans(r: &Region, shard_no: u64, b: &Block) -> bool {
    (b.span + 1..b.span + (b.len / SPAN).max(1)).all(|i| {
        let word = meta(r, i, 0).load(Acquire);
        state(word) == BODY && owner(word) == shard_no && run(word) == b.span
    })
}

/// Recovery: calls `f` for each block of a shard that was handed out at some time: its span, its number there, its offset.
pub(crate) fn each_handed_out(r: &Region, shard_no: u64, mut f: impl FnMut(u64, u64, u64)) {
    for span in 0..frontier(r) {
        let word = meta(r, span, 0).load(Acquire);
        let (count, size) = match state(word) {
            _ if owner(word) != shard_no => continue,
            SMALL if class(word) < CLASSES => {
                let size = class_size(class(word));
                (Small::unpack(meta(r, span, 1).load(Relaxed)).bump.min(SPAN / size), size)
            }
            HEAD => (1, SPAN),
            _ => continue,
        };
        (0..count).for_each(|index| f(span, index, start(r, span) + index * size));
    }
}

/// Rebuilds a shard's lists from the marks of the blocks that its index reaches.
pub(crate) fn rebuild(r: &Region, shard: Home<'_>, marks: &Marks) {
    let marked = |span, index| marks.get(span, index);
    shard.word(at::SPARE).store(0, Relaxed);
    for class in 0..CLASSES {
        shard.list(class).store(0, Relaxed);
    }
    for span in 0..frontier(r) {
        let word = meta(r, span, 0).load(Acquire);
        if owner(word) != shard.no {
            continue;
        }
        match state(word) {
            SMALL if class(word) < CLASSES => rebuild_small(r, shard, span, class(word), &marked),
            SMALL => meta(r, span, 0).store(DIRTY, Release),
            HEAD if !marked(span, 0) => {
                poison(r, start(r, span));
                span::free_run(r, shard.no, span, run(word));
            }
            BODY => {
                let head = run(word);
                let good = head < span && marked(head, 0) && {
                    let h = meta(r, head, 0).load(Acquire);
                    state(h) == HEAD && owner(h) == shard.no && span < head + run(h)
                };
                if !good {
                    meta(r, span, 0).store(DIRTY, Release);
                }
            }
            _ => {}
        }
    }
}

fn rebuild_small(r: &Region, shard: Home<'_>, span: u64, class: u64, marked: &impl Fn(u64, u64) -> bool) {
    let size = class_size(class);
    let cap = SPAN / size;
    let bump = (0..cap).rev().find(|&i| marked(span, i)).map_or(0, |last| last + 1);
    if r.layout().geo.checksums {
        // What lies behind the last block in use may have been written by who died.
        let written = Small::unpack(meta(r, span, 1).load(Relaxed)).bump.min(cap);
        (bump..written).for_each(|i| poison(r, start(r, span) + i * size));
    }
    if bump == 0 {
        meta(r, span, 0).store(DIRTY, Release);
        span::dirty_plus(r, 1);
        return;
    }
    let mut w = Small { used: 0, free: 0, bump, listed: false };
    for i in 0..bump {
        if marked(span, i) {
            w.used += 1;
        } else {
            let at = start(r, span) + i * size;
            poison(r, at);
            r.word(at + 8).store(w.free, Relaxed);
            w.free = i + 1;
        }
    }
    meta(r, span, 1).store(w.pack(), Relaxed);
    if w.free != 0 || bump < cap {
        list(r, shard, span, class);
    }
}

/// Word 1 of a span of small blocks.
#[derive(Clone, Copy, Debug)]
struct Small {
    used: u64,
    free: u64,
    bump: u64,
    listed: bool,
}

impl Small {
    fn unpack(w: u64) -> Self {
        Self { used: w & 0xFFFF, free: w >> 16 & 0xFFFF, bump: w >> 32 & 0xFFFF, listed: w >> 48 != 0 }
    }

    fn pack(self) -> u64 {
        self.used | self.free << 16 | self.bump << 32 | u64::from(self.listed) << 48
    }
}

/// Previous and next of a listed span, numbers + 1.
fn links(r: &Region, span: u64) -> (u64, u64) {
    let w = meta(r, span, 2).load(Relaxed);
    (w & 0xFFFF_FFFF, w >> 32)
}

fn set_links(r: &Region, span: u64, prev: u64, next: u64) {
    meta(r, span, 2).store(prev | next << 32, Relaxed);
}

fn set_listed(r: &Region, span: u64, listed: bool) {
    let m = meta(r, span, 1);
    m.store(Small { listed, ..Small::unpack(m.load(Relaxed)) }.pack(), Relaxed);
}

/// Puts a span at the front of its class's list.
fn list(r: &Region, shard: Home<'_>, span: u64, class: u64) {
    let first = shard.list(class);
    let next = u64::from(first.load(Relaxed));
    set_links(r, span, 0, next);
    if next != 0 {
        let (_, after) = links(r, next - 1);
        set_links(r, next - 1, span + 1, after);
    }
    set_listed(r, span, true);
    first.store((span + 1) as u32, Relaxed);
}

fn unlist(r: &Region, shard: Home<'_>, span: u64, class: u64) {
    let (prev, next) = links(r, span);
    if prev == 0 {
        shard.list(class).store(next as u32, Relaxed);
    } else {
        let (before, _) = links(r, prev - 1);
        set_links(r, prev - 1, before, next);
    }
    if next != 0 {
        let (_, after) = links(r, next - 1);
        set_links(r, next - 1, prev, after);
    }
    set_listed(r, span, false);
}
