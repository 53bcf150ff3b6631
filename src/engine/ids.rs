//! Item numbers, 1 to capacity: stable while a key stays stored. A number is also the right to store an item, so the
//! item limit is exact without any counter.
//!
//! ```text
//! a half word per number    0 = free
//!                           1 << 31 | shard = claimed by a writer of that shard, not published yet
//!                           else bucket * 8 + slot: where its slot is, or was before its shard kept it
//! bits, three levels        set = probably free; only a hint, put right by whoever finds it wrong
//! ```
//! Of the numbers that its items left a shard keeps one for its next item: both go without a locked instruction.
//! Who finds all numbers in use collects what the shards keep before the cache is full. None is kept where free ones are
//! few, as then each new key would have to ask, nor where a full cache evicts, which asks nobody.
//! The claim is one CAS on the half word and names its shard: if the writer dies, that shard's recovery finds it.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Engine, visit::Missed};
use crate::shm::{Home, order::ids as order, sync::*};

const CLAIMED: u32 = 1 << 31;
/// In the shard's hint: the number is not only probably free, but kept. No number is so large.
const KEPT: u32 = 1 << 31;
/// So many shards are asked in no time.
const FEW_SHARDS: u64 = 8;

impl Engine {
    #[inline]
    fn id_word(&self, id: u32) -> &AtomicU32 {
        self.region.half(self.layout.ids + u64::from(id) * 4)
    }

    fn bits(&self, level: usize, word: u64) -> &AtomicU64 {
        self.region.word(self.layout.id_bits[level] + word * 8)
    }

    /// Marks all numbers free, in a region that nobody else uses.
    pub(super) fn init_ids(&self) {
        let mut count = self.geo.capacity + 1;
        for level in 0..3 {
            for word in 0..self.layout.id_words[level] {
                let left = count - (word * 64).min(count);
                let mut set = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
                if level == 0 && word == 0 {
                    set &= !1; // There is no number 0.
                }
                self.bits(level, word).store(set, Relaxed);
            }
            count = self.layout.id_words[level];
        }
    }

    /// Claims a free number for a writer of `shard`; `None` = all are in use.
    #[inline(always)]
    pub(super) fn claim_id(&self, shard: Home<'_>) -> Option<u32> {
        let hint = shard.id_hint();
        let next = hint.load(Relaxed);
        if next & KEPT != 0 {
            hint.store(next & !KEPT, Relaxed);
            return Some(next & !KEPT);
        }
        if next != 0 {
            if self.try_claim(next, shard) {
                return Some(next);
            }
            hint.store(0, Relaxed);
        }
        // A full cache that evicts asks this for every new key.
        if self.geo.stamps && (0..self.layout.id_words[2]).all(|word| self.bits(2, word).load(SeqCst) == 0) {
            return None;
        }
        // Behind the shard's last one. Shards start at different places, so that they touch different lines.
        let words = self.layout.id_words[0];
        let home = (words * shard.no) >> self.geo.shards.trailing_zeros();
        let behind = u64::from(next / 64);
        let word = if next != 0 && behind < words { behind } else { home };
        self.claim_in_word(word, shard).or_else(|| self.claim_from(word, shard))
    }

    #[inline(never)]
    fn claim_from(&self, home: u64, shard: Home<'_>) -> Option<u32> {
        let [_, ones, twos] = self.layout.id_words;
        for i in 0..twos {
            let two = (home / 4096 + i) % twos;
            while let Some(a) = lowest(self.bits(2, two)) {
                let one = two * 64 + a;
                while let Some(b) = (one < ones).then(|| lowest(self.bits(1, one))).flatten() {
                    let word = one * 64 + b;
                    if let Some(id) =
                        (word < self.layout.id_words[0]).then(|| self.claim_in_word(word, shard)).flatten()
                    {
                        return Some(id);
                    }
                    self.clear_hint(1, one, b, || self.word_has_free(0, word));
                }
                self.clear_hint(2, two, a, || self.word_has_free(1, one));
            }
        }
        None
    }

    #[inline]
    fn claim_in_word(&self, word: u64, shard: Home<'_>) -> Option<u32> {
        while let Some(bit) = lowest(self.bits(0, word)) {
            let id = (word * 64 + bit) as u32;
            if self.try_claim(id, shard) {
                return Some(id);
            }
            let ok = id != 0 && u64::from(id) <= self.geo.capacity;
            self.clear_hint(0, word, bit, || ok && self.id_word(id).load(order::LOOK) == 0);
        }
        None
    }

