//! Answers of reads, and of calls that touch no item.

use crate::{
    config,
    model::{Expect, HASH, LEN, Model, RET, Side, X, d},
    op::{Answer, Kind, NO_OUT, Op, UNTOUCHED, digest, digest_bytes, mix},
};

impl Model {
    /// Native treats a name without bytes as no name (D-41).
    pub(crate) fn names(&mut self, op: &Op) -> Expect {
        let whole = match op.name {
            0 => config::number_of(self.config.name),
            1 | 2 => 0,
            _ => -1,
        };
        let part = &self.config.name[..usize::try_from(op.seed % 4).expect("small")];
        let by_part = if part.is_empty() {
            self.tags |= d(41);
            if self.native() { -1 } else { 0 }
        } else {
            config::number_of(part)
        };
        Answer { ret: whole, len: whole.cast_unsigned(), hash: by_part.cast_unsigned(), x: 0 }.into()
    }

    /// The request to a remote cache; native sends the size twice (D-42), and builds requests
    /// longer than a packet (D-45).
    pub(crate) fn packet(&mut self, op: &Op) -> Expect {
        let name = match op.name {
            0 => Some(self.config.name.to_owned()),
            1 => None,
            2 => Some(String::new()),
            3 => Some("nobody".to_owned()),
            4 => Some(format!("{}x", self.config.name)),
            _ => Some(self.config.name[..self.config.name.len() - 1].to_owned()),
        };
        let cmd = ["exists", "del", "clear", "set", "update"][usize::try_from(op.seed % 5).expect("small")];
        let mut packet = Vec::new();
        let mut put = |key: &str, value: &[u8]| {
            for part in [key.as_bytes(), value] {
                packet.extend(u16::try_from(part.len()).expect("16 bits").to_le_bytes());
                packet.extend(part);
            }
        };
        put("cmd", cmd.as_bytes());
        if cmd != "clear" {
            put("key", &self.keys[op.key as usize].bytes());
        }
        if ["set", "update"].contains(&cmd) {
            put("size", op.vallen.to_string().as_bytes());
            if op.expires > 0 {
                put("expires", op.expires.to_string().as_bytes());
            }
            if self.side == Side::Native {
                put("size", op.vallen.to_string().as_bytes());
            }
            self.tags |= d(42);
        }
        if let Some(name) = name {
            put("cache", name.as_bytes());
        }
        if packet.len() > usize::from(u16::MAX) {
            self.tags |= d(45);
            if self.side == Side::Ucache {
                return Answer::default().into();
            }
        }
        Answer { ret: 1, len: packet.len() as u64 + 4, hash: digest_bytes(&packet), x: 0 }.into()
    }

    pub(crate) fn get(&mut self, op: &Op) -> Expect {
        let miss = Answer::raw(0).into();
        if op.kind == Kind::Get4 && self.is_backed() {
            self.tags |= d(62);
            return miss;
        }
        if !self.find(op.key) {
            self.figures.misses += 1;
            return miss;
        }
        let Some(item) = &mut self.items[op.key as usize] else { return miss };
        if item.hidden {
            return miss;
        }
        self.figures.hits += 1;
        let hits = item.hits;
        if self.side == Side::Native || op.kind == Kind::Get4 {
            item.hits += 1;
        }
        let item = *item;
        if op.kind != Kind::Get4 {
            self.touch(op.key);
        }
        if op.kind == Kind::Get4 {
            self.tags |= d(36);
        } else if self.config.lru && item.expires != 0 {
            self.tags |= d(6);
        }
        let x = match op.kind {
            Kind::Get2 => UNTOUCHED,
            _ if op.how & NO_OUT != 0 => UNTOUCHED,
            Kind::Get4 => hits,
            _ => item.expires,
        };
        let wild = if item.known { 0 } else { HASH };
        let wild = wild | if item.expires == 0 { 0 } else { self.other_clock() };
        Expect { answer: Answer { ret: 1, len: item.len, hash: digest(item.seed, item.len), x }, wild }
    }

    /// The script's clock stands still and the server's does not: expiries, which are told from what
    /// is left there, seem to move.
    fn other_clock(&mut self) -> u8 {
        if !self.is_backed() {
            return 0;
        }
        self.tags |= d(62);
        X
    }

    pub(crate) fn num(&mut self, key: u32) -> Expect {
        if !self.find(key) {
            self.figures.misses += 1;
            return Answer::raw(0).into();
        }
        let Some(item) = self.items[key as usize].as_mut().filter(|item| !item.hidden) else {
            return Answer::raw(0).into();
        };
        self.figures.hits += 1;
        if self.side == Side::Ucache {
            return Answer::raw(if item.len == 8 { item.seed.cast_signed() } else { 0 }).into();
        }
        item.hits += 1;
        let wild = if item.len < 8 || !item.known { RET } else { 0 };
        let expect = Expect { answer: Answer::raw(item.seed.cast_signed()), wild };
        if item.len != 8 {
            self.tags |= d(35);
        }
        expect
    }

    pub(crate) fn exists(&mut self, key: u32, answer: fn(i64) -> Answer) -> Expect {
        let there = self.find(key);
        let wild = if self.flooded { RET } else { 0 };
        if self.flooded {
            self.tags |= d(31);
        }
        Expect { answer: answer(there.into()), wild }
    }

    pub(crate) fn walk(&mut self) -> Expect {
        let mut a = Answer::default();
        for (at, item) in self.items.iter().enumerate() {
            let Some(item) = item else { continue };
            if !self.native() && self.is_due(item, self.now) {
                self.tags |= self.expiry_tag();
                continue;
            }
            let key = self.digests[at];
            a.ret += 1;
            a.hash = a.hash.wrapping_add(mix(mix(key, item.len), u64::from(item.hidden)));
            a.x = a.x.wrapping_add(mix(key, item.expires));
        }
        if self.config.lru {
            self.tags |= d(6);
        }
        let mut wild = LEN | self.other_clock();
        if self.flooded {
            (a.ret, wild) = (self.count.cast_signed(), LEN | HASH | X);
            self.tags |= d(31);
        }
        Expect { answer: a, wild }
    }
}
