//! One cache on both sides: where the models differ, and by which difference.

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    config::Config,
    model::{Expect, Figures, Model, Side, Tags, d},
    op::{DEC, DIV, INC, Key, Kind, MATH, MUL, Op, UPDATE},
};

/// One operation for both sides with the expected answers.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) native_op: Op,
    pub(crate) op: Op,
    pub(crate) native: Expect,
    pub(crate) ucache: Expect,
    /// The differences permitted in this answer; 0 = the answers must be equal.
    pub(crate) tags: Tags,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) config: Rc<Config>,
    pub(crate) keys: Rc<Vec<Key>>,
    pub(crate) native: Model,
    pub(crate) ucache: Model,
    /// Keys with different states on the two sides, and the reasons.
    pub(crate) dirty: BTreeMap<u32, Tags>,
    /// A key that must be made equal before any other operation.
    pub(crate) urgent: bool,
    /// Why the statistics differ.
    ever: Tags,
    /// No item expires before this.
    due: u64,
}

impl Pair {
    pub(crate) fn new(config: Config, rng: &mut fastrand::Rng) -> Self {
        let keys = Rc::new(config.universe(rng));
        let config = Rc::new(config);
        let model = |side| Model::new(side, config.clone(), keys.clone());
        Self {
            native: model(Side::Native),
            ucache: model(Side::Ucache),
            keys: keys.clone(),
            config: config.clone(),
            dirty: BTreeMap::new(),
            urgent: false,
            ever: 0,
            due: u64::MAX,
        }
    }

    /// Native crashes (D-04): it gets a product that results in the same number.
    fn for_native(&self, op: &Op) -> Op {
        let divides =
            op.has(MATH) && op.has(DIV) && !op.has(INC | DEC | MUL) && op.seed == u64::MAX && op.vallen == 8;
        if !divides {
            return *op;
        }
        let deadly = match &self.native.items[op.key as usize] {
            Some(item) => op.has(UPDATE) && (item.seed == 1 << 63 || item.len < 8 || self.config.bitmap),
            None => self.config.math_initial == i64::MIN,
        };
        // An expired item of a lazy cache is created anew.
        if deadly || self.config.math_initial == i64::MIN {
            Op { flags: op.flags & !DIV | MUL, ..*op }
        } else {
            *op
        }
    }

    /// Runs one operation on both models.
    pub(crate) fn step(&mut self, op: Op, now: u64) -> Step {
        let native_op = self.for_native(&op);
        let gap = gap(self.native.figures, self.ucache.figures);
        let native = self.native.apply(&native_op, now);
        let ucache = self.ucache.apply(&op, now);
        let here = self.dirty.get(&op.key).copied().unwrap_or(0);
        // The differences met in this operation or for this key; else those of the cache's other
        // keys.
        let own = self.native.tags | self.ucache.tags | here;
        let cause = if own != 0 || reads(op.kind) { own } else { self.causes() };
        let after = self::gap(self.native.figures, self.ucache.figures);
        if gap[..3] != after[..3] || after[3] > gap[3] {
            assert!(cause != 0, "{op:?} on {:?}: the figures part without a difference", self.config.name);
            self.ever |= cause;
        }
        let shown = matches!(op.kind, Kind::Stat | Kind::LastModified);
        let cause = cause | if shown { self.ever } else { 0 };
        let differ = native.wild != 0 || ucache.wild != 0 || native.answer != ucache.answer;
        if native.answer != ucache.answer {
            assert!(cause != 0, "{op:?} on {:?}: the models part without a difference", self.config.name);
        }
        self.compare(op.key, now, cause);
        let mut tags = if differ && !free(op.kind) { cause } else { 0 };
        if native_op.flags != op.flags {
            tags |= d(4);
        }
        Step { native_op, op, native, ucache, tags }
    }

    fn causes(&self) -> Tags {
        self.dirty.values().fold(0, |all, tags| all | tags)
    }

