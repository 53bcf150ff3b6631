//! A look inside: how the shards are filled, what an item's use was, and whether every entry is what it claims to be.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::{
    Engine, ItemId,
    entry::{self, Header, LEASE, LINK},
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::Result,
    shm::{
        block,
        layout::{SLOTS, shard},
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
        (0..self.geo.shards)
            .map(|s| self.region.word(self.shard_off(s) + shard::USED).load(Relaxed))
            .collect()
    }

    /// Damaged items that this process left out when it put the store in order; 0 if somebody else had it open.
    #[must_use]
    pub fn dropped_at_opening(&self) -> u64 {
        self.dropped
    }

    /// How often [`Engine::get_counted`] hit an item, and its LRU stamp (greater = used later; 0 where none is kept).
    #[must_use]
    pub fn use_of(&self, id: ItemId) -> (u32, u64) {
        let Some((bucket, slot)) = self.place_of(id.0.get()) else { return (0, 0) };
        let hits = self.region.half(self.layout.hits + u64::from(id.0.get()) * 4).load(Relaxed);
        let stamp = self.stamp(bucket, slot);
        (hits, if stamp == u64::MAX { 0 } else { stamp })
    }

    /// Checks every entry under its shard's lock: lengths, block, hash, checksum, number, duplicates. With `repair`,
    /// what is damaged is dropped and its shard rebuilt. Others go on meanwhile; each waits for one shard at most.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout).
    pub fn inspect(&self, repair: bool, mut progress: impl FnMut(u64, u64)) -> Result<Inspection> {
        let mut found = Inspection::default();
        for no in 0..self.geo.shards {
            let guard = self.lock_raw(no)?;
            let bad = self.inspect_shard(&guard, &mut found);
            if repair && !bad.is_empty() {
                for &(bucket, slot) in &bad {
                    self.slot(bucket, slot).store(0, Release);
                    self.set_stamp(bucket, slot, u64::MAX);
                }
                guard.word(shard::DIRTY).store(1, Release);
                self.recover(&guard);
                self.count(Counter::DroppedCorrupt, bad.len() as u64);
            }
            drop(guard);
            progress(no + 1, self.geo.shards);
        }
        Ok(found)
    }

    /// Returns the slots whose entries are damaged.
    fn inspect_shard(&self, guard: &ShardGuard<'_>, found: &mut Inspection) -> Vec<(u64, u64)> {
        let mut bad = Vec::new();
        let mut entries = 0;
        let first = guard.no * self.heads_per_shard;
        for head in first..first + self.heads_per_shard {
            let mut keys = HashSet::new();
            self.each_slot(head, |bucket, slot, word| {
                entries += 1;
                match self.inspect_entry(guard, head, word) {
                    Ok((header, key)) if keys.insert(key.clone()) => {
                        self.tally(&header, (bucket, slot), found);
                    }
                    Ok(_) => {
                        found.damaged(head, "holds a key twice");
                        bad.push((bucket, slot));
                    }
                    Err(reason) => {
                        found.damaged(head, reason);
                        bad.push((bucket, slot));
                    }
                }
                true
            });
            let link = self.slot(head, SLOTS).load(Relaxed);
            if entry::slot_tag(link) == LINK && self.link_of(link).is_none() {
                found.damaged(head, "links to no bucket");
                bad.push((head, SLOTS));
            }
        }
        found.entries += entries;
        let used = guard.word(shard::USED).load(Relaxed);
        if used != entries {
            found.loose += 1;
            found.reason(format!("shard {}: counts {used} items, has {entries}", guard.no));
        }
        bad
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

    fn inspect_entry(
        &self,
        guard: &ShardGuard<'_>,
        head: u64,
        word: u64,
    ) -> std::result::Result<(Header, Vec<u8>), &'static str> {
        let off = entry::slot_off(word);
        let block = block::locate(&self.region, guard.no, off).ok_or("leads to no block of its shard")?;
        let header = self.header_at(off).ok_or("leads to an entry of impossible length")?;
        if header.key_len == 0 || header.value_len == 0 {
            return Err("leads to an entry without a key or a value");
        }
        if header.total(self.entry_head) > block.len {
            return Err("leads to an entry that is longer than its block");
        }
        let key = entry::key(&self.region, off, self.entry_head, &header);
        let hash = self.secret.hash(&key);
        if self.head_of(hash) != head || entry::tag_of(hash) != entry::slot_tag(word) {
            return Err("leads to an entry whose key belongs elsewhere");
        }
        if header.id == 0 || u64::from(header.id) > self.geo.capacity {
            return Err("leads to an entry with an impossible number");
        }
        if self.geo.checksums && !entry::checksum_holds(&self.region, off, &self.secret, &header) {
            return Err("leads to an entry whose checksum is wrong");
        }
        Ok((header, key))
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
