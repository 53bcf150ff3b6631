//! Judges histories of several machines that share a server: nobody reads what is too old.
//!
//! Each value is written once, and all machines read one clock (nanoseconds). A read of the value of
//! a write `w` is wrong
//! - if nobody wrote the value, or `w` began after the read had returned;
//! - if another write began after `w` had taken effect and returned more than the machine's bound
//!   before the read began;
//! - if such a write of the reader's own machine returned before the read began;
//! - if the value's time to live was over before the read began.
//!
//! A write has taken effect when it returned, or when somebody had read it. A write that never
//! returned may take effect at any time, and supersedes nothing unless it was read. Several writes
//! can make a key absent: a read that finds nothing must fit one of them.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A write by none of the machines: a flush, a restart of the server.
pub(crate) const NOBODY: u32 = u32::MAX;
/// A write to all keys.
pub(crate) const EVERY_KEY: u32 = u32::MAX;
/// The end of an operation that did not return.
pub(crate) const NEVER: u64 = u64::MAX;

/// Nanoseconds by which an expiry may be late: clocks of the server and of readers count
/// milliseconds.
const ROUNDING: u64 = 2_000_000;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Value {
    Absent,
    Of(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// `ttl`: nanoseconds, `None` = for ever.
    Write {
        value: Value,
        ttl: Option<u64>,
    },
    Read {
        value: Value,
    },
    /// A read that the server answers: its bound is 0 for writes of all machines.
    Ask {
        value: Value,
    },
}

/// An operation of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) machine: u32,
    pub(crate) key: u32,
    pub(crate) deed: Deed,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// What a history shows.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    /// Reads of a value that a foreign write had superseded before the read began.
    pub(crate) stale: u64,
    /// The longest time since such a write returned, nanoseconds.
    pub(crate) oldest: u64,
    pub(crate) faults: Vec<String>,
}

/// Judges a history. `bounds`: nanoseconds for each machine.
pub(crate) fn judge(events: &[Event], bounds: &[u64]) -> Verdict {
    let mut keys: BTreeSet<u32> = events.iter().map(|event| event.key).collect();
    keys.remove(&EVERY_KEY);
    let mut of_keys: BTreeMap<u32, Vec<Event>> = keys.into_iter().map(|key| (key, Vec::new())).collect();
    for event in events.iter().filter(|event| event.key != EVERY_KEY) {
        of_keys.entry(event.key).or_default().push(*event);
    }
    let of_all: Vec<_> = events.iter().filter(|event| event.key == EVERY_KEY).copied().collect();
    let mut verdict = Verdict::default();
    for (key, mut events) in of_keys {
        events.extend(&of_all);
        let writes = Writes::new(&events);
        for event in &events {
            let (value, bound) = match event.deed {
                Deed::Write { .. } => {
                    verdict.writes += 1;
                    continue;
                }
                Deed::Read { value } => (value, bounds[event.machine as usize]),
                Deed::Ask { value } => (value, 0),
            };
            verdict.reads += 1;
            match writes.check(event, value, bound) {
                Ok(0) => {}
                Ok(age) => {
                    verdict.stale += 1;
                    verdict.oldest = verdict.oldest.max(age);
                }
                Err(why) => verdict.faults.push(format!("key {key}: {event:?}, bound {bound}: {why}")),
            }
        }
    }
    verdict
}

/// A write of one key.
#[derive(Clone, Copy, Debug)]
struct Made {
    machine: u32,
    value: Value,
    ttl: Option<u64>,
    began: u64,
    /// When it returned.
    ended: u64,
    /// When it is known to have taken effect.
    effective: u64,
}

/// The writes of one key.
struct Writes {
    made: Vec<Made>,
    of_value: HashMap<Value, Made>,
    /// Writes that made the key absent, by their beginning.
    absent: Vec<Made>,
    /// For each of them, when the last one of it and of those before it was superseded.
    lives: Vec<u64>,
    /// All of them, and those of each machine.
    all: Line,
    own: BTreeMap<u32, Line>,
}

/// Beginnings in ascending order, each with the earliest end of it and those after it.
#[derive(Default)]
struct Line {
    began: Vec<u64>,
    ended: Vec<u64>,
}

impl Line {
    fn new(writes: impl DoubleEndedIterator<Item = (u64, u64)>) -> Self {
        let mut line = Self::default();
        let mut earliest = NEVER;
        for (began, ended) in writes.rev() {
            earliest = earliest.min(ended);
            line.began.push(began);
            line.ended.push(earliest);
        }
        line.began.reverse();
        line.ended.reverse();
        line
    }

