//! Walks over all items, without a lock: chain by chain, each as a whole picture of it.
#![forbid(unsafe_code)]

use super::{
    About, Cursor, Engine, Item, ItemRef,
    entry::{self, GENERATIONS, LEASE, LINK, UNGETTABLE},
    read::{TRIES, item_id},
};
use crate::{
    os::clock,
    shm::{Source, layout::SLOTS, order::chain, sync::*},
};

/// Chains that a walk asks for ahead: entries of so many, the index of twice as many.
const AHEAD: u64 = 4;
/// Bytes behind an entry's start that are asked for, too: a short key may lie on the next line.
const KEY_ENDS: u64 = 40;

/// Chains that a walk reads at a time.
const TOGETHER: u64 = 8;

/// What a walk reads chains into.
pub(crate) trait Picture {
    /// How much there is.
    fn len(&self) -> usize;

    /// Goes back to what there was at that length: a writer came in between, and the chain is read anew.
    fn truncate(&mut self, len: usize);

    /// Appends a live item. The key may be torn: then it is taken back.
    fn add(&mut self, about: About, key: &Source<'_>);
}

impl Engine {
    /// The next item of a walk over all items; `None` = the end. Items present throughout are met exactly once.
    pub fn walk(&self, cursor: &mut Cursor) -> Option<Item> {
        self.walk_ref(cursor).map(ItemRef::to_item)
    }

    /// [`Engine::walk`] without a copy of the key for each item: it is the cursor's until its next step.
    #[inline]
    pub fn walk_ref<'c>(&self, cursor: &'c mut Cursor) -> Option<ItemRef<'c>> {
        loop {
            // What was given out last lies behind the others.
            if let Some((about, start)) = cursor.chains.items.pop() {
                let end = std::mem::replace(&mut cursor.chains.end, start);
                return Some(ItemRef { key: cursor.chains.keys.get(start..end)?, about });
            }
            cursor.chains.clear();
            if !self.walk_on(&mut cursor.bucket, &mut cursor.chains) {
                return None;
            }
        }
    }

    /// Appends the live items of a few chains to `into`; `false` = there are no more chains. A chain's items are a whole
    /// picture of it at some moment, or (in a storm of writers) one made under the lock.
    #[inline(never)]
    pub(crate) fn walk_on<P: Picture>(&self, bucket: &mut u64, into: &mut P) -> bool {
        let end = bucket.saturating_add(TOGETHER).min(self.geo.heads);
        if *bucket >= end {
            return false;
        }
        for head in *bucket..end {
            self.look_ahead(head);
            let len = into.len();
            let v = self.version(head).load(chain::BEGIN);
            self.read_chain(head, into);
            fence(chain::RECHECK);
            if self.version(head).load(Relaxed) != v {
                into.truncate(len);
                self.read_again(head, into);
            }
        }
        *bucket = end;
        true
    }

    /// The live items of a chain that a writer is at.
    #[cold]
    fn read_again<P: Picture>(&self, head: u64, into: &mut P) {
        let len = into.len();
        for _ in 1..TRIES {
            let v = self.version(head).load(chain::BEGIN);
            self.read_chain(head, into);
            fence(chain::RECHECK);
            if self.version(head).load(Relaxed) == v {
                return;
            }
            into.truncate(len);
            std::hint::spin_loop();
        }
        if let Ok(_guard) = self.lock_to_read(self.shard_of(head)) {
            self.read_chain(head, into);
        }
    }

    /// Asks for the lines of the chains that a walk comes to next.
    #[inline]
    fn look_ahead(&self, head: u64) {
        let bucket = |ahead: u64| (head + ahead).min(self.geo.heads - 1);
        self.region.prefetch(self.layout.bucket(bucket(2 * AHEAD)));
        for word in &self.region.bucket(bucket(AHEAD))[1..] {
            let off = entry::slot_off(word.load(Relaxed));
            // An empty slot's is the header's line, which is near anyway; a branch would be foretold wrong.
            self.region.prefetch(off);
            self.region.prefetch(off + KEY_ENDS);
        }
    }

    /// The live items of one chain, as they are at this moment.
    #[inline(always)]
    fn read_chain<P: Picture>(&self, head: u64, into: &mut P) {
        let generation = self.clear_gen() % GENERATIONS;
        let (mut bucket, mut left) = (head, self.geo.overflow);
        loop {
            let line = self.region.bucket(bucket);
            for word in &line[1..] {
                let word = word.load(Acquire);
                if word != 0 && entry::slot_tag(word) != LINK {
                    self.read_slot(word, generation, into);
                }
            }
            match self.link_of(line[SLOTS as usize].load(Acquire)) {
                Some(next) if left > 0 => bucket = next,
                _ => return,
            }
            left -= 1;
        }
    }

    #[inline(always)]
    fn read_slot<P: Picture>(&self, word: u64, generation: u64, into: &mut P) {
        let off = entry::slot_off(word);
        let Some(h) = self.header_at(off) else { return };
        let Some(id) = item_id(h.id) else { return };
        if h.key_len == 0 || h.flags & LEASE != 0 || h.generation != generation {
            return;
        }
        if h.expires != 0 && self.is_over(h.expires) {
            return;
        }
        let ungettable = h.flags & UNGETTABLE != 0;
        let about = About { id, value_len: h.value_len, expires: h.expires, ungettable };
        into.add(about, &self.region.source(off + self.entry_head, h.key_len as usize));
    }

    /// A call of its own: most items of most caches never expire.
    #[inline(never)]
    fn is_over(&self, expires: u64) -> bool {
        !self.config.no_expire && clock::unix_secs() >= expires
    }
}

/// Items that were read and not given out yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Chains {
    /// With where in `keys` their keys start.
    items: Vec<(About, usize)>,
    keys: Vec<u8>,
    /// Where the key of the last of `items` ends.
    end: usize,
}

impl Chains {
    fn clear(&mut self) {
        self.truncate(0);
    }
}

impl Picture for Chains {
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
    fn add(&mut self, about: About, key: &Source<'_>) {
        self.items.push((about, self.keys.len()));
        key.append_to(&mut self.keys);
        self.end = self.keys.len();
    }
}
