//! The figures of a cache with the names under which every surface shows them (`ucache stat` and
//! `metrics`, uWSGI's metrics): a name, once given, stays.
#![forbid(unsafe_code)]

use crate::engine::{Memory, NearStats, Stats};

/// One statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// Lower-case letters and `_`.
    pub(crate) name: &'static str,
    /// One line, without its full stop.
    pub(crate) help: &'static str,
    /// Whether its value may decrease; otherwise it is a counter.
    pub(crate) gauge: bool,
    /// Its current value.
    pub(crate) value: u64,
    /// For which reason, if it is the part of a figure that has this one.
    pub(crate) reason: Option<&'static str>,
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Figure {
    Figure { name, help, gauge: true, value, reason: None }
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Figure {
    Figure { name, help, gauge: false, value, reason: None }
}

impl Stats {
    /// All statistics, gauges first; always the same ones in the same order.
    pub(crate) fn figures(&self) -> [Figure; 39] {
        [
            gauge("items", "Items stored", self.items),
            gauge("capacity", "Items that fit", self.capacity),
            gauge("blocks_used", "Blocks in use, if blocks are counted", self.blocks_used),
            gauge("bytes", "Bytes of the spans that entries occupy", self.bytes),
            gauge("reserved_bytes", "Bytes of address space", self.reserved),
            gauge("shards", "Shards, each with its own writer lock", self.shards),
            gauge(
                "last_modified",
                "Unix time of the last change, 0 = none or not recorded",
                self.last_modified,
            ),
            gauge(
                "last_unclean",
                "Whether the store was not closed cleanly the last time",
                self.last_unclean.into(),
            ),
            counter("hits", "Reads that found their key", self.hits),
            counter("misses", "Reads that did not find their key", self.misses),
            counter("stored", "Values stored", self.stored),
            counter("deleted", "Items deleted by a caller", self.deleted),
            counter("evicted", "Items evicted to make room", self.evicted),
            counter("expired", "Expired items reclaimed", self.expired),
            counter("full", "How often a store found the cache full", self.full),
            counter("rejected_limit", "Stores refused: over a limit, or not a number", self.rejected_limit),
            counter("rejected_full", "Stores refused: no item, block or memory left", self.rejected_full),
            counter("rejected_blocks", "Stores refused: not enough blocks left", self.rejected_blocks),
            counter("no_space", "Stores refused: no memory or disk space left", self.no_space),
            counter("lock_waits", "How often a writer found a lock held by another one", self.lock_waits),
            counter("timeouts", "Operations given up after lock_timeout", self.timeouts),
            counter("owner_dead", "Locks found with a dead owner", self.owner_dead),
            counter(
                "lock_lost",
                "Operations given up because the kernel did not release the lock of a dead owner",
                self.lock_lost,
            ),
            counter("moved", "Entries moved to release sparse memory", self.moved),
            counter("compacted_bytes", "Bytes of the entries moved", self.compacted_bytes),
            counter("repaired", "Shards rebuilt", self.repaired),
            counter("dropped_corrupt", "Damaged items dropped", self.dropped_corrupt),
            counter("cleared", "Clears", self.cleared),
            counter("page_hits", "Pages served from the cache", self.page_hits),
            counter("page_stale", "Old pages served", self.page_stale),
            counter("page_coalesced", "Pages served to requests that waited", self.page_coalesced),
            counter("page_misses", "Requests for pages that went to the application", self.page_misses),
            counter("page_bypassed", "Requests that the cache must not answer", self.page_bypassed),
            counter("page_refused", "Responses that were not stored", self.page_refused),
            counter("page_refreshed", "Old pages replaced or confirmed", self.page_refreshed),
            counter("page_queued", "Refreshes left to a mule or a spooler", self.page_queued),
            counter(
                "page_unqueued",
                "Refreshes that no mule or spooler took: none there, or a full queue",
                self.page_unqueued,
            ),
            counter("page_bytes", "Bytes of bodies served from the cache", self.page_bytes),
            counter("page_micros", "Microseconds of the application saved", self.page_micros),
        ]
    }
}

impl Memory {
    /// What the memory is used for, as [`Stats::figures`].
    pub(crate) fn figures(&self) -> [Figure; 6] {
        [
            gauge("payload_bytes", "Bytes of the keys and values of items", self.payload),
            gauge("resident_bytes", "Bytes of the pages that are in memory", self.resident),
            gauge("overhead_bytes", "Resident bytes without the payload", self.overhead),
            gauge(
                "fragmentation_bytes",
                "Bytes of extents and large blocks that no entry uses",
                self.fragmentation,
            ),
            gauge("idle_bytes", "Bytes of free spans that may have pages", self.idle),
            gauge("disk_bytes", "Bytes of blocks on disk, 0 = no store", self.disk),
        ]
    }
}

impl NearStats {
    /// All statistics of copies and of the server's calls, as [`Stats::figures`].
    pub(crate) fn figures(&self) -> [Figure; 21] {
        [
            gauge(
                "near_beat_age_ms",
                "Milliseconds since the time up to which all changes are known",
                self.silence_ms,
            ),
            gauge(
                "near_up",
                "Whether the copies are kept up to date, 0 = every read asks the server",
                self.beat_age_ms.is_some().into(),
            ),
            gauge(
                "backend_up",
                "Whether the last call reached the server (all primaries), 0 = calls fail at once",
                (!self.is_down).into(),
            ),
            gauge("near_owner_pid", "The process that keeps the copies up to date", self.owner_pid.into()),
            gauge("near_untracked", "Whether the server refuses to tell of changes", self.untracked.into()),
            counter("near_hits", "Reads that a copy answered", self.hits),
            counter("near_misses", "Reads that asked the server because there was no copy", self.misses),
            counter("near_absent", "Reads of keys that were known not to be there", self.absent),
            counter(
                "near_bypassed",
                "Reads that asked the server because copies were not known to be new enough",
                self.bypassed,
            ),
            counter("near_fills", "Copies stored", self.fills),
            counter(
                "near_fills_voided",
                "Copies not stored: changed meanwhile, or no place",
                self.fills_voided,
            ),
            counter("near_invalidated", "Messages that removed a copy", self.invalidated),
            counter("near_invalidated_absent", "Messages about keys without a copy", self.invalidated_absent),
            counter("near_flushes", "Times that the owner removed all copies", self.flushes),
            counter(
                "near_stale_served",
                "Reads that an old copy answered for a server that was down",
                self.stale_served,
            ),
            counter("near_terms", "How often the copies were begun anew", self.terms),
            counter("backend_requests", "Round trips to the server that were tried", self.requests),
            counter("backend_errors", "Calls that failed at the server", self.errors),
            counter("backend_timeouts", "Calls that waited for the whole backend_timeout", self.timeouts),
            counter("backend_connects", "Connections to the server made", self.connects),
            counter(
                "backend_elsewhere",
                "Connections to a server with which the owner has none",
                self.elsewhere,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_gauges_come_first() {
        named_well(&Stats::default().figures());
        named_well(&Memory::default().figures());
        named_well(&NearStats::default().figures());
    }

    fn named_well(all: &[Figure]) {
        for (i, one) in all.iter().enumerate() {
            assert!(one.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{one:?}");
            assert!(
                all[..i].iter().all(|other| other.name != one.name && (other.gauge || !one.gauge)),
                "{one:?}"
            );
        }
    }
}