    /// The earliest end of a write that began after `time`.
    fn next_after(&self, time: u64) -> u64 {
        let at = self.began.partition_point(|&began| began <= time);
        self.ended.get(at).copied().unwrap_or(NEVER)
    }
}

impl Writes {
    fn new(events: &[Event]) -> Self {
        let mut first_seen: HashMap<Value, u64> = HashMap::new();
        let mut made = vec![Made::absent(0, 0)];
        for event in events {
            match event.deed {
                Deed::Read { value } | Deed::Ask { value } => {
                    let seen = first_seen.entry(value).or_insert(NEVER);
                    *seen = (*seen).min(event.ended);
                }
                Deed::Write { value, ttl } => made.push(Made::new(event, value, ttl)),
            }
        }
        // Which of several writes made a key absent is not known.
        first_seen.remove(&Value::Absent);
        for write in &mut made {
            write.effective = write.ended.min(first_seen.get(&write.value).copied().unwrap_or(NEVER));
        }
        made.sort_unstable_by_key(|write| write.began);
        let all = Line::new(made.iter().map(|write| (write.began, write.effective)));
        let machines: BTreeSet<u32> =
            made.iter().map(|write| write.machine).filter(|&m| m != NOBODY).collect();
        let of = |machine| made.iter().filter(move |w| w.machine == machine).map(|w| (w.began, w.ended));
        let own = machines.into_iter().map(|machine| (machine, Line::new(of(machine)))).collect();
        let expiries: Vec<_> = made.iter().filter_map(|write| write.expiry(&all)).collect();
        let is_absent = |write: &&Made| write.value == Value::Absent;
        let mut absent: Vec<_> = made.iter().filter(is_absent).copied().chain(expiries).collect();
        absent.sort_unstable_by_key(|write| write.began);
        let mut latest = 0;
        let life = |write: &Made| {
            latest = latest.max(all.next_after(write.effective));
            latest
        };
        let lives = absent.iter().map(life).collect();
        let of_value = made.iter().map(|write| (write.value, *write)).collect();
        Self { made, of_value, absent, lives, all, own }
    }

    /// How long ago the value was superseded when the read began, or why the read is wrong.
    fn check(&self, read: &Event, value: Value, bound: u64) -> Result<u64, String> {
        if value != Value::Absent {
            let write = self.of_value.get(&value).ok_or("nobody wrote this value")?;
            return self.fits(read, write, bound);
        }
        let mut why = None;
        for at in (0..self.absent.partition_point(|write| write.began <= read.ended)).rev() {
            match self.fits(read, &self.absent[at], bound) {
                Ok(age) => return Ok(age),
                Err(text) => _ = why.get_or_insert(text),
            }
            if self.lives[at].saturating_add(bound) < read.began {
                break;
            }
        }
        Err(why.expect("a key is absent at first"))
    }

    fn fits(&self, read: &Event, write: &Made, bound: u64) -> Result<u64, String> {
        if write.began > read.ended {
            return Err(format!("of the future: {write:?}"));
        }
        if write.dies() < read.began {
            return Err(format!("its time to live was over: {write:?}"));
        }
        let own = self.own.get(&read.machine).map_or(NEVER, |own| own.next_after(write.effective));
        if own < read.began {
            let by = self.made.iter().find(|other| other.machine == read.machine && other.ended == own);
            return Err(format!("its own machine had superseded {write:?}\nby {by:?}"));
        }
        let next = self.all.next_after(write.effective);
        if next.saturating_add(bound) < read.began {
            let by = self.made.iter().find(|other| other.effective == next);
            let age = read.began - next;
            return Err(format!("superseded {age} ns before the read began: {write:?}\nby {by:?}"));
        }
        Ok(read.began.saturating_sub(next))
    }
}

impl Made {
    fn new(event: &Event, value: Value, ttl: Option<u64>) -> Self {
        let &Event { machine, began, ended, .. } = event;
        Self { machine, value, ttl, began, ended, effective: ended }
    }

    fn absent(began: u64, ended: u64) -> Self {
        Self { machine: NOBODY, value: Value::Absent, ttl: None, began, ended, effective: ended }
    }

    /// The end of the time to live, which makes the key absent unless another write came before.
    fn expiry(&self, all: &Line) -> Option<Self> {
        let ttl = self.ttl?;
        let expiry = Self::absent(self.began + ttl, self.effective.saturating_add(ttl));
        (all.next_after(self.effective) >= expiry.began).then_some(expiry)
    }

    /// From here on the value must not be read.
    fn dies(&self) -> u64 {
        self.ttl.map_or(NEVER, |ttl| self.effective.saturating_add(ttl).saturating_add(ROUNDING))
    }
}
