//! The script: a seeded sequence of operations on all caches, with the expected answers of both
//! sides.

use fastrand::Rng;

use crate::{
    config::{self, Config, Place},
    op::{
        ABSEXPIRE, BY_FUNCTION, DEC, DIV, FIXEXPIRE, INC, Kind, LOCAL, MATH, MUL, NO_OUT, Op, READ_LOCK,
        UNGETTABLE, UPDATE,
    },
    pair::{Pair, Step},
};

/// The first second of the fake clock.
const START: u64 = 2_000_000_000;
/// Operations between two restarts of the servers.
const LIFE: usize = 400_000;
/// Maximum number of operations on diverged keys before they are made equal.
const APART: u32 = 24;

#[derive(Debug)]
pub(crate) struct Script {
    rng: Rng,
    now: u64,
    pub(crate) pairs: Vec<Pair>,
    /// The caches that are used.
    choices: Vec<usize>,
    place: Place,
    current: usize,
    /// Operations left for the current cache.
    stay: u32,
    apart: u32,
    steps: Vec<Step>,
    /// Operations until both servers are killed and restarted.
    life: usize,
}

impl Script {
    pub(crate) fn new(seed: u64, place: Place) -> Self {
        let backed = place != Place::Region;
        let mut rng = Rng::with_seed(seed);
        let mut configs = config::all();
        let choices =
            (0..configs.len()).filter(|&n| !backed || configs[n].can_be_backed()).collect::<Vec<_>>();
        choices.iter().for_each(|&n| configs[n].place = place);
        let pairs: Vec<Pair> = configs.into_iter().map(|c| Pair::new(c, &mut rng)).collect();
        // A server that is killed loses no item of a backend.
        let life = if backed { usize::MAX } else { LIFE };
        let steps = Vec::new();
        let mut script =
            Self { rng, now: 0, pairs, choices, place, current: 0, stay: 0, apart: 0, steps, life };
        script.clock(START);
        for cache in script.choices.clone() {
            script.current = cache;
            script.emit(Kind::Fields);
        }
        script
    }

    /// The next operations, `least` or a few more, and whether to kill and restart the servers
    /// after them.
    pub(crate) fn chunk(&mut self, least: usize) -> (Vec<Step>, bool) {
        while self.steps.len() < least {
            self.next();
        }
        let restart = self.life < self.steps.len();
        if !restart {
            self.life -= self.steps.len();
            return (std::mem::take(&mut self.steps), restart);
        }
        self.life = LIFE;
        for cache in 0..self.pairs.len() {
            self.current = cache;
            let config = self.config();
            // Native overwrites the restored content of a store with a bitmap (D-15): it is emptied
            // before.
            let (store, bitmap) = (config.store, config.bitmap);
            if store && bitmap {
                self.emit(Kind::MagicClear);
            }
            if store {
                self.bring_together();
                self.emit(Kind::Keys);
            }
        }
        let steps = std::mem::take(&mut self.steps);
        self.pairs.iter_mut().for_each(Pair::restart);
        self.clock(self.now);
        for cache in 0..self.pairs.len() {
            self.current = cache;
            self.emit(Kind::Keys);
            self.emit(Kind::Stat);
        }
        (steps, restart)
    }

    fn config(&self) -> &Config {
        &self.pairs[self.current].config
    }

    fn next(&mut self) {
        let pair = &self.pairs[self.current];
        if pair.urgent || self.apart > APART || !pair.dirty.is_empty() && self.rng.u8(0..6) == 0 {
            self.bring_together();
        } else if self.stay == 0 {
            self.turn();
        } else {
            self.stay -= 1;
            self.apart += u32::from(!pair.dirty.is_empty());
            self.random();
        }
    }

    /// Deletes diverged keys on both sides.
    fn bring_together(&mut self) {
        self.apart = 0;
        while let Some((&key, _)) = self.pairs[self.current].dirty.first_key_value() {
            let op = Op { kind: Kind::Del2, ..self.op(key) };
            self.push(op);
        }
        self.pairs[self.current].urgent = false;
    }

    /// Moves to another cache, or another second.
    fn turn(&mut self) {
        self.bring_together();
        if self.place == Place::Region && self.rng.u8(0..3) == 0 {
            let by = match self.rng.u8(0..40) {
                0..=27 => self.rng.u64(1..=3),
                28..=35 => self.rng.u64(1..=30),
                36..=38 => self.rng.u64(1..=2000),
                // The clock is set back.
                _ => self.rng.u64(1..=4).wrapping_neg(),
            };
            self.clock(self.now.wrapping_add(by));
        }
        self.current = self.choices[self.rng.usize(0..self.choices.len())];
        self.stay = self.rng.u32(1..120);
        let pair = &self.pairs[self.current];
        let (items, room) =
            (pair.config.items, pair.config.items - 1 - pair.ucache.count.min(pair.config.items - 1));
        if items < 1000 {
            return;
        }
        if pair.config.sampled() && room < 300 {
            self.flood();
        } else if self.rng.u8(0..4) == 0 {
            // Up to the limit, and beyond it if the victims are predictable.
            let least = if pair.config.sampled() { 1 } else { 50 };
            let count = self.rng.u64(1..4000).min((room * 3 / 2).max(least));
            self.fill(count);
        }
    }

