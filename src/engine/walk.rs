//! Walks over all items, without a lock: chain by chain, each as a whole picture of it.
#![forbid(unsafe_code)]

use super::{
    About, Cursor, Engine, Item, ItemRef,
    entry::{self, UNGETTABLE},
    read::{TRIES, item_id},
};
use crate::shm::sync::*;

/// Chains that a walk asks for ahead: entries of so many, the index of twice as many.
const AHEAD: u64 = 3;

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
            if let Some((about, start)) = cursor.pending.pop() {
                let end = std::mem::replace(&mut cursor.end, start);
                return Some(ItemRef { key: cursor.keys.get(start..end)?, about });
            }
            if cursor.bucket >= self.geo.heads {
                return None;
            }
            self.collect(cursor);
            cursor.bucket += 1;
        }
    }

    /// Asks for the lines of the chains that a walk comes to next.
    #[inline]
    fn look_ahead(&self, head: u64) {
        let bucket = |ahead: u64| self.layout.bucket((head + ahead).min(self.geo.heads - 1));
        self.region.prefetch(bucket(2 * AHEAD));
        for word in &self.region.line(bucket(AHEAD))[1..] {
            let word = word.load(Relaxed);
            if word != 0 {
                self.region.prefetch(entry::slot_off(word));
            }
        }
    }

    /// The live items of one chain: a whole picture of it, or (in a storm of writers) one made under the lock.
    fn collect(&self, cursor: &mut Cursor) {
        let head = cursor.bucket;
        self.look_ahead(head);
        for attempt in 0..=TRIES {
            let guard = (attempt == TRIES).then(|| self.lock_raw(self.shard_of(head)));
            cursor.pending.clear();
            cursor.keys.clear();
            let v = self.version(head).load(Acquire);
            self.each_slot(head, |_, _, word| {
                let off = entry::slot_off(word);
                if let Some(h) = self.header_at(off).filter(|h| h.key_len > 0 && self.exists_for_users(h))
                    && let Some(id) = item_id(h.id)
                {
                    let ungettable = h.flags & UNGETTABLE != 0;
                    let about = About { id, value_len: h.value_len, expires: h.expires, ungettable };
                    cursor.pending.push((about, cursor.keys.len()));
                    self.region.source(off + self.entry_head, h.key_len as usize).append_to(&mut cursor.keys);
                }
                true
            });
            fence(Acquire);
            if self.version(head).load(Relaxed) == v || matches!(guard, Some(Ok(_))) {
                cursor.end = cursor.keys.len();
                return;
            }
        }
        cursor.pending.clear();
    }
}