    /// Compares the states of all keys that the operation changed.
    fn compare(&mut self, key: u32, now: u64, cause: Tags) {
        let mut keys = std::mem::take(&mut self.native.changed);
        keys.extend(&self.ucache.changed);
        keys.push(key);
        let suspects = std::mem::take(&mut self.native.suspect);
        for &key in keys.iter().chain(&suspects) {
            self.compare_one(key, now, cause, suspects.contains(&key));
        }
        self.native.changed = keys;
    }

    fn compare_one(&mut self, key: u32, now: u64, cause: Tags, suspect: bool) {
        let (native, ucache) = (&self.native.items[key as usize], &self.ucache.items[key as usize]);
        for item in [native, ucache].into_iter().flatten() {
            self.due = self.due.min(if item.expires == 0 { u64::MAX } else { item.expires });
        }
        let mut why = 0;
        let alike = match (native, ucache) {
            (None, None) => true,
            (Some(n), Some(u)) => {
                if self.ucache.is_due(u, now) || self.native.is_due(n, now) {
                    why = if self.config.lru { d(6) } else { d(5) };
                }
                why == 0
                    && (n.len, n.seed, n.hidden) == (u.len, u.seed, u.hidden)
                    && n.known
                    && (n.expires == u.expires || self.config.lru)
            }
            _ => self.ucache.flooded,
        };
        self.urgent |= suspect || native.is_some_and(|n| !n.known);
        // Equal values do not imply equal LRU orders: only removed keys are settled.
        let known = self.dirty.contains_key(&key);
        if alike && !suspect && (!known || ucache.is_none()) {
            self.dirty.remove(&key);
            return;
        }
        let tags = self.dirty.entry(key).or_insert(0);
        *tags |= cause | why;
        assert!(*tags != 0, "key {key} of {:?} differs without a difference", self.config.name);
    }

    /// The server was killed and restarted: items outside of stores are gone.
    pub(crate) fn restart(&mut self) {
        if self.config.store {
            assert!(self.dirty.is_empty(), "{:?} is apart", self.config.name);
            self.native.reopen();
            self.ucache.reopen();
            self.ever = d(46);
            return;
        }
        let model = |side| Model::new(side, self.config.clone(), self.keys.clone());
        (self.native, self.ucache) = (model(Side::Native), model(Side::Ucache));
        self.dirty.clear();
        (self.urgent, self.ever, self.due) = (false, 0, u64::MAX);
    }

    /// Time has passed: expired items have different states on the two sides.
    pub(crate) fn expire(&mut self, now: u64) {
        if self.due > now {
            return;
        }
        self.due = u64::MAX;
        for key in 0..self.ucache.items.len() {
            let expires = self.ucache.items[key].map_or(0, |item| item.expires);
            let native = self.native.items[key].map_or(0, |item| item.expires);
            for at in [expires, native] {
                if at > now {
                    self.due = self.due.min(at);
                }
            }
            let due = |model: &Model| model.items[key].is_some_and(|item| model.is_due(&item, now));
            if due(&self.ucache) || due(&self.native) {
                let key = u32::try_from(key).expect("few keys");
                *self.dirty.entry(key).or_insert(0) |= if self.config.lru { d(6) } else { d(5) };
            }
        }
    }
}

fn reads(kind: Kind) -> bool {
    use Kind::{Exists2, Get2, Get3, Get4, MagicExists, MagicGet, Num2};
    matches!(kind, MagicGet | MagicExists | Get2 | Get3 | Get4 | Num2 | Exists2)
}

/// Answers unknown to the models; both sides must give the same.
fn free(kind: Kind) -> bool {
    matches!(kind, Kind::Fields | Kind::Context)
}

fn gap(native: Figures, ucache: Figures) -> [u64; 4] {
    [
        native.hits.wrapping_sub(ucache.hits),
        native.misses.wrapping_sub(ucache.misses),
        native.full.wrapping_sub(ucache.full),
        // A differing time may become equal again.
        u64::from(native.last_modified != ucache.last_modified),
    ]
}
