//! Copy-on-write of an entry: the new one is written elsewhere, one store of the slot publishes it,
//! and only then is the old block free.
#![forbid(unsafe_code)]

use std::num::NonZeroU64;

use crate::{
    engine::{
        Engine, SetOptions,
        index::{
            bucket::{EntryRef, bump_seq},
            entry::{self, Header, UNGETTABLE},
            lookup::{HashedKey, RawEntry},
        },
        ops::set::{New, WriteAbort},
        policy::Policy,
        quota::Shortage,
        shard::guard::ShardGuard,
    },
    error::Result,
    shm::{
        order::seqlock,
        slab::{self, Wanted},
    },
};

impl Engine {
    /// [`Engine::update`] as the fast path: an item without flags in its home bucket, in a cache
    /// without a block limit. `kept` is the block that the shard keeps, if it is of the size wanted.
    /// `false` = not such a case, or no memory; nothing was done.
    #[inline(always)]
    pub(in crate::engine) fn update_fast(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        m: &RawEntry<'_>,
        (value, wanted, kept): (&[u8], Wanted, Option<NonZeroU64>),
        options: &SetOptions,
    ) -> bool {
        if self.config.blocks.is_some() {
            return false;
        }
        if let Some(off) = kept {
            slab::take_kept(guard.cells);
            self.update_into(guard, hashed, m, (value, off.get()), options);
            let old = entry::packed_size(self.header_bytes, m.words.0);
            slab::free_for_kept(&self.region, guard.cells, m.off, old);
        } else if !self.update_other(&guard.alias(), *hashed, *m, (value, wanted), options) {
            return false;
        }
        if self.policy != Policy::None && !options.keep_ttl {
            self.touch(m.bucket, m.slot);
        }
        true
    }

    /// [`Engine::update_fast`] with another block than the one that the shard keeps.
    #[inline(never)]
    fn update_other(
        &self,
        guard: &ShardGuard<'_>,
        hashed: HashedKey<'_>,
        m: RawEntry<'_>,
        (value, wanted): (&[u8], Wanted),
        options: &SetOptions,
    ) -> bool {
        let old = entry::packed_size(self.header_bytes, m.words.0);
        slab::prefetch_free(&self.region, guard.cells, m.off, old);
        let Ok(off) = slab::alloc_uncached(&self.region, guard.no, wanted) else { return false };
        self.update_into(guard, &hashed, &m, (value, off), options);
        slab::free(&self.region, guard.cells, m.off, old);
        true
    }

    /// Writes the new entry at `off` and makes the slot lead there. The old one's block is to be freed.
    #[inline(always)]
    fn update_into(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        m: &RawEntry<'_>,
        (value, off): (&[u8], u64),
        options: &SetOptions,
    ) {
        let expires = if options.keep_ttl { entry::expires(m.words.1) } else { self.expiry(options.expires) };
        let words = entry::renewed(m.words.0, value.len() as u32, expires);
        self.fill(guard.no, off, words, (hashed.key, value));
        self.end_life(m.off, m.words.0);
        // Without an expiry before and after, nothing that the shard notes has changed.
        if expires | entry::expires(m.words.1) != 0 {
            self.note_expiry(guard, expires);
        }
        hashed.bucket[m.slot as usize & 7].store(entry::slot(hashed.tag(), off), seqlock::PUBLISH);
        bump_seq(hashed.bucket);
    }

    /// An existing key gets a new value; its flags and (if wished) expiry and LRU place
    /// stay.
    pub(in crate::engine) fn update(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        f: &EntryRef,
        mut new: New<'_>,
        keep_ttl: bool,
    ) -> Result<(), WriteAbort> {
        new.flags = f.header.flags & UNGETTABLE;
        if keep_ttl {
            new.expires = f.header.expires;
        }
        self.replace(guard, hashed, f, &new)?;
        if !keep_ttl && self.policy != Policy::None {
            self.touch(f.bucket, f.slot);
        }
        Ok(())
    }

    /// Copy-on-write: the slot changes from the old entry to the new one in one store.
    pub(in crate::engine) fn replace(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        f: &EntryRef,
        new: &New<'_>,
    ) -> Result<(), WriteAbort> {
        if self.config.blocks.is_some() {
            return self.replace_counted(guard, hashed, f, new);
        }
        self.replace_block(guard, hashed, f, new, &renewed(f, new))
    }

    /// [`Engine::replace`] if blocks are counted.
    #[cold]
    fn replace_counted(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        f: &EntryRef,
        new: &New<'_>,
    ) -> Result<(), WriteAbort> {
        let header = renewed(f, new);
        let (old, now) = (self.blocks_of(&f.header), self.blocks_of(&header));
        // As with native's bitmap: a larger value needs all its blocks beside the old ones.
        let extra = if now > old { now } else { 0 };
        self.take_blocks(guard, extra, old)?;
        let done = self.replace_block(guard, hashed, f, new, &header);
        self.give_blocks(guard, if done.is_ok() { old + extra - now } else { extra });
        done
    }

    /// The allocation and store of [`Engine::replace`].
    fn replace_block(
        &self,
        guard: &ShardGuard<'_>,
        hashed: &HashedKey<'_>,
        f: &EntryRef,
        new: &New<'_>,
        header: &Header,
    ) -> Result<(), WriteAbort> {
        let bytes = header.total(self.header_bytes);
        let Ok(off) = slab::alloc(&self.region, guard.cells, slab::wanted(bytes)) else {
            return Err(Shortage::Space(bytes).into());
        };
        self.fill(guard.no, off, header.words(), (hashed.key, new.value));
        self.end_life(f.off, f.header.words().0);
        self.note_expiry(guard, new.expires);
        self.slot(f.bucket, f.slot).store(entry::slot(hashed.tag(), off), seqlock::PUBLISH);
        self.bump_seq(hashed.home);
        slab::free(&self.region, guard.cells, f.off, f.header.total(self.header_bytes));
        Ok(())
    }
}

/// The header of the entry that takes the place of `f`. It keeps the clear generation: if a clear
/// comes between the lookup and the store of the slot, the write happened before the clear, and
/// readers miss the new entry like the old one.
fn renewed(f: &EntryRef, new: &New<'_>) -> Header {
    Header { value_len: new.value.len() as u64, flags: new.flags, expires: new.expires, ..f.header }
}
