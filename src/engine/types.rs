//! Arguments and results of the engine.
#![forbid(unsafe_code)]

use crate::{
    os::{clock, process},
    shm::SharedBytes,
};

/// When an item expires. A [`Duration`](std::time::Duration) becomes [`Expires::InMillis`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Expires {
    /// Never.
    #[default]
    Never,
    /// In this many seconds from the current second (`time()`), as in uWSGI; 0 = at once.
    In(u64),
    /// At this Unix time, seconds; a time that has passed = at once.
    At(u64),
    /// In this many milliseconds from now; 0 = at once.
    InMillis(u64),
    /// At this Unix time, milliseconds; a time that has passed = at once.
    AtMillis(u64),
}

impl Expires {
    /// At a Unix time in milliseconds, 0 = never; [`Expires::At`] where it is a whole second.
    pub(crate) fn at_millis(millis: u64) -> Self {
        match millis {
            0 => Self::Never,
            whole if whole.is_multiple_of(1000) => Self::At(whole / 1000),
            millis => Self::AtMillis(millis),
        }
    }
}

/// Which keys a write stores under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only under a new key: an existing one stays as it is.
    Add,
    /// Under every key.
    Set,
    /// Only under an existing key.
    Replace,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// Which keys are stored under.
    pub mode: Mode,
    /// Expiry of the item.
    pub expires: Expires,
    /// Keeps the expiry and the LRU place of an item that exists (uWSGI's FIXEXPIRE).
    pub keep_ttl: bool,
    /// The item exists, but reads miss it (uWSGI's UNGETTABLE).
    pub ungettable: bool,
}

impl SetOptions {
    /// Stores only under a new key.
    #[must_use]
    pub const fn add(expires: Expires) -> Self {
        Self::new(Mode::Add, expires)
    }

    /// Stores under every key.
    #[must_use]
    pub const fn set(expires: Expires) -> Self {
        Self::new(Mode::Set, expires)
    }

    /// Stores only under an existing key.
    #[must_use]
    pub const fn replace(expires: Expires) -> Self {
        Self::new(Mode::Replace, expires)
    }

    /// Keeps the expiry and the LRU place of an item that exists.
    #[must_use]
    pub const fn keep_ttl(self) -> Self {
        Self { keep_ttl: true, ..self }
    }

    /// Hides the item from reads.
    #[must_use]
    pub const fn ungettable(self) -> Self {
        Self { ungettable: true, ..self }
    }

    /// For an item that reads see, with an expiry of its own.
    #[must_use]
    pub const fn new(mode: Mode, expires: Expires) -> Self {
        Self { mode, expires, keep_ttl: false, ungettable: false }
    }
}

/// What storing a value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The key was new.
    Inserted,
    /// The key was replaced.
    Updated,
    /// Nothing was stored: [`Mode::Add`] found the key, or [`Mode::Replace`] did not.
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

/// Id of an item: its place in the cache's index, from 1 to
/// [`Engine::max_id`](super::Engine::max_id). It stays the same as long as the key stays stored,
/// also when its value changes; then another key may get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub std::num::NonZeroU32);

/// What a read tells beside the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Length of the value, bytes.
    pub len: u64,
    /// Unix time of expiry, milliseconds; 0 = never.
    pub expires_millis: u64,
    /// How often [`Engine::get_counted`](super::Engine::get_counted) had hit the item before; 0
    /// from other reads.
    pub hits: u64,
    /// The item's id.
    pub id: ItemId,
}

impl Meta {
    /// When the item expires.
    #[must_use]
    pub fn expires(&self) -> Expires {
        Expires::at_millis(self.expires_millis)
    }

    /// Unix time of expiry, seconds, rounded up; 0 = never.
    #[inline(always)]
    #[must_use]
    pub fn expires_secs(&self) -> u64 {
        self.expires_millis.div_ceil(1000)
    }

    /// Whether the item expires within so many milliseconds from now.
    pub(crate) fn ends_within(&self, millis: u64) -> bool {
        self.expires_millis != 0 && self.expires_millis <= clock::unix_millis().saturating_add(millis)
    }
}

/// The longest that a value is kept after its time to live, milliseconds: 100 years. A time to live
/// and this together end before the latest expiry of an entry, so the two can be told apart.
pub(crate) const MAX_STALE: u64 = 100 * 365 * 86_400_000;

/// Whether a read counts as a use for LRU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It does.
    Yes,
    /// It does not (uWSGI's `exists`, `num2`, `get4`).
    No,
    /// It does; a miss is not counted, because the caller goes on to look elsewhere.
    Copy,
    /// It does not, counts neither as a hit nor as a miss, and sees ungettable items too: for
    /// copies of a whole cache and for replication.
    Unseen,
}

/// Where a read puts the value. The engine may call it again when a writer came in between.
pub trait Sink {
    /// Takes a copy of the value; `false` = cannot (too long, no memory), which ends the read with
    /// [`Error::BufferTooSmall`](crate::Error::BufferTooSmall).
    fn take(&mut self, src: &SharedBytes<'_>) -> bool;
}

/// Takes no copy: for reads of what is known beside a value.
impl Sink for () {
    #[inline(always)]
    fn take(&mut self, _: &SharedBytes<'_>) -> bool {
        true
    }
}

/// A vector takes every value and holds nothing else afterwards. A lack of memory ends the read,
/// not the process.
impl Sink for Vec<u8> {
    #[inline(always)]
    fn take(&mut self, src: &SharedBytes<'_>) -> bool {
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
    /// The item's id, good for [`Engine::delete_id`](super::Engine::delete_id).
    pub id: ItemId,
    /// The key.
    pub key: Vec<u8>,
    /// Length of the value, bytes.
    pub value_len: u64,
    /// Unix time of expiry, milliseconds; 0 = never.
    pub expires_millis: u64,
    /// Whether reads miss the item.
    pub ungettable: bool,
}

/// An item of a key walk, as [`Engine::walk_ref`](super::Engine::walk_ref) lends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRef<'c> {
    /// The key.
    pub key: &'c [u8],
    /// All but the key.
    pub meta: ItemMeta,
}

/// What the walk tells of an item beside its key; see [`Item`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemMeta {
    /// The item's id.
    pub id: ItemId,
    /// Length of the value, bytes.
    pub value_len: u64,
    /// Unix time of expiry, milliseconds; 0 = never.
    pub expires_millis: u64,
    /// Whether reads miss the item.
    pub ungettable: bool,
}

