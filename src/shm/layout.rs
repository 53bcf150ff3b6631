//! Where everything lies in a region, computed from a handful of numbers that the header keeps.
//!
//! ```text
//! page 0      Header: identity, limits, hot words (each on a line of its own), locks
//!             Shards      576 bytes each: lock, counters, class lists
//!             Stats       256 slots of 256 bytes
//!             Spans       24 bytes a span
//!             Ids         free bits (3 levels), then a word an item: where its slot is
//!             Hits        a word an item, touched by counted reads only
//!             Index       heads, then overflow buckets, 64 bytes each
//!             Stamps      8 words a bucket (caches that evict only)
//!             Ghosts      a word for each item that a shard may hold (S3-FIFO only)
//! data        spans of 64 KiB, aligned to 64 KiB
//! ```
#![forbid(unsafe_code)]

/// Bytes of a span: the unit in which data memory is owned, grown and given back.
pub(crate) const SPAN: u64 = 64 << 10;
/// Bytes of a bucket: one cache line.
pub(crate) const BUCKET: u64 = 64;
/// Slots of a bucket (its first word is the version).
pub(crate) const SLOTS: u64 = 7;
/// Bytes of a shard's state.
pub(crate) const SHARD: u64 = 576;
/// Bytes of a statistics slot.
pub(crate) const STATS: u64 = 256;
/// Number of statistics slots; slot 0 is shared by those who found no other.
pub(crate) const STATS_SLOTS: u64 = 256;
/// Bytes of a span's words.
pub(crate) const SPAN_META: u64 = 24;
const PAGE: u64 = 4096;

/// Words of the header, by byte offset. Words written often have a line of their own.
pub(crate) mod header {
    pub(crate) const MAGIC: u64 = 0;
    pub(crate) const VERSION: u64 = 8;
    pub(crate) const ABI: u64 = 16;
    pub(crate) const STATE: u64 = 24;
    pub(crate) const CAPACITY: u64 = 32;
    pub(crate) const SHARDS: u64 = 40;
    pub(crate) const HEADS: u64 = 48;
    pub(crate) const OVERFLOW: u64 = 56;
    pub(crate) const SPANS: u64 = 64;
    pub(crate) const FLAGS: u64 = 72;
    pub(crate) const SECRET: u64 = 80; // 4 words
    pub(crate) const DEV: u64 = 112;
    pub(crate) const INO: u64 = 120;
    pub(crate) const BOOT: u64 = 128;
    pub(crate) const UNCLEAN: u64 = 136;
    /// Checksum of what never changes: geometry and secret.
    pub(crate) const SUM: u64 = 144;
    /// Checksum of the limits and the name; 0 = they are being written.
    pub(crate) const LIMITS_SUM: u64 = 152;
    /// The thread that opened the store when nobody else had it.
    pub(crate) const OPENER: u64 = 160;
    /// The PID namespace of that thread, or of who made the cache, 0 = unknown.
    pub(crate) const NAMESPACE: u64 = 168;
    /// The time namespace of the same.
    pub(crate) const TIME_NAMESPACE: u64 = 176;
    // Limits: may change when the opener is alone.
    pub(crate) const MAX_KEY: u64 = 192;
    pub(crate) const MAX_VALUE: u64 = 200;
    pub(crate) const BLOCK_SIZE: u64 = 208;
    pub(crate) const BLOCK_COUNT: u64 = 216;
    pub(crate) const HABITS: u64 = 224;
    pub(crate) const SWEEP_ON_FULL: u64 = 232;
    pub(crate) const MATH_INITIAL: u64 = 240;
    pub(crate) const LOCK_TIMEOUT: u64 = 248;
    // Read by every operation, written rarely.
    pub(crate) const CLEAR_GEN: u64 = 256;
    pub(crate) const FOREIGN: u64 = 264;
    pub(crate) const LOCK_GEN: u64 = 272;
    pub(crate) const COMMITTED: u64 = 280;
    pub(crate) const HITS_USED: u64 = 288;
    // Written often.
    pub(crate) const LRU_CLOCK: u64 = 320;
    pub(crate) const LAST_MODIFIED: u64 = 384;
    pub(crate) const SPAN_FRONTIER: u64 = 448;
    pub(crate) const SPAN_CURSOR: u64 = 456;
    pub(crate) const SPAN_DIRTY: u64 = 464;
    /// Number + 1 of the span at which the large block freed last started, or 0: a hint for the next one.
    pub(crate) const LAST_RUN: u64 = 472;
    /// Where the next search for free spans with pages begins: a hint.
    pub(crate) const TRIM_CURSOR: u64 = 480;
    pub(crate) const LEASE_SEQ: u64 = 512;
    /// The latest value of the word above that somebody slept on, plus 1.
    pub(crate) const LEASE_WAITED: u64 = 516;
    /// The last number that was given out, of a lease or a sweep.
    pub(crate) const TICKETS: u64 = 520;
    // Read by who finds the cache full.
    pub(crate) const NEXT_FULL_SWEEP: u64 = 576;
    /// No item of any shard expires before this Unix time; below 2 = look at the shards. `u64::MAX` = none expires. Else with
    /// the top bit: it is being computed, by the sweeper with this ticket.
    pub(crate) const EARLIEST: u64 = 584;
    /// A clear generation that all shards were reaped for.
    pub(crate) const REAPED: u64 = 592;
    /// How often the store could not grow (low half), and the system's error number of the last time.
    pub(crate) const GROW_FAULTS: u64 = 600;
    pub(crate) const NAME_LEN: u64 = 1024;
    pub(crate) const NAME: u64 = 1032; // 256 bytes
    // Locks, a line each.
    pub(crate) const LOCK_FOREIGN: u64 = 2048;
    pub(crate) const LOCK_POOL: u64 = 2112;
    pub(crate) const LOCK_CAPACITY: u64 = 2176;
}

