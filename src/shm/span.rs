//! Spans: who owns which 64 KiB of the data area, and blocks of one size class inside them.
//!
//! ```text
//! word 0 of a span   state 8 | class 8 | shard 16 | run 32
//!   FREE -> (CAS) SMALL: blocks of one class        run = 0
//!                 HEAD:  first span of a large block run = spans of the block
//!                 BODY:  the others                 run = number of the head
//!   owned -> DIRTY: free, pages not given back; DIRTY -> (pool lock) PUNCHING -> FREE
//! word 1             used 16 | free list 16 | bump 16 | listed 16   (SMALL; under the shard's lock)
//! word 2             previous 32 | next 32: the shard's list of spans of the class with free blocks, numbers + 1
//! ```
//! A free block has 0 in its first word (a reader with an old slot finds no key there) and the next free block's
//! number + 1 in its second. Lists are only a cache of the entries that the index reaches: recovery rebuilds them.
#![forbid(unsafe_code)]

use super::{
    layout::{SPAN, SPAN_META, header, shard},
    region::{Region, sync::*},
};

/// Size classes; [`class_size`] gives their blocks' bytes.
pub(crate) const CLASSES: u64 = 99;
/// Most bytes of a block that shares its span with others.
const MAX_SMALL: u64 = 32 << 10;
/// Most blocks of a span.
pub(super) const MAX_BLOCKS: u64 = SPAN / 32;

const FREE: u64 = 0;
const DIRTY: u64 = 1;
const SMALL: u64 = 2;
const HEAD: u64 = 3;
const BODY: u64 = 4;
const PUNCHING: u64 = 5;

/// Stands for the class of a large block.
const LARGE: u64 = CLASSES;

/// How many span words a claim looks at behind the cursor before it takes fresh spans.
const SCAN: u64 = 256;

/// The class for `bytes`, `1..=`[`MAX_SMALL`].
#[inline]
fn class_of(bytes: u64) -> u64 {
    if bytes <= 512 {
        return bytes.div_ceil(8).max(4) - 4;
    }
    if bytes <= 8192 {
        let doubling = u64::from((bytes - 1).ilog2()) - 9;
        return 61 + doubling * 8 + (bytes - (512 << doubling)).div_ceil(64 << doubling) - 1;
    }
    // So many blocks fill a span: 7, 6, 5, 4, 3, 2.
    let fit = (SPAN / bytes).min(7);
    93 + 7 - if SPAN / fit / 8 * 8 < bytes { fit - 1 } else { fit }
}

/// Bytes of a block of `class`: multiples of 8 that waste little of a span.
#[inline]
pub(crate) fn class_size(class: u64) -> u64 {
    match class {
        0..=60 => 32 + class * 8,
        61..=92 => {
            let (doubling, step) = ((class - 61) / 8, (class - 61) % 8 + 1);
            (512 << doubling) + step * (64 << doubling)
        }
        _ => SPAN / (7 - (class - 93).min(5)) / 8 * 8,
    }
}

/// Bytes that a block for `bytes` takes of the region.
pub(crate) fn rounded(bytes: u64) -> u64 {
    if bytes <= MAX_SMALL { class_size(class_of(bytes)) } else { bytes.next_multiple_of(SPAN) }
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
    /// Bytes.
    pub(crate) len: u64,
}

#[inline]
fn meta(r: &Region, span: u64, word: u64) -> &AtomicU64 {
    r.word(r.layout().span_table + span * SPAN_META + word * 8)
}

#[inline]
fn pack(state: u64, class: u64, owner: u64, run: u64) -> u64 {
    state | class << 8 | owner << 16 | run << 32
}

fn state(word: u64) -> u64 {
    word & 0xFF
}

fn class(word: u64) -> u64 {
    word >> 8 & 0xFF
}

fn owner(word: u64) -> u64 {
    word >> 16 & 0xFFFF
}

fn run(word: u64) -> u64 {
    word >> 32
}

#[inline]
fn start(r: &Region, span: u64) -> u64 {
    r.layout().data + span * SPAN
}

/// Spans that are backed by memory or disk.
fn committed(r: &Region) -> u64 {
    let bytes = r.word(header::COMMITTED).load(Acquire).saturating_sub(r.layout().data);
    (bytes / SPAN).min(r.layout().geo.spans)
}

