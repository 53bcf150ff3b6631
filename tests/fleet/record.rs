//! What the workers of all machines did: in memory that outlives each of them.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};

use crate::{
    engine_proc::{Scratch, now},
    staleness::{Deed, EVERY_KEY, Event, NEVER, Value},
};

/// What an operation did to a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    /// Nothing that says anything about the key.
    Nothing,
    Read(Value),
    /// The value, and its time to live in nanoseconds, 0 = for ever.
    Wrote(Value, u64),
    /// The same, but it may be done or not.
    Perhaps(Value, u64),
    /// A read that the server answered.
    Asked(Value),
    /// The same, and the value that took its place.
    Swapped(Value, Value),
}

/// Words of an operation: its beginning and end, key and kind, value, time to live or old value.
const WORDS: usize = 5;
/// Words before the operations of a slot: how many there are, and values given out.
const HEAD: usize = 2;

/// The operations of all workers, each in the slot of its own.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    words: Arc<Scratch>,
    slots: usize,
    most: usize,
}

impl Record {
    /// Space for `most` operations of each of `slots` workers.
    pub(crate) fn new(slots: usize, most: usize) -> Self {
        Self { words: Arc::new(Scratch::new(slots * (HEAD + most * WORDS))), slots, most }
    }

    fn start(&self, slot: usize) -> usize {
        assert!(slot < self.slots);
        slot * (HEAD + self.most * WORDS)
    }

    /// A number that no other value has.
    pub(crate) fn fresh(&self, slot: usize) -> u64 {
        let nth = self.words[self.start(slot) + 1].fetch_add(1, SeqCst);
        (slot as u64 + 1) << 40 | nth
    }

    /// Whether another operation fits.
    pub(crate) fn has_room(&self, slot: usize) -> bool {
        self.words[self.start(slot)].load(Relaxed) < self.most as u64
    }

    /// Records `f`. If the process dies in it, `intent` has perhaps been done.
    pub(crate) fn note(&self, slot: usize, key: u32, intent: Done, f: impl FnOnce() -> Done) {
        let head = &self.words[self.start(slot)];
        let nth = usize::try_from(head.load(SeqCst)).expect("an index");
        let at = self.start(slot) + HEAD + nth * WORDS;
        self.put(at, key, intent);
        self.words[at].store(now(), SeqCst);
        head.store(nth as u64 + 1, SeqCst);
        let done = f();
        let ended = now();
        self.put(at, key, done);
        self.words[at + 1].store(ended, SeqCst);
    }

    fn put(&self, at: usize, key: u32, done: Done) {
        let number = |value| if let Value::Of(number) = value { number } else { 0 };
        let (kind, value, more) = match done {
            Done::Nothing => (0, 0, 0),
            Done::Read(value) => (1, number(value), 0),
            Done::Wrote(value, ttl) => (2, number(value), ttl),
            Done::Perhaps(value, ttl) => (3, number(value), ttl),
            Done::Swapped(old, new) => (4, number(new), number(old)),
            Done::Asked(value) => (5, number(value), 0),
        };
        for (n, word) in [kind << 32 | u64::from(key), value, more].into_iter().enumerate() {
            self.words[at + 2 + n].store(word, SeqCst);
        }
    }

    /// Everything that the slot's worker did on this machine, and how many operations that is.
    pub(crate) fn events(&self, slot: usize, machine: u32, events: &mut Vec<Event>) -> u64 {
        let count = self.words[self.start(slot)].load(SeqCst);
        for nth in 0..usize::try_from(count).expect("an index") {
            let at = self.start(slot) + HEAD + nth * WORDS;
            let [began, ended, kind, value, more] = [0, 1, 2, 3, 4].map(|n| self.words[at + n].load(SeqCst));
            let of = |number| if number == 0 { Value::Absent } else { Value::Of(number) };
            let key = u32::try_from(kind & u64::from(EVERY_KEY)).expect("32 bits");
            let returned = if ended == 0 { NEVER } else { ended };
            let mut add = |deed, ended| events.push(Event { machine, key, deed, began, ended });
            let write = |ttl: u64| Deed::Write { value: of(value), ttl: (ttl != 0).then_some(ttl) };
            match kind >> 32 {
                1 if ended != 0 => add(Deed::Read { value: of(value) }, ended),
                2 => add(write(more), returned),
                3 => add(write(more), NEVER),
                5 if ended != 0 => add(Deed::Ask { value: of(value) }, ended),
                4 => {
                    add(write(0), returned);
                    if ended != 0 {
                        add(Deed::Ask { value: of(more) }, ended);
                    }
                }
                _ => {}
            }
        }
        count
    }
}
