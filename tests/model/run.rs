//! Runs a script on the engine and on the naive cache, and compares all there is to see after each step.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use ucache::{
    Error,
    engine::{
        Config, Cursor, Engine, Expires, Fill, Item, ItemId, Math, Meta, Mode, SetOptions, Stored, Touch,
    },
};

use super::{
    naive::{Answer, Entry, How, Naive, When},
    ops::{FillEnd, Key, Len, Op},
};
use crate::engine_value::{self, Bytes};

pub(crate) struct Run {
    engine: Arc<Engine>,
    naive: Naive,
    keys: BTreeSet<Vec<u8>>,
    step: u64,
    now: u64,
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
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
        Self { engine, naive: Naive::new(config.clone()), keys: BTreeSet::new(), step: 0, now: now() }
    }

    pub(crate) fn all(mut self, ops: &[Op]) {
        for op in ops {
            self.step += 1;
            self.now = now();
            self.apply(op);
            self.compare();
        }
        self.walk();
        self.engine.sweep().expect("sweep");
        self.naive.dead.clear();
        self.compare();
    }

    fn key(&mut self, key: Key) -> Vec<u8> {
        let max = usize::try_from(self.naive.config.max_key).expect("a length");
        let bytes = match key {
            Key::Empty => Vec::new(),
            Key::TooLong => vec![7; max + 1],
            Key::Of(n) => {
                // A few are as long as a key may be, the others short.
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
                let options = SetOptions { mode, expires, keep_ttl, ungettable };
                let got = answer(self.engine.set(&key, &value, &options));
                assert_eq!(got, self.naive.set(&key, value, how), "set");
            }
            Op::Math { key, op, operand, mode, expires, keep_ttl } => {
                self.math(key, op, operand, mode, expires, keep_ttl);
            }
            Op::Get { key, touch } => {
                let key = self.key(key);
                self.get(&key, touch);
            }
            Op::GetCounted { key } => self.get_counted(key),
            Op::Exists { key } => {
                let key = self.key(key);
                assert_eq!(self.engine.exists(&key).is_some(), self.naive.position(&key).is_some(), "exists");
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
            Op::Sweep => self.sweep(),
            Op::Walk => self.walk(),
            Op::Fill { key, len, end } => self.fill(key, len, end),
        }
    }

    fn math(&mut self, key: Key, op: Math, operand: i64, mode: Mode, expires: Expires, keep_ttl: bool) {
        let key = self.key(key);
        let how = How { mode, when: When::new(expires, self.now), keep_ttl, ungettable: false };
        let options = SetOptions { mode, expires, keep_ttl, ungettable: false };
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
        let Some(id) = NonZeroU32::new(id).filter(|id| u64::from(id.get()) > self.naive.config.capacity)
        else {
            return;
        };
        assert!(!self.engine.delete_id(ItemId(id)).expect("delete_id"), "an item beyond the capacity");
    }

    fn sweep(&mut self) {
        let swept = self.engine.sweep().expect("sweep");
        let most = u64::try_from(self.naive.dead.len()).expect("a length");
        assert!(swept <= most, "swept {swept} items, {most} had expired");
        self.naive.dead.clear();
    }

    fn fill(&mut self, key: Key, len: Len, end: FillEnd) {
        let Key::Of(_) = key else { return };
        let key = self.key(key);
        let (lease, patience) = (Duration::from_secs(3600), Duration::ZERO);
        let mut sink = Bytes::default();
        let begun = self.engine.begin_fill(&key, lease, patience, &mut sink);
        let seen = self.naive.position(&key).is_some_and(|at| !self.naive.items[at].ungettable);
        if seen {
            let Ok(Fill::Hit(meta)) = begun else { panic!("begin_fill of a stored key: {begun:?}") };
            same(&key, Some((meta, sink.0)), self.naive.read(&key, true, false), false);
            return;
        }
        if self.naive.position(&key).is_some() {
            // The item exists but cannot be read: the filler may take its place.
            self.end_over_ungettable(&key, begun);
            return;
        }
        self.naive.read(&key, false, false);
        let token = match begun {
            Ok(Fill::Filler(token)) => token,
            Err(error) => {
                let placeholder = self.naive.reserve();
                assert!(!placeholder, "a fill was refused though an item is free: {error}");
                return;
            }
            other => panic!("begin_fill of a missing key: {other:?}"),
        };
        assert!(self.naive.reserve(), "a fill was begun though no item is free");
        self.while_filling(&key);
        self.end_fill(&key, token, len, end);
    }

    /// What others see of a key that is being filled: nothing.
    fn while_filling(&mut self, key: &[u8]) {
        self.get(key, true);
        assert!(self.engine.exists(key).is_none(), "a placeholder is no item");
        let second =
            self.engine.begin_fill(key, Duration::from_secs(1), Duration::ZERO, &mut Bytes::default());
        assert!(matches!(second, Ok(Fill::TimedOut)), "a second filler: {second:?}");
        self.naive.read(key, false, false);
    }

    fn end_fill(&mut self, key: &[u8], token: ucache::engine::FillToken, len: Len, end: FillEnd) {
        let value = self.value(len);
        let how = |when| How { mode: Mode::Update, when, keep_ttl: false, ungettable: false };
        self.naive.release();
        match end {
            FillEnd::Stored(expires) => {
                let got = answer(self.engine.end_fill(key, token, &value, expires));
                let want = self.naive.set(key, value, how(When::new(expires, self.now)));
                assert_eq!(got, want, "end_fill");
                if matches!(want, Answer::Inserted | Answer::Updated) {
                    return;
                }
            }
            FillEnd::Abandoned => self.engine.abandon_fill(key, token).expect("abandon_fill"),
            FillEnd::Overtaken => {
                let mine = vec![1; 5];
                let options = SetOptions {
                    mode: Mode::Add,
                    expires: Expires::Never,
                    keep_ttl: false,
                    ungettable: false,
                };
                let got = answer(self.engine.set(key, &mine, &options));
                assert_eq!(got, self.naive.set(key, mine, how(When::NEVER)), "set while filling");
                if got == Answer::Inserted {
                    let late = self.engine.end_fill(key, token, &[2; 6], Expires::Never).expect("end_fill");
                    assert_eq!(late, Stored::Kept, "a fill that was overtaken");
                } else {
                    self.engine.abandon_fill(key, token).expect("abandon_fill");
                }
            }
        }
    }

    fn end_over_ungettable(&mut self, key: &[u8], begun: Result<Fill, Error>) {
        let Ok(Fill::Filler(token)) = begun else { panic!("begin_fill of an ungettable key: {begun:?}") };
        self.naive.read(key, false, false);
        self.engine.abandon_fill(key, token).expect("abandon_fill");
    }

    fn walk(&mut self) {
        let mut cursor = Cursor::default();
        let (mut seen, mut ids) = (BTreeSet::new(), BTreeSet::new());
        while let Some(item) = self.engine.walk(&mut cursor) {
            assert!(ids.insert(item.id), "item number {:?} twice", item.id);
            assert!((1..=self.naive.config.capacity).contains(&u64::from(item.id.0.get())), "{:?}", item.id);
            self.walked(&item);
            assert!(seen.insert(item.key), "a key twice");
        }
        let want = self.naive.items.iter().map(|e| e.key.clone()).collect::<BTreeSet<_>>();
        assert_eq!(seen, want, "walk");
    }

    fn walked(&self, item: &Item) {
        let at = self.naive.position(&item.key).unwrap_or_else(|| panic!("walked to a foreign {item:?}"));
        let entry = &self.naive.items[at];
        assert_eq!(item.value_len, u64::try_from(entry.value.len()).expect("a length"), "walk: length");
        assert_eq!(item.ungettable, entry.ungettable, "walk: ungettable");
        assert!(entry.when.allows(item.expires), "walk: expires {} of {entry:?}", item.expires);
        assert_eq!(self.engine.exists(&item.key), Some(item.id), "walk: number");
    }

    /// Reads every key ever used, and the figures.
    fn compare(&mut self) {
        for key in self.keys.clone() {
            self.get(&key, false);
        }
        let (stats, naive) = (self.engine.stats(), &self.naive);
        let want = naive.count;
        let got = super::naive::Counters {
            hits: stats.hits,
            misses: stats.misses,
            stored: stats.stored,
            deleted: stats.deleted,
            evicted: stats.evicted,
            cleared: stats.cleared,
            rejected_limit: stats.rejected_limit,
            rejected_full: stats.rejected_full,
        };
        assert_eq!(got, want, "counters");
        let dead = u64::try_from(naive.dead.len()).expect("a length");
        let most = (naive.len() + dead).min(naive.config.capacity);
        assert!(
            (naive.len()..=most).contains(&stats.items),
            "items {}, not {}..={most}",
            stats.items,
            naive.len()
        );
        let used = naive.blocks_used();
        let most = used + naive.dead.iter().map(|(_, blocks)| blocks).sum::<u64>();
        assert!(
            (used..=most).contains(&stats.blocks_used),
            "blocks {}, not {used}..={most}",
            stats.blocks_used
        );
        assert_eq!(stats.capacity, naive.config.capacity);
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
    assert!(entry.when.allows(meta.expires), "expires {} of {entry:?}", meta.expires);
    assert_eq!(meta.hits, if counted { entry.hits } else { 0 }, "hits of {key:?}");
}
