//! The protocol of publish, read, retire and recover under the language's memory model: loom tries
//! every order of threads, and every value that a relaxed load may return, in a small model.
//!
//! The model has one chain of one slot, two blocks of one header word and two value words, and the
//! steps of `engine::{ops, index, recover}` with the engine's own orderings (`shm::order`). It is a
//! model because the real code works on mapped memory, which loom cannot see into. Each step that
//! the design calls necessary can be left out: then loom must find a torn, foreign or stale value.

use loom::{
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize, Ordering,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    thread,
};
use ucache::shm::order::{clear, seqlock};

/// A step of the protocol that is left out or done too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// The sequence number does not change.
    NoBump,
    /// The sequence number changes before the slot.
    BumpBeforePublish,
    /// The slot is stored before the entry is written.
    PublishBeforeWrite,
    /// The old block is freed while the slot still leads to it.
    FreeBeforePublish,
    /// The slot is stored with relaxed order.
    RelaxedPublish,
    /// No fence between the sequence number and the memory's next use.
    NoWriterFence,
    /// The reader does not recheck the sequence number.
    NoRecheck,
    /// No fence between the reader's copy and its recheck.
    NoReaderFence,
    /// Recovery frees without changing the sequence number first.
    SilentRecovery,
    /// The acknowledgement is not ordered after the clear.
    RelaxedClear,
}

/// A header word: 0 = no entry; key, length and generation are one number here.
const KEY: u64 = 7;
const OTHER: u64 = 9;

struct Block {
    header: AtomicU64,
    value: [AtomicU64; 2],
}

struct Cache {
    version: AtomicU64,
    /// Block number + 1, 0 = empty.
    slot: AtomicUsize,
    blocks: [Block; 2],
    clear_gen: AtomicU64,
    bug: Bug,
}

impl Cache {
    fn new(bug: Bug) -> Self {
        let block = || Block { header: AtomicU64::new(0), value: [AtomicU64::new(0), AtomicU64::new(0)] };
        Self {
            version: AtomicU64::new(0),
            slot: AtomicUsize::new(0),
            blocks: [block(), block()],
            clear_gen: AtomicU64::new(0),
            bug,
        }
    }

    /// `write::fill` and `entry::write`.
    fn fill(&self, block: usize, key: u64, value: u64) {
        if self.bug != Bug::NoWriterFence {
            fence(seqlock::RETIRE);
        }
        let block = &self.blocks[block];
        block.header.store(key, Relaxed);
        block.value.iter().for_each(|word| word.store(value, Relaxed));
    }

    /// `index::bump`.
    fn bump(&self) {
        if self.bug == Bug::NoBump {
            return;
        }
        let next = self.version.load(Relaxed) + 1;
        // Relaxed if the fence is left out: then nothing in the model orders the two.
        let order = if self.bug == Bug::NoWriterFence { Relaxed } else { seqlock::BUMP };
        self.version.store(next, order);
        if self.bug != Bug::NoWriterFence {
            fence(seqlock::RETIRE);
        }
    }

    /// `write::replace`: the slot goes from `old` to `new` (block numbers).
    fn replace(&self, old: Option<usize>, new: usize, value: u64) {
        let order = if self.bug == Bug::RelaxedPublish { Relaxed } else { seqlock::PUBLISH };
        match self.bug {
            Bug::PublishBeforeWrite => {
                self.slot.store(new + 1, order);
                self.fill(new, KEY, value);
                self.bump();
            }
            Bug::BumpBeforePublish => {
                self.fill(new, KEY, value);
                self.bump();
                self.slot.store(new + 1, order);
            }
            Bug::FreeBeforePublish => {
                if let Some(old) = old {
                    self.retire(old);
                }
                self.fill(new, KEY, value);
                self.slot.store(new + 1, order);
                self.bump();
            }
            _ => {
                self.fill(new, KEY, value);
                self.slot.store(new + 1, order);
                self.bump();
            }
        }
        if let (Some(old), true) = (old, self.bug != Bug::FreeBeforePublish) {
            self.retire(old);
        }
    }