    #[inline]
    fn try_claim(&self, id: u32, shard: Home<'_>) -> bool {
        if id == 0 || u64::from(id) > self.geo.capacity {
            return false;
        }
        let claimed = CLAIMED | shard.no as u32;
        let ok = self.id_word(id).compare_exchange(0, claimed, order::CLAIM, Relaxed).is_ok();
        if ok {
            let (word, bit) = (u64::from(id) / 64, 1 << (id % 64));
            let left = self.bits(0, word).fetch_and(!bit, order::BIT) & !bit;
            // The shard goes on beside it, as far as others have not come there.
            let next = if left != 0 { word * 64 + u64::from(left.trailing_zeros()) } else { (word + 1) * 64 };
            shard.id_hint().store(next as u32, Relaxed);
        }
        ok
    }

    /// Clears a bit that turned out wrong, and sets it again if `free` says that it became right meanwhile.
    fn clear_hint(&self, level: usize, word: u64, bit: u64, free: impl Fn() -> bool) {
        self.bits(level, word).fetch_and(!(1 << bit), order::BIT);
        if free() {
            self.bits(level, word).fetch_or(1 << bit, order::BIT);
        }
    }

    fn word_has_free(&self, level: usize, word: u64) -> bool {
        word < self.layout.id_words[level] && self.bits(level, word).load(order::LOOK) != 0
    }

    /// Records where a number's slot is.
    #[inline]
    pub(super) fn place(&self, id: u32, bucket: u64, slot: u64) {
        if id != 0 && u64::from(id) <= self.geo.capacity {
            self.id_word(id).store(super::index::position(bucket, slot), Release);
        }
    }

    /// Where a number's slot was, at this moment.
    pub(super) fn place_of(&self, id: u32) -> Option<(u64, u64)> {
        if id == 0 || u64::from(id) > self.geo.capacity {
            return None;
        }
        let p = self.id_word(id).load(Acquire);
        let (bucket, slot) = (u64::from(p) / 8, u64::from(p) % 8);
        (p != 0 && p & CLAIMED == 0 && bucket < self.buckets && slot != 0).then_some((bucket, slot))
    }

    /// Frees a number, or keeps it for the shard's next item.
    #[inline]
    pub(super) fn free_id(&self, id: u32, shard: Home<'_>) {
        if id == 0 || u64::from(id) > self.geo.capacity {
            return;
        }
        let hint = shard.id_hint();
        if hint.load(Relaxed) & KEPT == 0 && self.may_keep_ids() {
            // Its half word says where the item was until the next one's place is stored there: nobody finds it at that place, nor
            // claims the number, and a recovery frees it. Not stored here, the line need not have come when the lock is given back.
            self.region.prefetch_half(self.layout.ids + u64::from(id) * 4);
            hint.store(KEPT | id, Release);
        } else {
            self.give_id(id);
            if hint.load(Relaxed) & KEPT == 0 {
                hint.store(id, Relaxed);
            }
        }
    }

    /// Whether free numbers abound, or few shards would have to be asked.
    #[inline]
    fn may_keep_ids(&self) -> bool {
        let groups = self.layout.id_words[1].min(64) as u32;
        !self.geo.stamps
            && (self.geo.shards <= FEW_SHARDS || self.bits(2, 0).load(Relaxed).count_ones() * 2 > groups)
    }

    /// Frees the numbers that shards keep; tells whether there was one, and which shards were missed.
    #[cold]
    pub(super) fn collect_kept_ids(&self) -> (bool, Missed) {
        let mut any = false;
        let keeps = |no: u64| self.region.shard(no).id_hint().load(Relaxed) & KEPT != 0;
        let missed = self.visit(0, Duration::ZERO, keeps, |guard| {
            any |= self.release_kept_id(guard.home);
            true
        });
        (any, missed)
    }

    /// Frees the number that a shard keeps; tells whether there was one.
    pub(super) fn release_kept_id(&self, shard: Home<'_>) -> bool {
        let hint = shard.id_hint();
        let kept = hint.load(Relaxed);
        if kept & KEPT != 0 {
            // The shard forgets it first: a number is never free and kept.
            hint.store(kept & !KEPT, Relaxed);
            fence(Release);
            self.give_id(kept & !KEPT);
        }
        kept & KEPT != 0
    }

