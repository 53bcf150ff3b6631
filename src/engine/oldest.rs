//! Victims of caches with exact LRU, found many at a time: a look at all stamps takes as long as there are items.
#![forbid(unsafe_code)]

use std::sync::Mutex;

use super::{Engine, index::Found, index::position, shard::ShardGuard};
use crate::shm::{
    layout::{Geometry, SLOTS},
    sync::*,
};

/// Fewest victims found at a time; more in larger caches.
const LEAST: u64 = 16;

/// The least recently used items as this process found them last, oldest first: stamp and number. Whatever is stored or
/// used later gets a greater stamp than all of these, so the first that still has its own is the oldest of all. Used
/// under the lock of the cache's only shard; a child's copy holds as well.
#[derive(Debug)]
pub(super) struct Oldest {
    next: AtomicU64,
    len: AtomicU64,
    items: Box<[(AtomicU64, AtomicU32)]>,
    /// Room for all stamps and places: nothing is allocated under the lock. Nobody waits for it: who was forked while
    /// another thread had it goes without a list.
    scratch: Mutex<Vec<(u64, u32)>>,
}

impl Oldest {
    /// Room for an eighth of the items, where the order is exact.
    pub(super) fn new(geo: &Geometry) -> Self {
        let exact = geo.stamps && !geo.ghosts && geo.shards == 1;
        let room = if exact { (geo.capacity / 8).max(LEAST) } else { 0 };
        let items = (0..room).map(|_| <(AtomicU64, AtomicU32)>::default()).collect();
        let slots = if exact { (geo.heads + geo.overflow) * SLOTS } else { 0 };
        let scratch = Mutex::new(Vec::with_capacity(slots as usize));
        Self { next: AtomicU64::new(0), len: AtomicU64::new(0), items, scratch }
    }

    fn first(&self) -> Option<(u64, u32)> {
        let next = self.next.load(Relaxed);
        let (stamp, id) = self.items.get(next as usize).filter(|_| next < self.len.load(Relaxed))?;
        Some((stamp.load(Relaxed), id.load(Relaxed)))
    }

    fn drop_first(&self) {
        self.next.store(self.next.load(Relaxed) + 1, Relaxed);
    }
}

impl Engine {
    /// The least recently used item of a cache with one shard, but never the one at `keep`.
    pub(super) fn oldest_of_all(&self, guard: &ShardGuard<'_>, keep: Option<(u64, u64)>) -> Option<Found> {
        // What is spared comes again, as the youngest.
        for _ in 0..self.geo.capacity * 2 + LEAST {
            let Some((stamp, id)) = self.oldest.first() else {
                if self.find_oldest(guard) == 0 {
                    return self.oldest_of_some(guard, keep, true);
                }
                continue;
            };
            let at = self.place_of(id).filter(|&(bucket, slot)| self.stamp(bucket, slot) == stamp);
            if at.is_some() && at == keep {
                // It stays in the list: it may be the oldest still when it need not be kept any more.
                return self.oldest_of_some(guard, keep, true);
            }
            self.oldest.drop_first();
            let found =
                at.and_then(|at| self.found_at(at)).filter(|f| f.header.id == id && !self.is_spared(f));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Looks at all stamps; returns how many victims there are in the list now.
    #[cold]
    fn find_oldest(&self, guard: &ShardGuard<'_>) -> usize {
        let list = &self.oldest;
        // A child that is forked meanwhile must not take half a list.
        list.len.store(0, Relaxed);
        let Ok(mut all) = list.scratch.try_lock() else { return 0 };
        all.clear();
        for n in 0..self.buckets_of(guard) {
            let bucket = self.nth_bucket(guard, n);
            let line = self.stamps_of(bucket);
            for slot in 1..=SLOTS {
                let stamp = !line[slot as usize].load(Relaxed);
                if stamp != u64::MAX {
                    all.push((stamp, position(bucket, slot)));
                }
            }
        }
        let count = list.items.len();
        if all.len() > count {
            all.select_nth_unstable(count);
            all.truncate(count);
        }
        all.sort_unstable();
        let found = all.iter().filter_map(|&(stamp, at)| {
            let f = self.found_at((u64::from(at) / 8, u64::from(at) % 8))?;
            Some((stamp, f.header.id))
        });
        let mut len = 0;
        for (item, (stamp, id)) in list.items.iter().zip(found) {
            item.0.store(stamp, Relaxed);
            item.1.store(id, Relaxed);
            len += 1;
        }
        list.next.store(0, Relaxed);
        list.len.store(len, Relaxed);
        len as usize
    }
}
