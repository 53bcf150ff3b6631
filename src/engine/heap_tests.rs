//! Each fault of a heap is found, told in a line, and put right without loss; and what is said of
//! the memory is what there is.

use std::sync::Arc;

use super::{
    tests::{UPDATE, get, key},
    *,
};
use crate::shm::{
    layout::{BINS, SPAN, SPAN_META, shard as at},
    slab, span,
    sync::*,
};

const ITEMS: u64 = 60;

/// One shard: some extents with entries, free blocks of several sizes and a large block.
fn cache() -> Arc<Engine> {
    let mut config = Config { eviction: Eviction::Lru, ..Config::new("heap", 200) };
    config.max_value = 100_000;
    let e = Engine::create(&config).unwrap();
    assert_eq!(e.geo.shards, 1);
    for n in 0..2 * ITEMS {
        e.set(&key(n), &value(n), &UPDATE).unwrap();
    }
    e.set(b"large", &[7; 50_000], &UPDATE).unwrap();
    // No two neighbours: nothing is joined, and each size has free blocks.
    for n in (0..ITEMS).map(|n| 2 * n) {
        assert!(e.delete(&key(n)).unwrap());
    }
    e
}

fn value(n: u64) -> Vec<u8> {
    vec![n as u8; 40 + 24 * (n % 40) as usize]
}

/// The offset of an entry.
fn place<'e>(e: &'e Engine, key: &[u8]) -> (u64, &'e AtomicU64) {
    let home = e.home_of(e.hash(key));
    let mut found = None;
    e.each_slot(home, |bucket, slot, word| {
        let off = index::entry::slot_off(word);
        let at = off + e.header_bytes;
        let is = e.header_at(off).is_some_and(|h| {
            let mut there = vec![0; h.key_len as usize];
            e.region.source(at, there.len()).copy_to_slice(&mut there);
            there == key
        });
        if is {
            found = Some((off, e.slot(bucket, slot)));
        }
        found.is_none()
    });
    found.expect("the key")
}

fn word(e: &Engine, at: u64) -> &AtomicU64 {
    e.region.word(e.layout.shard_word(0, at))
}

fn span_word(e: &Engine, span: u64, nth: u64) -> &AtomicU64 {
    e.region.word(e.layout.span_table + span * SPAN_META + nth * 8)
}

/// The first bin that has a block, and the block.
fn binned(e: &Engine) -> (&AtomicU64, u64) {
    let bins = (0..BINS).map(|bin| e.region.word(e.layout.bin(0, bin)));
    bins.map(|bin| (bin, bin.load(Relaxed))).find(|&(_, off)| off != 0).expect("a free block")
}

fn extent(e: &Engine) -> u64 {
    word(e, at::EXTENTS).load(Relaxed) - 1
}

type Damage = fn(&Engine);

/// What is done to the heap, and what is said of it.
const FAULTS: [(&str, Damage); 13] = [
    ("is neither an entry nor a free block", |e| {
        let (_, off) = binned(e);
        e.region.word(off + 8).fetch_xor(1 << 40, Relaxed);
    }),
    ("where no free block begins", |e| {
        let off = place(e, &key(1)).0;
        binned(e).0.store(off, Relaxed);
    }),
    ("has the free block of", |e| {
        let (bin, off) = binned(e);
        bin.store(e.region.word(off + 24).load(Relaxed), Relaxed);
        let other = e.region.word(e.layout.bin(0, 28));
        e.region.word(off + 24).store(other.load(Relaxed), Relaxed);
        other.store(off, Relaxed);
    }),
    ("is twice in bin", |e| {
        let (_, off) = binned(e);
        e.region.word(off + 24).store(off, Relaxed);
    }),
    ("free blocks, but", |e| binned(e).0.store(0, Relaxed)),
    ("where none is free", |e| {
        let off = place(e, &key(1)).0;
        word(e, at::CACHED_BLOCK).store(off >> 3 | 8 << 48, Relaxed);
    }),
    ("bytes of extents, but has", |e| _ = word(e, at::HEAP).fetch_add(SPAN, Relaxed)),
    ("where no extent of it begins", |e| word(e, at::EXTENTS).store(1 << 30, Relaxed)),
    ("is twice in the chain", |e| span_word(e, extent(e), 1).store(extent(e) + 1, Relaxed)),
    ("does not belong to the extent", |e| {
        let first =
            (0..span::frontier(&e.region)).find(|&n| span_word(e, n, 0).load(Relaxed) >> 12 & 15 == 1);
        span_word(e, first.expect("an extent of several spans"), 0).fetch_xor(1 << 50, Relaxed);
    }),
    ("the end in use", |e| {
        let (bump, newest) = (word(e, at::BUMP), extent(e));
        let begin = e.layout.data + newest * SPAN;
        assert!(bump.load(Relaxed) > begin, "the newest extent has entries, and an end");
        bump.store(begin, Relaxed);
    }),
    ("belongs to nothing that it has", |e| {
        // A large block to which no slot leads.
        let front = span::frontier(&e.region);
        span_word(e, front - 1, 0).store(3 | 1 << 32, Relaxed);
    }),
    ("nobody's, and not free", |e| {
        span_word(e, span::frontier(&e.region) - 1, 0).store(99, Relaxed);
    }),
];