    fn clock(&mut self, to: u64) {
        self.now = to;
        let op = Op { kind: Kind::Clock, expires: to, ..self.op(0) };
        self.push(op);
        for pair in &mut self.pairs {
            pair.expire(to);
        }
    }

    /// Many stores in a row, so that large caches are full at times.
    fn fill(&mut self, count: u64) {
        self.bring_together();
        let keys = u32::try_from(self.pairs[self.current].keys.len()).expect("few keys");
        for _ in 0..count {
            let key = self.rng.u32(0..keys);
            let op =
                Op { kind: Kind::Set2, vallen: 8, seed: self.rng.u64(..), flags: UPDATE, ..self.op(key) };
            self.push(op);
        }
    }

    /// More new keys than fit, with unpredictable victims (D-31): the number of items stays exact,
    /// the last key is found, and after a clear the sides agree again.
    fn flood(&mut self) {
        self.bring_together();
        let pair = &self.pairs[self.current];
        let keys = u32::try_from(pair.keys.len()).expect("few keys");
        let accepted = |key: &u32| (1..=pair.config.keysize).contains(&pair.keys[*key as usize].len.into());
        let absent: Vec<u32> =
            (0..keys).filter(accepted).filter(|&key| pair.ucache.items[key as usize].is_none()).collect();
        for key in absent {
            let op = Op { kind: Kind::Set2, vallen: 8, seed: key.into(), ..self.op(key) };
            self.push(op);
        }
        for _ in 0..200 {
            let key = self.rng.u32(0..keys);
            let op = Op { kind: Kind::Exists2, ..self.op(key) };
            self.push(op);
        }
        for kind in [Kind::Keys, Kind::Stat, Kind::MagicClear] {
            self.emit(kind);
        }
        self.pairs[self.current].dirty.clear();
    }

    fn emit(&mut self, kind: Kind) {
        let op = Op { kind, ..self.op(0) };
        self.push(op);
    }

    fn push(&mut self, op: Op) {
        let step = self.pairs[self.current].step(op, self.now);
        self.steps.push(step);
    }

    /// An operation on a key of the current cache, to be completed.
    fn op(&self, key: u32) -> Op {
        let k = self.pairs[self.current].keys[key as usize];
        Op {
            kind: Kind::Clock,
            cache: u8::try_from(self.current).expect("few caches"),
            key,
            keylen: k.len,
            kid: k.id,
            vallen: 0,
            flags: 0,
            name: 0,
            how: 0,
            expires: 0,
            seed: 0,
        }
    }

    /// Mostly one of a few favourites, so that they see all kinds of calls.
    fn key(&mut self) -> u32 {
        let keys = u32::try_from(self.pairs[self.current].keys.len()).expect("few keys");
        // Long keys are expensive to generate.
        let one_in = if self.config().keysize > 1000 { 8 } else { 40 };
        let costly = self.rng.u8(0..one_in) != 0;
        loop {
            let key = if self.rng.bool() { self.rng.u32(0..keys.min(12)) } else { self.rng.u32(0..keys) };
            if !costly || self.pairs[self.current].keys[key as usize].len < 1000 {
                return key;
            }
        }
    }

    fn random(&mut self) {
        let key = self.key();
        let base = self.op(key);
        let magic = self.rng.bool();
        let empty = {
            let p = &self.pairs[self.current];
            p.native.count == 0 && p.ucache.count == 0
        };
        let op = match self.rng.u32(0..1000) {
            0..=419 => self.store(base, magic),
            420..=699 => self.read(base, magic),
            700..=749 => Op { kind: if magic { Kind::MagicExists } else { Kind::Exists2 }, ..base },
            750..=839 => Op {
                kind: if magic { Kind::MagicDel } else { Kind::Del2 },
                flags: LOCAL * self.rng.u16(0..2),
                ..base
            },
            840..=879 => Op { kind: Kind::DelIndex, ..base },
            880..=939 => Op { kind: Kind::Num2, ..base },
            940..=959 if self.config().items < 100 || self.rng.u8(0..40) == 0 => {
                Op { kind: Kind::Keys, how: self.how(READ_LOCK | BY_FUNCTION), ..base }
            }
            940..=964 if self.rng.u8(0..if self.config().last_modified { 12 } else { 250 }) == 0 => {
                Op { kind: Kind::LastModified, ..base }
            }
            965..=966 if self.rng.u8(0..3) == 0 => Op { kind: Kind::Stat, ..base },
            968..=971 if self.config().items < 100 || self.rng.u8(0..40) == 0 => {
                Op { kind: Kind::MagicClear, ..base }
            }
            968..=975 if empty && self.config().items > 1 => {
                Op { kind: Kind::DelFreeIndex, seed: self.rng.u64(..), ..base }
            }
            976..=983 => Op {
                kind: Kind::Prepare,
                vallen: self.rng.u32(..),
                expires: self.rng.u64(0..4),
                seed: self.rng.u64(..),
                ..base
            },
            984..=991 => Op { kind: Kind::Context, kid: self.rng.u32(..), seed: self.rng.u64(..), ..base },
            _ => Op { kind: Kind::Names, seed: self.rng.u64(..), ..base },
        };
        let name = self.name(op.kind);
        self.push(Op { name, ..op });
    }

