//! Rebuilding a shard after a death, a panic or an unclean open. Everything but the index is rebuilt from the index;
//! each step may be cut off and done again. No malloc: the allocator's locks may be those of a dead thread's fork.
#![forbid(unsafe_code)]

use super::{
    Engine,
    config::MAX_KEY,
    entry::{self, Header, LINK},
    shard::ShardGuard,
    stats::Counter,
    verdict::Sound,
};
use crate::{
    error::Result,
    shm::{
        block,
        layout::{SLOTS, shard},
        marks::{Bits, Buffer, Marks},
        sync::*,
    },
};

/// What one pass over a shard's index finds.
pub(super) struct Pass {
    /// Whether checksums are looked at, and items without a slot looked for.
    verify: bool,
    pub(super) blocks: Marks,
    overflow: Bits,
    pub(super) ids: Bits,
    /// The key that was looked at last.
    pub(super) key: Buffer,
    used: u64,
    earliest: u64,
    credit: u64,
    /// Items in the small queue.
    small: u64,
    dropped: u64,
    /// Items found in the data alone.
    pub(super) adopted: u64,
    /// The latest stamp that is a count.
    newest: u64,
}

impl Engine {
    /// Makes a shard whole. The caller holds its lock, however it got it.
    ///
    /// # Errors
    /// As [`Engine::rebuild`]: the shard is as it was, and still has its mark. Whoever locks it next tries again.
    #[cold]
    pub(super) fn recover(&self, guard: &ShardGuard<'_>) -> Result<()> {
        self.rebuild(guard, false)?;
        self.recovered(guard);
        Ok(())
    }

    /// Makes a shard whole in which something was damaged: every entry must prove itself. Returns the items dropped.
    ///
    /// # Errors
    /// As [`Engine::rebuild`].
    pub(super) fn repair(&self, guard: &ShardGuard<'_>) -> Result<u64> {
        let dropped = self.rebuild(guard, true)?;
        self.recovered(guard);
        Ok(dropped)
    }

    fn recovered(&self, guard: &ShardGuard<'_>) {
        self.recover_ids(Some(guard.no));
        self.count(Counter::Repaired, 1);
        guard.set_dirty(false);
    }

    /// Rebuilds everything but the item numbers, counts and returns the items that it drops. With `verify` entries prove
    /// themselves by their checksums, and those that no slot leads to are looked for.
    ///
    /// # Errors
    /// There is no scratch memory; nothing was changed.
    pub(super) fn rebuild(&self, guard: &ShardGuard<'_>, verify: bool) -> Result<u64> {
        // All that can fail comes first: what is half rebuilt would be worse than what the dead writer left.
        let (blocks, overflow) = (Marks::new(&self.region)?, Bits::new(self.geo.overflow)?);
        let (ids, key) = (Bits::new(self.geo.capacity + 1)?, Buffer::new(MAX_KEY as usize)?);
        guard.set_dirty(true);
        // Then readers must drop what they are copying: nobody knows how far the dead writer was.
        let first = guard.no * self.heads_per_shard;
        for head in first..first + self.heads_per_shard {
            self.bump(head);
        }
        fence(SeqCst);
        let mut pass = Pass {
            verify,
            blocks,
            overflow,
            ids,
            key,
            used: 0,
            earliest: u64::MAX,
            credit: 0,
            small: 0,
            dropped: 0,
            adopted: 0,
            newest: 0,
        };
        for head in first..first + self.heads_per_shard {
            self.recover_chain(guard, head, &mut pass);
        }
        self.recover_overflow(guard, &pass);
        if verify {
            self.adopt_orphans(guard, &mut pass);
            self.go_on_after(guard, pass.newest);
        }
        block::rebuild(&self.region, guard.home, &pass.blocks);
        // A slot that was emptied, and whose item was found again, is no loss.
        let dropped = pass.dropped.saturating_sub(pass.adopted);
        self.count(Counter::DroppedCorrupt, dropped);
        self.recount(guard, pass.used, pass.earliest, pass.credit);
        guard.word(shard::SMALL).store(pass.small, Relaxed);
        Ok(dropped)
    }

    /// Whether the slot at a place holds an entry with this item number.
    pub(super) fn holds(&self, bucket: u64, slot: u64, id: u32) -> bool {
        let word = self.slot(bucket, slot).load(Relaxed);
        word != 0
            && entry::slot_tag(word) != LINK
            && self.header_at(entry::slot_off(word)).is_some_and(|h| h.id == id && h.key_len > 0)
    }

