//! A reader is stopped between two of its instructions while the item that it reads is evicted and
//! its block goes to a new one. When it goes on it must return the value, whole, or nothing.

use std::sync::Arc;

use ucache::engine::{Config, Engine, Eviction};

use super::{
    cases::{ADD, value},
    readers::{assert_first, stopped},
};

/// Every entry has the same size, so that the victim's block fits the new one.
const LEN: usize = 200;

/// A full cache whose next key is a new one.
struct Full {
    engine: Arc<Engine>,
    next: u32,
}

impl Full {
    fn new(eviction: Eviction, items: u32) -> Self {
        let engine = Engine::create(&Config { eviction, ..Config::new("evicted", items.into()) });
        let mut full = Self { engine: engine.expect("a cache"), next: 0 };
        (0..items).for_each(|_| _ = full.add());
        full
    }

    fn add(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        self.engine.set(&number.to_le_bytes(), &value(number, 1, LEN), &ADD).expect("set");
        number
    }

    /// Adds items until this one goes: its block is the last one's.
    fn evict(&mut self, number: u32) {
        let limit = self.next + 1_000_000;
        while self.engine.exists(&number.to_le_bytes()).is_some() {
            assert!(self.next < limit, "{number} is never evicted");
            self.add();
        }
    }
}

/// Stops readers of items that go meanwhile at every `stride`-th instruction; returns how many there
/// were.
pub(crate) fn beside_readers(eviction: Eviction, items: u32, stride: u64) -> u64 {
    let mut full = Full::new(eviction, items);
    let mut readers = 0;
    loop {
        let number = full.add();
        let (engine, key) = (Arc::clone(&full.engine), number.to_le_bytes());
        let check = |found: Option<Vec<u8>>| {
            if let Some(bytes) = found {
                assert_first(number, LEN, &bytes);
            }
        };
        if !stopped(&engine, readers * stride, &key, check, || full.evict(number)) {
            return readers;
        }
        readers += 1;
    }
}