#[test]
fn a_heap_without_faults_is_clean() {
    let e = cache();
    let found = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((found.items, found.damaged, found.loose, found.heap), (ITEMS + 1, 0, 0, 0), "{found:?}");
}

#[test]
fn each_fault_of_a_heap_is_told_and_put_right() {
    for (wanted, damage) in FAULTS {
        let e = cache();
        // A free span at the end of what was ever used, for those that need one.
        e.set(b"last", &[1; 90_000], &UPDATE).unwrap();
        e.delete(b"last").unwrap();
        damage(&e);
        let found = e.inspect(false, |_, _| ()).unwrap();
        assert!(found.heap > 0, "{wanted}: {found:?}");
        assert!(found.reasons.iter().any(|line| line.contains(wanted)), "{wanted}: {:?}", found.reasons);
        assert!(found.reasons.iter().all(|line| !line.contains('\n') && line.len() < 120));
        // The items of a span that is lost are damaged; a span of nobody's is in no shard's rebuild.
        if wanted.starts_with("does not belong") || wanted.starts_with("nobody's") {
            continue;
        }
        assert_eq!(found.damaged, 0, "{wanted}: {found:?}");
        let mended = e.inspect(true, |_, _| ()).unwrap();
        assert_eq!((mended.dropped, mended.damaged), (0, 0), "{wanted}: {mended:?}");
        let again = e.inspect(false, |_, _| ()).unwrap();
        assert_eq!((again.items, again.heap), (ITEMS + 1, 0), "{wanted}: {again:?}");
        assert!((0..ITEMS).all(|n| get(&e, &key(2 * n + 1)) == Some(value(2 * n + 1))), "{wanted}");
    }
}

/// Two entries claim the same bytes: an entry lies within the value of another one.
#[test]
fn entries_that_overlap_are_damaged() {
    let e = cache();
    let (inner, slot) = place(&e, &key(1));
    let (outer, _) = place(&e, &key(2 * 39 + 1));
    let len = e.header_at(inner).unwrap().total(e.header_bytes);
    let to = outer + 64;
    assert!(e.header_at(outer).unwrap().total(e.header_bytes) >= 64 + len);
    crate::shm::slab::copy(&e.region, inner, to, len);
    slot.store(index::entry::slot(index::entry::slot_tag(slot.load(Relaxed)), to), Release);
    let found = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!(found.damaged, 1, "{found:?}");
    assert!(found.reasons.iter().any(|line| line.contains("bytes of another entry")), "{found:?}");
    assert!(found.reasons.iter().any(|line| line.contains("to which no slot leads")), "{found:?}");
    // The inner one is found again where it was, or the outer one goes.
    let dropped = e.inspect(true, |_, _| ()).unwrap().dropped;
    let again = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((again.items, again.damaged, again.heap), (ITEMS + 1 - dropped, 0, 0), "{again:?}");
    assert!(dropped <= 1 && get(&e, &key(1)) == Some(value(1)));
}

