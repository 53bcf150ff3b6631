//! Reaping a shard: expired items, and those of older clear generations.
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine, generation,
        index::{
            bucket::EntryRef,
            entry::{self, GENERATIONS, LEASE},
        },
        shard::guard::ShardGuard,
        stats::Counter,
    },
    os::clock,
};

impl Engine {
    /// Removes a shard's items of older clear generations, placeholders of fillers that ended, and,
    /// given the time (milliseconds), expired items. Returns how many of the two latter.
    pub(in crate::engine) fn reap(&self, guard: &ShardGuard<'_>, generation: u64, now: Option<u64>) -> u64 {
        let mut expired = 0;
        let mut earliest = u64::MAX;
        for home in self.homes_of(guard.no, false) {
            // Removing may drop a bucket of the chain: start it again after each.
            while let Some((dead, was_current)) = self.first_dead(home, generation, now, &mut earliest) {
                self.remove(guard, home, &dead);
                expired += u64::from(was_current);
            }
        }
        guard.set_earliest(earliest);
        guard.set_reaped(generation::number(generation));
        self.count(Counter::Expired, expired);
        expired
    }

    /// The chain's first item to remove, and whether it is of the current generation (so it has
    /// expired). Notes the earliest expiry of those that stay.
    fn first_dead(
        &self,
        home: u64,
        generation: u64,
        now: Option<u64>,
        earliest: &mut u64,
    ) -> Option<(EntryRef, bool)> {
        let mut dead = None;
        self.each_slot(home, |bucket, slot, word| {
            let off = entry::slot_off(word);
            let Some(header) = self.header_at(off).filter(|h| h.key_len > 0) else { return true };
            let current = header.generation == generation % GENERATIONS;
            let found = EntryRef { bucket, slot, off, header };
            let is_lease = header.flags & LEASE != 0;
            // A lease ends, whatever becomes of items.
            let now = now.or_else(|| is_lease.then(clock::unix_millis));
            let expired = header.expires != 0 && now.is_some_and(|now| header.expires <= now);
            if !current || expired && !self.is_awaited(&found) {
                dead = Some((found, current));
                return false;
            }
            if is_lease {
                self.note_lease(header.expires);
            }
            if header.expires != 0 {
                *earliest = header.expires.min(*earliest);
            }
            true
        });
        dead
    }
}
