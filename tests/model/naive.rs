//! The cache as anyone would write it down: a list of items, oldest use first, and the rules of full caches.

use ucache::engine::{Config, Eviction, Expires, Math, Mode};

/// Further in the future, or the past, than any test lasts.
pub(crate) const FAR: u64 = 100_000;

/// What the engine should answer; errors by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Inserted,
    Updated,
    Kept,
    Number(i64),
    /// Key or value empty or too long, or not a number.
    Limit,
    Exists,
    Full,
    OutOfBlocks,
}

/// When an item expires: the engine's clock is read somewhere between two moments of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    /// Earliest and latest `Meta::expires`; both 0 = never.
    pub(crate) range: (u64, u64),
    pub(crate) past: bool,
}

impl When {
    pub(crate) const NEVER: Self = Self { range: (0, 0), past: false };

    pub(crate) fn new(expires: Expires, now: u64) -> Self {
        match expires {
            Expires::Never => Self::NEVER,
            Expires::In(0) => Self { range: (1, now + 60), past: true },
            Expires::In(secs) if secs > FAR => Self { range: (now + FAR, u64::MAX), past: false },
            Expires::In(secs) => Self { range: (now + secs, now + secs + 60), past: false },
            Expires::At(time) if time <= now => Self { range: (1, now + 60), past: true },
            Expires::At(time) if time > now + FAR => Self { range: (now + FAR, time), past: false },
            Expires::At(time) => Self { range: (time, time), past: false },
        }
    }

    pub(crate) fn allows(self, expires: u64) -> bool {
        (self.range.0..=self.range.1).contains(&expires)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) when: When,
    pub(crate) ungettable: bool,
    pub(crate) hits: u64,
}

/// The counters that the engine must keep exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) stored: u64,
    pub(crate) deleted: u64,
    pub(crate) evicted: u64,
    pub(crate) cleared: u64,
    pub(crate) rejected_limit: u64,
    pub(crate) rejected_full: u64,
}

#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) config: Config,
    /// Present items, the least recently used first.
    pub(crate) items: Vec<Entry>,
    /// Items that expired and that the engine may or may not have swept yet: their blocks.
    pub(crate) dead: Vec<(Vec<u8>, u64)>,
    /// A fill has begun: its placeholder counts as an item.
    reserved: u64,
    pub(crate) count: Counters,
}

/// How an item is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) mode: Mode,
    pub(crate) when: When,
    pub(crate) keep_ttl: bool,
    pub(crate) ungettable: bool,
}

