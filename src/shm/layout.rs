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

/// Words of the header, by byte offset. Words written often have a line of their own.
pub(crate) mod header {
    pub(crate) const MAGIC: u64 = 0;
    pub(crate) const VERSION: u64 = 8;
    pub(crate) const ABI: u64 = 16;
    pub(crate) const STATE: u64 = 24;
    pub(crate) const CAPACITY: u64 = 32;
    pub(crate) const SHARDS: u64 = 40;
    pub(crate) const HOMES: u64 = 48;
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
    /// The thread that opened the store when no other process had it open.
    pub(crate) const OWNER: u64 = 160;
    /// The PID namespace of that thread, or of the creator of an anonymous cache; 0 = unknown.
    pub(crate) const NAMESPACE: u64 = 168;
    /// The time namespace of the same.
    pub(crate) const TIME_NAMESPACE: u64 = 176;
    // Limits: may change when the opener is alone.
    pub(crate) const MAX_KEY: u64 = 192;
    pub(crate) const MAX_VALUE: u64 = 200;
    pub(crate) const BLOCK_SIZE: u64 = 208;
    pub(crate) const BLOCK_COUNT: u64 = 216;
    pub(crate) const POLICY_FLAGS: u64 = 224;
    pub(crate) const SWEEP_ON_FULL: u64 = 232;
    pub(crate) const MATH_INITIAL: u64 = 240;
    pub(crate) const LOCK_TIMEOUT: u64 = 248;
    // Read by every operation, written rarely.
    pub(crate) const CLEAR_GEN: u64 = 256;
    pub(crate) const EXCLUSIVE_OWNER: u64 = 264;
    pub(crate) const LOCK_GEN: u64 = 272;
    pub(crate) const COMMITTED: u64 = 280;
    pub(crate) const HITS_USED: u64 = 288;
    /// Overflow buckets of each shard that may be used: of a store, those with blocks on disk.
    pub(crate) const OVERFLOW_READY: u64 = 296;
    /// Whether numbers have lost their lives because the cache is held exclusively at times: 0 = no,
    /// 1 = it begins, 2 = all have.
    pub(crate) const LIFELESS: u64 = 304;
    // Written often.
    pub(crate) const LRU_CLOCK: u64 = 320;
    pub(crate) const LAST_MODIFIED: u64 = 384;
    pub(crate) const SPAN_FRONTIER: u64 = 448;
    /// Where the search for free spans goes on.
    pub(crate) const SPAN_CURSOR: u64 = 456;
    pub(crate) const SPAN_DIRTY: u64 = 464;
    /// Number + 1 of the span at which the large block freed last started, or 0: a hint for the
    /// next one.
    pub(crate) const LAST_RUN: u64 = 472;
    /// Where the next search for free spans with pages begins: a hint.
    pub(crate) const RELEASE_CURSOR: u64 = 480;
    /// Spans of a store without blocks on disk. Changed under the pool lock.
    pub(crate) const SPAN_HOLES: u64 = 488;
    /// Not 0 = extents were emptied that wait for a sync of the store.
    pub(crate) const EMPTIED: u64 = 496;
    /// No span below was freed since the search for free spans began its round: a hint. Not all
    /// ones = there will be another round.
    pub(crate) const SPAN_FREED: u64 = 504;
    pub(crate) const LEASE_SEQ: u64 = 512;
    /// The latest value of the word above that a waiter slept on, plus 1.
    pub(crate) const LEASE_WAITED: u64 = 516;
    /// The last number given to a lease or a sweep.
    pub(crate) const TICKETS: u64 = 520;
    // Read by writers that find the cache full.
    pub(crate) const NEXT_FULL_SWEEP: u64 = 576;
    /// No item of any shard expires before this Unix time, milliseconds; below 2 = look at the
    /// shards. `u64::MAX` = none expires. Else with the top bit: it is being computed, by the sweeper with this
    /// ticket.
    pub(crate) const EARLIEST: u64 = 584;
    /// A clear generation that all shards were reaped for.
    pub(crate) const REAPED: u64 = 592;
    /// How often the store could not grow (low half), and the system's error number of the last
    /// time.
    pub(crate) const GROW_FAULTS: u64 = 600;
    /// Whether a shard may have reserved items that it does not use (0 = none has), and blocks.
    pub(crate) const SPARE_ITEMS: u64 = 608;
    pub(crate) const SPARE_BLOCKS: u64 = 616;
    /// Statistics slots that were ever used: those before this number.
    pub(crate) const STATS_USED: u64 = 624;
    /// Not 0 = a shard was rebuilt since the quotas were corrected last.
    pub(crate) const LOST: u64 = 632;
    // Copies of values that are elsewhere: read by every read, written some times a second.
    /// Term, and the time up to which every change elsewhere is known here: `ops::beat`.
    pub(crate) const BEAT: u64 = 640;
    /// The time of the last beat, also while there is none.
    pub(crate) const LAST_BEAT: u64 = 648;
    /// Whether the items are such copies.
    pub(crate) const COPIES: u64 = 656;
    /// The number of the server whose changes are applied.
    pub(crate) const SOURCE: u64 = 664;
    /// The number under which values are kept elsewhere, as this machine knows it; 0 = unknown.
    pub(crate) const NUMBER: u64 = 672;
    /// When the owner was last at work.
    pub(crate) const OWNER_SEEN: u64 = 704;
    /// The process of the owner.
    pub(crate) const OWNER_PROCESS: u64 = 712;
    /// The owner's connection, in its own words.
    pub(crate) const OWNER_LINK: u64 = 720; // 2 words
    /// Terms so far.
    pub(crate) const TERMS: u64 = 736;
    /// Not 0 = the place of the values refuses to tell of changes.
    pub(crate) const UNTRACKED: u64 = 744;
    /// When the place of the values may be asked again; 0 = now.
    pub(crate) const NEXT_TRY: u64 = 768;
    // The same of copies whose values are at several places.
    /// A digest of which place has which keys, and of the term.
    pub(crate) const PLACES: u64 = 832;
    /// Not 0 = a process has seen that this may have changed.
    pub(crate) const DOUBT: u64 = 840;
    pub(crate) const NAME_LEN: u64 = 1024;
    pub(crate) const NAME: u64 = 1032; // 256 bytes
    /// When a place may be asked again: pairs of its number and the time.
    pub(crate) const TRIES: u64 = 1344;
    pub(crate) const TRIES_COUNT: u64 = 40;
    // Locks, a line each.
    pub(crate) const LOCK_EXCLUSIVE: u64 = 2048;
    pub(crate) const LOCK_POOL: u64 = 2112;
    pub(crate) const LOCK_CAPACITY: u64 = 2176;
    /// Held by the owner of the copies for as long as it is one.
    pub(crate) const LOCK_OWNER: u64 = 2240;
    /// Places that the owner hears, five words each: number, number in this term, term and beat, and
    /// the owner's connection (2 words).
    pub(crate) const NODES: u64 = 2304;
    pub(crate) const NODE: u64 = 40;
    pub(crate) const NODES_COUNT: u64 = 44;
}

