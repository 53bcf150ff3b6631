//! The memory orderings of the words that several processes change without a common lock, by what each access is for. The
//! engine uses these names, and so do the models that run under loom (`tests/protocol.rs`, `tests/words`): whoever changes
//! an ordering here changes both.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

/// Entries, slots and versions: the seqlock of a chain.
pub mod chain {
    use super::*;

    /// A slot's store: the entry was written before.
    pub const PUBLISH: Ordering = Release;
    /// A slot's load: the entry is read after.
    pub const FOLLOW: Ordering = Acquire;
    /// The version's store, after the slot's.
    pub const BUMP: Ordering = Release;
    /// The fence after the version's store, and before a block is written again.
    pub const RETIRE: Ordering = Release;
    /// A reader's first load of the version.
    pub const BEGIN: Ordering = Acquire;
    /// The fence between a reader's copy and its second load of the version.
    pub const RECHECK: Ordering = Acquire;
}

/// The clear generation.
pub mod clear {
    use super::*;

    /// The exchange that advances it: whoever sees that a clear is over sees the new generation.
    pub const ADVANCE: Ordering = AcqRel;
    /// Its load.
    pub const READ: Ordering = Acquire;
}

/// The earliest expiry: a word of each shard, and one of the header for all.
pub mod earliest {
    use super::*;

    /// A shard's word, written under its lock and read without.
    pub const SHARD: Ordering = Relaxed;
    /// The fence of a writer between the shard's word and the header's, and of a sweeper between the header's and the shards'.
    /// Each has stored one word before and loads the other after: one of them sees the other.
    pub const BETWEEN: Ordering = SeqCst;
    /// Every access to the header's word that the fence above orders. All that change it are exchanges, so that there is one
    /// order of them.
    pub const ALL: Ordering = SeqCst;
}

/// Block quota: what shards were granted and use.
pub mod quota {
    use super::*;

    /// An exchange of a shard's word.
    pub const CHANGE: Ordering = AcqRel;
    /// A load of one, also after a failed exchange: the value decides, no other word does.
    pub const READ: Ordering = Relaxed;
}

/// Item numbers: a half word each, and bits that lead to free ones.
pub mod ids {
    use super::*;

    /// The exchange that claims a number.
    pub const CLAIM: Ordering = SeqCst;
    /// The store that frees one. Sets of its bits follow.
    pub const FREE: Ordering = Release;
    /// A bit is set or cleared. Whoever clears one looks at the number again, whoever frees a number sets its bit after: of
    /// the two the later one sees the earlier.
    pub const BIT: Ordering = SeqCst;
    /// The second look of whoever cleared a bit.
    pub const LOOK: Ordering = SeqCst;
}

/// The words of spans: free, in use, or being given back.
pub mod spans {
    use super::*;

    /// The exchange that takes a span, to use it or to give its pages back.
    pub const TAKE: Ordering = AcqRel;
    /// A failed exchange, or a look before one.
    pub const LOOK: Ordering = Relaxed;
    /// The store or exchange that frees one: its last use was before.
    pub const FREE: Ordering = Release;
    /// How many free spans have pages: only a hint.
    pub const DIRTY: Ordering = Relaxed;
}

/// One thread alone (uWSGI's `wlock`): a flag, and every shard's lock once.
pub mod exclusive {
    use super::*;

    /// The flag's store, before the shards are locked.
    pub const ANNOUNCE: Ordering = SeqCst;
    /// A writer's load of the flag, after it has locked its shard.
    pub const CHECK: Ordering = SeqCst;
}

/// Waiters for another's fill: how many there are, and the word that they sleep on.
pub mod fillers {
    use super::*;

    /// A waiter is counted before it looks at the word (the kernel does, as it puts it to sleep).
    pub const WAIT: Ordering = Relaxed;
    /// The word changes before the look at the number of waiters.
    pub const SIGNAL: Ordering = Release;
    /// The fence between the two words on both sides: one of them sees the other.
    pub const BETWEEN: Ordering = SeqCst;
    /// The look at the number of waiters.
    pub const CHECK: Ordering = Relaxed;
}