impl ItemMeta {
    /// Unix time of expiry, seconds, rounded up; 0 = never.
    #[inline(always)]
    #[must_use]
    pub fn expires_secs(&self) -> u64 {
        self.expires_millis.div_ceil(1000)
    }
}

impl ItemRef<'_> {
    pub(crate) fn to_item(self) -> Item {
        let ItemMeta { id, value_len, expires_millis, ungettable } = self.meta;
        Item { id, key: self.key.to_vec(), value_len, expires_millis, ungettable }
    }
}

/// One moment's figures of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct Stats {
    /// Items stored now (including expired ones that were not swept yet).
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
    /// Pages served by the route action `ucache:` of the uWSGI plugin, all that follow likewise.
    pub page_hits: u64,
    /// Pages served while they were refreshed, or instead of an error.
    pub page_stale: u64,
    /// Pages served to requests that had waited for another's.
    pub page_coalesced: u64,
    /// Requests for pages that went to the application.
    pub page_misses: u64,
    /// Requests that the cache must not answer.
    pub page_bypassed: u64,
    /// Responses that were not stored.
    pub page_refused: u64,
    /// Old pages that were replaced by new ones, or confirmed by the application.
    pub page_refreshed: u64,
    /// Refreshes that were left to a mule or a spooler.
    pub page_queued: u64,
    /// Refreshes that no mule or spooler took: there was none, or its queue was full.
    pub page_unqueued: u64,
    /// Bytes of bodies served from the cache.
    pub page_bytes: u64,
    /// Time that the application took for pages at first, for each time they were served,
    /// microseconds.
    pub page_micros: u64,
    /// Entries moved to release sparse memory.
    pub moved: u64,
    /// Bytes of these.
    pub compacted_bytes: u64,
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

/// What was done with a region's copies of values that are at a server, and with the server, by all
/// processes of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct NearStats {
    /// Reads that a copy answered.
    pub hits: u64,
    /// Reads that asked the server because there was no copy.
    pub misses: u64,
    /// Reads that asked nobody because the key was known not to be there (`negative=1`).
    pub absent: u64,
    /// Reads that asked the server because the copies were not known to be new enough.
    pub bypassed: u64,
    /// Copies stored.
    pub fills: u64,
    /// Copies not stored, because the value changed meanwhile or had no place.
    pub fills_voided: u64,
    /// Messages of the server that removed a copy.
    pub invalidated: u64,
    /// Messages of the server about keys without a copy.
    pub invalidated_absent: u64,
    /// Times that all copies were removed: the server said so, or the wall clock was set back.
    pub flushes: u64,
    /// Reads that a copy answered because the server was down, though it was too old otherwise.
    pub stale_served: u64,
    /// How often the copies were begun anew: an owner started, or lost the server.
    pub terms: u64,
    /// Age of the time up to which all changes are known, milliseconds; `None` = reads ask the
    /// server.
    pub beat_age_ms: Option<u64>,
    /// The same, also if reads ask the server meanwhile; since boot if there was no such time yet.
    pub silence_ms: u64,
    /// The process that keeps the copies up to date, or did last; 0 = none did.
    pub owner_pid: u32,
    /// Whether the server refused to tell the owner of changes when it was asked last (it is too old,
    /// a proxy, or the user may not): reads ask it.
    pub untracked: bool,
    /// Round trips to the server that were tried.
    pub requests: u64,
    /// Calls that failed because the server could not be asked, or refused.
    pub errors: u64,
    /// Those of them that waited for the whole `backend_timeout`.
    pub timeouts: u64,
    /// Connections made.
    pub connects: u64,
    /// Those of them to a server with which the owner has none: that process uses no copies.
    pub elsewhere: u64,
    /// Whether the last call did not reach the server, or that of one primary of a cluster: others
    /// fail at once.
    pub is_down: bool,
}

/// Outcome of [`Engine::begin_fill`](super::Engine::begin_fill).
#[derive(Debug)]
pub enum Fill {
    /// The key is there, the sink has its value.
    Hit(Meta),
    /// The caller is the filler of the key, and must end with
    /// [`Engine::end_fill`](super::Engine::end_fill) or
    /// [`Engine::abandon_fill`](super::Engine::abandon_fill).
    Filler(FillToken),
    /// Waited for another filler until the deadline; the caller may compute without storing.
    TimedOut,
}

/// The lease to fill one key: the right, and the duty to end it. It belongs to the process that took
/// it: a child that is forked meanwhile has a copy, which it must not use.
#[derive(Debug)]
pub struct FillToken {
    pub(in crate::engine) lease: u64,
    /// Forks when the lease was taken.
    forks: u32,
}

impl FillToken {
    pub(in crate::engine) fn new(lease: u64) -> Self {
        Self { lease, forks: process::fork_count() }
    }

    /// Whether there is a lease that others wait for. Without one (the cache was full), the end of
    /// the fill is an ordinary add.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.lease != 0
    }

    /// Whether this process is a child that was forked since the lease was taken.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.forks != process::fork_count()
    }
}
