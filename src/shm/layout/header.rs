//! Words of the header, by byte offset. Words written often have a line of their own.
#![forbid(unsafe_code)]

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
/// With `no_expire`: when placeholders of fillers may have ended, Unix time, milliseconds.
pub(crate) const LEASES_UNTIL: u64 = 896;
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
