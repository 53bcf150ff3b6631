//! Inspection: how full the shards are, how an item was used, and whether every entry is valid.
#![forbid(unsafe_code)]

use std::fmt::Arguments;

use crate::{
    engine::{
        Engine, ItemId, Stats,
        config::MAX_KEY,
        index::{
            bucket::LINK,
            entry::{self, Header, LEASE},
        },
        shard::guard::ShardGuard,
        stats::Counter,
    },
    error::Result,
    shm::{
        heap_check::{self, Accounted, Claim},
        layout::header,
        scratch::{Bitmap, BlockBitmap, Buffer},
        slab, span,
        sync::*,
    },
};

/// The result of [`Engine::inspect`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Entries reached from the index.
    pub entries: u64,
    /// Of these, items that readers find.
    pub items: u64,
    /// Expired, or left behind by a clear, and not reclaimed yet.
    pub dead: u64,
    /// Bytes of keys and values of `items`.
    pub bytes: u64,
    /// Entries that are inconsistent in themselves or with the index.
    pub damaged: u64,
    /// Items that a repair dropped: the damaged ones that could not be repaired.
    pub dropped: u64,
    /// Bookkeeping that a rebuild repairs without loss: counts.
    pub loose: u64,
    /// Faults of the heap: blocks, bins, extents and spans that contradict each other or the index.
    /// A rebuild repairs them without loss.
    pub heap: u64,
    /// Descriptions of the first faults.
    pub reasons: Vec<String>,
}

/// Maximum number of descriptions.
const REASONS: usize = 20;

impl Engine {
    /// Items of each shard, dead ones included.
    #[must_use]
    pub fn shard_items(&self) -> Vec<u64> {
        (0..self.geo.shards).map(|no| self.region.shard(no).used()).collect()
    }

    /// Damaged items that this process dropped when it opened the store; 0 if another process had
    /// it open.
    #[must_use]
    pub fn dropped_at_opening(&self) -> u64 {
        self.dropped
    }

    /// How often [`Engine::get_counted`] hit an item, and its LRU stamp (greater = used later; 0
    /// where none is kept).
    #[must_use]
    pub fn use_of(&self, id: ItemId) -> (u32, u64) {
        let Some((bucket, slot)) = self.slot_of(id.0.get()) else { return (0, 0) };
        let hits = self.hits_of(id);
        let stamp = self.stamp(bucket, slot);
        (hits, if stamp == u64::MAX { 0 } else { stamp })
    }

    /// Checks every entry under its shard's lock: lengths, block, hash, checksum, duplicates; and
    /// the shard's heap: that blocks tile their extents and no two entries share a byte, free blocks,
    /// bins, extents being emptied; and that every span has an owner. With `repair`, a shard with a
    /// fault is rebuilt: what is damaged is dropped, what was only lost is found again. Others go on
    /// meanwhile; each waits for one shard at most.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout); [`Error::Os`](crate::Error::Os): there is no
    /// memory for the look, or for the repair of a shard, which is as it was then.
    pub fn inspect(&self, repair: bool, mut progress: impl FnMut(u64, u64)) -> Result<Inspection> {
        let (mut found, mut key) = (Inspection::default(), Buffer::new(MAX_KEY as usize)?);
        let mut accounted = Accounted::new(&self.region)?;
        for no in 0..self.geo.shards {
            let mut chained = Bitmap::new(self.geo.overflow)?;
            let guard = self.lock_raw(no)?;
            let before = found.damaged + found.heap;
            let mut reached = BlockBitmap::new(&self.region)?;
            let mut memory = (&mut reached, &mut accounted);
            self.inspect_shard(&guard, &mut found, &mut key, &mut chained, &mut memory);
            accounted.check(&self.region, guard.cells, &reached, &mut |what| found.heap(what))?;
            if repair && found.damaged + found.heap > before {
                found.dropped += self.repair(&guard)?;
            }
            guard.release();
            progress(no + 1, self.geo.shards);
        }
        self.inspect_spans(repair, &mut found, &accounted)?;
        Ok(found)
    }

    /// Spans that no shard accounted for were claimed meanwhile, or are lost.
    fn inspect_spans(&self, repair: bool, found: &mut Inspection, accounted: &Accounted) -> Result<()> {
        let mut impossible = false;
        for span in 0..span::frontier(&self.region) {
            match accounted.claim(&self.region, span) {
                Claim::None => {}
                Claim::Impossible => {
                    impossible = true;
                    found.heap(format_args!("span {span}: nobody's, and not free"));
                }
                Claim::Shard(no) => {
                    let guard = self.lock_raw(no)?;
                    let is_entry = |off| self.is_reached(&guard, off);
                    if !heap_check::is_accounted(&self.region, guard.cells, span, is_entry) {
                        found.heap(format_args!("shard {no}: span {span} belongs to nothing that it has"));
                        if repair {
                            found.dropped += self.repair(&guard)?;
                        }
                    }
                    guard.release();
                }
            }
        }
        if repair && impossible {
            let mend = || span::recover_pool(&self.region);
            let is_impossible = |span| matches!(accounted.claim(&self.region, span), Claim::Impossible);
            let free = || span::free_impossible(&self.region, is_impossible);
            self.under(header::LOCK_POOL, self.config.lock_timeout, mend, free)?;
        }
        Ok(())
    }

