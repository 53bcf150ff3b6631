//! The figures of a cache with the names under which every surface shows them (`ucache stat` and `metrics`, uWSGI's
//! metrics): a name, once given, stays.
#![forbid(unsafe_code)]

use super::Stats;

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// Lower-case letters and `_`.
    pub(crate) name: &'static str,
    /// One line, without its full stop.
    pub(crate) help: &'static str,
    /// Whether it may go down. What cannot is a counter.
    pub(crate) gauge: bool,
    /// Its value now.
    pub(crate) value: u64,
}

impl Stats {
    /// All figures, gauges first; always the same ones in the same order.
    pub(crate) fn figures(&self) -> [Figure; 26] {
        let gauge = |name, help, value| Figure { name, help, gauge: true, value };
        let counter = |name, help, value| Figure { name, help, gauge: false, value };
        [
            gauge("items", "Items stored", self.items),
            gauge("capacity", "Items that fit", self.capacity),
            gauge("blocks_used", "Blocks in use, where blocks are counted", self.blocks_used),
            gauge("bytes", "Bytes of the 64 KiB spans that entries occupy", self.bytes),
            gauge("reserved_bytes", "Bytes of address space", self.reserved),
            gauge("shards", "Independent writers' locks", self.shards),
            gauge("last_modified", "Unix time of the last change, 0 = none or not kept", self.last_modified),
            gauge(
                "last_unclean",
                "Whether the store was not closed cleanly the last time",
                self.last_unclean.into(),
            ),
            counter("hits", "Reads that found their key", self.hits),
            counter("misses", "Reads that did not", self.misses),
            counter("stored", "Values stored", self.stored),
            counter("deleted", "Items deleted by a caller", self.deleted),
            counter("evicted", "Items evicted to make room", self.evicted),
            counter("expired", "Expired items reclaimed", self.expired),
            counter("full", "How often a store found the cache full", self.full),
            counter("rejected_limit", "Stores refused: over a limit, or not a number", self.rejected_limit),
            counter("rejected_full", "Stores refused: no room, for any of the reasons", self.rejected_full),
            counter("rejected_blocks", "Stores refused: not enough blocks", self.rejected_blocks),
            counter("no_space", "Stores refused: no memory or disk", self.no_space),
            counter("lock_waits", "How often a writer found a lock taken by another one", self.lock_waits),
            counter("timeouts", "Operations given up after lock_timeout", self.timeouts),
            counter("owner_dead", "Locks found with a dead owner", self.owner_dead),
            counter(
                "lock_lost",
                "Operations given up because the kernel did not pass on the lock of a dead owner",
                self.lock_lost,
            ),
            counter("repaired", "Shards rebuilt", self.repaired),
            counter("dropped_corrupt", "Items dropped because they were damaged", self.dropped_corrupt),
            counter("cleared", "Clears", self.cleared),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_gauges_come_first() {
        let all = Stats::default().figures();
        for (i, one) in all.iter().enumerate() {
            assert!(one.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{one:?}");
            assert!(
                all[..i].iter().all(|other| other.name != one.name && (other.gauge || !one.gauge)),
                "{one:?}"
            );
        }
    }
}
