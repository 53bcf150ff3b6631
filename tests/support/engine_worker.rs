//! A worker of the rig: writes its own keys, which all workers read.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::sync::atomic::Ordering::SeqCst;

use fastrand::Rng;
use ucache::{
    Error,
    engine::{Expires, SetOptions, Stored, Touch},
};

use crate::{
    engine_proc::say,
    engine_rig::{COUNTERS, OWNED, Rig, Tally, UPDATE, owned_keys, present, seq_of, state},
    engine_value::{self, Fault, Stamp},
};

pub(crate) struct Worker<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) shared_seq: u32,
    pub(crate) counters: [i64; COUNTERS as usize],
}

impl<'a> Worker<'a> {
    pub(crate) fn new(rig: &'a Rig, number: usize, generation: u64) -> Self {
        let mix = rig.seed ^ (generation << 8 | u64::try_from(number).expect("few"));
        Self {
            rig,
            number,
            rng: Rng::with_seed(mix),
            key: Vec::new(),
            value: Vec::new(),
            shared_seq: 0,
            counters: [i64::MIN; COUNTERS as usize],
        }
    }

    pub(crate) fn run(mut self) {
        self.resolve();
        while !self.rig.stopped() {
            let begun = self.rig.times.begin(self.number);
            self.step();
            self.rig.times.end(self.number, begun);
            self.count(Tally::Ops);
        }
    }

    pub(crate) fn count(&self, what: Tally) {
        self.rig.tally(self.number, what).fetch_add(1, SeqCst);
    }

    /// Counts a fault and describes the first few.
    pub(crate) fn fault(&self, what: Tally, text: &str) {
        if self.rig.tally(self.number, what).fetch_add(1, SeqCst) < 3 {
            say(&format!("{}: worker {}: {what:?}: {text}", self.rig.load.name, self.number));
        }
    }

    pub(crate) fn writer(&self) -> u8 {
        u8::try_from(self.number).expect("few")
    }

    /// A length from 8 bytes to the load's longest, mostly short.
    pub(crate) fn len(&mut self) -> usize {
        let max = self.rig.load.max_len;
        match self.rng.u8(0..100) {
            0..25 => 8,
            25..60 => self.rng.usize(16..=max.min(256)),
            60..85 => self.rng.usize(16..=max.min(4096)),
            85..99 => self.rng.usize(16..=max.min(20_000)),
            _ => self.rng.usize(16..=max),
        }
    }

    /// After a kill: determines which of two possible states each owned key is in.
    fn resolve(&mut self) {
        for n in 0..OWNED {
            let key = self.owned(n);
            let (intent, acked) = self.rig.words(key);
            let (want, was) = (intent.load(SeqCst), acked.load(SeqCst));
            let seen = self.rig.seen(key).load(SeqCst);
            engine_value::key_bytes(key, &mut self.key);
            let found = match engine_value::get(&self.rig.engine, &self.key, Touch::No) {
                Ok(found) => found,
                Err(error) => return self.fault(Tally::Refused, &format!("get after a kill: {error}")),
            };
            let is = match found.map(|(_, value)| engine_value::read(key, &value)) {
                None => None,
                Some(Ok(stamp)) => Some(stamp.seq),
                Some(Err(fault)) => return self.bad_value(key, fault),
            };
            let fits = |state: u64| match is {
                None => !present(state) || self.rig.load.may_miss,
                Some(seq) => present(state) && seq == seq_of(state),
            };
            if !fits(was) && !fits(want) {
                self.fault(
                    Tally::Lost,
                    &format!("key {key} is {is:?} after a kill, was {was:#x}, to be {want:#x}"),
                );
            }
            if seq_of(want) != seq_of(was) && seen >= u64::from(seq_of(want)) && !fits(want) {
                let text = format!("key {key} is {is:?} after a kill, but {want:#x} had been read");
                self.fault(Tally::Stale, &text);
            }
            // The next sequence number must be new to all readers in either case.
            let now = state(seq_of(want.max(was)), is.is_some());
            if seq_of(was) != seq_of(want) && is.is_some_and(|seq| seq != seq_of(want)) {
                self.rewrite(key, seq_of(want) + 1);
            } else {
                intent.store(now, SeqCst);
                acked.store(now, SeqCst);
            }
        }
    }

