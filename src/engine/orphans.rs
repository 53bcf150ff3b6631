//! Items that are whole in the data, but that no slot leads to.
//!
//! An item that nobody touches moves all the same: when its bucket overflows, and when other chains take and give back
//! the buckets behind it. After a crash of the machine the disk may have one half of such a move. Then the data decide:
//! what was freed before the last sync is poisoned there, so an entry with its checksum is that of the sync or a later one.
#![forbid(unsafe_code)]

use super::{
    Engine,
    entry::{self, GENERATIONS, LEASE},
    index::Vacancy,
    recover::Pass,
    shard::ShardGuard,
};
use crate::shm::block;

impl Engine {
    /// Puts the lost items of a shard back into its index. Its chains were walked, its unused buckets are known; what is
    /// not marked afterwards is free memory.
    pub(super) fn adopt_orphans(&self, guard: &ShardGuard<'_>, pass: &mut Pass) {
        block::each_handed_out(&self.region, guard.no, |span, index, off| {
            if !pass.blocks.get(span, index) && self.adopt(guard, off, pass).is_some() {
                pass.adopted += 1;
            }
        });
    }

    fn adopt(&self, guard: &ShardGuard<'_>, off: u64, pass: &mut Pass) -> Option<()> {
        let sound = self.judge(guard.no, off, true, &mut pass.key).ok()?;
        let (h, head, tag) = (sound.header, self.head_of(sound.hash), entry::tag_of(sound.hash));
        let wanted = h.flags & LEASE == 0
            && h.generation == self.clear_gen() % GENERATIONS
            && self.shard_of(head) == guard.no
            // Who deletes an item frees its number: one sign less that this is an item that was deleted.
            && self.id_is_held_by(h.id, guard.no)
            && !pass.ids.get(u64::from(h.id));
        // A key that the index has is not replaced: any version since the last sync will do.
        if !wanted || self.probe(head, tag, pass.key.first(h.key_len as usize)).is_some() {
            return None;
        }
        let vacancy = self.vacancy(head)?;
        let at = match vacancy {
            Vacancy::Slot { bucket, slot } => (bucket, slot),
            Vacancy::Overflow { new, .. } => (new, 2),
        };
        pass.ids.set(u64::from(h.id));
        pass.blocks.set(sound.block.span, sound.block.index);
        // Its last use is not known: the first to be evicted.
        self.publish(head, vacancy, entry::slot(tag, off), h.id, 0);
        self.keep_item(&h, at, pass);
        Some(())
    }
}
