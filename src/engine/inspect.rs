//! A look inside: how the shards are filled, what an item's use was, and whether every entry is what it claims to be.
#![forbid(unsafe_code)]

use super::{
    Engine, ItemId,
    config::MAX_KEY,
    entry::{self, Header, LEASE, LINK},
    shard::ShardGuard,
};
use crate::{
    error::Result,
    shm::{
        layout::SLOTS,
        marks::{Bits, Buffer},
        sync::*,
    },
};

/// What [`Engine::inspect`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Entries reached from the index.
    pub entries: u64,
    /// Of these, items that readers find.
    pub items: u64,
    /// Expired, or left behind by a clear: nobody has reclaimed them yet.
    pub dead: u64,
    /// Bytes of keys and values of `items`.
    pub bytes: u64,
    /// Entries that contradict themselves or the index.
    pub damaged: u64,
    /// Items that a repair dropped: of the damaged ones, those that could not be put right.
    pub dropped: u64,
    /// Book-keeping that a rebuild mends without loss: counts and item numbers.
    pub loose: u64,
    /// What was wrong, for the first of them.
    pub reasons: Vec<String>,
}

/// Reasons that are kept.
const REASONS: usize = 20;

impl Engine {
    /// Items of each shard, dead ones included.
    #[must_use]
    pub fn shard_items(&self) -> Vec<u64> {
        (0..self.geo.shards).map(|no| self.region.shard(no).used().load(Relaxed).into()).collect()
    }

    /// Damaged items that this process left out when it put the store in order; 0 if somebody else had it open.
    #[must_use]
    pub fn dropped_at_opening(&self) -> u64 {
        self.dropped
    }

    /// How often [`Engine::get_counted`] hit an item, and its LRU stamp (greater = used later; 0 where none is kept).
    #[must_use]
    pub fn use_of(&self, id: ItemId) -> (u32, u64) {
        // Of a number that a shard keeps the place is the last item's.
        let place = self.place_of(id.0.get()).filter(|&(bucket, slot)| self.holds(bucket, slot, id.0.get()));
        let Some((bucket, slot)) = place else { return (0, 0) };
        let hits = self.hits_word(id.0.get()).map_or(0, |word| word.load(Relaxed));
        let stamp = self.stamp(bucket, slot);
        (hits, if stamp == u64::MAX { 0 } else { stamp })
    }

    /// Checks every entry under its shard's lock: lengths, block, hash, checksum, number, duplicates. With `repair`,
    /// its shard is rebuilt: what is damaged is dropped, what was only lost is found again. Others go on meanwhile; each
    /// waits for one shard at most.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout); [`Error::Os`](crate::Error::Os): there is no memory for the look, or for the
    /// repair of a shard, which is as it was then.
    pub fn inspect(&self, repair: bool, mut progress: impl FnMut(u64, u64)) -> Result<Inspection> {
        let (mut found, mut key) = (Inspection::default(), Buffer::new(MAX_KEY as usize)?);
        for no in 0..self.geo.shards {
            let mut chained = Bits::new(self.geo.overflow)?;
            let guard = self.lock_raw(no)?;
            let damaged = found.damaged;
            self.inspect_shard(&guard, &mut found, &mut key, &mut chained);
            if repair && found.damaged > damaged {
                found.dropped += self.repair(&guard)?;
            }
            guard.release();
            progress(no + 1, self.geo.shards);
        }
        Ok(found)
    }

    /// `chained`: an unset bit for each overflow bucket of the shard.
    fn inspect_shard(
        &self,
        guard: &ShardGuard<'_>,
        found: &mut Inspection,
        key: &mut Buffer,
        chained: &mut Bits,
    ) {
        let mut entries = 0;
        let start = self.geo.heads + guard.no * self.geo.overflow;
        let first = guard.no * self.heads_per_shard;
        for head in first..first + self.heads_per_shard {
            let (mut at, mut is_new) = (head, true);
            self.each_slot(head, |bucket, slot, _| {
                entries += 1;
                if bucket != at {
                    (at, is_new) = (bucket, bucket >= start && chained.set(bucket - start));
                }
                match self.judge_slot(guard.no, head, (bucket, slot), true, key) {
                    _ if !is_new => found.damaged(head, "is chained in a circle, or to another one's bucket"),
                    Ok(sound) => self.tally(&sound.header, (bucket, slot), found),
                    Err(reason) => found.damaged(head, reason),
                }
                true
            });
            let link = self.slot(head, SLOTS).load(Relaxed);
            if entry::slot_tag(link) == LINK && self.link_of(link).is_none() {
                found.damaged(head, "links to no bucket");
            }
        }
        found.entries += entries;
        let used = u64::from(guard.used().load(Relaxed));
        if used != entries {
            found.loose += 1;
            found.reason(format!("shard {}: counts {used} items, has {entries}", guard.no));
        }
    }

    fn tally(&self, header: &Header, at: (u64, u64), found: &mut Inspection) {
        if self.place_of(header.id) != Some(at) {
            found.loose += 1;
            found.reason(format!("item number {}: leads elsewhere", header.id));
        }
        if self.exists_for_users(header) {
            found.items += 1;
            found.bytes += header.key_len + header.value_len;
        } else if header.flags & LEASE == 0 {
            found.dead += 1;
        }
    }
}

impl Inspection {
    fn damaged(&mut self, head: u64, reason: &str) {
        self.damaged += 1;
        self.reason(format!("bucket {head}: {reason}"));
    }

    fn reason(&mut self, text: String) {
        if self.reasons.len() < REASONS {
            self.reasons.push(text);
        }
    }
}