    fn rewrite(&mut self, key: u32, seq: u32) {
        let (intent, acked) = self.rig.words(key);
        intent.store(state(seq, true), SeqCst);
        engine_value::write(Stamp { key, writer: self.writer(), seq }, 64, &mut self.value);
        match self.rig.engine.set(&self.key, &self.value, &UPDATE) {
            Ok(_) => acked.store(state(seq, true), SeqCst),
            Err(error) => self.fault(Tally::Refused, &format!("set after a kill: {error}")),
        }
    }

    fn owned(&self, n: u32) -> u32 {
        u32::try_from(self.number).expect("few") * OWNED + n
    }

    fn step(&mut self) {
        match self.rng.u32(0..1000) {
            0..300 => self.read_any(),
            300..560 => self.write_owned(),
            560..680 => self.delete_owned(),
            680..780 => self.shared(),
            780..860 => self.increment(),
            860..900 => self.fill(),
            900..940 => self.exists_any(),
            940..970 => self.read_counted(),
            970..985 => self.exclusive(),
            985..990 => self.walk(),
            990..993 => match self.rig.engine.sweep() {
                // All of few shards were held for the 20 ms that a sweep waits.
                Err(Error::Timeout { .. }) => {}
                swept => self.check(swept.map(drop), "sweep"),
            },
            _ if self.rig.load.clears => self.check(self.rig.engine.clear(), "clear"),
            _ => self.figures(),
        }
    }

    pub(crate) fn check(&self, result: Result<(), Error>, what: &str) {
        if let Err(error) = result {
            self.fault(Tally::Refused, &format!("{what}: {error}"));
        }
    }

    pub(crate) fn bad_value(&self, key: u32, fault: Fault) {
        match fault {
            Fault::Torn => self.fault(Tally::Torn, &format!("key {key}")),
            Fault::Foreign(stamp) => self.fault(Tally::Foreign, &format!("key {key} holds {stamp:?}")),
        }
    }

    fn read_any(&mut self) {
        let key = self.rng.u32(0..owned_keys(self.rig.load.workers));
        engine_value::key_bytes(key, &mut self.key);
        let (intent, acked) = self.rig.words(key);
        let (seen, before) = (self.rig.seen(key).load(SeqCst), acked.load(SeqCst));
        let touch = if self.rng.bool() { Touch::Yes } else { Touch::No };
        let found = match engine_value::get(&self.rig.engine, &self.key, touch) {
            Ok(found) => found.map(|(_, value)| value),
            Err(error) => return self.fault(Tally::Refused, &format!("get: {error}")),
        };
        let after = intent.load(SeqCst);
        self.judge(key, found.as_deref(), before, after, seen);
    }

    /// `seen` = the newest state returned by reads before this one began.
    fn judge(&self, key: u32, found: Option<&[u8]>, before: u64, after: u64, seen: u64) {
        let Some(value) = found else {
            self.judge_miss(key, before, after, seen);
            // At most one operation can have run, and it was not a delete.
            let only_updates = key.is_multiple_of(2) || seq_of(after) == seq_of(before);
            if present(before) && only_updates && !self.rig.load.may_miss {
                self.fault(Tally::Lost, &format!("key {key} missed, {before:#x} before, {after:#x} after"));
            }
            return;
        };
        let stamp = match engine_value::read(key, value) {
            Ok(stamp) => stamp,
            Err(fault) => return self.bad_value(key, fault),
        };
        if usize::from(stamp.writer) != usize::try_from(key / OWNED).expect("few") {
            self.fault(Tally::Wrong, &format!("key {key} holds {stamp:?}, not of its owner"));
        }
        // The same sequence number means the acknowledged value itself, unless that was a delete.
        let oldest = if present(before) { seq_of(before) } else { seq_of(before) + 1 };
        if stamp.seq < oldest || stamp.seq > seq_of(after) {
            let text = format!("key {key} has seq {}, acknowledged {before:#x}, begun {after:#x}", stamp.seq);
            self.fault(Tally::Stale, &text);
        }
        if u64::from(stamp.seq) < seen {
            let text = format!("key {key} has seq {}, after a read that had {seen}", stamp.seq);
            self.fault(Tally::Stale, &text);
        }
        self.rig.seen(key).fetch_max(u64::from(stamp.seq), SeqCst);
    }