    /// `compact::relocate`: the entry goes to another block, as it is.
    fn relocate(&self, from: usize, to: usize) {
        let (old, new) = (&self.blocks[from], &self.blocks[to]);
        if self.bug != Bug::NoWriterFence {
            fence(seqlock::RETIRE);
        }
        let copy = || {
            new.header.store(old.header.load(Relaxed), Relaxed);
            for (new, old) in new.value.iter().zip(&old.value) {
                new.store(old.load(Relaxed), Relaxed);
            }
        };
        let order = if self.bug == Bug::RelaxedPublish { Relaxed } else { seqlock::PUBLISH };
        if self.bug == Bug::PublishBeforeWrite {
            self.slot.store(to + 1, order);
            copy();
        } else {
            copy();
            self.slot.store(to + 1, order);
        }
        self.bump();
        self.retire(from);
    }

    /// `slab::free`, and the next use of the block: another key's entry.
    fn retire(&self, block: usize) {
        self.blocks[block].header.store(0, Relaxed);
        self.fill(block, OTHER, 99);
    }

    /// `get`: the value, or a miss (0), or `None` if a writer interfered.
    fn read(&self) -> Option<u64> {
        let v = self.version.load(seqlock::BEGIN);
        let slot = self.slot.load(seqlock::FOLLOW);
        let unchanged = |order| self.bug == Bug::NoRecheck || self.version.load(order) == v;
        if slot == 0 {
            fence(seqlock::RECHECK);
            return unchanged(Relaxed).then_some(0);
        }
        let block = &self.blocks[slot - 1];
        if block.header.load(Relaxed) != KEY {
            fence(seqlock::RECHECK);
            return unchanged(Relaxed).then_some(0);
        }
        let value = [block.value[0].load(Relaxed), block.value[1].load(Relaxed)];
        if self.bug != Bug::NoReaderFence {
            fence(seqlock::RECHECK);
        }
        if !unchanged(Relaxed) {
            return None;
        }
        assert_eq!(value[0], value[1], "torn");
        assert_ne!(value[0], 99, "another key's value");
        assert_ne!(value[0], 0, "bytes that nobody wrote");
        Some(value[0])
    }
}

/// Runs `body` in all orders; returns whether it always held.
fn holds(body: impl Fn() + Sync + Send + 'static) -> bool {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.check(body))).is_ok()
}

/// Two updates, the second in the block that the first has freed, concurrent with two reads.
fn updates_beside_reads(bug: Bug) -> bool {
    holds(move || {
        let cache = Arc::new(Cache::new(bug));
        cache.replace(None, 0, 1);
        let writer = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                cache.replace(Some(0), 1, 2);
                cache.replace(Some(1), 0, 3);
            })
        };
        let first = cache.read();
        let second = cache.read();
        if let (Some(first), Some(second)) = (first, second) {
            assert!(first != 0 && second != 0, "the key is there all the time");
            assert!(first <= second, "a value that goes back");
        }
        writer.join().expect("the writer");
    })
}

/// `compact::relocate`, there and back: the value stays, and the blocks that it leaves go to another
/// key.
fn moves_beside_reads(bug: Bug) -> bool {
    holds(move || {
        let cache = Arc::new(Cache::new(bug));
        cache.replace(None, 0, 1);
        let sweeper = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                cache.relocate(0, 1);
                cache.relocate(1, 0);
            })
        };
        for value in [cache.read(), cache.read()].into_iter().flatten() {
            assert_eq!(value, 1, "the key has this value all the time");
        }
        sweeper.join().expect("the sweeper");
    })
}

