//! Scans over all items without a lock: chain by chain, each a consistent snapshot.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, Item, ItemMeta, ItemRef,
        geometry::id_of,
        index::entry::{self, GENERATIONS, Header, LEASE, UNGETTABLE},
        ops::get::{TRIES, item_id},
    },
    shm::{SharedBytes, layout::RUN, order::seqlock, sync::*},
};

/// How many chains ahead a scan prefetches entries; index lines are prefetched twice as far ahead.
const AHEAD: u64 = 4;
/// The second prefetch of an entry, in bytes from its start: a short key may lie on the next line.
const KEY_ENDS: u64 = 40;

/// Chains that a walk reads at a time.
const TOGETHER: u64 = 8;

/// Receives the items of a scan.
pub(crate) trait ScanSink {
    /// Current length.
    fn len(&self) -> usize;

    /// Goes back to what there was at that length: a writer came in between, and the chain is read
    /// anew.
    fn truncate(&mut self, len: usize);

    /// Appends a live item. The key may be torn: then the item is undone later.
    fn add(&mut self, meta: ItemMeta, key: &SharedBytes<'_>);
}

impl Engine {
    /// The next item of a walk over all items; `None` = the end. Items present throughout are met
    /// exactly once.
    pub fn walk(&self, cursor: &mut Cursor) -> Option<Item> {
        self.walk_ref(cursor).map(ItemRef::to_item)
    }

    /// [`Engine::walk`] without a copy of the key for each item: it is the cursor's until its next
    /// step.
    #[inline]
    pub fn walk_ref<'c>(&self, cursor: &'c mut Cursor) -> Option<ItemRef<'c>> {
        loop {
            // The item returned last lies behind the others.
            if let Some((meta, start)) = cursor.buffer.items.pop() {
                let end = std::mem::replace(&mut cursor.buffer.end, start);
                return Some(ItemRef { key: cursor.buffer.keys.get(start..end)?, meta });
            }
            cursor.buffer.clear();
            if !self.scan_chains(&mut cursor.bucket, &mut cursor.buffer) {
                return None;
            }
        }
    }

    /// Appends the live items of a few chains to `into`; `false` = there are no more chains. A
    /// chain's items are a consistent snapshot, made under the lock if writers interfere too often.
    #[inline(never)]
    pub(crate) fn scan_chains<P: ScanSink>(&self, bucket: &mut u64, into: &mut P) -> bool {
        let Some(first) = self.used_homes(*bucket, self.geo.homes).next() else {
            *bucket = self.geo.homes;
            return false;
        };
        *bucket = first;
        // Not into the next run, which may have no memory.
        let end = bucket.saturating_add(TOGETHER).min((first / RUN + 1) * RUN).min(self.geo.homes);
        for home in *bucket..end {
            self.prefetch_chains(home);
            let len = into.len();
            let v = self.seq(home).load(seqlock::BEGIN);
            self.read_chain(home, into);
            fence(seqlock::RECHECK);
            if self.seq(home).load(Relaxed) != v {
                into.truncate(len);
                self.read_chain_retry(home, into);
            }
        }
        *bucket = end;
        true
    }

    /// The live items of a chain that is being changed.
    #[cold]
    fn read_chain_retry<P: ScanSink>(&self, home: u64, into: &mut P) {
        let len = into.len();
        for _ in 1..TRIES {
            let v = self.seq(home).load(seqlock::BEGIN);
            self.read_chain(home, into);
            fence(seqlock::RECHECK);
            if self.seq(home).load(Relaxed) == v {
                return;
            }
            into.truncate(len);
            std::hint::spin_loop();
        }
        if let Ok(_guard) = self.lock_to_read(self.shard_of(home)) {
            self.read_chain(home, into);
        }
    }

    /// Prefetches the chains that the scan reads next.
    #[inline]
    fn prefetch_chains(&self, home: u64) {
        let bucket = |ahead: u64| (home + ahead).min(self.geo.homes - 1);
        self.region.prefetch(self.layout.bucket(bucket(2 * AHEAD)));
        if !self.region.has_bucket(bucket(AHEAD)) {
            return;
        }
        for word in &self.region.bucket(bucket(AHEAD))[1..] {
            let off = entry::slot_off(word.load(Relaxed));
            // An empty slot's is the header's line, which is near anyway; a branch would be
            // foretold wrong.
            self.region.prefetch(off);
            self.region.prefetch(off + KEY_ENDS);
        }
    }

    /// The live items of one chain, possibly inconsistent.
    #[inline(always)]
    fn read_chain<P: ScanSink>(&self, home: u64, into: &mut P) {
        let generation = self.clear_gen() % GENERATIONS;
        let (mut bucket, mut left) = (home, self.geo.overflow);
        loop {
            let line = self.region.bucket(bucket);
            for (slot, word) in (1..).zip(&line[1..]) {
                let word = word.load(Acquire);
                if word != 0 {
                    self.read_slot(word, id_of(bucket, slot), generation, into);
                }
            }
            match self.link_of(home, line[0].load(Acquire)) {
                Some(next) if left > 0 => bucket = next,
                _ => return,
            }
            left -= 1;
        }
    }

    #[inline(always)]
    fn read_slot<P: ScanSink>(&self, word: u64, id: u32, generation: u64, into: &mut P) {
        let off = entry::slot_off(word);
        let Some((words, key)) = self.entry_at(off) else { return };
        let h = Header::unpack(words);
        if h.key_len == 0 || h.flags & LEASE != 0 || h.generation != generation {
            return;
        }
        if h.expires != 0 && !self.is_unexpired_rare(h.expires) {
            return;
        }
        let ungettable = h.flags & UNGETTABLE != 0;
        let meta =
            ItemMeta { id: item_id(id), value_len: h.value_len, expires_millis: h.expires, ungettable };
        into.add(meta, &key);
    }

    /// Kept out of line: most items never expire.
    #[inline(never)]
    fn is_unexpired_rare(&self, expires: u64) -> bool {
        self.is_unexpired(expires)
    }
}

/// Position of a key walk. Starts as the default.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// The chain to read next.
    pub(in crate::engine) bucket: u64,
    /// Items of the previous chains that are left.
    pub(in crate::engine) buffer: ScanBuffer,
}

/// Items read but not returned yet.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct ScanBuffer {
    /// With the start of each key in `keys`.
    items: Vec<(ItemMeta, usize)>,
    keys: Vec<u8>,
    /// The end of the key of the last of `items`.
    end: usize,
}

impl ScanBuffer {
    fn clear(&mut self) {
        self.truncate(0);
    }
}

impl ScanSink for ScanBuffer {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn truncate(&mut self, len: usize) {
        if let Some(&(_, start)) = self.items.get(len) {
            self.end = start;
        }
        self.items.truncate(len);
        self.keys.truncate(self.end);
    }

    #[inline]
    fn add(&mut self, meta: ItemMeta, key: &SharedBytes<'_>) {
        self.items.push((meta, self.keys.len()));
        key.append_to(&mut self.keys);
        self.end = self.keys.len();
    }
}