    /// `chained` has an unset bit for each overflow bucket of the shard.
    fn inspect_shard(
        &self,
        guard: &ShardGuard<'_>,
        found: &mut Inspection,
        key: &mut Buffer,
        chained: &mut Bitmap,
        memory: &mut (&mut BlockBitmap, &mut Accounted),
    ) {
        let mut entries = 0;
        for home in self.homes_of(guard.no, false) {
            let (mut at, mut is_new) = (home, true);
            self.each_slot(home, |bucket, slot, word| {
                entries += 1;
                let is_own = self.take_block(guard, entry::slot_off(word), memory);
                if bucket != at {
                    (at, is_new) =
                        (bucket, bucket >= self.geo.homes && chained.set(self.geo.overflow_number(bucket)));
                }
                match self.validate_slot(guard.no, home, (bucket, slot), true, key) {
                    _ if !is_new => {
                        found.damaged(home, "is chained in a circle, or to a bucket of another chain")
                    }
                    Ok(_) if !is_own => found.damaged(home, "leads to bytes of another entry"),
                    Ok(valid) => self.tally(&valid.header, found),
                    Err(reason) => found.damaged(home, reason),
                }
                true
            });
            let word = self.seq(home).load(Relaxed);
            if word & LINK != 0 && self.link_of(home, word).is_none() {
                found.damaged(home, "links to an impossible bucket");
            }
        }
        found.entries += entries;
        let used = guard.used();
        if used != entries {
            found.loose += 1;
            found.reason(format!("shard {}: counts {used} items, but has {entries}", guard.no));
        }
    }

    /// Takes the bytes of the entry at `off`, valid or not, if they can be one's; `false` = another
    /// entry has some of them.
    fn take_block(
        &self,
        guard: &ShardGuard<'_>,
        off: u64,
        (reached, accounted): &mut (&mut BlockBitmap, &mut Accounted),
    ) -> bool {
        let Some(header) = self.header_at(off).filter(|h| h.key_len > 0) else { return true };
        let len = header.total(self.header_bytes);
        if !slab::holds(&self.region, guard.no, off, len) {
            return true; // Validation says so.
        }
        accounted.note_large(&self.region, guard.no, off);
        // Nothing else can begin in a large block.
        reached.take(off, if slab::is_large(len) { 8 } else { len })
    }

    fn tally(&self, header: &Header, found: &mut Inspection) {
        if self.exists_for_users(header) {
            found.items += 1;
            found.bytes += header.key_len + header.value_len;
        } else if header.flags & LEASE == 0 {
            found.dead += 1;
        }
    }

    /// A snapshot of the statistics.
    pub fn stats(&self) -> Stats {
        Stats {
            items: self.items(),
            capacity: self.geo.capacity,
            blocks_used: self.blocks_used(),
            bytes: span::in_use(&self.region) * crate::shm::layout::SPAN,
            hits: self.total(Counter::Hits),
            misses: self.total(Counter::Misses),
            stored: self.total(Counter::Stored),
            deleted: self.total(Counter::Deleted),
            evicted: self.total(Counter::Evicted),
            expired: self.total(Counter::Expired),
            full: self.total(Counter::Full),
            rejected_limit: self.total(Counter::RejectedLimit),
            rejected_full: self.total(Counter::RejectedFull),
            rejected_blocks: self.total(Counter::RejectedBlocks),
            no_space: self.total(Counter::NoSpace),
            lock_waits: self.total(Counter::LockWaits),
            timeouts: self.total(Counter::Timeouts),
            owner_dead: self.total(Counter::OwnerDead),
            lock_lost: self.total(Counter::LockLost),
            page_hits: self.total(Counter::PageHits),
            page_stale: self.total(Counter::PageStale),
            page_coalesced: self.total(Counter::PageCoalesced),
            page_misses: self.total(Counter::PageMisses),
            page_bypassed: self.total(Counter::PageBypassed),
            page_refused: self.total(Counter::PageRefused),
            page_refreshed: self.total(Counter::PageRefreshed),
            page_queued: self.total(Counter::PageQueued),
            page_unqueued: self.total(Counter::PageUnqueued),
            page_bytes: self.total(Counter::PageBytes),
            page_micros: self.total(Counter::PageMicros),
            moved: self.total(Counter::Moved),
            compacted_bytes: self.total(Counter::CompactedBytes),
            repaired: self.total(Counter::Repaired),
            dropped_corrupt: self.total(Counter::DroppedCorrupt),
            cleared: self.total(Counter::Cleared),
            last_modified: self.region.word(header::LAST_MODIFIED).load(Relaxed),
            last_unclean: self.region.word(header::UNCLEAN).load(Relaxed) == 2,
            shards: self.geo.shards,
            buckets: self.buckets,
            reserved: self.layout.end,
        }
    }
}

impl Inspection {
    fn damaged(&mut self, home: u64, reason: &str) {
        self.damaged += 1;
        self.reason(format!("bucket {home}: {reason}"));
    }

    fn heap(&mut self, what: Arguments<'_>) {
        self.heap += 1;
        self.reason(what.to_string());
    }

    fn reason(&mut self, text: String) {
        if self.reasons.len() < REASONS {
            self.reasons.push(text);
        }
    }
}