    /// Judges a miss: the key must be absent in some state from `before` to `after` that is not
    /// older than `seen`.
    fn judge_miss(&self, key: u32, before: u64, after: u64, seen: u64) {
        if self.rig.load.may_miss {
            return;
        }
        if u64::from(seq_of(after)) <= seen && present(after) {
            let text = format!("key {key} missed, begun {after:#x}, after a read that had {seen}");
            self.fault(Tally::Lost, &text);
        }
        // It existed when this read began, so the state read is a later one.
        let met = u64::from(seq_of(before)) + u64::from(present(before));
        self.rig.seen(key).fetch_max(met, SeqCst);
    }

    fn write_owned(&mut self) {
        let n = self.rng.u32(0..OWNED);
        let key = self.owned(n);
        let (intent, acked) = self.rig.words(key);
        let was = acked.load(SeqCst);
        let seq = seq_of(was) + 1;
        let len = self.len();
        // Odd keys may be stored already expired.
        let (expires, lives) = match self.rng.u8(0..8) {
            0 if key % 2 == 1 => (Expires::In(0), false),
            1 => (Expires::In(3600), true),
            _ => (Expires::Never, true),
        };
        engine_value::key_bytes(key, &mut self.key);
        engine_value::write(Stamp { key, writer: self.writer(), seq }, len, &mut self.value);
        intent.store(state(seq, lives), SeqCst);
        let options = SetOptions { expires, ..UPDATE };
        match self.rig.engine.set(&self.key, &self.value, &options) {
            Ok(done) => {
                acked.store(state(seq, lives), SeqCst);
                let expected = if present(was) { Stored::Updated } else { Stored::Inserted };
                if done != expected && !self.rig.load.may_miss {
                    self.fault(Tally::Lost, &format!("set of key {key} says {done:?}, it was {was:#x}"));
                }
            }
            Err(error) => {
                intent.store(was, SeqCst);
                let memory = self.rig.engine.memory();
                self.fault(Tally::Refused, &format!("set of {len} bytes: {error}: {memory:?}"));
            }
        }
    }

    fn delete_owned(&mut self) {
        let n = self.rng.u32(0..OWNED / 2) * 2 + 1;
        let key = self.owned(n);
        let (intent, acked) = self.rig.words(key);
        let was = acked.load(SeqCst);
        let gone = state(seq_of(was) + 1, false);
        engine_value::key_bytes(key, &mut self.key);
        // If items may be evicted, the id may be another key's by now.
        let by_id = self.rng.bool() && !self.rig.load.may_miss;
        let id = if by_id { self.rig.engine.exists(&self.key) } else { None };
        intent.store(gone, SeqCst);
        let done = match id {
            Some(id) => self.rig.engine.delete_id(id),
            None => self.rig.engine.delete(&self.key),
        };
        match done {
            Ok(found) => {
                acked.store(gone, SeqCst);
                if found != present(was) && !self.rig.load.may_miss {
                    self.fault(Tally::Lost, &format!("delete of key {key} says {found}, it was {was:#x}"));
                }
            }
            Err(error) => {
                intent.store(was, SeqCst);
                self.fault(Tally::Refused, &format!("delete: {error}"));
            }
        }
    }

    fn exists_any(&mut self) {
        let key = self.rng.u32(0..owned_keys(self.rig.load.workers));
        engine_value::key_bytes(key, &mut self.key);
        let (intent, acked) = self.rig.words(key);
        let before = acked.load(SeqCst);
        let is = self.rig.engine.exists(&self.key).is_some();
        let after = intent.load(SeqCst);
        let quiet = before == after;
        if !is && present(before) && (quiet || key.is_multiple_of(2)) && !self.rig.load.may_miss {
            self.fault(
                Tally::Lost,
                &format!("exists misses key {key}, {before:#x} before, {after:#x} after"),
            );
        }
        if is && quiet && !present(before) {
            self.fault(Tally::Stale, &format!("exists finds key {key}, which is {before:#x}"));
        }
    }
}