/// Spans that were ever in use.
pub(crate) fn frontier(r: &Region) -> u64 {
    r.word(header::SPAN_FRONTIER).load(Acquire).min(r.layout().geo.spans)
}

/// A block of at least `bytes`, for the shard whose lock the caller holds.
#[inline]
pub(crate) fn alloc(r: &Region, shard_no: u64, shard_off: u64, bytes: u64) -> Result<u64, NoRoom> {
    if bytes > MAX_SMALL {
        let n = bytes.div_ceil(SPAN);
        let at = claim(r, n, shard_no, LARGE).ok_or(NoRoom)?;
        return Ok(start(r, at));
    }
    let class = class_of(bytes);
    let first = r.half(shard_off + shard::CLASSES + class * 4);
    if first.load(Relaxed) == 0 {
        let span = claim(r, 1, shard_no, class).ok_or(NoRoom)?;
        meta(r, span, 1).store(0, Relaxed);
        list(r, shard_off, span, class);
    }
    let span = u64::from(first.load(Relaxed)) - 1;
    Ok(take(r, shard_off, span, class))
}

/// Takes a block of a listed span.
fn take(r: &Region, shard_off: u64, span: u64, class: u64) -> u64 {
    let size = class_size(class);
    let m = meta(r, span, 1);
    let mut w = Small::unpack(m.load(Relaxed));
    let index = if w.free != 0 {
        let index = w.free - 1;
        w.free = r.word(start(r, span) + index * size + 8).load(Relaxed) & 0xFFFF;
        index
    } else {
        w.bump += 1;
        w.bump - 1
    };
    w.used += 1;
    m.store(w.pack(), Relaxed);
    if w.free == 0 && w.bump == SPAN / size {
        unlist(r, shard_off, span, class);
    }
    start(r, span) + index * size
}

/// Frees a block of the shard whose lock the caller holds, after it became unreachable. Its first word becomes 0.
pub(crate) fn free(r: &Region, shard_no: u64, shard_off: u64, off: u64) {
    let Some(b) = locate(r, shard_no, off) else { return };
    r.word(off).store(0, Relaxed);
    let word = meta(r, b.span, 0).load(Relaxed);
    if state(word) == HEAD {
        free_run(r, shard_no, b.span, run(word));
        return;
    }
    let class = class(word);
    let m = meta(r, b.span, 1);
    let mut w = Small::unpack(m.load(Relaxed));
    r.word(off + 8).store(w.free, Relaxed);
    w.free = b.index + 1;
    w.used = w.used.saturating_sub(1);
    m.store(w.pack(), Relaxed);
    if !w.listed {
        list(r, shard_off, b.span, class);
    } else if w.used == 0 && (links(r, b.span) != (0, 0)) {
        release_small(r, shard_off, b.span, class);
    }
}

/// Gives back the spans of a shard that have no block in use (one a class is kept for the next store).
pub(crate) fn release_idle(r: &Region, shard_off: u64) {
    for class in 0..CLASSES {
        let first = r.half(shard_off + shard::CLASSES + class * 4).load(Relaxed);
        if first != 0 && Small::unpack(meta(r, u64::from(first) - 1, 1).load(Relaxed)).used == 0 {
            release_small(r, shard_off, u64::from(first) - 1, class);
        }
    }
}

fn release_small(r: &Region, shard_off: u64, span: u64, class: u64) {
    unlist(r, shard_off, span, class);
    meta(r, span, 0).store(DIRTY, Release);
    r.word(header::SPAN_DIRTY).fetch_add(1, Relaxed);
}

/// Frees a run from its end, the head last; bodies that somebody else owns by now are left alone.
fn free_run(r: &Region, shard_no: u64, head: u64, n: u64) {
    let end = (head + n).min(r.layout().geo.spans);
    let mut freed = 1;
    for i in (head + 1..end).rev() {
        let body = pack(BODY, 0, shard_no, head);
        if meta(r, i, 0).compare_exchange(body, DIRTY, Release, Relaxed).is_ok() {
            freed += 1;
        }
    }
    meta(r, head, 0).store(DIRTY, Release);
    r.word(header::SPAN_DIRTY).fetch_add(freed, Relaxed);
}

