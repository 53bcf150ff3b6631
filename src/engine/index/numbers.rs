//! Lives of numbers: 8-byte values of anonymous caches, which arithmetic changes without the
//! shard's lock while their life lasts (I15).
#![forbid(unsafe_code)]

use crate::{
    engine::{
        Engine,
        index::{
            bucket::EntryRef,
            entry::{self, Header, is_number},
        },
        shard::guard::ShardGuard,
    },
    shm::{
        ShardCells,
        layout::{header, shard},
        number::{NUMBER, Number},
        sync::*,
    },
};

/// No number of the cache has a life, and none gets one: values of `header::LIFELESS`.
const BEGINS: u64 = 1;
const ALL: u64 = 2;

impl Engine {
    /// The number at `off`, given the length of its key.
    #[inline(always)]
    pub(in crate::engine) fn number_at(&self, off: u64, key_len: u64) -> Number<'_> {
        self.region.number(entry::value_off(off, self.header_bytes, key_len, 8))
    }

    /// The number of an entry; `None` = its value is none.
    #[inline]
    pub(in crate::engine) fn number_of(&self, f: &EntryRef) -> Option<Number<'_>> {
        let Header { key_len, value_len, .. } = f.header;
        is_number(self.header_bytes, value_len).then(|| self.number_at(f.off, key_len))
    }

    /// A life for a number of this shard, whose lock the caller holds; 0 = it changes under the
    /// lock only.
    pub(in crate::engine) fn new_life(&self, cells: ShardCells<'_>) -> u64 {
        if !self.region.has_lives() || self.region.header_word::<{ header::LIFELESS }>().load(Relaxed) != 0 {
            return 0;
        }
        let lives = cells.word(shard::LIVES);
        let nth = lives.load(Relaxed).wrapping_add(1);
        // Counted before the life is used: who dies in between wastes one.
        lives.store(nth, Relaxed);
        entry::life(&self.secret, cells.no, nth)
    }

    /// Ends the life of an entry's value, if it is a number. Before the entry becomes unreachable:
    /// a late exchange must not meet what uses the memory next (I15).
    #[inline(always)]
    pub(in crate::engine) fn end_life(&self, off: u64, w0: u64) {
        if u64::from(entry::value_len(w0)) == NUMBER {
            self.end_life_of_number(off, w0);
        }
    }

    /// Out of line, so that other values pay one comparison.
    #[cold]
    fn end_life_of_number(&self, off: u64, w0: u64) {
        if is_number(self.header_bytes, NUMBER) {
            self.number_at(off, entry::key_len(w0).into()).end();
        }
    }

    /// Before a writer reads a value that it will replace: others change it no longer. The next
    /// arithmetic on it is done under the lock, which gives it a new life.
    #[inline]
    pub(in crate::engine) fn freeze(&self, f: &EntryRef) {
        if let Some(number) = self.number_of(f) {
            number.freeze();
        }
    }

    /// Gives a number that was frozen a new life.
    pub(in crate::engine) fn thaw(&self, guard: &ShardGuard<'_>, f: &EntryRef) {
        if let Some(number) = self.number_of(f) {
            number.restart(number.value(), self.new_life(guard.cells));
        }
    }

    /// Whether numbers may have lives, and must lose them before the cache is held exclusively.
    pub(in crate::engine) fn begin_lifeless(&self) -> bool {
        let lifeless = self.region.word(header::LIFELESS);
        let begins = !self.geo.checksums && lifeless.load(Acquire) != ALL;
        if begins {
            lifeless.store(BEGINS, SeqCst);
        }
        begins
    }

    /// Ends the lives of all numbers of a shard.
    pub(in crate::engine) fn freeze_all(&self, guard: &ShardGuard<'_>) {
        for home in self.homes_of(guard.no, false) {
            self.each_slot(home, |bucket, slot, word| {
                let off = entry::slot_off(word);
                if let Some(header) = self.header_at(off).filter(|h| h.key_len > 0) {
                    self.freeze(&EntryRef { bucket, slot, off, header });
                }
                true
            });
        }
    }

    /// All numbers have lost their lives.
    pub(in crate::engine) fn end_lifeless(&self) {
        self.region.word(header::LIFELESS).store(ALL, Release);
    }
}
