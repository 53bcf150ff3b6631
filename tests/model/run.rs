//! Runs a script on the engine and on the naive cache, and compares everything visible after each
//! step.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use ucache::{
    Error,
    engine::{
        Config, Cursor, Engine, Expires, Fill, FillToken, Item, ItemId, Math, Meta, Mode, SetOptions, Stored,
        Touch,
    },
};

use super::{
    naive::{Answer, Counters, Entry, How, Naive, When},
    ops::{FillEnd, Key, Len, Op},
};
use crate::{
    engine_value::{self, Bytes},
    unix_now,
};

pub(crate) struct Run {
    engine: Arc<Engine>,
    naive: Naive,
    keys: BTreeSet<Vec<u8>>,
    step: u64,
    now: u64,
}

fn answer(result: Result<Stored, Error>) -> Answer {
    match result {
        Ok(Stored::Inserted) => Answer::Inserted,
        Ok(Stored::Updated) => Answer::Updated,
        Ok(Stored::Kept) => Answer::Kept,
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &Error) -> Answer {
    match error {
        Error::EmptyKey
        | Error::EmptyValue
        | Error::KeyTooLong { .. }
        | Error::ValueTooLong { .. }
        | Error::NotANumber { .. } => Answer::Limit,
        Error::Exists => Answer::Exists,
        Error::Full { .. } => Answer::Full,
        Error::OutOfBlocks { .. } => Answer::OutOfBlocks,
        other => panic!("no step may end so: {other}"),
    }
}

impl Run {
    pub(crate) fn new(config: &Config) -> Self {
        let engine = Engine::create(config).expect("a cache of these limits");
        Self { engine, naive: Naive::new(config.clone()), keys: BTreeSet::new(), step: 0, now: unix_now() }
    }

    pub(crate) fn all(mut self, ops: &[Op]) {
        for op in ops {
            self.step += 1;
            self.now = unix_now();
            self.apply(op);
            self.compare();
        }
        self.walk();
        assert_eq!(self.engine.sweep().expect("sweep"), self.naive.sweep(), "the last sweep");
        self.compare();
    }

    fn key(&mut self, key: Key) -> Vec<u8> {
        let max = usize::try_from(self.naive.config.max_key).expect("a length");
        let bytes = match key {
            Key::Empty => Vec::new(),
            Key::TooLong => vec![7; max + 1],
            Key::Of(n) => {
                // A few keys have the maximum length, the others are short.
                let len = if n % 5 == 0 { max } else { max.min(1 + usize::from(n)) };
                (0..len).map(|at| n.wrapping_add(u8::from(at > 1))).collect()
            }
        };
        if !bytes.is_empty() && bytes.len() <= max {
            self.keys.insert(bytes.clone());
        }
        bytes
    }

    /// A value that no other step writes.
    fn value(&self, len: Len) -> Vec<u8> {
        let max = usize::try_from(self.naive.config.max_value).expect("a length");
        let len = match len {
            Len::Bytes(len) => len,
            Len::Limit(less) => max.saturating_sub(less),
            Len::TooLong => max + 1,
        };
        let mut seed = self.step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            seed = seed.rotate_left(5).wrapping_add(self.step);
            out.extend_from_slice(&seed.to_le_bytes());
        }
        out.truncate(len);
        out
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Set { key, len, mode, expires, keep_ttl, ungettable } => {
                let (key, value) = (self.key(key), self.value(len));
                let how = How { mode, when: When::new(expires, self.now), keep_ttl, ungettable };
                let options = SetOptions { keep_ttl, ungettable, ..SetOptions::new(mode, expires) };
                let got = answer(self.engine.set(&key, &value, &options));
                assert_eq!(got, self.naive.set(&key, value, how), "set");
            }
            Op::Math { key, op, operand, mode, expires, keep_ttl } => {
                self.math(key, op, operand, mode, expires, keep_ttl);
            }
            Op::Join { key, len, side } => {
                let (key, bytes) = (self.key(key), self.value(len));
                let got = match self.engine.join(&key, &bytes, side) {
                    Ok(Some(len)) => Answer::Number(i64::try_from(len).expect("a length")),
                    Ok(None) => Answer::Kept,
                    Err(error) => refusal(&error),
                };
                assert_eq!(got, self.naive.join(&key, &bytes, side), "join");
            }
            Op::Get { key, touch } => {
                let key = self.key(key);
                self.get(&key, touch);
            }
            Op::GetCounted { key } => self.get_counted(key),
            Op::Exists { key } => {
                let key = self.key(key);
                assert_eq!(self.engine.exists(&key).is_some(), self.naive.find(&key).is_some(), "exists");
            }
            Op::Delete { key } => {
                let key = self.key(key);
                assert_eq!(self.engine.delete(&key).expect("delete"), self.naive.delete(&key), "delete");
            }
            Op::DeleteId { key } => self.delete_id(key),
            Op::DeleteForeignId { id } => self.delete_foreign(id),
            Op::Clear => {
                self.engine.clear().expect("clear");
                self.naive.clear();
            }
            Op::Sweep => assert_eq!(self.engine.sweep().expect("sweep"), self.naive.sweep(), "sweep"),
            Op::Walk => self.walk(),
            Op::Fill { key, len, end } => self.fill(key, len, end),
        }
    }

    fn math(&mut self, key: Key, op: Math, operand: i64, mode: Mode, expires: Expires, keep_ttl: bool) {
        let key = self.key(key);
        let how = How { mode, when: When::new(expires, self.now), keep_ttl, ungettable: false };
        let options = SetOptions { keep_ttl, ..SetOptions::new(mode, expires) };
        let got = match self.engine.math(&key, op, operand, &options) {
            Ok(number) => Answer::Number(number),
            Err(error) => refusal(&error),
        };
        assert_eq!(got, self.naive.math(&key, op, operand, how), "math");
    }

    fn get(&mut self, key: &[u8], touch: bool) {
        let how = if touch { Touch::Yes } else { Touch::No };
        let got = engine_value::get(&self.engine, key, how).expect("get");
        same(key, got, self.naive.read(key, touch, false), false);
    }

    fn get_counted(&mut self, key: Key) {
        let key = self.key(key);
        let mut sink = Bytes::default();
        let got = self.engine.get_counted(&key, &mut sink).expect("get_counted").map(|meta| (meta, sink.0));
        same(&key, got, self.naive.read(&key, false, true), true);
    }

    fn delete_id(&mut self, key: Key) {
        let key = self.key(key);
        if let Some(id) = self.engine.exists(&key) {
            assert!(self.engine.delete_id(id).expect("delete_id"), "an item that exists");
            assert!(!self.engine.delete_id(id).expect("delete_id"), "an item deleted twice");
            assert!(self.naive.delete(&key), "exists() of a key that is not there");
        }
    }

    fn delete_foreign(&self, id: u32) {
        let Some(id) = NonZeroU32::new(id).filter(|id| id.get() > self.engine.max_id()) else { return };
        assert!(!self.engine.delete_id(ItemId(id)).expect("delete_id"), "an item beyond the last place");
    }

    /// A fill from its begin to its end.
    fn fill(&mut self, key: Key, len: Len, end: FillEnd) {
        let Key::Of(_) = key else { return };
        let key = self.key(key);
        let (lease, patience) = (Duration::from_secs(3600), Duration::ZERO);
        let mut sink = Bytes::default();
        let begun = self.engine.begin_fill(&key, lease, patience, &mut sink);
        if let Some(entry) = self.naive.read(&key, true, false) {
            let Ok(Fill::Hit(meta)) = begun else { panic!("begin_fill of a stored key: {begun:?}") };
            same(&key, Some((meta, sink.0)), Some(entry), false);
            return;
        }
        if self.naive.find(&key).is_some() {
            assert!(matches!(begun, Err(Error::Exists)), "begin_fill of an ungettable key: {begun:?}");
            return;
        }
        let Ok(Fill::Filler(token)) = begun else { panic!("begin_fill of a missing key: {begun:?}") };
        let coordinated = self.naive.begin_fill(&key);
        self.get(&key, true);
        assert!(self.engine.exists(&key).is_none(), "a placeholder is no item");
        self.compare();
        if coordinated {
            let again =
                self.engine.begin_fill(&key, Duration::from_secs(1), Duration::ZERO, &mut Bytes::default());
            assert!(matches!(again, Err(Error::WouldDeadlock)), "the filler itself: {again:?}");
            self.naive.read(&key, false, false);
        }
        self.end_fill(&key, token, len, end, coordinated);
    }

    fn end_fill(&mut self, key: &[u8], token: FillToken, len: Len, end: FillEnd, coordinated: bool) {
        let value = self.value(len);
        match end {
            FillEnd::Stored(expires) => {
                let got = answer(self.engine.end_fill(key, token, &value, expires));
                let want = self.naive.end_fill(key, value, When::new(expires, self.now), coordinated);
                assert_eq!(got, want, "end_fill");
            }
            FillEnd::Abandoned => {
                self.engine.abandon_fill(key, token).expect("abandon_fill");
                self.naive.abandon_fill(key);
            }
            FillEnd::Overtaken => {
                let mine = vec![1; 5];
                let (mode, expires, keep_ttl, ungettable) = (Mode::Set, Expires::Never, false, false);
                let got = self.engine.set(
                    key,
                    &mine,
                    &SetOptions { keep_ttl, ungettable, ..SetOptions::new(mode, expires) },
                );
                let want = self.naive.set(key, mine, How { mode, when: When::NEVER, keep_ttl, ungettable });
                assert_eq!(answer(got), want, "set while filling");
                let late = answer(self.engine.end_fill(key, token, &value, Expires::Never));
                if coordinated && want == Answer::Inserted && late != Answer::Limit {
                    assert_eq!(late, Answer::Kept, "a fill that was overtaken");
                    return;
                }
                assert_eq!(late, self.naive.end_fill(key, value, When::NEVER, coordinated), "end_fill");
            }
        }
    }

    fn walk(&mut self) {
        let mut cursor = Cursor::default();
        let (mut seen, mut ids) = (BTreeSet::new(), BTreeSet::new());
        while let Some(item) = self.engine.walk(&mut cursor) {
            assert!(ids.insert(item.id), "item number {:?} twice", item.id);
            assert!(item.id.0.get() <= self.engine.max_id(), "{:?}", item.id);
            self.walked(&item);
            assert!(seen.insert(item.key), "a key twice");
        }
        let want = self.naive.keys().map(<[u8]>::to_vec).collect::<BTreeSet<_>>();
        assert_eq!(seen, want, "walk");
    }

    fn walked(&self, item: &Item) {
        let entry = self.naive.find(&item.key).unwrap_or_else(|| panic!("walked to a foreign {item:?}"));
        assert_eq!(item.value_len, u64::try_from(entry.value.len()).expect("a length"), "walk: length");
        assert_eq!(item.ungettable, entry.ungettable, "walk: ungettable");
        assert!(
            entry.when.allows(item.expires_millis.div_ceil(1000)),
            "walk: expires {} of {entry:?}",
            item.expires_millis
        );
        assert_eq!(self.engine.exists(&item.key), Some(item.id), "walk: number");
    }

    /// Reads every key ever used, and the statistics.
    fn compare(&mut self) {
        for key in self.keys.clone() {
            self.get(&key, false);
        }
        let stats = self.engine.stats();
        let got = Counters {
            items: stats.items,
            blocks_used: stats.blocks_used,
            hits: stats.hits,
            misses: stats.misses,
            stored: stats.stored,
            deleted: stats.deleted,
            evicted: stats.evicted,
            expired: stats.expired,
            cleared: stats.cleared,
            full: stats.full,
            rejected_limit: stats.rejected_limit,
            rejected_full: stats.rejected_full,
        };
        assert_eq!(got, self.naive.counters(), "figures after step {}", self.step);
        assert_eq!(stats.capacity, self.naive.config.capacity);
    }
}

fn same(key: &[u8], got: Option<(Meta, Vec<u8>)>, want: Option<Entry>, counted: bool) {
    let Some((meta, value)) = got else {
        assert!(want.is_none(), "{key:?} is lost: {want:?}");
        return;
    };
    let Some(entry) = want else { panic!("{key:?} should not be there: {meta:?}") };
    assert_eq!(value, entry.value, "value of {key:?}");
    assert_eq!(meta.len, u64::try_from(value.len()).expect("a length"), "length of {key:?}");
    assert!(entry.when.allows(meta.expires_secs()), "expires {} of {entry:?}", meta.expires_millis);
    assert_eq!(meta.hits, if counted { entry.hits } else { 0 }, "hits of {key:?}");
}
