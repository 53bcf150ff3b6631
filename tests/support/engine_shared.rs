//! A worker's operations on keys shared by all workers, and on the whole cache.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use ucache::{
    Error,
    engine::{Cursor, Expires, Fill, Math, SetOptions, Touch},
};

use crate::{
    engine_rig::{ADD, FILLS, Tally, UPDATE, owned_keys, present},
    engine_value::{self, Bytes, Stamp},
    engine_worker::Worker,
};

impl Worker<'_> {
    /// Keys that all workers write and delete: only checked to be whole and of the right key.
    pub(crate) fn shared(&mut self) {
        let key = self.rig.shared_key(self.rng.u32(0..self.rig.load.shared));
        engine_value::key_bytes(key, &mut self.key);
        match self.rng.u8(0..10) {
            0..4 => {
                self.shared_seq += 1;
                let stamp = Stamp { key, writer: self.writer(), seq: self.shared_seq };
                let len = self.len();
                engine_value::write(stamp, len, &mut self.value);
                let options = if self.rng.bool() { ADD } else { UPDATE };
                let done = self.rig.engine.set(&self.key, &self.value, &options).map(drop);
                self.check(done, "set of a shared key");
            }
            4 => self.check(self.rig.engine.delete(&self.key).map(drop), "delete of a shared key"),
            _ => {
                let found = engine_value::get(&self.rig.engine, &self.key, Touch::Yes);
                self.whole(key, found.map(|found| found.map(|(_, value)| value)));
            }
        }
    }

    fn whole(&self, key: u32, found: Result<Option<Vec<u8>>, Error>) {
        match found {
            Ok(None) => {}
            Ok(Some(value)) => {
                if let Err(fault) = engine_value::read(key, &value) {
                    self.bad_value(key, fault);
                }
            }
            Err(error) => self.fault(Tally::Refused, &format!("get: {error}")),
        }
    }

    pub(crate) fn read_counted(&mut self) {
        let key = self.rig.shared_key(self.rng.u32(0..self.rig.load.shared));
        engine_value::key_bytes(key, &mut self.key);
        let mut sink = Bytes::default();
        let found = self.rig.engine.get_counted(&self.key, &mut sink);
        self.whole(key, found.map(|meta| meta.map(|_| sink.0)));
    }

    pub(crate) fn increment(&mut self) {
        let n = self.rng.usize(0..self.counters.len());
        let key = self.rig.counter_key(u32::try_from(n).expect("few"));
        self.count(Tally::IncrementsBegun);
        match self.rig.engine.math(&key, Math::Inc, 1, &SetOptions { keep_ttl: true, ..UPDATE }) {
            Ok(number) => {
                self.count(Tally::Increments);
                if number <= self.counters[n] && !self.rig.load.may_miss {
                    self.fault(
                        Tally::Lost,
                        &format!("counter {n} went from {} to {number}", self.counters[n]),
                    );
                }
                self.counters[n] = number;
            }
            Err(error) => self.fault(Tally::Refused, &format!("math: {error}")),
        }
    }

    pub(crate) fn fill(&mut self) {
        let key = self.rig.shared_key(self.rig.load.shared + self.rng.u32(0..FILLS));
        engine_value::key_bytes(key, &mut self.key);
        let (lease, patience) = (Duration::from_millis(200), Duration::from_millis(1));
        let mut sink = Bytes::default();
        match self.rig.engine.begin_fill(&self.key, lease, patience, &mut sink) {
            Ok(Fill::Hit(_)) => {
                self.whole(key, Ok(Some(sink.0)));
                if self.rng.u8(0..4) == 0 {
                    self.check(self.rig.engine.delete(&self.key).map(drop), "delete of a filled key");
                }
            }
            Ok(Fill::Filler(token)) if self.rng.u8(0..4) == 0 => {
                self.check(self.rig.engine.abandon_fill(&self.key, token), "abandon_fill");
            }
            Ok(Fill::Filler(token)) => {
                self.shared_seq += 1;
                let stamp = Stamp { key, writer: self.writer(), seq: self.shared_seq };
                engine_value::write(stamp, 200, &mut self.value);
                let done = self.rig.engine.end_fill(&self.key, token, &self.value, Expires::Never);
                self.check(done.map(drop), "end_fill");
                self.count(Tally::Fills);
            }
            Ok(Fill::TimedOut) => {}
            Err(error) => self.fault(Tally::Refused, &format!("begin_fill: {error}")),
        }
    }

    /// A read-modify-write under the exclusive lock: two halves that must always be equal.
    pub(crate) fn exclusive(&mut self) {
        if let Err(error) = self.rig.engine.exclusive_begin() {
            return self.fault(Tally::Refused, &format!("exclusive_begin: {error}"));
        }
        let read = |name: &[u8]| match engine_value::get(&self.rig.engine, name, Touch::No) {
            Ok(found) => found.map(|(_, value)| value),
            Err(_) => None,
        };
        let (left, right) = (read(b"left"), read(b"right"));
        // A killed holder leaves `left` one ahead; the next holder completes its work.
        let ahead = match (&left, &right) {
            (Some(l), Some(r)) => number(l).wrapping_sub(number(r)),
            (Some(l), None) => number(l),
            (None, None) => 0,
            (None, Some(_)) => u64::MAX,
        };
        if ahead > 1 && !self.rig.load.may_miss {
            self.fault(Tally::Wrong, &format!("exclusive: {left:?} and {right:?}"));
        }
        let next = left.as_deref().map_or(0, number) + u64::from(ahead == 0);
        if ahead == 0 {
            self.count(Tally::ExclusiveBegun);
            self.check(
                self.rig.engine.set(b"left", &next.to_le_bytes(), &UPDATE).map(drop),
                "set, exclusive",
            );
            self.count(Tally::Exclusive);
        }
        self.check(self.rig.engine.set(b"right", &next.to_le_bytes(), &UPDATE).map(drop), "set, exclusive");
        self.rig.engine.exclusive_end();
    }

    pub(crate) fn walk(&mut self) {
        let mut cursor = Cursor::default();
        let mut met = vec![false; usize::try_from(owned_keys(self.rig.load.workers)).expect("few")];
        let before: Vec<u64> = (0..met.len()).map(|key| self.rig.acked[key].load(SeqCst)).collect();
        while let Some(item) = self.rig.engine.walk(&mut cursor) {
            let Some(key) = engine_value::key_number(&item.key) else { continue };
            if let Some(met) = usize::try_from(key).ok().and_then(|key| met.get_mut(key))
                && std::mem::replace(met, true)
                && key.is_multiple_of(2)
            {
                self.fault(Tally::Wrong, &format!("walk: key {key} twice"));
            }
        }
        for (key, met) in met.iter().enumerate().step_by(2) {
            if !met && present(before[key]) && !self.rig.load.may_miss {
                self.fault(Tally::Lost, &format!("walk: key {key} missed"));
            }
        }
    }

    pub(crate) fn figures(&self) {
        let stats = self.rig.engine.stats();
        if stats.items > stats.capacity {
            self.fault(Tally::Wrong, &format!("{} items of {}", stats.items, stats.capacity));
        }
        if let Some(blocks) = self.rig.load.config.blocks
            && stats.blocks_used > blocks.count
        {
            self.fault(Tally::Wrong, &format!("{} blocks of {}", stats.blocks_used, blocks.count));
        }
    }
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(u64::MAX, u64::from_le_bytes)
}