    fn recount(&self, guard: &ShardGuard<'_>, used: u64, earliest: u64, credit: u64) {
        guard.used().store(used as u32, Relaxed);
        guard.word(shard::EARLIEST).store(earliest, Relaxed);
        self.note_earliest(earliest);
        guard.id_hint().store(0, Relaxed);
        self.recount_blocks(guard.no, credit);
    }

    /// Walks one chain with bounds; what does not belong there is cut out.
    fn recover_chain(&self, guard: &ShardGuard<'_>, head: u64, pass: &mut Pass) {
        let start = self.geo.heads + guard.no * self.geo.overflow;
        let mut bucket = head;
        loop {
            let mut next = None;
            for slot in 1..=SLOTS {
                let word = self.slot(bucket, slot).load(Acquire);
                if word == 0 {
                    self.set_stamp(bucket, slot, u64::MAX);
                    continue;
                }
                if entry::slot_tag(word) == LINK {
                    next = self.link_of(word).filter(|&n| {
                        slot == SLOTS
                            && n >= start
                            && n < start + self.geo.overflow
                            && pass.overflow.set(n - start)
                    });
                    if next.is_none() {
                        self.slot(bucket, slot).store(0, Release);
                    }
                    continue;
                }
                match self.recover_item(guard, head, (bucket, slot), pass) {
                    Some(h) => self.keep_item(&h, (bucket, slot), pass),
                    None => {
                        self.slot(bucket, slot).store(0, Release);
                        self.set_stamp(bucket, slot, u64::MAX);
                        pass.dropped += 1;
                    }
                }
            }
            match next {
                Some(n) => bucket = n,
                None => return,
            }
        }
    }

    pub(super) fn keep_item(&self, h: &Header, at: (u64, u64), pass: &mut Pass) {
        pass.used += 1;
        pass.credit += self.blocks_of(h);
        if h.expires != 0 {
            pass.earliest = pass.earliest.min(h.expires);
        }
        let stamp = self.stamp(at.0, at.1);
        if self.geo.stamps && (pass.verify || stamp == u64::MAX) {
            self.set_stamp(at.0, at.1, self.kept_stamp(stamp, &mut pass.newest));
        }
        pass.small += u64::from(self.in_small_queue(at.0, at.1));
        self.place(h.id, at.0, at.1);
    }

    /// The entry of a slot, if it is one, and nobody else's is its number and its block.
    fn recover_item(
        &self,
        guard: &ShardGuard<'_>,
        head: u64,
        at: (u64, u64),
        pass: &mut Pass,
    ) -> Option<Header> {
        let Sound { header, block, .. } =
            self.judge_slot(guard.no, head, at, pass.verify, &mut pass.key).ok()?;
        // After a crash of the machine an item that was removed can be back beside the one that got its number.
        (self.id_is_free_for(header.id, guard.no, at)
            && pass.ids.set(u64::from(header.id))
            && pass.blocks.set(block.span, block.index))
        .then_some(header)
    }

    /// Rebuilds the list of unused overflow buckets.
    fn recover_overflow(&self, guard: &ShardGuard<'_>, pass: &Pass) {
        let reached = &pass.overflow;
        let start = self.geo.heads + guard.no * self.geo.overflow;
        // Never below a bucket that a chain reaches, whatever a damaged store says: it would be handed out twice.
        let last = (0..self.geo.overflow).rev().find(|&n| reached.get(n)).map_or(0, |n| n + 1);
        let bump = guard.word(shard::OVERFLOW_BUMP).load(Relaxed).clamp(last, self.geo.overflow);
        guard.word(shard::OVERFLOW_BUMP).store(bump, Relaxed);
        guard.word(shard::OVERFLOW_FREE).store(0, Relaxed);
        // After a crash of the machine a bucket can be on disk, but not that it was handed out: fresh ones must be empty.
        let end = if pass.verify { self.geo.overflow } else { bump };
        let is_empty = |n: u64| (1..=SLOTS).all(|slot| self.slot(start + n, slot).load(Relaxed) == 0);
        for n in (0..end).filter(|&n| !reached.get(n) && (n < bump || !is_empty(n))) {
            for slot in 1..=SLOTS {
                self.slot(start + n, slot).store(0, Relaxed);
                self.set_stamp(start + n, slot, u64::MAX);
            }
            if n < bump {
                self.give_overflow(guard.no, start + n);
            }
        }
    }
}
