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
use crate::shm::block::{self, Wanted};

impl Engine {
    /// A new key: everything is reserved and written before the one store that makes it visible.
    pub(super) fn insert(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        new: &New<'_>,
    ) -> Result<(), Stop> {
        let bytes = entry::size(self.entry_head, place.key.len() as u64, new.value.len() as u64);
        self.insert_into(guard, place, new, block::wanted(bytes))
    }

    /// [`Engine::insert`] with the block's size at hand.
    pub(super) fn insert_into(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        new: &New<'_>,
        wanted: Wanted,
    ) -> Result<(), Stop> {
        let Some(id) = self.claim_id(guard.home) else {
            return self.insert_displacing(guard, place, new, wanted);
        };
        let done = self.insert_as(guard, place, new, id, (wanted, &mut None));
        if done.is_err() {
            self.free_id(id, guard.home);
        }
        done
    }

    /// [`Engine::insert`] where no number is free: that of a victim is taken, and its block if it is of the right size.
    #[inline(never)]
    fn insert_displacing(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        new: &New<'_>,
        wanted: Wanted,
    ) -> Result<(), Stop> {
        let Some(Spare { id, off }) = self.displace(guard) else { return Err(Short::Items.into()) };
        let mut block = Some(off);
        let done = self.insert_as(guard, place, new, id, (wanted, &mut block));
        if done.is_err() {
            self.free_id(id, guard.home);
        } else {
            self.count(Counter::Full, 1);
        }
        if let Some(off) = block {
            block::free(&self.region, guard.home, off);
        }
        done
    }

    #[inline(always)]
    fn insert_as(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        new: &New<'_>,
        id: u32,
        (wanted, spare): (Wanted, &mut Option<u64>),
    ) -> Result<(), Stop> {
        let header = self.header_for(place, new, id);
        let blocks = self.blocks_of(&header);
        let Some(vacancy) = self.vacancy(place.head) else {
            return Err(Short::Space(0).into());
        };
        if let Err(short) = self.take_blocks(guard, blocks, 0) {
            self.give_vacancy(guard, vacancy);
            return Err(short.into());
        }
        let Some(off) = self.block_for(guard, wanted, spare) else {
            self.give_blocks(guard, blocks);
            self.give_vacancy(guard, vacancy);
            return Err(Short::Space(wanted.bytes).into());
        };
        self.fill(off, &header, place.key, new.value);
        self.reset_hits(id);
        self.note_expiry(guard, new.expires);
        let stamp = self.first_stamp(guard, place.hash);
        self.publish(place.head, vacancy, entry::slot(place.tag, off), id, stamp);
        guard.add_used(1);
        Ok(())
    }

    #[cold]
    fn give_vacancy(&self, guard: &ShardGuard<'_>, vacancy: Vacancy) {
        if let Vacancy::Overflow { new, .. } = vacancy {
            self.give_overflow(guard.no, new);
        }
    }

    /// A block: the spare one if it is as large as a new one would be.
    #[inline(always)]
    fn block_for(&self, guard: &ShardGuard<'_>, wanted: Wanted, spare: &mut Option<u64>) -> Option<u64> {
        if let Some(off) = *spare
            && block::locate(&self.region, guard.no, off).is_some_and(|b| b.len == wanted.len())
        {
            return spare.take();
        }
        block::alloc(&self.region, guard.home, wanted).ok()
    }
}
