//! The exact answers of a cache. One model is native uWSGI, the other ucache; each difference
//! between them is named in the code (`src/docs/compat.md`), and there are no others.

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    blocks::Blocks,
    config::{Config, Place},
    op::{Answer, DEC, DIV, INC, Key, Kind, MATH, MUL, Op, UNGETTABLE},
};

/// Differences as a set: bit n is D-n.
pub(crate) type Tags = u64;

pub(crate) const fn d(number: u32) -> Tags {
    1 << number
}

/// Latest expiry that ucache keeps.
pub(crate) const MAX_EXPIRES: u64 = ((1 << 44) - 1) / 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Native,
    Ucache,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) len: u64,
    pub(crate) seed: u64,
    /// `false`: native returned memory that it did not write.
    pub(crate) known: bool,
    pub(crate) expires: u64,
    pub(crate) hidden: bool,
    pub(crate) hits: u64,
    used: u64,
    pub(crate) block: usize,
}

/// An answer; unpredictable fields are marked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    pub(crate) answer: Answer,
    pub(crate) wild: u8,
}

pub(crate) const RET: u8 = 1;
pub(crate) const LEN: u8 = 2;
pub(crate) const HASH: u8 = 4;
pub(crate) const X: u8 = 8;

impl Expect {
    pub(crate) fn allows(&self, a: &Answer) -> bool {
        let e = &self.answer;
        let same = |bit, equal| self.wild & bit != 0 || equal;
        same(RET, e.ret == a.ret)
            && same(LEN, e.len == a.len)
            && same(HASH, e.hash == a.hash)
            && same(X, e.x == a.x)
    }
}

impl From<Answer> for Expect {
    fn from(answer: Answer) -> Self {
        Self { answer, wild: 0 }
    }
}

/// The statistics in the struct that stay different once they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) full: u64,
    pub(crate) last_modified: u64,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) side: Side,
    pub(crate) config: Rc<Config>,
    pub(crate) keys: Rc<Vec<Key>>,
    pub(crate) digests: Rc<Vec<u64>>,
    pub(crate) items: Vec<Option<Item>>,
    /// Items, including expired ones that have not been removed.
    pub(crate) count: u64,
    pub(crate) order: BTreeMap<u64, u32>,
    clock: u64,
    pub(crate) now: u64,
    pub(crate) next_sweep: u64,
    /// No item expires before this.
    pub(crate) earliest: u64,
    /// Native's blocks.
    pub(crate) blocks: Blocks,
    /// ucache's.
    pub(crate) used: u64,
    pub(crate) figures: Figures,
    /// ucache evicts items of a large LRU cache by sampling, which is unpredictable.
    pub(crate) flooded: bool,
    /// Of the last operation: differences that it met, keys that it changed, keys whose state it
    /// left different from the visible one.
    pub(crate) tags: Tags,
    pub(crate) changed: Vec<u32>,
    pub(crate) suspect: Vec<u32>,
}

impl Model {
    pub(crate) fn new(side: Side, config: Rc<Config>, keys: Rc<Vec<Key>>) -> Self {
        Self {
            side,
            blocks: Blocks::new(config.blocks),
            digests: Rc::new(keys.iter().map(|key| key.digest()).collect()),
            items: vec![None; keys.len()],
            config,
            keys,
            count: 0,
            order: BTreeMap::new(),
            clock: 0,
            now: 0,
            next_sweep: 0,
            earliest: u64::MAX,
            used: 0,
            figures: Figures::default(),
            flooded: false,
            tags: 0,
            changed: Vec::new(),
            suspect: Vec::new(),
        }
    }

    /// The server was killed and restarted with the store. Native's statistics restart, ucache's
    /// continue (D-46).
    pub(crate) fn reopen(&mut self) {
        if self.native() {
            let times = self.items.iter().flatten().map(|item| item.expires);
            self.next_sweep = times.filter(|&time| time != 0).min().unwrap_or(0);
            self.figures = Figures::default();
            self.blocks = Blocks::new(self.config.blocks);
        }
    }