/// Words of a shard, by byte offset. All but the lock change under it only (or in recovery). What
/// every write needs lies in the lock's own line, as far as the platform's lock leaves room:
/// another worker's last write took that line anyway.
pub(crate) mod shard {
    use crate::os::mutex::MUTEX_SIZE;

    pub(crate) const LOCK: u64 = 0;
    /// A free block that is in no bin, for the next entry of its size: length (high 16 bits) and offset, both / 8, or 0.
    pub(crate) const CACHED_BLOCK: u64 = MUTEX_SIZE as u64;
    /// Low half: the number of the clear that the shard was last reaped for. High half: not 0 =
    /// must be rebuilt before use.
    pub(crate) const STATE: u64 = CACHED_BLOCK + 8;
    /// Item quota: reserved (high half) and used (low half), which is the number of items stored.
    /// Changed by CAS: others may take what is reserved and not used.
    pub(crate) const ITEMS: u64 = STATE + 8;
    /// No item expires before this Unix time, milliseconds; `u64::MAX` = none expires.
    pub(crate) const EARLIEST: u64 = ITEMS + 8;
    /// The last stamp of a new item (sampled LRU).
    pub(crate) const STAMP: u64 = EARLIEST + 8;
    /// Block quota, as `ITEMS`.
    pub(crate) const BLOCKS: u64 = EARLIEST + 16;
    /// Free overflow buckets: number + 1 of the first.
    pub(crate) const OVERFLOW_FREE: u64 = EARLIEST + 24;
    /// Overflow buckets handed out so far.
    pub(crate) const OVERFLOW_BUMP: u64 = EARLIEST + 32;
    /// Random bits that choose the buckets where the next victim is looked for.
    pub(crate) const RNG_STATE: u64 = EARLIEST + 40;
    /// The next two victims (sampled LRU): low half of the stamp, then place within the shard.
    pub(crate) const NEXT: u64 = EARLIEST + 48;
    // S3-FIFO: items in the small queue, places given in both queues, items that the ghost list has
    // seen.
    pub(crate) const SMALL: u64 = EARLIEST + 64;
    pub(crate) const QUEUED: u64 = EARLIEST + 72;
    pub(crate) const GHOSTED: u64 = EARLIEST + 80;
    /// S3-FIFO: words of its ghost list that are in use, a power of two; 0 = none.
    pub(crate) const GHOST_WORDS: u64 = NEXT;
    /// SIEVE: the sweep that the hand is in. Its positions are counted in `QUEUED`.
    pub(crate) const HAND: u64 = GHOSTED;
    /// The end of the newest extent that was never handed out, where it begins and ends.
    pub(crate) const BUMP: u64 = EARLIEST + 88;
    pub(crate) const BUMP_END: u64 = EARLIEST + 96;
    /// The shard's extents: span + 1 of the first one's first.
    pub(crate) const EXTENTS: u64 = EARLIEST + 104;
    /// Bytes of all of them.
    pub(crate) const HEAP: u64 = EARLIEST + 112;
    /// Bytes that were freed since free blocks were joined the last time.
    pub(crate) const FREED: u64 = EARLIEST + 120;
    /// Bytes that were freed before that, since sparse extents were looked for the last time.
    pub(crate) const SPARSE: u64 = EARLIEST + 128;
    /// Whether extents are being emptied, or wait for a sync.
    pub(crate) const LEAVING: u64 = EARLIEST + 136;
    /// Lives that numbers of the shard have had.
    pub(crate) const LIVES: u64 = EARLIEST + 144;
    /// In memory: which bins of size classes may have blocks, a bit for each, in two words.
    pub(crate) const CLASS_MAP: u64 = EARLIEST + 152;
    pub(crate) const END: u64 = EARLIEST + 168;
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
