//! The model of ucache's stores.

use crate::{
    config::Place,
    model::{MAX_EXPIRES, Model, calculate, d},
    op::{ABSEXPIRE, FIXEXPIRE, MATH, Op, UNGETTABLE, UPDATE},
};

/// What ran out.
#[derive(Clone, Copy, Debug)]
enum Short {
    Items,
    Blocks { need: u64, held: u64 },
}

/// The progress of one store's search for room.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    counted: bool,
    swept: bool,
    cleared: bool,
}

impl Model {
    pub(crate) fn ucache_set(&mut self, op: &Op) -> i64 {
        let mut room = Room::default();
        loop {
            let there = self.find(op.key);
            if !there {
                self.remove(op.key);
            }
            let short = match self.ucache_try(op, there) {
                Ok(ret) => return ret,
                Err(short) => short,
            };
            if !self.make_room(&mut room, short, op.key) {
                return -1;
            }
        }
    }

    fn ucache_try(&mut self, op: &Op, there: bool) -> Result<i64, Short> {
        let free = self.config.blocks - self.used.min(self.config.blocks);
        let need = self.need(op.vallen.into());
        if !there {
            if self.count == self.capacity() && self.config.place == Place::Region {
                return Err(Short::Items);
            }
            if need > free {
                return Err(Short::Blocks { need, held: 0 });
            }
            let expires = self.ucache_expiry(op);
            self.insert(op, expires, 0);
            return Ok(0);
        }
        if !op.has(UPDATE) {
            return Ok(-1);
        }
        let mut item = self.items[op.key as usize].expect("it was found");
        if op.has(MATH) {
            if item.len != 8 {
                self.tags |= d(2);
                return Ok(-1);
            }
            item.seed = calculate(item.seed.cast_signed(), op).cast_unsigned();
        } else {
            let held = self.need(item.len);
            if need > held && need > free {
                return Err(Short::Blocks { need, held });
            }
            self.used = self.used + need - held;
            (item.seed, item.len) = (op.seed, op.vallen.into());
        }
        if !op.has(FIXEXPIRE) {
            item.expires = self.ucache_expiry(op);
            self.expects(item.expires);
        }
        self.items[op.key as usize] = Some(item);
        if !op.has(FIXEXPIRE) {
            self.touch(op.key);
        }
        self.changed.push(op.key);
        self.note();
        Ok(0)
    }

    /// At a server nothing is too long, and there is always room (D-62).
    pub(crate) fn backed_set(&mut self, op: &Op) -> i64 {
        let limits = u64::from(op.vallen) > self.config.max_value() || self.count >= self.capacity();
        if op.has(UNGETTABLE) {
            self.tags |= d(62);
            return -1;
        }
        self.tags |= if limits { d(62) } else { 0 };
        let there = self.find(op.key);
        self.ucache_try(op, there).unwrap_or_else(|short| unreachable!("{short:?}"))
    }

    fn make_room(&mut self, room: &mut Room, short: Short, keep: u32) -> bool {
        if !room.counted {
            room.counted = true;
            self.figures.full += 1;
        }
        if !room.swept {
            room.swept = true;
            if self.sweep_for_room() {
                room.cleared = true;
                return true;
            }
        }
        let fits = match short {
            Short::Items => true,
            Short::Blocks { need, held } => need + held <= self.config.blocks,
        };
        if self.config.lru && fits {
            if self.config.sampled() {
                self.flooded = true;
                self.count -= 1;
                return true;
            }
            let victim = self.order.values().copied().find(|&key| key != keep);
            if let Some(victim) = victim {
                self.remove(victim);
                return true;
            }
        }
        if self.config.clear_on_full && !room.cleared {
            room.cleared = true;
            self.empty();
            self.note();
            return true;
        }
        false
    }

    fn sweep_for_room(&mut self) -> bool {
        let every = self.config.sweep_on_full;
        let enforced = !self.config.no_expire || self.config.lazy;
        self.tags |= if every > 0 { d(44) } else { 0 };
        if !enforced {
            // Further away than the interval: the clock was set back.
            if every == 0 || (self.now < self.next_sweep && self.next_sweep - self.now <= every) {
                return false;
            }
            self.next_sweep = self.now + every;
        }
        self.reap()
    }

    fn ucache_expiry(&mut self, op: &Op) -> u64 {
        let e = op.expires;
        if e == 0 {
            return 0;
        }
        let time = if op.has(ABSEXPIRE) { e } else { self.now.checked_add(e).unwrap_or(self.now) };
        time.clamp(1, MAX_EXPIRES)
    }
}