    /// Runs one operation.
    pub(crate) fn apply(&mut self, op: &Op, now: u64) -> Expect {
        self.now = now;
        self.tags = 0;
        self.changed.clear();
        self.suspect.clear();
        let known_name = op.name < 3;
        match op.kind {
            Kind::MagicGet if !known_name => Answer::raw(0).into(),
            Kind::MagicExists if !known_name => Answer::ret(0).into(),
            Kind::MagicSet | Kind::MagicDel | Kind::MagicClear if !known_name => Answer::ret(-1).into(),
            Kind::MagicGet | Kind::Get2 | Kind::Get3 | Kind::Get4 => self.get(op),
            Kind::Num2 => self.num(op.key),
            Kind::MagicExists => self.exists(op.key, Answer::ret),
            Kind::Exists2 => self.exists(op.key, Answer::raw),
            Kind::MagicSet => Answer::ret(self.set(op)).into(),
            Kind::Set2 => Answer::raw(self.set(op)).into(),
            Kind::MagicDel => Answer::ret(self.del(op.key)).into(),
            Kind::Del2 => Answer::raw(self.del(op.key)).into(),
            Kind::DelIndex if self.is_backed() => {
                self.tags |= d(62);
                Answer::raw(if self.find(op.key) { 0 } else { -2 }).into()
            }
            Kind::DelIndex => Answer::raw(if self.find(op.key) { self.del(op.key) } else { -2 }).into(),
            Kind::DelFreeIndex => {
                self.note_native();
                Answer::raw(0).into()
            }
            Kind::MagicClear => self.clear(),
            Kind::Keys => self.walk(),
            Kind::Stat => {
                let f = &self.figures;
                self.tags |= if self.is_backed() { d(62) } else { 0 };
                let count = if self.is_backed() { 0 } else { self.count.cast_signed() };
                // Copies are counted, and how often there was no room for one.
                let wild = if self.is_backed() && self.config.place == Place::Near { RET | X } else { 0 };
                Expect { answer: Answer { ret: count, len: f.hits, hash: f.misses, x: f.full }, wild }
            }
            Kind::LastModified => Answer::ret(self.figures.last_modified.cast_signed()).into(),
            Kind::Names => self.names(op),
            Kind::Prepare => self.packet(op),
            Kind::Fields | Kind::Context => Expect { answer: Answer::default(), wild: RET | LEN | HASH | X },
            Kind::Clock => Answer::default().into(),
        }
    }

    pub(crate) fn native(&self) -> bool {
        self.side == Side::Native
    }

    /// ucache misses it (D-05, with LRU D-06); native removes it on access if the cache is lazy.
    pub(crate) fn is_due(&self, item: &Item, now: u64) -> bool {
        item.expires != 0
            && item.expires <= now
            && if self.native() { self.config.lazy } else { !self.config.no_expire || self.config.lazy }
    }

    /// Whether the values of this side are at a server.
    pub(crate) fn is_backed(&self) -> bool {
        !self.native() && self.config.place != Place::Region
    }

    pub(crate) fn expiry_tag(&self) -> Tags {
        if self.config.lru { d(6) } else { d(5) }
    }

    /// Whether the key exists on this side.
    pub(crate) fn find(&mut self, key: u32) -> bool {
        let Some(item) = self.items[key as usize] else { return false };
        if !self.is_due(&item, self.now) {
            return true;
        }
        self.tags |= self.expiry_tag();
        if self.native() {
            self.tags |= d(39);
            self.remove(key);
        }
        false
    }

    fn del(&mut self, key: u32) -> i64 {
        let there = self.find(key);
        if self.items[key as usize].is_some() {
            self.remove(key);
        }
        if there {
            self.note();
            0
        } else {
            -1
        }
    }

    fn clear(&mut self) -> Expect {
        self.empty();
        self.flooded = false;
        if !self.native() || self.config.items > 1 {
            self.note();
        }
        Answer::ret(0).into()
    }

    pub(crate) fn note(&mut self) {
        if self.config.last_modified {
            self.figures.last_modified = self.now;
        }
    }

    /// Native records changes that did not happen (D-39).
    pub(crate) fn note_native(&mut self) {
        if self.native() {
            self.tags |= d(39);
            self.note();
        }
    }