/// The block that starts at `off`, if a span of `shard_no` has one there. Sizes come from the span, never from the entry.
#[inline]
pub(crate) fn locate(r: &Region, shard_no: u64, off: u64) -> Option<Block> {
    let l = r.layout();
    let rel = off.checked_sub(l.data)?;
    let span = rel / SPAN;
    if span >= l.geo.spans {
        return None;
    }
    let word = meta(r, span, 0).load(Acquire);
    if owner(word) != shard_no {
        return None;
    }
    match state(word) {
        SMALL if class(word) < CLASSES => {
            let size = class_size(class(word));
            // Half-width division is twice as fast.
            let index = u64::from((rel % SPAN) as u32 / size as u32);
            (rel % SPAN == index * size && index < SPAN / size).then_some(Block { span, index, len: size })
        }
        HEAD if rel.is_multiple_of(SPAN) && span + run(word) <= l.geo.spans => {
            Some(Block { span, index: 0, len: run(word) * SPAN })
        }
        _ => None,
    }
}

/// Claims `n` neighbouring spans: behind the cursor first, then fresh ones, then anywhere.
fn claim(r: &Region, n: u64, shard_no: u64, class: u64) -> Option<u64> {
    let front = frontier(r);
    let cursor = r.word(header::SPAN_CURSOR).load(Relaxed).min(front);
    let limit = committed(r);
    let found = claim_in(r, cursor, (cursor + SCAN.max(n)).min(front), n, shard_no, class)
        .or_else(|| claim_in(r, front, limit, n, shard_no, class))
        .or_else(|| claim_in(r, 0, limit, n, shard_no, class))?;
    let next = if found + n >= front { 0 } else { found + n };
    r.word(header::SPAN_CURSOR).store(next, Relaxed);
    Some(found)
}

/// The first run of `n` free spans in `[from, to)`.
fn claim_in(r: &Region, from: u64, to: u64, n: u64, shard_no: u64, class: u64) -> Option<u64> {
    let mut at = from;
    while at + n <= to {
        match claim_at(r, at, n, shard_no, class) {
            Ok(()) => return Some(at),
            Err(taken) => at = taken + 1,
        }
    }
    // Nothing here: the next search starts behind it.
    r.word(header::SPAN_CURSOR).store(if to >= frontier(r) { 0 } else { to }, Relaxed);
    None
}

/// Claims exactly the spans `[at, at + n)`, ascending; `Err` = the one that is taken.
fn claim_at(r: &Region, at: u64, n: u64, shard_no: u64, class: u64) -> Result<(), u64> {
    // Before the first claim: a rebuild after our death looks at the spans up to here.
    if at + n > frontier(r) {
        r.word(header::SPAN_FRONTIER).fetch_max(at + n, AcqRel);
    }
    for i in 0..n {
        let new = match (i, class) {
            (0, _) if class != LARGE => pack(SMALL, class, shard_no, 0),
            (0, _) => pack(HEAD, 0, shard_no, n),
            _ => pack(BODY, 0, shard_no, at),
        };
        let word = meta(r, at + i, 0);
        let old = word.load(Relaxed);
        let free = matches!(state(old), FREE | DIRTY);
        if !free || word.compare_exchange(old, new, AcqRel, Relaxed).is_err() {
            for j in (0..i).rev() {
                meta(r, at + j, 0).store(DIRTY, Release);
            }
            r.word(header::SPAN_DIRTY).fetch_add(i, Relaxed);
            return Err(at + i);
        }
        if state(old) == DIRTY {
            dirty_minus(r, 1);
        }
    }
    Ok(())
}

fn dirty_minus(r: &Region, n: u64) {
    // Only a hint: it must not wrap when it was lost in a crash.
    let _ = r.word(header::SPAN_DIRTY).fetch_update(Relaxed, Relaxed, |d| Some(d.saturating_sub(n)));
}

/// Spans that are free but still have pages.
pub(crate) fn dirty(r: &Region) -> u64 {
    r.word(header::SPAN_DIRTY).load(Relaxed)
}

/// Gives the pages of free spans back. The caller holds the pool lock; `false` = the kernel declines here.
pub(crate) fn trim(r: &Region) -> bool {
    let front = frontier(r);
    let mut at = 0;
    while at < front {
        let mut n = 0;
        while at + n < front && meta(r, at + n, 0).compare_exchange(DIRTY, PUNCHING, AcqRel, Relaxed).is_ok()
        {
            n += 1;
        }
        if n > 0 {
            let gone = r.give_back(start(r, at), n * SPAN);
            for i in at..at + n {
                meta(r, i, 0).store(if gone { FREE } else { DIRTY }, Release);
            }
            if !gone {
                return false;
            }
            dirty_minus(r, n);
        }
        at += n + 1;
    }
    true
}