impl Naive {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, items: Vec::new(), dead: Vec::new(), reserved: 0, count: Counters::default() }
    }

    pub(crate) fn blocks(&self, len: usize) -> u64 {
        self.config.blocks.map_or(0, |b| u64::try_from(len).expect("a length").div_ceil(b.size))
    }

    pub(crate) fn blocks_used(&self) -> u64 {
        self.items.iter().map(|e| self.blocks(e.value.len())).sum()
    }

    pub(crate) fn position(&self, key: &[u8]) -> Option<usize> {
        self.items.iter().position(|e| e.key == key)
    }

    /// What a read sees: ungettable items are missed.
    pub(crate) fn read(&mut self, key: &[u8], touch: bool, counted: bool) -> Option<Entry> {
        let Some(at) = self.position(key).filter(|&at| !self.items[at].ungettable) else {
            self.count.misses += 1;
            return None;
        };
        self.count.hits += 1;
        let seen = self.items[at].clone();
        if counted {
            self.items[at].hits += 1;
        }
        if touch {
            self.touch(at);
        }
        Some(seen)
    }

    fn touch(&mut self, at: usize) {
        let entry = self.items.remove(at);
        self.items.push(entry);
    }

    pub(crate) fn set(&mut self, key: &[u8], value: Vec<u8>, how: How) -> Answer {
        if !self.accepts(key, value.len()) {
            self.count.rejected_limit += 1;
            return Answer::Limit;
        }
        let Some(at) = self.position(key) else {
            return self.insert(key, value, how, Answer::Inserted);
        };
        if how.mode == Mode::Add {
            return Answer::Kept;
        }
        self.replace(at, value, how, Answer::Updated)
    }

    pub(crate) fn math(&mut self, key: &[u8], op: Math, operand: i64, how: How) -> Answer {
        if !self.accepts(key, 8) {
            self.count.rejected_limit += 1;
            return Answer::Limit;
        }
        let Some(at) = self.position(key) else {
            let number = op.apply(self.config.math_initial, operand);
            return self.insert(key, number.to_le_bytes().to_vec(), how, Answer::Number(number));
        };
        if how.mode == Mode::Add {
            return Answer::Exists;
        }
        let Ok(old) = <[u8; 8]>::try_from(&self.items[at].value[..]) else {
            self.count.rejected_limit += 1;
            return Answer::Limit;
        };
        let number = op.apply(i64::from_le_bytes(old), operand);
        let how = How { ungettable: self.items[at].ungettable, ..how };
        self.replace(at, number.to_le_bytes().to_vec(), how, Answer::Number(number))
    }

    fn accepts(&self, key: &[u8], len: usize) -> bool {
        let fits = |len: usize, max: u64| len > 0 && u64::try_from(len).is_ok_and(|len| len <= max);
        fits(key.len(), self.config.max_key) && fits(len, self.config.max_value)
    }

    fn replace(&mut self, at: usize, value: Vec<u8>, how: How, answer: Answer) -> Answer {
        let (old, new) = (self.blocks(self.items[at].value.len()), self.blocks(value.len()));
        let key = self.items[at].key.clone();
        // More blocks than before must be found beside the old ones.
        if new > old && !self.make_room(0, new, Some(&key)) {
            self.count.rejected_full += 1;
            return Answer::OutOfBlocks;
        }
        let Some(at) = self.position(&key) else {
            // Clearing the full cache took the item along.
            return self.insert(&key, value, how, answer);
        };
        let entry = &mut self.items[at];
        entry.value = value;
        entry.ungettable = how.ungettable;
        if !how.keep_ttl {
            entry.when = how.when;
            self.touch(at);
        }
        self.count.stored += 1;
        self.bury();
        answer
    }

    fn insert(&mut self, key: &[u8], value: Vec<u8>, how: How, answer: Answer) -> Answer {
        let blocks = self.blocks(value.len());
        if !self.make_room(1, blocks, None) {
            self.count.rejected_full += 1;
            return if self.config.blocks.is_some_and(|b| self.blocks_used() + blocks > b.count)
                && self.len() < self.config.capacity
            {
                Answer::OutOfBlocks
            } else {
                Answer::Full
            };
        }
        self.dead.retain(|(k, _)| k != key);
        let (when, ungettable) = (how.when, how.ungettable);
        self.items.push(Entry { key: key.to_vec(), value, when, ungettable, hits: 0 });
        self.count.stored += 1;
        self.bury();
        answer
    }

    /// Moves what has expired out of sight.
    fn bury(&mut self) {
        if self.config.no_expire {
            return;
        }
        for at in (0..self.items.len()).rev() {
            if self.items[at].when.past {
                let entry = self.items.remove(at);
                let blocks = self.blocks(entry.value.len());
                self.dead.push((entry.key, blocks));
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.items.len()).expect("a length")
    }

    /// Takes an item for a fill, as a store would.
    pub(crate) fn reserve(&mut self) -> bool {
        let room = self.make_room(1, 0, None);
        self.reserved = u64::from(room);
        room
    }

    /// The fill ends: its item is free for what is stored next.
    pub(crate) fn release(&mut self) {
        self.reserved = 0;
    }

    fn fits(&self, items: u64, blocks: u64) -> bool {
        self.len() + self.reserved + items <= self.config.capacity
            && self.config.blocks.is_none_or(|b| self.blocks_used() + blocks <= b.count)
    }

    /// Evicts or clears until `items` and `blocks` more fit beside the item `keep`; without effect if they never can.
    fn make_room(&mut self, items: u64, blocks: u64, keep: Option<&[u8]>) -> bool {
        if self.fits(items, blocks) {
            return true;
        }
        if self.config.no_expire {
            // Nothing expires by itself, but a full cache takes these first.
            self.items.retain(|e| !e.when.past || Some(&e.key[..]) == keep);
            if self.fits(items, blocks) {
                return true;
            }
        }
        let kept: u64 =
            self.items.iter().filter(|e| Some(&e.key[..]) == keep).map(|e| self.blocks(e.value.len())).sum();
        let hopeless = self.config.blocks.is_some_and(|b| kept + blocks > b.count);
        if self.config.eviction == Eviction::Lru && !hopeless {
            while !self.fits(items, blocks) {
                let Some(at) = self.items.iter().position(|e| Some(&e.key[..]) != keep) else { break };
                self.items.remove(at);
                self.count.evicted += 1;
            }
            return self.fits(items, blocks);
        }
        if self.config.clear_on_full && self.config.blocks.is_none_or(|b| blocks <= b.count) {
            self.clear();
            return true;
        }
        false
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let Some(at) = self.position(key) else { return false };
        self.items.remove(at);
        self.count.deleted += 1;
        true
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.dead.clear();
        self.count.cleared += 1;
    }
}
