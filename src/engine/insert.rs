//! New keys: everything is reserved and written before the one store that makes the item visible. In a full cache that
//! evicts, the victim's number and block are what is reserved.
#![forbid(unsafe_code)]

use super::{
    Engine, entry,
    evict::Spare,
    index::Vacancy,
    room::Short,
    shard::ShardGuard,
    stats::Counter,
    write::{New, Place, Stop},
};
use crate::shm::block;

impl Engine {
    /// A new key: everything is reserved and written before the one store that makes it visible.
    pub(super) fn insert(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        new: &New<'_>,
    ) -> Result<(), Stop> {
        let claimed = self.claim_id(guard.no);
        let (id, mut block) = match claimed {
            Some(id) => (id, None),
            None => self.displace(guard).map(|Spare { id, off }| (id, Some(off))).ok_or(Short::Items)?,
        };
        let done = self.insert_as(guard, place, new, id, &mut block);
        if done.is_err() {
            self.free_id(id, guard.no);
        } else if claimed.is_none() {
            self.count(Counter::Full, 1);
        }
        if let Some(off) = block {
            block::free(&self.region, guard.no, guard.off, off);
        }
        done
    }

    fn insert_as(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        new: &New<'_>,
        id: u32,
        spare: &mut Option<u64>,
    ) -> Result<(), Stop> {
        let header = self.header_for(place, new, id);
        let blocks = self.blocks_of(&header);
        let Some(vacancy) = self.vacancy(place.head) else {
            return Err(Short::Space(0).into());
        };
        if !self.take_blocks(guard, blocks) {
            self.give_vacancy(guard, vacancy);
            return Err(Short::Blocks { need: blocks as u32, held: 0 }.into());
        }
        let Some(off) = self.block_for(guard, header.total(self.entry_head), spare) else {
            self.give_blocks(guard, blocks);
            self.give_vacancy(guard, vacancy);
            return Err(Short::Space(header.total(self.entry_head)).into());
        };
        self.fill(off, &header, place.key, new.value);
        self.reset_hits(id);
        self.note_expiry(guard, new.expires);
        let stamp = self.first_stamp(guard, place.hash);
        self.publish(place.head, vacancy, entry::slot(place.tag, off), id, stamp);
        guard.add_used(1);
        Ok(())
    }

    fn give_vacancy(&self, guard: &ShardGuard<'_>, vacancy: Vacancy) {
        if let Vacancy::Overflow { new, .. } = vacancy {
            self.give_overflow(guard.no, new);
        }
    }

    /// A block for `bytes`: the spare one if it is as large as a new one would be.
    fn block_for(&self, guard: &ShardGuard<'_>, bytes: u64, spare: &mut Option<u64>) -> Option<u64> {
        if let Some(off) = *spare
            && block::locate(&self.region, guard.no, off).is_some_and(|b| b.len == block::rounded(bytes))
        {
            return spare.take();
        }
        block::alloc(&self.region, guard.no, guard.off, bytes).ok()
    }
}