/// Words of a shard, by byte offset. All but the lock change under it only (or in recovery). What every write needs lies in
/// the lock's own line, as far as the platform's lock leaves room: another worker's last write took that line anyway.
pub(crate) mod shard {
    use crate::os::mutex::MUTEX_SIZE;

    pub(crate) const LOCK: u64 = 0;
    /// A free block that is on no list, for the next entry of its class: class + 1 (high byte) and offset, or 0.
    pub(crate) const SPARE: u64 = MUTEX_SIZE as u64;
    /// Low half: the number of the clear that the shard was last reaped for. High half: not 0 = must be rebuilt before use.
    pub(crate) const STATE: u64 = SPARE + 8;
    /// Items stored: a half word.
    pub(crate) const USED: u64 = STATE + 8;
    /// An item number that is probably free or is kept, or 0: a half word.
    pub(crate) const ID_HINT: u64 = USED + 4;
    /// No item expires before this Unix time; `u64::MAX` = none expires.
    pub(crate) const EARLIEST: u64 = ID_HINT + 4;
    /// The last stamp of a new item (sampled LRU).
    pub(crate) const STAMP: u64 = EARLIEST + 8;
    /// Block credit: granted (high half) and used (low half). Changed by CAS: others may take unused credit.
    pub(crate) const CREDIT: u64 = EARLIEST + 16;
    /// Free overflow buckets: number + 1 of the first.
    pub(crate) const OVERFLOW_FREE: u64 = EARLIEST + 24;
    /// Overflow buckets handed out so far.
    pub(crate) const OVERFLOW_BUMP: u64 = EARLIEST + 32;
    /// Random bits that choose the buckets where the next victim is looked for.
    pub(crate) const DRAWN: u64 = EARLIEST + 40;
    /// The next two victims (sampled LRU): low half of the stamp, then place within the shard.
    pub(crate) const NEXT: u64 = EARLIEST + 48;
    // S3-FIFO: items in the small queue, places given in both queues, items that the ghost list has seen.
    pub(crate) const SMALL: u64 = EARLIEST + 64;
    pub(crate) const QUEUED: u64 = EARLIEST + 72;
    pub(crate) const GHOSTED: u64 = EARLIEST + 80;
    /// Of each size class, span + 1 of the first with free blocks: half words.
    pub(crate) const CLASSES: u64 = EARLIEST + 88;
}

