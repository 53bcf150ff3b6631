//! Extents and large blocks: whose a span is, and what lies where.
//!
//! ```text
//! extent        1 to 16 spans of one shard: blocks one after another (see `block`)
//! large block   a run of spans of its own
//! ```
#![forbid(unsafe_code)]

use super::{
    block::walk,
    class::{MAX_SMALL, MIN_BLOCK},
    layout::{SPAN, shard as at},
    region::{Region, sync::*},
    shard_cells::ShardCells,
    span::{
        BODY, HEAD, LEAVING, SMALL, is_body_of, is_part, is_small_of, meta, owner, place, run, start, state,
    },
};

/// How large a block is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) bytes: u64,
}

impl Wanted {
    /// Bytes that the block has.
    #[inline]
    pub(crate) fn len(self) -> u64 {
        if self.bytes <= MAX_SMALL { self.bytes } else { self.bytes.next_multiple_of(SPAN) }
    }
}

/// The block of an entry of `bytes`, of a key and a value that are not empty.
#[inline(always)]
pub(crate) fn wanted_for(bytes: u64) -> Wanted {
    debug_assert!(bytes.is_multiple_of(8) && bytes >= MIN_BLOCK, "no entry has {bytes} bytes");
    Wanted { bytes }
}

/// A block of at least `bytes`.
#[inline(always)]
pub(crate) fn wanted(bytes: u64) -> Wanted {
    Wanted { bytes: ((bytes + 7) & !7).max(MIN_BLOCK) }
}

/// Whether a block of this length has spans of its own.
pub(crate) fn is_large(len: u64) -> bool {
    len > MAX_SMALL
}

/// The spans of an extent or of a large block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spans {
    /// Number of the first one.
    pub(crate) first: u64,
    /// How many.
    pub(crate) n: u64,
    /// Whether they are one large block.
    pub(crate) large: bool,
    /// Whether they are an extent that is being emptied.
    pub(super) leaving: bool,
}

impl Spans {
    /// First byte of the first one.
    pub(crate) fn start(&self, r: &Region) -> u64 {
        start(r, self.first)
    }

    /// End of the last one.
    pub(crate) fn end(&self, r: &Region) -> u64 {
        start(r, self.first + self.n)
    }
}

/// The extent or large block of the shard that has `off`.
#[inline]
pub(super) fn spans_at(r: &Region, shard_no: u64, off: u64) -> Option<Spans> {
    let number = off.wrapping_sub(r.layout().data) / SPAN;
    let word = r.span(number)?[0].load(Acquire);
    if owner(word) != shard_no {
        return None;
    }
    let (first, n, large) = match state(word) {
        SMALL | LEAVING => {
            let (pos, n) = place(word);
            (number.checked_sub(pos).filter(|_| pos < n)?, n, false)
        }
        HEAD => (number, run(word), true),
        _ => return None,
    };
    let fits = n > 0 && first + n <= r.layout().geo.spans && r.is_backed((first + n) * SPAN);
    fits.then_some(Spans { first, n, large, leaving: state(word) == LEAVING })
}

/// Whether a block lies in one span of an extent of the shard that gives blocks, as most do.
#[inline(always)]
pub(super) fn is_in_span(r: &Region, shard_no: u64, off: u64, bytes: u64) -> bool {
    let rel = off.wrapping_sub(r.layout().data);
    let Some(words) = r.span(rel / SPAN) else { return false };
    let word = words[0].load(Relaxed);
    is_small_of(word, shard_no) && rel % SPAN + bytes <= SPAN
}

/// Whether the spans at `off` can have an entry of so many bytes of the shard there, and all of them
/// are the shard's: after a power failure one can be another block's.
pub(crate) fn holds(r: &Region, shard_no: u64, off: u64, bytes: u64) -> bool {
    let Some(s) = spans_at(r, shard_no, off).filter(|_| off.is_multiple_of(8)) else { return false };
    if s.large {
        return off == s.start(r) && bytes > MAX_SMALL && bytes <= s.n * SPAN && has_bodies(r, shard_no, &s);
    }
    // Also those before it: a rebuild keeps an extent as far as its first spans are all there.
    let last = (off - s.start(r) + bytes.max(1) - 1) / SPAN;
    (MIN_BLOCK..=MAX_SMALL).contains(&bytes)
        && off + bytes <= s.end(r)
        && (0..=last).all(|i| is_part(r, shard_no, (s.first, s.n), i))
}

