//! How native uWSGI stores.

use crate::{
    model::{MAX_EXPIRES, Model, calculate, d},
    op::{ABSEXPIRE, FIXEXPIRE, MATH, Op, UPDATE},
};

impl Model {
    pub(crate) fn native_set(&mut self, op: &Op) -> i64 {
        if self.find(op.key) {
            return self.native_again(op);
        }
        if self.count == self.capacity() {
            self.native_full(false);
            if self.count == self.capacity() {
                return -1;
            }
        }
        let need = usize::try_from(self.need(op.vallen.into())).expect("few blocks");
        let mut block = 0;
        if need > 0 {
            let Some(found) = self.blocks.take(need) else {
                self.native_full(true);
                return -1;
            };
            block = found;
        }
        let expires = self.native_expiry(op);
        self.insert(op, expires, block);
        0
    }

    fn native_again(&mut self, op: &Op) -> i64 {
        if !op.has(UPDATE) {
            self.note_native();
            return -1;
        }
        if !op.has(FIXEXPIRE) {
            self.touch(op.key);
            let expires = self.native_expiry(op);
            self.expects(expires);
            self.items[op.key as usize].as_mut().expect("it was found").expires = expires;
        }
        self.changed.push(op.key);
        let mut item = self.items[op.key as usize].expect("it was found");
        if self.config.bitmap {
            let need = |len| usize::try_from(self.need(len)).expect("few blocks");
            let (now, before) = (need(op.vallen.into()), need(item.len));
            let Some(found) = self.blocks.take(now) else {
                self.tags |= d(8);
                self.suspect.push(op.key);
                self.native_full(true);
                return -1;
            };
            self.blocks.give(item.block, before);
            item.block = found;
        }
        if op.has(MATH) {
            self.tags |= if self.config.bitmap {
                d(3)
            } else if item.len == 8 {
                0
            } else {
                d(2)
            };
            item.known &= item.len >= 8 && !self.config.bitmap;
            item.seed = calculate(item.seed.cast_signed(), op).cast_unsigned();
        } else {
            (item.seed, item.known) = (op.seed, true);
        }
        item.len = op.vallen.into();
        self.items[op.key as usize] = Some(item);
        self.note();
        0
    }

    /// The actions of a full native cache. `blocks`: the store is refused whatever this frees.
    fn native_full(&mut self, blocks: bool) {
        let frees = self.config.lru || self.config.clear_on_full || self.config.sweep_on_full > 0;
        self.tags |= if !blocks {
            0
        } else if frees {
            d(40)
        } else {
            d(7)
        };
        self.figures.full += 1;
        let mut clear = self.config.clear_on_full;
        if let Some((_, &key)) = self.order.first_key_value() {
            self.remove(key);
        }
        if self.config.sweep_on_full > 0 && self.next_sweep <= self.now {
            self.next_sweep = self.now + self.config.sweep_on_full;
            self.tags |= d(44);
            if self.reap() {
                clear = false;
            }
        }
        if clear {
            if self.config.lru {
                self.tags |= d(43);
            }
            self.empty();
            if self.config.items > 1 {
                self.note();
            }
        }
    }

    fn native_expiry(&mut self, op: &Op) -> u64 {
        let e = op.expires;
        if self.config.lru || e == 0 || op.has(ABSEXPIRE) {
            self.tags |= if e > MAX_EXPIRES { d(38) } else { 0 };
            return e;
        }
        let (sum, wrapped) = e.overflowing_add(self.now);
        self.tags |= if wrapped {
            d(37)
        } else if sum > MAX_EXPIRES {
            d(38)
        } else {
            0
        };
        if self.next_sweep == 0 || self.next_sweep > sum {
            self.next_sweep = sum;
        }
        sum
    }
}
