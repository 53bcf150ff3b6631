//! Eviction: LRU by stamps, one a slot in an array beside the index. Exact in caches of one shard, where stamps come
//! from a counter; sampled in larger ones, where they are times.
#![forbid(unsafe_code)]

use super::{
    Engine, Eviction,
    entry::{self, LEASE},
    index::Found,
    shard::ShardGuard,
    stats::Counter,
};
use crate::{
    error::Result,
    os::clock,
    shm::{
        layout::{BUCKET, SLOTS, header},
        sync::*,
    },
};

/// Random buckets looked at for a sampled victim.
pub(super) const SAMPLES: u64 = 3;

impl Engine {
    /// Evicts one item by the cache's policy, but never `keep`; `false` = there was none.
    pub(super) fn evict(&self, keep: Option<u32>) -> Result<bool> {
        match self.config.eviction {
            Eviction::None => Ok(false),
            Eviction::Lru => self.evict_lru(keep),
            Eviction::S3Fifo => self.evict_fifo(keep),
        }
    }

    fn evict_lru(&self, keep: Option<u32>) -> Result<bool> {
        if self.exact_lru() {
            return self.evict_exact(keep);
        }
        for _ in 0..32 {
            if let Some((bucket, slot, stamp)) = self.sample(keep)
                && self.evict_at(bucket, slot, stamp)?
            {
                return Ok(true);
            }
        }
        self.evict_exact(keep)
    }

    /// The one with the smallest stamp. Stamps are dense: a scan of 8 bytes a slot.
    fn evict_exact(&self, keep: Option<u32>) -> Result<bool> {
        let skip = keep.and_then(|id| self.place_of(id));
        for _ in 0..self.geo.capacity.clamp(8, 4096) {
            let mut oldest = (u64::MAX, 0, 0);
            for bucket in 0..self.buckets {
                let line = self.region.line(self.layout.stamps + bucket * BUCKET);
                for slot in 1..=SLOTS {
                    let stamp = !line[slot as usize].load(Relaxed);
                    if stamp < oldest.0 && skip != Some((bucket, slot)) {
                        oldest = (stamp, bucket, slot);
                    }
                }
            }
            let (stamp, bucket, slot) = oldest;
            if stamp == u64::MAX {
                return Ok(false);
            }
            if self.evict_at(bucket, slot, stamp)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The oldest of a few random buckets' items.
    fn sample(&self, keep: Option<u32>) -> Option<(u64, u64, u64)> {
        let skip = keep.and_then(|id| self.place_of(id));
        let mut oldest = None;
        for _ in 0..SAMPLES {
            let head = self.random() % self.geo.heads;
            self.each_slot(head, |bucket, slot, _| {
                let stamp = self.stamp(bucket, slot);
                if oldest.is_none_or(|(_, _, s)| stamp < s) && skip != Some((bucket, slot)) {
                    oldest = Some((bucket, slot, stamp));
                }
                true
            });
        }
        oldest
    }

    /// Evicts the item in a slot if it still has this stamp.
    fn evict_at(&self, bucket: u64, slot: u64, stamp: u64) -> Result<bool> {
        let guard = self.lock(self.shard_of(bucket))?;
        let word = self.slot(bucket, slot).load(Acquire);
        if word == 0 || entry::slot_tag(word) == entry::LINK {
            // A late reader's stamp on a slot that became empty.
            self.set_stamp(bucket, slot, u64::MAX);
            return Ok(false);
        }
        let off = entry::slot_off(word);
        let Some(header) = self.header_at(off).filter(|h| h.key_len > 0) else { return Ok(false) };
        if self.stamp(bucket, slot) != stamp
            || header.flags & LEASE != 0 && self.exact_lru() && self.items() > 1
        {
            // Used meanwhile; or a placeholder, whose filler is at work: make it the youngest.
            self.touch(bucket, slot);
            return Ok(false);
        }
        let head = self.head_of(self.secret.hash(&entry::key(&self.region, off, self.entry_head, &header)));
        self.remove(&guard, head, &Found { bucket, slot, off, header });
        self.count(Counter::Evicted, 1);
        Ok(true)
    }

    /// Whether the LRU order is exact: one shard, stamps from a counter.
    #[inline]
    fn exact_lru(&self) -> bool {
        self.geo.shards == 1
    }

    /// The stamp of a new item.
    #[inline]
    pub(super) fn first_stamp(&self, guard: &ShardGuard<'_>, hash: u64) -> u64 {
        match self.config.eviction {
            Eviction::None => u64::MAX,
            Eviction::Lru => self.tick(),
            Eviction::S3Fifo => self.enqueue(guard, hash),
        }
    }

    /// The stamp of a use that happens now.
    #[inline]
    fn tick(&self) -> u64 {
        if self.exact_lru() {
            self.region.word(header::LRU_CLOCK).fetch_add(1, Relaxed) + 1
        } else {
            clock::coarse_millis()
        }
    }

    /// Marks a slot's item as used now. The only store of readers: to the stamps, which are never anything else.
    #[inline]
    pub(super) fn touch(&self, bucket: u64, slot: u64) {
        match self.config.eviction {
            Eviction::None => return,
            Eviction::Lru => {}
            Eviction::S3Fifo => return self.count_use(bucket, slot),
        }
        let old = self.stamp(bucket, slot);
        let newest = self.exact_lru() && old == self.region.word(header::LRU_CLOCK).load(Relaxed);
        if !newest {
            let now = self.tick();
            if now != old {
                self.set_stamp(bucket, slot, now);
            }
        }
    }
}
