//! The next victims of a cache whose order is exact, found many at a time: a look at all stamps
//! takes as long as there are items.
#![forbid(unsafe_code)]

use std::sync::Mutex;

use crate::{
    engine::{Engine, geometry::id_of, policy::Policy, shard::guard::ShardGuard},
    shm::{
        layout::{Geometry, SLOTS},
        sync::*,
    },
};

/// Minimum number of victims found at a time; more in larger caches.
pub(super) const MIN_VICTIMS: u64 = 16;

/// The victims to come as this process found them last, first one first: stamp and item id. Used
/// under the lock of the cache's only shard; a child's copy holds as well.
#[derive(Debug)]
pub(in crate::engine) struct VictimList {
    next: AtomicU64,
    len: AtomicU64,
    items: Box<[(AtomicU64, AtomicU32)]>,
    /// Space for all stamps and slots, so that nothing is allocated under the lock (I12). It is
    /// only tried: a child forked while another thread held it goes without a list.
    scratch: Mutex<Vec<(u64, u32)>>,
}

impl VictimList {
    /// Space for an eighth of the items, if the order is exact.
    pub(in crate::engine) fn new(policy: Policy, geo: &Geometry) -> Self {
        let exact = policy.is_exact(geo);
        let count = if exact { (geo.capacity / 8).max(MIN_VICTIMS) } else { 0 };
        let items = (0..count).map(|_| <(AtomicU64, AtomicU32)>::default()).collect();
        let slots = if exact { (geo.homes + geo.overflow) * SLOTS } else { 0 };
        let scratch = Mutex::new(Vec::with_capacity(slots as usize));
        Self { next: AtomicU64::new(0), len: AtomicU64::new(0), items, scratch }
    }

    pub(super) fn first(&self) -> Option<(u64, u32)> {
        let next = self.next.load(Relaxed);
        let (stamp, id) = self.items.get(next as usize).filter(|_| next < self.len.load(Relaxed))?;
        Some((stamp.load(Relaxed), id.load(Relaxed)))
    }

    pub(super) fn drop_first(&self) {
        self.next.store(self.next.load(Relaxed) + 1, Relaxed);
    }
}

impl Engine {
    /// Lists the items whose stamps come first by `order`; returns how many there are in the list
    /// now.
    #[cold]
    pub(super) fn find_victims(&self, guard: &ShardGuard<'_>, order: impl Fn(u64) -> u64) -> usize {
        let list = &self.victims;
        // A child forked meanwhile must not inherit half a list.
        list.len.store(0, Relaxed);
        let Ok(mut all) = list.scratch.try_lock() else { return 0 };
        all.clear();
        let own = self.own_buckets(guard);
        for n in 0..own.all {
            let bucket = own.nth(&self.geo, n);
            let line = self.stamps_of(bucket);
            for slot in 1..=SLOTS {
                let stamp = !line[slot as usize].load(Relaxed);
                if stamp != u64::MAX {
                    all.push((order(stamp), id_of(bucket, slot)));
                }
            }
        }
        let count = list.items.len();
        if all.len() > count {
            all.select_nth_unstable(count);
            all.truncate(count);
        }
        all.sort_unstable();
        let found = all.iter().filter_map(|&(_, id)| {
            let f = self.found_at(self.slot_of(id)?)?;
            Some((self.stamp(f.bucket, f.slot), id))
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
