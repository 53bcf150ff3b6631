//! Looking a key up in its chain: a straight line for the usual case, and a loop for all.
#![forbid(unsafe_code)]

use super::{
    Engine,
    entry::{self, Header},
    generation,
    index::Found,
    write::Place,
};
use crate::shm::{Line, Region, Source, ask_for, first_slot, layout::SLOTS, order::chain, sync::*};

use purpose::{READ, WRITE};

/// Keys that [`Engine::ask_for`] takes at a time: more lines than a processor fetches at once, few enough to stay until used.
pub(crate) const BATCH: usize = 16;

/// An entry with the key looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match<'a> {
    pub(super) bucket: u64,
    pub(super) slot: u64,
    pub(super) off: u64,
    /// The header.
    pub(super) words: (u64, u64),
    pub(super) value: Source<'a>,
}

impl Match<'_> {
    /// With its header decoded.
    #[inline(always)]
    pub(super) fn found(&self) -> Found {
        Found { bucket: self.bucket, slot: self.slot, off: self.off, header: Header::unpack(self.words) }
    }
}

/// What who looks for a key does with its entry.
pub(super) mod purpose {
    /// Looks at key and header.
    pub(crate) const LOOK: u8 = 0;
    /// Reads the value.
    pub(crate) const READ: u8 = 1;
    /// Replaces or removes it.
    pub(crate) const WRITE: u8 = 2;
}

/// What the first look at a chain gives.
#[derive(Clone, Copy, Debug)]
pub(super) enum Glance<'a> {
    /// The key's entry, without flags and not emptied by a clear; it may have expired.
    Entry(Match<'a>),
    /// There is none.
    Nothing,
    /// What only [`Engine::probe`] can tell.
    Unclear,
}

impl Engine {
    /// Looks `key` up in the chain of `head`, whatever kind of item it is. Without the shard's lock the caller must check the
    /// version afterwards.
    pub(super) fn probe(&self, head: u64, tag: u64, key: &[u8]) -> Option<Found> {
        let (mut bucket, mut line, mut hops) = (head, self.region.bucket(head), 0);
        // No item has such a key, but a free block may look like one.
        if key.is_empty() {
            return None;
        }
        loop {
            // A link's tag is no key's.
            let mut tagged = self.region.tagged(line, tag as u16);
            while tagged != 0 {
                let slot = first_slot(tagged);
                tagged &= tagged - 1;
                // Acquire: what the slot leads to was written before. By now it may be a link: see `glance`.
                let off = entry::slot_off(line[slot].load(chain::FOLLOW));
                if let Some((words, stored)) = self.entry_at(off)
                    && stored.is(key)
                {
                    return Some(Found { bucket, slot: slot as u64, off, header: Header::unpack(words) });
                }
            }
            bucket = self.link_of(line[SLOTS as usize].load(chain::FOLLOW))?;
            hops += 1;
            if hops > self.geo.overflow {
                return None;
            }
            line = self.region.bucket(bucket);
        }
    }

    /// Asks for the lines that reads or writes of these keys need, of as many as [`BATCH`] at the same time: their buckets first,
    /// then what the slots with their tags lead to. Changes nothing.
    pub(crate) fn ask_for<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let mut asked = [None; BATCH];
        for (place, key) in asked.iter_mut().zip(keys) {
            let hash = self.hash(key);
            let (_, line) = self.region.head(hash);
            ask_for(line);
            *place = Some((line, hash));
        }
        for (line, hash) in asked.into_iter().flatten() {
            let tagged = self.region.tagged(line, hash as u16);
            if tagged != 0 {
                let word = line[first_slot(tagged)].load(Relaxed);
                [0, 64, 128].iter().for_each(|at| self.region.prefetch(entry::slot_off(word) + at));
            }
        }
    }

    /// [`Engine::glance`] for a writer.
    #[inline(always)]
    pub(super) fn glance_at<const PURPOSE: u8>(&self, place: &Place<'_>) -> Glance<'_> {
        self.glance::<PURPOSE>(&self.region, (place.head, place.line), place.hash, place.key)
    }

    /// [`Engine::probe`] without its loops, for items without flags that no clear has emptied: the first slot of the `first`
    /// bucket that has the hash's tag, or none has and no other bucket follows. So little is done, and so little must be
    /// remembered meanwhile, that several reads are under way in the processor at once. `region` is the engine's: found once, as the
    /// compiler could not know that it stays.
    #[inline(always)]
    pub(super) fn glance<'r, const PURPOSE: u8>(
        &self,
        region: &'r Region,
        (head, first): (u64, &Line),
        hash: u64,
        key: &[u8],
    ) -> Glance<'r> {
        // The hash's last bits are the tag of all keys but a few. Those find nothing here by which they could be told from others:
        // an empty slot leads to no entry, nor does a link, which is a bucket's number times 8, less than the offset of any.
        let tag = hash as u16;
        let tagged = region.tagged(first, tag);
        if tagged == 0 {
            let follows = entry::is_link(first[SLOTS as usize].load(chain::FOLLOW));
            return if follows || entry::is_unusual(tag) { Glance::Unclear } else { Glance::Nothing };
        }
        let slot = first_slot(tagged);
        // Acquire: what the slot leads to was written before. By now it may be a link.
        let off = entry::slot_off(first[slot].load(chain::FOLLOW));
        match self.plain_entry::<PURPOSE>(region, off, key) {
            Some((words, value)) => {
                Glance::Entry(Match { bucket: head, slot: slot as u64, off, words, value })
            }
            None => Glance::Unclear,
        }
    }

    /// Header and value of the entry at `off`, if one of the usual kind with this key can be there.
    #[inline(always)]
    fn plain_entry<'r, const PURPOSE: u8>(
        &self,
        region: &'r Region,
        off: u64,
        key: &[u8],
    ) -> Option<((u64, u64), Source<'r>)> {
        let usual = entry::plain_head(key.len(), generation::current(region))?;
        let piece = region.piece(off)?;
        match PURPOSE {
            // Most entries reach into a second line.
            READ => piece.prefetch_second(),
            // Its first word becomes 0, and the next entry takes its place.
            WRITE => piece.prefetch_to_write(),
            _ => {}
        }
        let words = piece.words();
        if words.0 >> 32 != usual {
            return None;
        }
        let (stored, value) = piece.pair(self.header_len, key.len() as u32, entry::value_len(words.0))?;
        stored.is(key).then_some((words, value))
    }
}
