//! Copy-on-write of an entry: the new one is written elsewhere, one store of the slot makes it the key's, and only then the
//! old one's block is free.
#![forbid(unsafe_code)]

use super::{
    Engine, Eviction, SetOptions,
    entry::{self, Header, UNGETTABLE},
    find::Match,
    index::{Found, bump},
    room::Short,
    shard::ShardGuard,
    write::{New, Place, Stop},
};
use crate::shm::{
    block::{self, Wanted},
    order::chain,
};

impl Engine {
    /// [`Engine::update`] of the usual kind of item (`glance` finds no other), found in the first bucket of its chain, in a cache that does
    /// not count blocks; `false` = it is not so, or there is no memory, and nothing was done.
    #[inline(always)]
    pub(super) fn update_plain(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        m: &Match<'_>,
        (value, wanted): (&[u8], Wanted),
        options: &SetOptions,
    ) -> bool {
        if self.config.blocks.is_some() {
            return false;
        }
        let Ok(off) = block::alloc(&self.region, guard.home, wanted) else { return false };
        let expires = if options.keep_ttl { entry::expires(m.words.1) } else { self.expiry(options.expires) };
        let words = entry::renewed(m.words, value.len() as u32, expires);
        self.fill_words(off, words, place.key, value);
        self.note_expiry(guard, expires);
        place.line[m.slot as usize & 7].store(entry::slot(place.tag, off), chain::PUBLISH);
        bump(place.line);
        block::free(&self.region, guard.home, m.off);
        if !options.keep_ttl && self.config.eviction != Eviction::None {
            self.touch(m.bucket, m.slot);
        }
        true
    }

    /// An existing key gets a new value; its item number, flags and (if wished) expiry and LRU place stay.
    pub(super) fn update(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        f: &Found,
        mut new: New<'_>,
        keep_ttl: bool,
    ) -> Result<(), Stop> {
        new.flags = f.header.flags & UNGETTABLE;
        if keep_ttl {
            new.expires = f.header.expires;
        }
        self.replace(guard, place, f, &new)?;
        if !keep_ttl && self.config.eviction != Eviction::None {
            self.touch(f.bucket, f.slot);
        }
        Ok(())
    }

    /// Copy-on-write: the slot changes from the old entry to the new one in one store.
    pub(super) fn replace(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        f: &Found,
        new: &New<'_>,
    ) -> Result<(), Stop> {
        if self.config.blocks.is_some() {
            return self.replace_counted(guard, place, f, new);
        }
        self.replace_block(guard, place, f, new, &renewed(f, new))
    }

    /// [`Engine::replace`] where blocks are counted.
    #[cold]
    fn replace_counted(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        f: &Found,
        new: &New<'_>,
    ) -> Result<(), Stop> {
        let header = renewed(f, new);
        let (old, now) = (self.blocks_of(&f.header), self.blocks_of(&header));
        // As native's bitmap: more blocks than before must all be found beside the old ones.
        let extra = if now > old { now } else { 0 };
        self.take_blocks(guard, extra, old)?;
        let done = self.replace_block(guard, place, f, new, &header);
        self.give_blocks(guard, if done.is_ok() { old + extra - now } else { extra });
        done
    }

    /// The memory's part of [`Engine::replace`].
    fn replace_block(
        &self,
        guard: &ShardGuard<'_>,
        place: &Place<'_>,
        f: &Found,
        new: &New<'_>,
        header: &Header,
    ) -> Result<(), Stop> {
        let bytes = header.total(self.entry_head);
        let Ok(off) = block::alloc(&self.region, guard.home, block::wanted(bytes)) else {
            return Err(Short::Space(bytes).into());
        };
        self.fill(off, header, place.key, new.value);
        self.note_expiry(guard, new.expires);
        self.slot(f.bucket, f.slot).store(entry::slot(place.tag, off), chain::PUBLISH);
        self.bump(place.head);
        block::free(&self.region, guard.home, f.off);
        Ok(())
    }
}

/// The header of the entry that takes the place of `f`. It keeps the clear generation: if a clear comes between the lookup
/// and the store of the slot, the write happened before the clear, and readers miss the new entry like the old one.
fn renewed(f: &Found, new: &New<'_>) -> Header {
    Header { value_len: new.value.len() as u64, flags: new.flags, expires: new.expires, ..f.header }
}
