//! The simplest possible cache: a list of items, least recently used first, and the rules of full
//! caches.

use ucache::engine::{Config, Eviction, Expires, Math, Mode, Side};

/// Further in the future, or the past, than any test lasts.
pub(crate) const FAR: u64 = 100_000;

/// Bytes of the value of a fill's placeholder.
const PLACEHOLDER: usize = 0;

/// The engine's expected answer; errors by kind.
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

/// An item's expiry: the engine's clock is read somewhere between two moments of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    /// Earliest and latest `Meta::expires`; both 0 = never.
    range: (u64, u64),
    past: bool,
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
            Expires::InMillis(0) => Self::new(Expires::In(0), now),
            Expires::InMillis(millis) => Self::new(Expires::In(millis.div_ceil(1000)), now),
            Expires::AtMillis(time) if time / 1000 < now => Self::new(Expires::At(time / 1000), now),
            Expires::AtMillis(time) => Self::new(Expires::At(time.div_ceil(1000)), now),
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
    /// A placeholder of a fill: counts as an item, but is invisible.
    pub(crate) lease: bool,
}

/// The statistics that the engine must keep exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) items: u64,
    pub(crate) blocks_used: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) stored: u64,
    pub(crate) deleted: u64,
    pub(crate) evicted: u64,
    pub(crate) expired: u64,
    pub(crate) cleared: u64,
    pub(crate) full: u64,
    pub(crate) rejected_limit: u64,
    pub(crate) rejected_full: u64,
}

#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) config: Config,
    /// Items, the least recently used first.
    items: Vec<Entry>,
    count: Counters,
}

/// How an item is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) mode: Mode,
    pub(crate) when: When,
    pub(crate) keep_ttl: bool,
    pub(crate) ungettable: bool,
}

fn number(len: usize) -> u64 {
    u64::try_from(len).expect("a length")
}