/// A writer dies between any two steps of an update; the next owner of the lock rebuilds, and uses
/// free blocks.
fn a_death_beside_a_read(bug: Bug) -> bool {
    (0..5).all(|steps| {
        holds(move || {
            let cache = Arc::new(Cache::new(bug));
            cache.replace(None, 0, 1);
            let recoverer = {
                let cache = Arc::clone(&cache);
                thread::spawn(move || {
                    dying_update(&cache, steps);
                    recover(&cache);
                })
            };
            if let Some(value) = cache.read() {
                assert!(value == 1 || value == 2, "value {value}");
            }
            recoverer.join().expect("the recoverer");
        })
    })
}

/// The first steps of an update from block 0 to block 1. (Locks order the dead writer's accesses
/// before the next owner's, so one thread can stand for both.)
fn dying_update(cache: &Cache, steps: usize) {
    let new = &cache.blocks[1];
    let all: [&dyn Fn(); 4] = [
        &|| {
            fence(seqlock::RETIRE);
            new.header.store(KEY, Relaxed);
        },
        &|| new.value[0].store(2, Relaxed),
        &|| new.value[1].store(2, Relaxed),
        &|| cache.slot.store(2, seqlock::PUBLISH),
    ];
    all.iter().take(steps).for_each(|step| step());
}

/// `recover::rebuild`: the sequence number first, then blocks that the index does not reach are
/// freed and reused.
fn recover(cache: &Cache) {
    if cache.bug != Bug::SilentRecovery {
        cache.bump();
        fence(SeqCst);
    }
    let reached = cache.slot.load(Relaxed) - 1;
    cache.retire(1 - reached);
}

/// A thread that has seen the end of a clear sees nothing older.
fn a_clear_beside_a_read(bug: Bug) -> bool {
    let order: Ordering = if bug == Bug::RelaxedClear { Relaxed } else { Release };
    holds(move || {
        let cache = Arc::new(Cache::new(bug));
        cache.replace(None, 0, 1);
        let over = Arc::new(AtomicU64::new(0));
        let clearer = {
            let (cache, over) = (Arc::clone(&cache), Arc::clone(&over));
            thread::spawn(move || {
                cache.clear_gen.fetch_add(1, if bug == Bug::RelaxedClear { Relaxed } else { clear::ADVANCE });
                over.store(1, order);
            })
        };
        let over = over.load(Acquire);
        // `is_live`: the entry's generation (0) against the current one.
        let live = cache.read().is_some_and(|value| value != 0) && cache.clear_gen.load(clear::READ) == 0;
        assert!(over == 0 || !live, "a value from before the clear");
        clearer.join().expect("the clearer");
    })
}

#[test]
fn the_protocol_holds_in_every_order() {
    assert!(updates_beside_reads(Bug::None), "updates");
    assert!(moves_beside_reads(Bug::None), "moves");
    assert!(a_death_beside_a_read(Bug::None), "deaths");
    assert!(a_clear_beside_a_read(Bug::None), "clears");
}

#[test]
fn every_step_is_needed() {
    for bug in [
        Bug::NoBump,
        Bug::BumpBeforePublish,
        Bug::PublishBeforeWrite,
        Bug::FreeBeforePublish,
        Bug::RelaxedPublish,
        Bug::NoWriterFence,
        Bug::NoRecheck,
        Bug::NoReaderFence,
    ] {
        assert!(!updates_beside_reads(bug), "{bug:?} goes unnoticed");
    }
    for bug in [Bug::NoBump, Bug::PublishBeforeWrite, Bug::RelaxedPublish, Bug::NoWriterFence, Bug::NoRecheck]
    {
        assert!(!moves_beside_reads(bug), "{bug:?} goes unnoticed beside moves");
    }
    assert!(!a_death_beside_a_read(Bug::SilentRecovery), "SilentRecovery goes unnoticed");
    assert!(!a_clear_beside_a_read(Bug::RelaxedClear), "RelaxedClear goes unnoticed");
}
