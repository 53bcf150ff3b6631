//! The layout of a region, computed from a few numbers in the header.
//!
//! ```text
//! page 0      Header: identity, limits, hot words (each on a line of its own), locks
//!             Shards      a line each: lock, cached block, state, item quota
//!             Moves       a word a shard: moves of quota to it
//!             Rests       the other words of each shard
//!             Bins        of each shard: its lists of free blocks
//!             Stats       256 slots of 384 bytes
//!             Runs        a bit for 64 home buckets: whether one of them ever had an item
//!             Ghosts      a word for each item that a shard may hold (S3-FIFO only), used as far as
//!                         the shard has items
//!             Hits        a half word a slot, touched by counted reads only
//!             Index       home buckets, then overflow buckets, 64 bytes each
//!             Stamps      8 words a bucket (caches that evict only)
//!             Spans       16 bytes a span
//! data        spans of 4 KiB
//! ```
//! Of a store's file, ghosts, hits, index and stamps have blocks on disk only where they are used: see
//! `holes`. The table of spans has them as far as there are spans.
#![forbid(unsafe_code)]

pub(crate) mod header;
pub(crate) mod shard;

/// Bytes of a span: the unit in which data memory is owned, grown and given back.
pub(crate) const SPAN: u64 = 4 << 10;
/// Bytes of a bucket: one cache line.
pub(crate) const BUCKET: u64 = 64;
/// Slots of a bucket (its first word is sequence number and link).
pub(crate) const SLOTS: u64 = 7;
/// Home buckets that share a bit which says whether one of them ever had an item: of a store, those
/// of a page, which has blocks on disk if the bit is set.
pub(crate) const RUN: u64 = PAGE / BUCKET;
/// The order of the areas: changes with it.
const AREAS: u64 = 2;
/// Bytes of a shard's line: what every write needs, and all that creation writes.
pub(crate) const SHARD: u64 = 64;
/// Bytes of the rest of a shard's words, in an area of their own that a shard which was never used
/// does not touch. All of them are 0 at first.
pub(crate) const SHARD_REST: u64 = (shard::END - SHARD).next_multiple_of(64);
/// Bins of a shard's free blocks in memory: a word each, the offset of the first one. They are in an
/// area of their own, as a shard that was never used does not touch them.
pub(crate) const BINS: u64 = 136;
/// Those of them that lie together: of short blocks.
const SHORT_BINS: u64 = 32;
/// Bins of a shard in a store.
pub(crate) const STORE_BINS: u64 = 56;
/// Bytes of a shard's bins in a store.
const SHARD_STORE_BINS: u64 = STORE_BINS * 8;
/// Bytes of a statistics slot.
pub(crate) const STATS: u64 = 640;
/// Number of statistics slots; slot 0 is shared by threads that found no other.
pub(crate) const STATS_SLOTS: u64 = 256;
/// Bytes of a span's words.
pub(crate) const SPAN_META: u64 = 16;
const PAGE: u64 = 4096;

/// Up to the next multiple of 8, for lengths far from the end of 64 bits.
#[inline(always)]
pub(crate) const fn round8(len: u64) -> u64 {
    (len + 7) & !7
}

/// Numbers that decide the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Items that fit.
    pub(crate) capacity: u64,
    /// Shards, a power of two.
    pub(crate) shards: u64,
    /// Home buckets, a multiple of `shards`.
    pub(crate) homes: u64,
    /// Overflow buckets of each shard.
    pub(crate) overflow: u64,
    /// Spans of the data area.
    pub(crate) spans: u64,
    /// Whether slots have stamps, for eviction.
    pub(crate) stamps: bool,
    /// Whether shards remember what was evicted (S3-FIFO).
    pub(crate) ghosts: bool,
    /// Whether stamps are those of SIEVE.
    pub(crate) sieve: bool,
    /// Whether entries carry a checksum (store files).
    pub(crate) checksums: bool,
}

