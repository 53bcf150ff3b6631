//! Words of a shard, by byte offset. All but the lock change under it only (or in recovery). What
//! every write needs lies in the lock's own line, as far as the platform's lock leaves room:
//! another worker's last write took that line anyway.
#![forbid(unsafe_code)]

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