/// A rebuild makes all lists anew: the block that the shard kept is in one of them.
#[test]
fn the_block_that_a_shard_keeps() {
    let e = cache();
    assert!(word(&e, at::CACHED_BLOCK).load(Relaxed) != 0);
    e.region.shard(0).set_dirty(true);
    assert!(e.delete(&key(1)).unwrap(), "the first writer rebuilds");
    let found = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((found.damaged, found.heap), (0, 0), "{found:?}");
}

/// A store of which one item in so many is left.
fn sparse(share: u64) -> (tempfile::TempDir, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new("leaving", 2_000);
    config.max_value = 1_000; // four shards
    config.store = Some(Store { path: dir.path().join("store"), delete_unusable: false });
    let e = Engine::create(&config).unwrap();
    for n in 0..2_000 {
        e.set(&key(n), &[1; 100], &UPDATE).unwrap();
    }
    (0..2_000).filter(|n| n % share != 0).for_each(|n| assert!(e.delete(&key(n)).unwrap()));
    (dir, e)
}

/// The same, moved together; what it left waits for a sync.
fn moved() -> (tempfile::TempDir, Arc<Engine>) {
    let (dir, e) = sparse(20);
    for no in 0..e.geo.shards {
        let compact = || {
            let guard = e.lock_raw(no).unwrap();
            let done = e.compact(&guard, false);
            guard.release();
            done.short
        };
        while compact() {
            assert!(e.grow(1 << 20).unwrap());
        }
    }
    assert!(e.memory().leaving > 0, "{:?}", e.memory());
    let clean = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((clean.items, clean.damaged, clean.heap), (100, 0, 0), "{clean:?}");
    (dir, e)
}

/// An extent that could not be emptied has items, and old copies of those that were moved.
#[test]
fn items_that_wait_to_be_moved_count() {
    let (_dir, e) = sparse(20);
    move_one(&e);
    let (m, sample) = (e.memory(), e.memory_sample());
    assert!(m.leaving > 0, "{m:?}");
    let found = e.inspect(false, |_, _| ()).unwrap();
    let items: u64 = m.classes.iter().map(|class| class.items).sum();
    assert_eq!((m.payload, items), (found.bytes, found.items), "{m:?}");
    assert_eq!(m.entries + m.fragmentation, e.stats().bytes, "{m:?}");
    assert_eq!(sample, m);
}

/// What was moved away is free after a sync: nothing leads there, and the copies are on disk. Also
/// after the death of who has moved it.
#[test]
fn a_sync_releases_what_was_moved_away() {
    let (_dir, e) = moved();
    for no in 0..e.geo.shards {
        e.region.shard(no).set_dirty(true);
        e.lock_raw(no).unwrap().release();
    }
    assert!(e.memory().leaving > 0, "a rebuild keeps it: {:?}", e.memory());
    e.sync().unwrap();
    let m = e.memory();
    assert_eq!((m.leaving, m.payload), (0, 100 * 116), "{m:?}");
    let clean = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((clean.items, clean.damaged, clean.heap), (100, 0, 0), "{clean:?}");
}

/// Others that look at the extents meanwhile do not delay their release; what is emptied while a sync
/// is under way waits for the next.
#[test]
fn whoever_syncs_releases_what_was_emptied_before() {
    let (_dir, e) = moved();
    let each = |f: &mut dyn FnMut(&shard::guard::ShardGuard<'_>)| {
        for no in 0..e.geo.shards {
            let guard = e.lock_raw(no).unwrap();
            f(&guard);
            guard.release();
        }
    };
    let leaving = e.memory().leaving;
    // No ticket was taken before the first extent was emptied.
    each(&mut |guard| _ = slab::release_emptied(&e.region, guard.cells, Some(1)));
    assert_eq!(e.memory().leaving, leaving, "that sync began before they were emptied");
    let sync = slab::begin_sync(&e.region);
    each(&mut |guard| slab::empty(&e.region, guard.cells, |off| !e.is_reached(guard, off)));
    each(&mut |guard| while slab::release_emptied(&e.region, guard.cells, Some(sync)) {});
    assert_eq!(e.memory().leaving, 0, "another look at them has delayed their release");
    let clean = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((clean.items, clean.damaged, clean.heap), (100, 0, 0), "{clean:?}");
}