    fn how(&mut self, bits: u8) -> u8 {
        self.rng.u8(..) & bits
    }

    /// Other names of the first cache, and now and then an unknown one.
    fn name(&mut self, kind: Kind) -> u8 {
        let free = matches!(kind, Kind::Names | Kind::Prepare);
        match self.rng.u8(..) {
            0..=7 => self.rng.u8(3..=5),
            8..=60 if self.current == 0 || free => self.rng.u8(1..=2),
            _ => 0,
        }
    }

    fn read(&mut self, base: Op, magic: bool) -> Op {
        let kind = match self.rng.u8(0..3) {
            _ if magic => Kind::MagicGet,
            0 => Kind::Get2,
            1 => Kind::Get3,
            // It answers if there is a copy, which is not foreseen.
            _ if self.place == Place::Near => Kind::Get3,
            _ => Kind::Get4,
        };
        let no_out = if self.rng.u8(0..8) == 0 { NO_OUT } else { 0 };
        Op { kind, how: self.how(READ_LOCK | BY_FUNCTION) | no_out, ..base }
    }

    fn store(&mut self, base: Op, magic: bool) -> Op {
        let kind = if magic { Kind::MagicSet } else { Kind::Set2 };
        let how = self.how(BY_FUNCTION);
        let flags = match self.rng.u8(0..20) {
            0..=4 => 0,
            5..=9 => UPDATE,
            10..=16 => {
                let one = [INC, DEC, MUL, DIV][self.rng.usize(0..4)];
                let update = if self.rng.u8(0..10) == 0 { 0 } else { UPDATE };
                MATH | one | update | (FIXEXPIRE * self.rng.u16(0..2))
            }
            _ => self.rng.u16(0..1024) & !(UNGETTABLE * self.rng.u16(0..2)),
        };
        let flags = if self.rng.u8(0..30) == 0 { flags | UNGETTABLE } else { flags };
        let flags = if self.rng.u8(0..12) == 0 { flags | ABSEXPIRE } else { flags };
        let flags = if self.place != Place::Region { flags & !ABSEXPIRE } else { flags };
        let vallen = if flags & MATH != 0 && self.rng.u8(0..25) != 0 { 8 } else { self.length() };
        let seed = match self.rng.u8(0..8) {
            0 => self.rng.u64(..),
            1 => [1 << 63, u64::MAX, 0, i64::MAX as u64][self.rng.usize(0..4)],
            _ => self.rng.u64(0..7).wrapping_sub(3),
        };
        Op { kind, how, flags, vallen, seed, expires: self.expires(flags), ..base }
    }

    /// The length of a value: small, or at a limit.
    fn length(&mut self) -> u32 {
        let (max, block) = (self.config().max_value(), self.config().blocksize);
        let large = max > 4000;
        let len = match self.rng.u8(0..16) {
            0 => 0,
            1 if !large || self.rng.u8(0..8) == 0 => max + self.rng.u64(0..3) - 1,
            2..=5 if block < 4000 => block * self.rng.u64(1..=4) + self.rng.u64(0..3) - 1,
            6 if !large || self.rng.u8(0..8) == 0 => self.rng.u64(1..=max),
            7..=9 => 8,
            _ => self.rng.u64(1..=max.min(100)),
        };
        u32::try_from(len).expect("a small value")
    }

    fn expires(&mut self, flags: u16) -> u64 {
        if flags & ABSEXPIRE != 0 && self.place == Place::Region {
            return match self.rng.u8(0..8) {
                0 => 0,
                1 => self.rng.u64(1..100),
                2 => u64::MAX,
                3 => self.now - self.rng.u64(0..10),
                _ => self.now + self.rng.u64(0..20),
            };
        }
        if self.place != Place::Region {
            // Long after the run: the server expires by its own clock.
            return if self.rng.bool() { 0 } else { self.rng.u64(100_000..1_000_000) };
        }
        match self.rng.u8(0..32) {
            0..=15 => 0,
            16..=26 => self.rng.u64(1..12),
            27..=28 => self.rng.u64(1..2000),
            29 => u64::MAX,
            30 => u64::MAX - self.rng.u64(0..self.now + 5),
            _ => 1 << self.rng.u32(11..64),
        }
    }
}