    pub(crate) fn touch(&mut self, key: u32) {
        if !self.config.lru {
            return;
        }
        let Some(item) = &mut self.items[key as usize] else { return };
        self.order.remove(&item.used);
        self.clock += 1;
        item.used = self.clock;
        self.order.insert(self.clock, key);
    }

    pub(crate) fn need(&self, len: u64) -> u64 {
        if self.config.bitmap { len.div_ceil(self.config.blocksize) } else { 0 }
    }

    pub(crate) fn capacity(&self) -> u64 {
        if self.native() { self.config.items - 1 } else { (self.config.items - 1).max(1) }
    }

    pub(crate) fn remove(&mut self, key: u32) {
        let Some(item) = self.items[key as usize].take() else { return };
        self.count -= 1;
        self.order.remove(&item.used);
        let need = self.need(item.len);
        if self.native() {
            if need > 0 {
                self.blocks.give(item.block, usize::try_from(need).expect("few blocks"));
            }
            self.note();
        }
        self.used -= if self.native() { 0 } else { need };
        self.changed.push(key);
    }

    pub(crate) fn empty(&mut self) {
        for key in 0..self.items.len() {
            if self.flooded {
                self.items[key] = None;
            } else {
                self.remove(u32::try_from(key).expect("few keys"));
            }
        }
        if self.flooded {
            (self.count, self.order) = (0, BTreeMap::new());
        }
    }

    /// Removes expired items, even with `no_expire`.
    pub(crate) fn reap(&mut self) -> bool {
        if self.earliest > self.now {
            return false;
        }
        let (mut keys, mut earliest) = (Vec::new(), u64::MAX);
        for (item, key) in self.items.iter().zip(0..) {
            match item {
                Some(item) if item.expires != 0 && item.expires <= self.now => keys.push(key),
                Some(item) if item.expires != 0 => earliest = earliest.min(item.expires),
                _ => {}
            }
        }
        self.earliest = earliest;
        for &key in &keys {
            self.tags |= self.expiry_tag();
            self.remove(key);
        }
        !keys.is_empty()
    }

    fn set(&mut self, op: &Op) -> i64 {
        let (key, len) = (self.keys[op.key as usize], u64::from(op.vallen));
        let refused = key.len == 0
            || len == 0
            || u64::from(key.len) > self.config.keysize
            || len > self.config.max_value() && !self.is_backed()
            || op.has(MATH) && len != 8;
        if refused {
            return -1;
        }
        if self.config.items == 1 {
            self.tags |= d(1);
        }
        if self.native() {
            self.native_set(op)
        } else if self.config.place != Place::Region {
            self.backed_set(op)
        } else {
            self.ucache_set(op)
        }
    }

    pub(crate) fn expects(&mut self, expires: u64) {
        if expires != 0 {
            self.earliest = self.earliest.min(expires);
        }
    }

    pub(crate) fn insert(&mut self, op: &Op, expires: u64, block: usize) {
        let seed =
            if op.has(MATH) { calculate(self.config.math_initial, op).cast_unsigned() } else { op.seed };
        self.expects(expires);
        let len = u64::from(op.vallen);
        self.items[op.key as usize] = Some(Item {
            len,
            seed,
            known: true,
            expires,
            hidden: op.has(UNGETTABLE),
            hits: 0,
            used: 0,
            block,
        });
        self.count += 1;
        self.used += if self.native() { 0 } else { self.need(len) };
        self.touch(op.key);
        self.changed.push(op.key);
        self.note();
    }
}

/// The number after the operation of the first flag.
pub(crate) fn calculate(n: i64, op: &Op) -> i64 {
    let operand = op.seed.cast_signed();
    if op.has(INC) {
        n.wrapping_add(operand)
    } else if op.has(DEC) {
        n.wrapping_sub(operand)
    } else if op.has(MUL) {
        n.wrapping_mul(operand)
    } else if op.has(DIV) {
        if operand == 0 { 0 } else { n.wrapping_div(operand) }
    } else {
        n
    }
}