/// Moves one entry out of the first shard's extents that are being emptied, as if there were no memory
/// for more. Returns its old place.
fn move_one(e: &Engine) -> u64 {
    let guard = e.lock_raw(0).unwrap();
    assert!(slab::begin_emptying(&e.region, guard.cells, 1 << 20, true));
    let mut old = None;
    slab::empty(&e.region, guard.cells, |off| {
        let Some((f, home)) = e.entry_of_block(&guard, off) else { return true };
        let moves = old.is_none();
        if moves {
            old = e.relocate(&guard, &f, home).map(|_| off);
        }
        moves
    });
    guard.release();
    old.expect("an entry was moved")
}

/// A sync leaves no old copy of what was moved, also where an extent is not empty: after a later
/// change of the key, a power failure must not bring it back.
#[test]
fn a_sync_leaves_no_old_copy() {
    // Several in each extent.
    let (_dir, e) = sparse(4);
    let old = e.region.word(move_one(&e));
    assert_ne!(old.load(Relaxed), 0, "until the sync it stays");
    e.sync().unwrap();
    assert_eq!(old.load(Relaxed), 0);
    let clean = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((clean.items, clean.damaged, clean.heap), (500, 0, 0), "{clean:?}");

    // Where the rest cannot be moved, either: the extent has some.
    let has_more = |e: &Engine, off: u64| {
        let mut extent = 0..0;
        slab::each_spans(&e.region, 0, |from, end, _| {
            if (from..end).contains(&off) {
                extent = from..end;
            }
        });
        (0..500).any(|n| extent.contains(&place(e, &key(4 * n)).0))
    };
    let (_dir, e, before, old) = loop {
        let (dir, e) = sparse(4);
        let before = slab::begin_sync(&e.region);
        let old = move_one(&e);
        if has_more(&e, old) {
            break (dir, e, before, old);
        }
    };
    let old = e.region.word(old);
    let discard = |sync| {
        let guard = e.lock_raw(0).unwrap();
        slab::discard_moved(&e.region, guard.cells, sync, |off| !e.is_reached(&guard, off));
        guard.release();
    };
    discard(before);
    assert_ne!(old.load(Relaxed), 0, "that sync began before the entry was moved");
    discard(slab::begin_sync(&e.region));
    assert_eq!(old.load(Relaxed), 0);
    let clean = e.inspect(false, |_, _| ()).unwrap();
    assert_eq!((clean.items, clean.damaged, clean.heap), (500, 0, 0), "{clean:?}");
}

/// An extent that counts as emptied, and is not; and one that nobody would ever empty.
#[test]
fn extents_that_are_being_emptied_say_what_they_are() {
    let (_dir, e) = moved();
    word(&e, at::LEAVING).store(0, Relaxed);
    let found = e.inspect(false, |_, _| ()).unwrap();
    assert!(found.heap == 1 && found.reasons[0].contains("no note of that"), "{found:?}");
    word(&e, at::LEAVING).store(1, Relaxed);

    // An entry goes back to where it was, which waits for a sync only.
    let is_leaving = |off: u64| span_word(&e, (off - e.layout.data) / SPAN, 0).load(Relaxed) & 0xFF == 6;
    let old = (e.layout.data..e.layout.data + span::frontier(&e.region) * SPAN)
        .step_by(8)
        .filter(|&off| is_leaving(off))
        .find_map(|off| {
            e.header_at(off).filter(|h| h.key_len == 16 && h.value_len == 100)?;
            let mut key = [0; 16];
            e.region.source(off + e.header_bytes, 16).copy_to_slice(&mut key);
            e.exists(&key).map(|_| (off, key))
        });
    let (old, moved) = old.expect("an entry that was moved");
    let slot = place(&e, &moved).1;
    slot.store(index::entry::slot(index::entry::slot_tag(slot.load(Relaxed)), old), Release);
    let found = e.inspect(false, |_, _| ()).unwrap();
    assert!(found.reasons.iter().any(|line| line.contains("counts as emptied")), "{found:?}");
    assert_eq!(e.inspect(true, |_, _| ()).unwrap().dropped, 0);
}