    fn give_id(&self, id: u32) {
        self.id_word(id).store(0, order::FREE);
        self.hint_free(id);
    }

    /// Sets the bits of a free number.
    fn hint_free(&self, id: u32) {
        // Set even where it is: who clears the bit after this sees by it that the number is free, who did before is undone.
        self.bits(0, u64::from(id) / 64).fetch_or(1 << (id % 64), order::BIT);
        self.hint_above(id);
    }

    /// Sets the bits above that of a free number, where they are not set.
    fn hint_above(&self, id: u32) {
        let mut at = u64::from(id) / 64;
        for level in 1..3 {
            let (word, bit) = (at / 64, at % 64);
            let bits = self.bits(level, word);
            if bits.load(SeqCst) >> bit & 1 == 0 {
                bits.fetch_or(1 << bit, order::BIT);
            }
            at = word;
        }
    }

    /// Recovery: whether a number may belong to the entry at a place of a shard: it is free, claimed by the shard, or
    /// already there or in the shard's hands.
    pub(super) fn id_is_free_for(&self, id: u32, shard_no: u64, at: (u64, u64)) -> bool {
        let word = self.id_word(id).load(Acquire);
        let (bucket, slot) = (u64::from(word) / 8, u64::from(word) % 8);
        if word == 0 || word & CLAIMED != 0 {
            return word == 0 || u64::from(word & !CLAIMED) == shard_no;
        }
        (bucket, slot) == at || (bucket < self.buckets && self.shard_of(bucket) == shard_no)
    }

    /// Recovery: whether a number is that of an item of a shard.
    pub(super) fn id_is_held_by(&self, id: u32, shard_no: u64) -> bool {
        self.place_of(id).is_some_and(|(bucket, _)| self.shard_of(bucket) == shard_no)
    }

    /// Recovery: frees the numbers that a shard (`None` = any shard, of a store that nobody uses yet) holds without an
    /// entry.
    pub(super) fn recover_ids(&self, shard_no: Option<u64>) {
        let ours = |no: u64| shard_no.is_none_or(|s| s == no);
        for id in 1..=self.geo.capacity as u32 {
            let word = self.id_word(id).load(Acquire);
            let (bucket, slot) = (u64::from(word) / 8, u64::from(word) % 8);
            let lost = if word == 0 {
                // A death between "free" and its hint: any shard's recovery mends that.
                true
            } else if word & CLAIMED != 0 {
                ours(u64::from(word & !CLAIMED))
            } else {
                bucket >= self.buckets
                    || ours(self.shard_of(bucket)) && (slot == 0 || !self.holds(bucket, slot, id))
            };
            if word == 0 && self.bits(0, u64::from(id) / 64).load(SeqCst) >> (id % 64) & 1 != 0 {
                self.hint_above(id);
            } else if lost
                && (word == 0 || self.id_word(id).compare_exchange(word, 0, SeqCst, Relaxed).is_ok())
            {
                self.hint_free(id);
            }
        }
    }
}

fn lowest(word: &AtomicU64) -> Option<u64> {
    let w = word.load(SeqCst);
    (w != 0).then(|| u64::from(w.trailing_zeros()))
}

#[cfg(test)]
mod tests {
    use crate::engine::{Config, Engine, Expires, Mode, SetOptions, Stored};

    #[test]
    fn numbers_that_shards_keep_are_no_loss() {
        const ADD: SetOptions =
            SetOptions { mode: Mode::Add, expires: Expires::Never, keep_ttl: false, ungettable: false };
        let e = Engine::create(&Config::new("kept numbers", 20_000)).unwrap();
        assert!(e.geo.shards > super::FEW_SHARDS, "few shards always keep one");
        let insert = |n: u32| assert_eq!(e.set(&n.to_le_bytes(), b"v", &ADD).unwrap(), Stored::Inserted);
        (0..20_000).for_each(insert);
        // So many that every shard keeps one; half of the shards get all new keys, and take the others' before the cache is
        // full.
        (0..5_000u32).for_each(|n| assert!(e.delete(&n.to_le_bytes()).unwrap()));
        let chosen = |n: &u32| e.shard_of_hash(e.hash(&n.to_le_bytes())) < e.geo.shards / 2;
        (30_000..).filter(chosen).take(5_000).for_each(insert);
        assert_eq!((e.stats().items, e.stats().full), (20_000, 0));
        assert!(e.set(b"one more", b"v", &ADD).is_err());
        assert_eq!(e.stats().full, 1);
    }
}