/// Numbers that decide the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Items that fit.
    pub(crate) capacity: u64,
    /// Shards, a power of two.
    pub(crate) shards: u64,
    /// Head buckets, a multiple of `shards`.
    pub(crate) heads: u64,
    /// Overflow buckets of each shard.
    pub(crate) overflow: u64,
    /// Spans of the data area.
    pub(crate) spans: u64,
    /// Whether slots have stamps, for eviction.
    pub(crate) stamps: bool,
    /// Whether shards remember what was evicted (S3-FIFO).
    pub(crate) ghosts: bool,
    /// Whether entries carry a checksum (store files).
    pub(crate) checksums: bool,
}

impl Geometry {
    /// Words of each shard's ghost list: as many as it has items, rounded up to a power of two.
    pub(crate) fn ghost_words(&self) -> u64 {
        if self.ghosts { (self.capacity / self.shards).max(8).next_power_of_two() } else { 0 }
    }

    /// The flags as a header word.
    pub(crate) fn flags(&self) -> u64 {
        u64::from(self.stamps) | u64::from(self.checksums) << 1 | u64::from(self.ghosts) << 2
    }
}

/// Byte offsets of the areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) geo: Geometry,
    pub(crate) shards: u64,
    pub(crate) stats: u64,
    pub(crate) span_table: u64,
    /// Free-id bits, level 0 (a bit an id), 1 (a bit a word of level 0), 2.
    pub(crate) id_bits: [u64; 3],
    /// Words of each level.
    pub(crate) id_words: [u64; 3],
    pub(crate) ids: u64,
    pub(crate) hits: u64,
    pub(crate) index: u64,
    pub(crate) stamps: u64,
    pub(crate) ghosts: u64,
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
        let id_words0 = geo.capacity / 64 + 1;
        let id_words = [id_words0, id_words0.div_ceil(64), id_words0.div_ceil(4096)];
        let buckets = geo.shards.checked_mul(geo.overflow)?.checked_add(geo.heads)?;
        let shards = area(geo.shards.checked_mul(SHARD)?)?;
        let stats = area(STATS * STATS_SLOTS)?;
        let span_table = area(geo.spans.checked_mul(SPAN_META)?)?;
        let id_bits = [area(id_words[0] * 8)?, area(id_words[1] * 8)?, area(id_words[2] * 8)?];
        let ids = area((geo.capacity + 1).checked_mul(4)?)?;
        let hits = area((geo.capacity + 1).checked_mul(4)?)?;
        let index = area(buckets.checked_mul(BUCKET)?)?;
        let stamps = area(if geo.stamps { buckets.checked_mul(BUCKET)? } else { 0 })?;
        let ghosts = area(geo.ghost_words() * geo.shards * 8)?;
        let data = at.checked_next_multiple_of(SPAN)?;
        let end = data.checked_add(geo.spans.checked_mul(SPAN)?)?;
        // Offsets are kept divided by 8 in 48 bits.
        (end < 1 << 50).then_some(Self {
            geo,
            shards,
            stats,
            span_table,
            id_bits,
            id_words,
            ids,
            hits,
            index,
            stamps,
            ghosts,
            data,
            end,
        })
    }

    /// Bytes of a slot's LRU stamp, by bucket number and slot.
    #[inline]
    pub(crate) fn stamp(&self, bucket: u64, slot: u64) -> u64 {
        self.stamps + bucket * BUCKET + 8 + slot * 8
    }

    /// A bucket's first byte. Heads come first, then the overflow buckets, shard by shard.
    #[inline]
    pub(crate) fn bucket(&self, number: u64) -> u64 {
        self.index + number * BUCKET
    }

    /// All buckets.
    pub(crate) fn buckets(&self) -> u64 {
        self.geo.heads + self.geo.shards * self.geo.overflow
    }

    /// Head buckets of each shard.
    pub(crate) fn heads_per_shard(&self) -> u64 {
        self.geo.heads / self.geo.shards
    }

    /// A digest of the constants above and of the sizes that the platform decides: two builds that differ here
    /// must not share a region.
    pub(crate) fn abi(mutex_size: usize) -> u64 {
        let parts = [
            SPAN,
            BUCKET,
            SLOTS,
            SHARD,
            STATS,
            STATS_SLOTS,
            SPAN_META,
            PAGE,
            mutex_size as u64,
            size_of::<usize>() as u64,
        ];
        parts.iter().fold(0xCBF2_9CE4_8422_2325, |h: u64, &p| (h ^ p).wrapping_mul(0x0000_0100_0000_01B3))
    }
}
