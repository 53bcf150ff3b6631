//! A worker of a machine: random operations on few keys, each recorded.

use std::{thread::sleep, time::Duration};

use fastrand::Rng;
use ucache::{Cache, Error, Expires};

use crate::{
    record::{Done, Record},
    staleness::{EVERY_KEY, Value},
};

/// What all workers of a run do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    pub(crate) keys: u32,
    /// Of 100 operations, those that are reads.
    pub(crate) reads: u8,
    /// The longest pause between two operations.
    pub(crate) pause: Duration,
    /// Whether the cache is cleared now and then.
    pub(crate) clears: bool,
    pub(crate) seed: u64,
}

/// The bytes of a value: its number over and over, of a length that depends on it.
fn bytes_of(number: u64) -> Vec<u8> {
    let len = 16 + usize::try_from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53).expect("small");
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

/// The number that these bytes are a whole value of.
///
/// # Panics
/// If they are none.
fn number_of(bytes: &[u8]) -> Value {
    let number = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    assert!(bytes == bytes_of(number), "not a value that was written: {} bytes, {number}", bytes.len());
    Value::Of(number)
}

fn read(bytes: Option<Vec<u8>>) -> Value {
    bytes.map_or(Value::Absent, |bytes| number_of(&bytes))
}

/// A value as another client writes it.
pub(crate) fn foreign_value(record: &Record, slot: usize) -> (Value, Vec<u8>) {
    let number = record.fresh(slot);
    (Value::Of(number), bytes_of(number))
}

/// The name of a key.
pub(crate) fn key_name(key: u32) -> String {
    format!("k{key}")
}

pub(crate) struct Worker<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) record: &'a Record,
    pub(crate) slot: usize,
    pub(crate) habits: Habits,
    pub(crate) rng: Rng,
    /// The last value seen of each key.
    pub(crate) seen: Vec<Value>,
    /// Whether a read that finds nothing says that the key is absent.
    pub(crate) misses_tell: bool,
}

impl Worker<'_> {
    /// One operation, and a pause.
    pub(crate) fn step(&mut self) {
        if !self.record.has_room(self.slot) {
            sleep(Duration::from_millis(5));
            return;
        }
        let key = self.rng.u32(0..self.habits.keys);
        if self.rng.u8(0..100) < self.habits.reads {
            self.read(key);
        } else {
            self.write(key);
        }
        let most = u64::try_from(self.habits.pause.as_micros()).expect("short");
        sleep(Duration::from_micros(self.rng.u64(0..=most)));
    }

    /// Records a call. A read that fails says nothing; a write that fails may have been executed.
    fn note(&self, key: u32, intent: Done, f: impl FnOnce() -> Result<Done, Error>) {
        self.record.note(self.slot, key, intent, || {
            f().unwrap_or_else(|error| {
                assert!(matches!(error, Error::Backend { .. }), "{error}");
                // Calls fail at once while the server is down.
                sleep(Duration::from_millis(1));
                match intent {
                    Done::Wrote(value, ttl) => Done::Perhaps(value, ttl),
                    Done::Swapped(_, value) => Done::Perhaps(value, 0),
                    other => other,
                }
            })
        });
    }

    /// What a read shows.
    fn told(&self, value: Value) -> Done {
        if value == Value::Absent && !self.misses_tell { Done::Nothing } else { Done::Read(value) }
    }

    fn read(&mut self, key: u32) {
        let (cache, name) = (self.cache, key_name(key));
        if self.rng.u8(0..10) > 0 {
            let mut seen = Value::Absent;
            self.note(key, Done::Nothing, || {
                seen = read(cache.get(&name)?);
                Ok(self.told(seen))
            });
            self.seen[key as usize] = seen;
            return;
        }
        // Several at once are one read of each; the first one is recorded.
        let others = [name, key_name(self.rng.u32(0..self.habits.keys))];
        self.note(key, Done::Nothing, || {
            let mut found = cache.get_many(&others)?.into_iter().map(read);
            Ok(self.told(found.next().expect("two values")))
        });
    }

    fn write(&mut self, key: u32) {
        let (cache, name) = (self.cache, key_name(key));
        let number = self.record.fresh(self.slot);
        let (value, bytes) = (Value::Of(number), bytes_of(number));
        let wrote = |done: bool| if done { Done::Wrote(value, 0) } else { Done::Nothing };
        match self.rng.u8(0..100) {
            0..45 => self.note(key, Done::Wrote(value, 0), || cache.set(&name, &bytes).map(|_| wrote(true))),
            45..55 => {
                let seconds = self.rng.u64(1..3);
                let done = Done::Wrote(value, seconds * 1_000_000_000);
                self.note(key, done, || cache.set_with(&name, &bytes, Expires::In(seconds)).map(|_| done));
            }
            55..65 => self.note(key, Done::Wrote(value, 0), || cache.add(&name, &bytes).map(wrote)),
            65..75 => {
                let Value::Of(old) = self.seen[key as usize] else { return };
                let done = Done::Swapped(Value::Of(old), value);
                self.note(key, done, || {
                    let swapped = cache.compare_and_swap(&name, bytes_of(old), &bytes)?;
                    Ok(if swapped { done } else { Done::Nothing })
                });
            }
            75..80 => self.note(key, Done::Swapped(Value::Absent, Value::Absent), || {
                Ok(match read(cache.take(&name)?) {
                    Value::Absent => Done::Asked(Value::Absent),
                    taken @ Value::Of(_) => Done::Swapped(taken, Value::Absent),
                })
            }),
            80..90 => self.fill(key, &name, value, &bytes),
            90..99 => self.note(key, Done::Wrote(Value::Absent, 0), || {
                cache.delete(&name).map(|_| Done::Wrote(Value::Absent, 0))
            }),
            _ if !self.habits.clears => {}
            _ => self.note(EVERY_KEY, Done::Wrote(Value::Absent, 0), || {
                cache.clear().map(|()| Done::Wrote(Value::Absent, 0))
            }),
        }
    }

    /// The value that this worker computes is stored unless somebody else wrote meanwhile.
    fn fill(&self, key: u32, name: &str, value: Value, bytes: &[u8]) {
        self.note(key, Done::Perhaps(value, 0), || {
            let found = number_of(&self.cache.get_or_set_with(name, |_| bytes)?);
            Ok(if found == value { Done::Perhaps(value, 0) } else { Done::Read(found) })
        });
    }
}
