//! What goes in and comes out of the engine.
#![forbid(unsafe_code)]

use crate::shm::Source;

/// When an item expires. Times are whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expires {
    /// Never.
    #[default]
    Never,
    /// In so many seconds from now; 0 = at once.
    In(u64),
    /// At this Unix time, seconds; a time that has passed = at once.
    At(u64),
}

/// Whether an existing key is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An existing key stays as it is.
    Add,
    /// An existing key is replaced.
    Update,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// Whether an existing key is replaced.
    pub mode: Mode,
    /// Expiry of the item.
    pub expires: Expires,
    /// Keeps the expiry and the LRU place of an item that exists (uWSGI's FIXEXPIRE).
    pub keep_ttl: bool,
    /// The item exists, but reads miss it (uWSGI's UNGETTABLE).
    pub ungettable: bool,
}

/// What storing a value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The key was new.
    Inserted,
    /// The key was replaced.
    Updated,
    /// The key exists and stays as it was ([`Mode::Add`]).
    Kept,
}

/// Arithmetic on 8-byte numbers: two's complement, wrapping; division by 0 gives 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Math {
    /// Adds the operand.
    Inc,
    /// Subtracts the operand.
    Dec,
    /// Multiplies by the operand.
    Mul,
    /// Divides by the operand, truncating.
    Div,
    /// Leaves the number (creates it when missing).
    Keep,
}

impl Math {
    /// `value` after the operation.
    #[must_use]
    pub fn apply(self, value: i64, operand: i64) -> i64 {
        match self {
            Self::Inc => value.wrapping_add(operand),
            Self::Dec => value.wrapping_sub(operand),
            Self::Mul => value.wrapping_mul(operand),
            Self::Div if operand == 0 => 0,
            Self::Div => value.wrapping_div(operand),
            Self::Keep => value,
        }
    }
}

/// Stable number of an item, `1..=capacity`, for as long as its key stays stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub std::num::NonZeroU32);

/// What a read tells beside the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Length of the value, bytes.
    pub len: u64,
    /// Unix time of expiry, seconds; 0 = never.
    pub expires: u64,
    /// How often [`Engine::get_counted`](super::Engine::get_counted) had hit the item before; 0 from other reads.
    pub hits: u64,
    /// The item's number.
    pub id: ItemId,
}

/// Whether a read counts as a use for LRU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It does.
    Yes,
    /// It does not (uWSGI's `exists`, `num2`, `get4`).
    No,
    /// It does not, is neither a hit nor a miss, and sees ungettable items too: copies of a whole cache, word to
    /// other nodes.
    Unseen,
}

/// Where a read puts the value. The engine may call it again when a writer came in between.
pub trait Sink {
    /// Takes a copy of the value; `false` = cannot (too long, no memory), which ends the read with
    /// [`Error::BufferTooSmall`](crate::Error::BufferTooSmall).
    fn take(&mut self, src: &Source<'_>) -> bool;
}

/// A vector takes every value and holds nothing else afterwards. A lack of memory ends the read, not the process.
impl Sink for Vec<u8> {
    #[inline(always)]
    fn take(&mut self, src: &Source<'_>) -> bool {
        self.clear();
        if self.try_reserve_exact(src.len()).is_err() {
            return false;
        }
        src.copy_to_vec(self);
        true
    }
}

/// An item as the key walk hands it out: a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The item's number, good for [`Engine::delete_id`](super::Engine::delete_id).
    pub id: ItemId,
    /// The key.
    pub key: Vec<u8>,
    /// Length of the value, bytes.
    pub value_len: u64,
    /// Unix time of expiry, seconds; 0 = never.
    pub expires: u64,
    /// Whether reads miss the item.
    pub ungettable: bool,
}

/// An item of a key walk, as [`Engine::walk_ref`](super::Engine::walk_ref) lends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRef<'c> {
    /// The key.
    pub key: &'c [u8],
    /// All but the key.
    pub about: About,
}

/// What the walk tells of an item beside its key; see [`Item`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The item's number.
    pub id: ItemId,
    /// Length of the value, bytes.
    pub value_len: u64,
    /// Unix time of expiry, seconds; 0 = never.
    pub expires: u64,
    /// Whether reads miss the item.
    pub ungettable: bool,
}

impl ItemRef<'_> {
    pub(super) fn to_item(self) -> Item {
        let About { id, value_len, expires, ungettable } = self.about;
        Item { id, key: self.key.to_vec(), value_len, expires, ungettable }
    }
}

/// Position of a key walk. Start with the default.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// The chain that is read next.
    pub(super) bucket: u64,
    /// What is left of the last ones.
    pub(super) chains: super::walk::Chains,
}

/// One moment's figures of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Items stored now (expired ones that nobody has swept included).
    pub items: u64,
    /// Items that fit.
    pub capacity: u64,
    /// Blocks in use, where blocks are counted.
    pub blocks_used: u64,
    /// Bytes of spans in use: what entries occupy, rounded up to spans.
    pub bytes: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Values stored, new keys and replaced ones.
    pub stored: u64,
    /// Items deleted by a caller.
    pub deleted: u64,
    /// Items evicted to make room.
    pub evicted: u64,
    /// Expired items whose memory was reclaimed.
    pub expired: u64,
    /// How often a store found the cache full.
    pub full: u64,
    /// Stores refused: key or value empty or over its limit, or not a number.
    pub rejected_limit: u64,
    /// Stores refused: no item, block or space left.
    pub rejected_full: u64,
    /// Stores refused: not enough blocks left though items were free (part of `rejected_full`).
    pub rejected_blocks: u64,
    /// Stores refused: no space in the region though items were free (part of `rejected_full`).
    pub no_space: u64,
    /// How often a writer found a lock taken by another one.
    pub lock_waits: u64,
    /// Operations given up after `lock_timeout`.
    pub timeouts: u64,
    /// Locks found with a dead owner.
    pub owner_dead: u64,
    /// Operations given up because the kernel did not pass on a dead owner's lock.
    pub lock_lost: u64,
    /// Shards rebuilt.
    pub repaired: u64,
    /// Items dropped by a rebuild because they were damaged.
    pub dropped_corrupt: u64,
    /// Clears.
    pub cleared: u64,
    /// Unix time of the last change, seconds; 0 = none or not kept.
    pub last_modified: u64,
    /// Whether the store was not closed cleanly the last time.
    pub last_unclean: bool,
    /// Shards: independent writers' locks.
    pub shards: u64,
    /// Buckets of the index.
    pub buckets: u64,
    /// Bytes of address space reserved.
    pub reserved: u64,
}

/// Outcome of [`Engine::begin_fill`](super::Engine::begin_fill).
#[derive(Debug)]
pub enum Fill {
    /// The key is there, the sink has its value.
    Hit(Meta),
    /// The caller is the one to fill the key, and must end with
    /// [`Engine::end_fill`](super::Engine::end_fill) or [`Engine::abandon_fill`](super::Engine::abandon_fill).
    Filler(FillToken),
    /// Waited for another filler until the deadline; the caller may compute without storing.
    TimedOut,
}

/// The right, and duty, to fill one key.
#[derive(Debug)]
pub struct FillToken {
    pub(super) lease: u64,
}