/// After the death of somebody under the pool lock: nobody is punching any more.
pub(crate) fn recover_pool(r: &Region) {
    let mut dirty = 0;
    for i in 0..frontier(r) {
        let word = meta(r, i, 0);
        if state(word.load(Relaxed)) == PUNCHING {
            word.store(DIRTY, Release);
        }
        dirty += u64::from(word.load(Relaxed) == DIRTY);
    }
    r.word(header::SPAN_DIRTY).store(dirty, Relaxed);
}

/// Spans in use.
pub(crate) fn in_use(r: &Region) -> u64 {
    (0..frontier(r)).filter(|&i| matches!(state(meta(r, i, 0).load(Relaxed)), SMALL | HEAD | BODY)).count()
        as u64
}

/// Rebuilds a shard's lists from the marks of the blocks that its index reaches; `None` = it reaches none.
pub(crate) fn rebuild(r: &Region, shard_no: u64, shard_off: u64, marks: Option<&super::marks::Marks>) {
    let marked = |span, index| marks.is_some_and(|m| m.get(span, index));
    for class in 0..CLASSES {
        r.half(shard_off + shard::CLASSES + class * 4).store(0, Relaxed);
    }
    for span in 0..frontier(r) {
        let word = meta(r, span, 0).load(Acquire);
        if owner(word) != shard_no {
            continue;
        }
        match state(word) {
            SMALL if class(word) < CLASSES => rebuild_small(r, shard_off, span, class(word), &marked),
            SMALL => meta(r, span, 0).store(DIRTY, Release),
            HEAD if !marked(span, 0) => free_run(r, shard_no, span, run(word)),
            BODY => {
                let head = run(word);
                let good = head < span && marked(head, 0) && {
                    let h = meta(r, head, 0).load(Acquire);
                    state(h) == HEAD && owner(h) == shard_no && span < head + run(h)
                };
                if !good {
                    meta(r, span, 0).store(DIRTY, Release);
                }
            }
            _ => {}
        }
    }
}

fn rebuild_small(r: &Region, shard_off: u64, span: u64, class: u64, marked: &impl Fn(u64, u64) -> bool) {
    let size = class_size(class);
    let cap = SPAN / size;
    let bump = (0..cap).rev().find(|&i| marked(span, i)).map_or(0, |last| last + 1);
    if bump == 0 {
        meta(r, span, 0).store(DIRTY, Release);
        r.word(header::SPAN_DIRTY).fetch_add(1, Relaxed);
        return;
    }
    let mut w = Small { used: 0, free: 0, bump, listed: false };
    for i in 0..bump {
        if marked(span, i) {
            w.used += 1;
        } else {
            let at = start(r, span) + i * size;
            r.word(at).store(0, Relaxed);
            r.word(at + 8).store(w.free, Relaxed);
            w.free = i + 1;
        }
    }
    meta(r, span, 1).store(w.pack(), Relaxed);
    if w.free != 0 || bump < cap {
        list(r, shard_off, span, class);
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
fn list(r: &Region, shard_off: u64, span: u64, class: u64) {
    let first = r.half(shard_off + shard::CLASSES + class * 4);
    let next = u64::from(first.load(Relaxed));
    set_links(r, span, 0, next);
    if next != 0 {
        let (_, after) = links(r, next - 1);
        set_links(r, next - 1, span + 1, after);
    }
    set_listed(r, span, true);
    first.store((span + 1) as u32, Relaxed);
}

fn unlist(r: &Region, shard_off: u64, span: u64, class: u64) {
    let (prev, next) = links(r, span);
    if prev == 0 {
        r.half(shard_off + shard::CLASSES + class * 4).store(next as u32, Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_its_class_and_wastes_little() {
        for bytes in 1..=MAX_SMALL {
            let c = class_of(bytes);
            assert!(c < CLASSES, "{bytes}");
            let size = class_size(c);
            assert!(size >= bytes, "{bytes} in class {c} of {size}");
            assert!(size.is_multiple_of(8) && SPAN / size <= MAX_BLOCKS, "{bytes}");
            if bytes > 32 {
                assert!(c == 0 || class_size(c - 1) < bytes, "{bytes} would fit class {}", c - 1);
            }
            assert_eq!(class_of(size), c, "{bytes}");
        }
    }
}
