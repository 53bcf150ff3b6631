//! The memory orderings of words that several processes change without a common lock, named by the
//! purpose of each access. The engine and the loom models (`tests/protocol.rs`, `tests/words`) use
//! these names, so a changed ordering changes both.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

/// Entries, slots and sequence numbers: the seqlock of a chain (I1, I2).
pub mod seqlock {
    use super::*;

    /// Store of a slot: the entry was written before.
    pub const PUBLISH: Ordering = Release;
    /// Load of a slot: the entry is read after.
    pub const FOLLOW: Ordering = Acquire;
    /// The sequence number's store, after the slot's.
    pub const BUMP: Ordering = Release;
    /// The fence after the sequence number's store, before a block is written again.
    pub const RETIRE: Ordering = Release;
    /// A reader's first load of the sequence number.
    pub const BEGIN: Ordering = Acquire;
    /// The fence between a reader's copy and its second load of the sequence number.
    pub const RECHECK: Ordering = Acquire;
}

/// Numbers, which arithmetic changes without a lock: a value and its life, 16 bytes (I15).
pub mod number {
    use super::*;

    /// Load of a life, before the recheck of the sequence number that proves it the entry's.
    pub const LIFE: Ordering = Relaxed;
    /// The exchange of both words: who sees the value sees what was done before.
    pub const CHANGE: Ordering = AcqRel;
    /// The end of a life, before the slot's store that makes the entry unreachable (`PUBLISH`).
    pub const END: Ordering = Relaxed;
    /// The exchange that ends a life before the value is read: it sees all changes.
    pub const FREEZE: Ordering = AcqRel;
    /// Store of a new life, after the value's.
    pub const RESTART: Ordering = Release;
    /// A load or store of the value alone.
    pub const VALUE: Ordering = Relaxed;
}

/// The clear generation.
pub mod clear {
    use super::*;

    /// The exchange that advances it: a thread that sees that a clear is over sees the new
    /// generation.
    pub const ADVANCE: Ordering = AcqRel;
    /// Its load.
    pub const READ: Ordering = Acquire;
}

/// The beat: copies of values that are elsewhere are as new as it says.
pub mod beat {
    use super::*;

    /// A reader's load, before it looks for a copy.
    pub const READ: Ordering = Acquire;
    /// The exchange that raises it, after everything up to that time was applied, and the one that
    /// takes it away.
    pub const RAISE: Ordering = AcqRel;
    /// The store of the same time for readers that may use older copies.
    pub const RAISE_LAST: Ordering = Release;
}

/// The earliest expiry: a word of each shard, and one of the header for all.
pub mod earliest {
    use super::*;

    /// A shard's word, written under its lock and read without.
    pub const SHARD: Ordering = Relaxed;
    /// The fence of a writer between the shard's word and the header's, and of a sweeper between
    /// the header's and the shards'. Each has stored one word before and loads the other after: one
    /// of them sees the other.
    pub const BETWEEN: Ordering = SeqCst;
    /// Every access to the header's word that the fence above orders. All that change it are
    /// exchanges, so that there is one order of them.
    pub const ALL: Ordering = SeqCst;
}

/// Quota: items, or blocks, that shards have reserved and use.
pub mod quota {
    use super::*;

    /// An exchange of a shard's word.
    pub const CHANGE: Ordering = SeqCst;
    /// A load before an exchange, and after a failed one: only the value itself matters.
    pub const READ: Ordering = Relaxed;
    /// A load of another shard's word. With `CHANGE` and `HINT` in one order: a thread that clears
    /// the hint sees what was released, or the one that releases sees the hint cleared.
    pub const LOOK: Ordering = SeqCst;
    /// An access to the hint that a shard may have something to spare.
    pub const HINT: Ordering = SeqCst;
    /// The mark that a move to the shard begins: before the exchanges that it consists of.
    pub const BEGIN: Ordering = Relaxed;
    /// The mark that it ended, after them.
    pub const END: Ordering = Release;
    /// The marks as one who counts all words loads them, before the words.
    pub const BEFORE: Ordering = Acquire;
    /// The note that a rebuild has counted a shard again, after it has.
    pub const LOSE: Ordering = Release;
    /// The exchange that takes the note away, before the words are counted.
    pub const SETTLE: Ordering = AcqRel;
    /// The fence between the words and the second look at the marks.
    pub const AGAIN: Ordering = Acquire;
}

/// The words of spans: free, in use, or being released.
pub mod spans {
    use super::*;

    /// The exchange that takes a span, to use it or to release its pages.
    pub const TAKE: Ordering = AcqRel;
    /// A failed exchange, or a load before one.
    pub const LOOK: Ordering = Relaxed;
    /// The store or exchange that frees one, after its last use.
    pub const FREE: Ordering = Release;
    /// The number of free spans with pages, which is only a hint.
    pub const DIRTY: Ordering = Relaxed;
    /// The exchanges of the lowest span freed: after the store that frees one, and before the search
    /// that is to find it.
    pub const NOTE: Ordering = AcqRel;
}

/// Exclusive mode (uWSGI's `wlock`): a flag, and every shard's lock once.
pub mod exclusive {
    use super::*;

    /// Store of the flag, before the shards are locked.
    pub const ANNOUNCE: Ordering = SeqCst;
    /// A writer's load of the flag, after it has locked its shard.
    pub const CHECK: Ordering = SeqCst;
}

/// Waiters for another caller's fill: their registration, and the word that they sleep on.
pub mod fillers {
    use super::*;

    /// A waiter registers before it reads the word (the kernel does that as it puts it to sleep).
    pub const WAIT: Ordering = Relaxed;
    /// The word changes before the waiters are checked.
    pub const SIGNAL: Ordering = Release;
    /// The fence between the two words on both sides, so that one sees the other.
    pub const BETWEEN: Ordering = SeqCst;
    /// The check for waiters.
    pub const CHECK: Ordering = Relaxed;
}