fn has_bodies(r: &Region, shard_no: u64, s: &Spans) -> bool {
    (s.first + 1..s.first + s.n).all(|i| {
        let word = meta(r, i, 0).load(Acquire);
        is_body_of(word, s.first) && (owner(word) == shard_no || r.file().is_none())
    })
}

/// Whether the block of an entry of `bytes` at `off` is one that would be taken for `wanted`.
#[inline(always)]
pub(crate) fn is_for(r: &Region, shard_no: u64, (off, bytes): (u64, u64), wanted: Wanted) -> bool {
    if is_in_span(r, shard_no, off, bytes) {
        bytes == wanted.bytes
    } else {
        is_for_rest(r, shard_no, (off, bytes), wanted)
    }
}

#[inline(never)]
fn is_for_rest(r: &Region, shard_no: u64, (off, bytes): (u64, u64), wanted: Wanted) -> bool {
    let Some(s) = spans_at(r, shard_no, off) else { return false };
    if s.large {
        s.n * SPAN == wanted.len() && is_large(wanted.bytes)
    } else {
        bytes == wanted.bytes && !s.leaving
    }
}

/// Whose a span is: the shard, and its extent or large block; `None` = nobody's.
pub(crate) fn owner_of(r: &Region, span: u64) -> Option<(u64, Spans)> {
    let word = meta(r, span, 0).load(Acquire);
    let first = if state(word) == BODY { run(word).min(span) } else { span };
    let word = meta(r, first, 0).load(Acquire);
    let spans = spans_at(r, owner(word), start(r, first))?;
    (spans.first..spans.first + spans.n).contains(&span).then_some((owner(word), spans))
}

/// The spans from `at` to `end`, with all of the extents and large blocks at either end.
pub(crate) fn whole_owners(r: &Region, at: u64, end: u64) -> (u64, u64) {
    let first = owner_of(r, at).map_or(at, |(_, s)| s.first);
    let last = owner_of(r, end - 1).map_or(end, |(_, s)| s.first + s.n);
    (first, last.max(end))
}

/// Where the blocks of an extent end: at its end, or where the shard has not come to yet.
pub(super) fn used_end(r: &Region, shard: ShardCells<'_>, s: &Spans) -> u64 {
    let (bump, end) = (shard.word(at::BUMP).load(Relaxed), s.end(r));
    if shard.word(at::BUMP_END).load(Relaxed) == end && (s.start(r)..end).contains(&bump) && bump % 8 == 0 {
        bump
    } else {
        end
    }
}

/// Calls `f` with the offset of each entry of an extent or of a large block, until it returns
/// `false`. Entries that nothing leads to are among them.
pub(crate) fn each_entry(r: &Region, shard: ShardCells<'_>, s: &Spans, f: impl FnMut(u64) -> bool) {
    each_entry_between(r, shard, s, (s.start(r), s.end(r)), f);
}

/// [`each_entry`] between two places where blocks begin.
pub(crate) fn each_entry_between(
    r: &Region,
    shard: ShardCells<'_>,
    s: &Spans,
    (from, to): (u64, u64),
    mut f: impl FnMut(u64) -> bool,
) {
    if s.large {
        f(from);
        return;
    }
    if !walk(r, shard.no, from, to.min(used_end(r, shard, s)), |off, block| block.free || f(off)) {
        shard.set_dirty(true);
    }
}

/// Where the entry at `off` and its neighbours in its extent have `len` bytes together, as few as
/// possible.
pub(crate) fn around(r: &Region, shard: ShardCells<'_>, off: u64, len: u64) -> Option<(Spans, u64, u64)> {
    let s = spans_at(r, shard.no, off).filter(|s| !s.large && !s.leaving)?;
    let (mut last, mut first) = (off, None);
    let behind = walk(r, shard.no, off, used_end(r, shard, &s), |at, block| {
        last = at + block.len;
        last - off < len
    });
    let before = walk(r, shard.no, s.start(r), off, |at, _| {
        first = (last - at >= len).then_some(at).or(first);
        true
    });
    if !behind || !before {
        shard.set_dirty(true);
        return None;
    }
    let first = if last - off >= len { Some(off) } else { first };
    first.map(|first| (s, first, last))
}