impl Geometry {
    /// Most words of each shard's ghost list: as many as it has items, rounded up to a power of two.
    pub(crate) fn ghost_words(&self) -> u64 {
        if self.ghosts { (self.capacity / self.shards).max(8).next_power_of_two() } else { 0 }
    }

    /// Shard of a bucket; the caller knows `homes_per_shard`, which saves a division.
    #[inline]
    pub(crate) fn shard_of(&self, bucket: u64, homes_per_shard: u64) -> u64 {
        if bucket < self.homes {
            bucket / homes_per_shard
        } else {
            // A power of two.
            (bucket - self.homes) & (self.shards - 1)
        }
    }

    /// The `n`-th overflow bucket of a shard. Those of all shards take turns, so that the pages in
    /// use are full, however few each shard has.
    #[inline]
    pub(crate) fn overflow_bucket(&self, shard: u64, n: u64) -> u64 {
        self.homes + n * self.shards + shard
    }

    /// Inverse of the above, for the shard that the bucket belongs to.
    #[inline]
    pub(crate) fn overflow_number(&self, bucket: u64) -> u64 {
        // A power of two.
        bucket.wrapping_sub(self.homes) >> self.shards.trailing_zeros()
    }

    /// The flags as a header word.
    pub(crate) fn flags(&self) -> u64 {
        u64::from(self.stamps)
            | u64::from(self.checksums) << 1
            | u64::from(self.ghosts) << 2
            | u64::from(self.sieve) << 3
    }
}

/// Byte offsets of the areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) geo: Geometry,
    pub(crate) shards: u64,
    /// Moves of quota to each shard, a word each: odd while one is in progress.
    pub(crate) moves: u64,
    pub(crate) rests: u64,
    pub(crate) bins: u64,
    pub(crate) stats: u64,
    /// A bit for each run of [`RUN`] home buckets: whether one of them ever had an item.
    pub(crate) runs: u64,
    pub(crate) ghosts: u64,
    pub(crate) hits: u64,
    pub(crate) index: u64,
    pub(crate) stamps: u64,
    pub(crate) span_table: u64,
    pub(crate) data: u64,
    /// End of the last span.
    pub(crate) end: u64,
}

impl Layout {
    /// Lays a region out; `None` = the numbers overflow.
    pub(crate) fn new(geo: Geometry) -> Option<Self> {
        let mut at = PAGE;
        let mut area = |bytes: u64| -> Option<u64> {
            let start = at;
            at = at.checked_add(bytes.checked_next_multiple_of(64)?)?;
            Some(start)
        };
        let buckets = geo.shards.checked_mul(geo.overflow)?.checked_add(geo.homes)?;
        let shards = area(geo.shards.checked_mul(SHARD)?)?;
        let moves = area(geo.shards.checked_mul(8)?)?;
        let rests = area(geo.shards.checked_mul(SHARD_REST)?)?;
        let bins = area(geo.shards.checked_mul(if geo.checksums { SHARD_STORE_BINS } else { BINS * 8 })?)?;
        let stats = area(STATS * STATS_SLOTS)?;
        let runs = area(geo.homes.div_ceil(RUN * 64) * 8)?;
        let ghosts = area(geo.ghost_words() * geo.shards * 8)?;
        // What gets its blocks on disk page by page.
        let mut area = |bytes: u64| -> Option<u64> {
            let start = at.checked_next_multiple_of(if geo.checksums { PAGE } else { 64 })?;
            at = start.checked_add(bytes.checked_next_multiple_of(64)?)?;
            Some(start)
        };
        let hits = area(buckets.checked_mul(SLOTS)?.checked_add(1)?.checked_mul(4)?)?;
        let index = area(buckets.checked_mul(BUCKET)?)?;
        let stamps = area(if geo.stamps { buckets.checked_mul(BUCKET)? } else { 0 })?;
        let span_table = at.checked_next_multiple_of(SPAN)?;
        let data =
            span_table.checked_add(geo.spans.checked_mul(SPAN_META)?)?.checked_next_multiple_of(SPAN)?;
        let end = data.checked_add(geo.spans.checked_mul(SPAN)?)?;
        // Offsets are kept divided by 8 in 48 bits.
        (end < 1 << 50).then_some(Self {
            geo,
            shards,
            moves,
            rests,
            bins,
            stats,
            runs,
            ghosts,
            hits,
            index,
            stamps,
            span_table,
            data,
            end,
        })
    }