impl Naive {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, items: Vec::new(), count: Counters::default() }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters { items: number(self.items.len()), blocks_used: self.blocks_used(), ..self.count }
    }

    fn blocks(&self, len: usize) -> u64 {
        self.config.blocks.map_or(0, |b| number(len).div_ceil(b.size))
    }

    fn blocks_used(&self) -> u64 {
        self.items.iter().map(|e| self.blocks(e.value.len())).sum()
    }

    /// Expired, but not swept yet.
    fn dead(&self, entry: &Entry) -> bool {
        entry.when.past && !self.config.no_expire
    }

    fn position(&self, key: &[u8]) -> Option<usize> {
        self.items.iter().position(|e| e.key == key && !self.dead(e))
    }

    /// The item of this key, if it is visible to users.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Entry> {
        self.position(key).map(|at| &self.items[at]).filter(|e| !e.lease)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.items.iter().filter(|e| !e.lease && !self.dead(e)).map(|e| &e.key[..])
    }

    /// The item that a read sees: ungettable items are missed, but do not count as a miss.
    pub(crate) fn read(&mut self, key: &[u8], touch: bool, counted: bool) -> Option<Entry> {
        let at = self.position(key).filter(|&at| !self.items[at].ungettable && !self.items[at].lease);
        let Some(at) = at else {
            self.count.misses += u64::from(self.find(key).is_none());
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
            return Answer::Limit;
        }
        match self.live(key) {
            Some(at) if self.items[at].lease && how.mode != Mode::Replace => self.fill(at, value, how),
            Some(at) if self.items[at].lease || how.mode == Mode::Add => Answer::Kept,
            Some(at) => self.replace(at, value, how, Answer::Updated),
            None if how.mode == Mode::Replace => Answer::Kept,
            None => self.insert(key, value, how, Answer::Inserted),
        }
    }

    /// Appends or prepends; tells the new length.
    pub(crate) fn join(&mut self, key: &[u8], bytes: &[u8], side: Side) -> Answer {
        if !self.accepts(key, bytes.len().max(1)) {
            return Answer::Limit;
        }
        let Some(at) = self.live(key).filter(|&at| !self.items[at].lease && !self.items[at].ungettable)
        else {
            return Answer::Kept;
        };
        let old = &self.items[at].value;
        let value = if side == Side::Front { [bytes, old].concat() } else { [old, bytes].concat() };
        if !self.accepts(key, value.len()) {
            return Answer::Limit;
        }
        let Some(at) = self.grow(at, value.len()) else {
            self.count.rejected_full += 1;
            return Answer::OutOfBlocks;
        };
        // Clearing the full cache may have taken the item along.
        let Some(at) = at else { return Answer::Kept };
        let len = i64::try_from(value.len()).expect("a length");
        self.items[at].value = value;
        self.touch(at);
        self.count.stored += 1;
        Answer::Number(len)
    }

    pub(crate) fn math(&mut self, key: &[u8], op: Math, operand: i64, how: How) -> Answer {
        if !self.accepts(key, 8) {
            return Answer::Limit;
        }
        let Some(at) = self.live(key) else {
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
        self.replace(at, number.to_le_bytes().to_vec(), how, Answer::Number(number))
    }

    fn accepts(&mut self, key: &[u8], len: usize) -> bool {
        let fits = |len: usize, max: u64| len > 0 && number(len) <= max;
        let ok = fits(key.len(), self.config.max_key)
            && fits(len, self.config.max_value)
            && self.config.blocks.is_none_or(|b| self.blocks(len) <= b.count);
        self.count.rejected_limit += u64::from(!ok);
        ok
    }

    /// The item that a writer finds for the key; a dead item in its place is removed.
    fn live(&mut self, key: &[u8]) -> Option<usize> {
        let at = self.items.iter().position(|e| e.key == key)?;
        if self.dead(&self.items[at]) {
            self.items.remove(at);
            self.count.expired += 1;
            return None;
        }
        Some(at)
    }

    fn replace(&mut self, at: usize, value: Vec<u8>, how: How, answer: Answer) -> Answer {
        let key = self.items[at].key.clone();
        let Some(at) = self.grow(at, value.len()) else {
            self.count.rejected_full += 1;
            return Answer::OutOfBlocks;
        };
        let Some(at) = at else {
            // Clearing the full cache took the item along: there is nothing to replace any more.
            if how.mode == Mode::Replace {
                return Answer::Kept;
            }
            return self.insert(&key, value, How { mode: Mode::Add, ..how }, Answer::Inserted);
        };
        let entry = &mut self.items[at];
        entry.value = value;
        if !how.keep_ttl {
            entry.when = how.when;
            self.touch(at);
        }
        self.count.stored += 1;
        answer
    }

    /// A placeholder becomes an item; its position in the LRU order stays.
    fn fill(&mut self, at: usize, value: Vec<u8>, how: How) -> Answer {
        let key = self.items[at].key.clone();
        let Some(at) = self.grow(at, value.len()) else {
            self.count.rejected_full += 1;
            return Answer::OutOfBlocks;
        };
        let Some(at) = at else { return self.insert(&key, value, how, Answer::Inserted) };
        let entry = &mut self.items[at];
        (entry.value, entry.when, entry.ungettable, entry.lease) = (value, how.when, how.ungettable, false);
        self.count.stored += 1;
        Answer::Inserted
    }

    /// Space for another length of an item: if it needs more blocks than before, all must be found
    /// in addition to the old ones. `None` = there is not enough; else the item's position now, if
    /// it still exists.
    fn grow(&mut self, at: usize, len: usize) -> Option<Option<usize>> {
        let key = self.items[at].key.clone();
        let (old, new) = (self.blocks(self.items[at].value.len()), self.blocks(len));
        if new > old && !self.make_room(0, new, Some(&key)) {
            return None;
        }
        Some(self.items.iter().position(|e| e.key == key))
    }

    fn insert(&mut self, key: &[u8], value: Vec<u8>, how: How, answer: Answer) -> Answer {
        let blocks = self.blocks(value.len());
        if !self.make_room(1, blocks, None) {
            self.count.rejected_full += 1;
            let full = number(self.items.len()) >= self.config.capacity;
            return if full { Answer::Full } else { Answer::OutOfBlocks };
        }
        let (when, ungettable) = (how.when, how.ungettable);
        self.items.push(Entry { key: key.to_vec(), value, when, ungettable, hits: 0, lease: false });
        self.count.stored += 1;
        answer
    }

    fn fits(&self, items: u64, blocks: u64) -> bool {
        number(self.items.len()) + items <= self.config.capacity
            && self.config.blocks.is_none_or(|b| self.blocks_used() + blocks <= b.count)
    }

    /// Sweeps, evicts or clears until `items` and `blocks` more fit beside the item `keep`. Evicts
    /// nothing for something that can never fit.
    fn make_room(&mut self, items: u64, blocks: u64, keep: Option<&[u8]>) -> bool {
        if self.fits(items, blocks) {
            return true;
        }
        self.count.full += 1;
        let swept = self.sweep() > 0;
        let kept = self.items.iter().filter(|e| Some(&e.key[..]) == keep);
        let kept: u64 = kept.map(|e| self.blocks(e.value.len())).sum();
        let hopeless = self.config.blocks.is_some_and(|b| kept + blocks > b.count);
        if self.config.eviction == Eviction::Lru && !hopeless {
            while !self.fits(items, blocks) && self.evict(keep) {}
        }
        if !self.fits(items, blocks) && self.config.clear_on_full && !swept {
            self.clear();
        }
        self.fits(items, blocks)
    }

    fn evict(&mut self, keep: Option<&[u8]>) -> bool {
        let Some(at) = self.items.iter().position(|e| Some(&e.key[..]) != keep) else { return false };
        self.items.remove(at);
        self.count.evicted += 1;
        true
    }

    pub(crate) fn sweep(&mut self) -> u64 {
        let before = self.items.len();
        let no_expire = self.config.no_expire;
        self.items.retain(|e| no_expire || !e.when.past);
        let swept = number(before - self.items.len());
        self.count.expired += swept;
        swept
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let Some(at) = self.live(key) else { return false };
        self.items.remove(at);
        self.count.deleted += 1;
        true
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.count.cleared += 1;
    }

    /// Begins the fill of a missing key: `false` = no space for a placeholder.
    pub(crate) fn begin_fill(&mut self, key: &[u8]) -> bool {
        self.live(key);
        if self.config.blocks.is_some_and(|b| self.blocks(PLACEHOLDER) > b.count) {
            return false;
        }
        if !self.make_room(1, self.blocks(PLACEHOLDER), None) {
            self.count.rejected_full += 1;
            return false;
        }
        let (key, value) = (key.to_vec(), vec![0; PLACEHOLDER]);
        self.items.push(Entry { key, value, when: When::NEVER, ungettable: false, hits: 0, lease: true });
        true
    }

    /// Ends a fill with a value.
    pub(crate) fn end_fill(&mut self, key: &[u8], value: Vec<u8>, when: When, coordinated: bool) -> Answer {
        let how = How { mode: Mode::Add, when, keep_ttl: false, ungettable: false };
        let cleared = self.count.cleared;
        let answer = self.set(key, value, how);
        if coordinated && self.count.cleared != cleared && answer == Answer::Inserted {
            // The full cache was cleared for the value, and the placeholder with it: the lease is
            // lost.
            self.items.clear();
            self.count.stored -= 1;
            return Answer::Kept;
        }
        if coordinated && answer != Answer::Inserted {
            self.abandon_fill(key);
        }
        answer
    }

    pub(crate) fn abandon_fill(&mut self, key: &[u8]) {
        self.items.retain(|e| e.key != key || !e.lease);
    }
}