    /// The `n`-th word of a shard's ghost list. The lines of all shards take turns, so that the pages
    /// in use are full, however few each shard has.
    #[inline]
    pub(crate) fn ghost(&self, shard: u64, n: u64) -> u64 {
        self.ghosts + ((n / 8) * self.geo.shards + shard) * 64 + n % 8 * 8
    }

    /// A bin of a shard. In memory the first ones of a shard lie together. Behind those of all shards the
    /// lines of the others take turns, so that the pages in use are those of the lengths in use.
    #[inline(always)]
    pub(crate) fn bin(&self, shard: u64, n: u64) -> u64 {
        if self.geo.checksums {
            self.bins + shard * SHARD_STORE_BINS + n * 8
        } else if n < SHORT_BINS {
            self.bins + (shard * SHORT_BINS + n) * 8
        } else {
            let line = (n - SHORT_BINS) / 8 * self.geo.shards + shard;
            self.bins + self.geo.shards * SHORT_BINS * 8 + line * 64 + n % 8 * 8
        }
    }

    /// How many bins each shard has.
    #[inline(always)]
    pub(crate) fn bins_of_shard(&self) -> u64 {
        if self.geo.checksums { STORE_BINS } else { BINS }
    }

    /// Bytes of a slot's LRU stamp, by bucket number and slot.
    #[inline]
    pub(crate) fn stamp(&self, bucket: u64, slot: u64) -> u64 {
        self.stamps + bucket * BUCKET + 8 + slot * 8
    }

    /// A word of a shard, that `shard` names.
    #[inline]
    pub(crate) fn shard_word(&self, no: u64, at: u64) -> u64 {
        if at < SHARD { self.shards + no * SHARD + at } else { self.rests + no * SHARD_REST + at - SHARD }
    }

    /// A bucket's first byte. Home buckets come first, then the overflow buckets: the first ones of
    /// all shards, the second ones of all shards, and so on.
    #[inline]
    pub(crate) fn bucket(&self, number: u64) -> u64 {
        self.index + number * BUCKET
    }

    /// How far the span table is needed for a data area that ends at `data_end`: whole spans.
    pub(crate) fn table_end(&self, data_end: u64) -> u64 {
        let spans = data_end.saturating_sub(self.data).div_ceil(SPAN);
        (self.span_table + spans * SPAN_META).next_multiple_of(SPAN).min(self.data)
    }

    /// All buckets.
    pub(crate) fn buckets(&self) -> u64 {
        self.geo.homes + self.geo.shards * self.geo.overflow
    }

    /// Home buckets of each shard.
    pub(crate) fn homes_per_shard(&self) -> u64 {
        self.geo.homes / self.geo.shards
    }

    /// A digest of the constants above and of the sizes that the platform decides: two builds that differ here
    /// must not share a region.
    pub(crate) fn abi(mutex_size: usize) -> u64 {
        let parts = [
            SPAN,
            BUCKET,
            SLOTS,
            SHARD,
            SHARD_REST,
            STORE_BINS,
            STATS,
            STATS_SLOTS,
            SPAN_META,
            PAGE,
            AREAS,
            mutex_size as u64,
            size_of::<usize>() as u64,
        ];
        digest(&parts)
    }
}

fn digest(parts: &[u64]) -> u64 {
    parts.iter().fold(0xCBF2_9CE4_8422_2325, |h: u64, &p| (h ^ p).wrapping_mul(0x0000_0100_0000_01B3))
}
