//! Stores opened with other settings than they were created with: the items move to a new file, or
//! nothing changes.

#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_store.rs"]
mod engine_store;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/patience.rs"]
mod patience;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use engine_proc::{Child, alone};
use engine_store::{KEYS, UPDATE, assert_filled, config, fill, place, put, refused, rounds, seq};
use ucache::engine::{Config, Engine, Eviction, Expires, Math, SetOptions, Store, Touch};

fn with(path: &Path, capacity: u64, lru: bool) -> Config {
    let eviction = if lru { Eviction::Lru } else { Eviction::None };
    Config { capacity, eviction, ..config(path) }
}

fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn items_and_lru_may_change_when_nobody_else_is_there() {
    let _alone = alone();
    let (dir, path) = place();
    let soon = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() + 5000;
    {
        let engine = Engine::create(&with(&path, 2000, false)).expect("a new store");
        fill(&engine, 1);
        engine.set(b"gone", b"1", &UPDATE).expect("set");
        engine.clear().expect("clear");
        fill(&engine, 3);
        let at = SetOptions { expires: Expires::At(soon), ..UPDATE };
        engine.set(b"with a ttl", b"1", &at).expect("set");
        engine.set(b"expired", b"1", &SetOptions { expires: Expires::In(0), ..UPDATE }).expect("set");
        engine.set(b"hidden", b"1", &SetOptions { ungettable: true, ..UPDATE }).expect("set");
        engine.math(b"number", Math::Inc, 41, &UPDATE).expect("math");
    }
    let counted = |engine: &Engine| {
        let stats = engine.stats();
        (stats.stored, stats.hits, stats.misses, stats.deleted, stats.cleared)
    };
    let mut counts = {
        let engine = Engine::create(&with(&path, 2000, false)).expect("the same settings");
        assert!(engine_value::get(&engine, b"nothing", Touch::Yes).expect("get").is_none());
        counted(&engine)
    };
    assert!(counts.0 > 300 && counts.2 > 0 && counts.4 > 0, "{counts:?}");
    let steps = [(9000, false), (400, false), (400, true), (20_000, true), (310, true), (2000, false)];
    for (capacity, lru) in steps {
        let before = fs::metadata(&path).expect("stat").ino();
        let engine = Engine::create(&with(&path, capacity, lru)).expect("other settings");
        let notes = engine.notes().join("\n");
        assert!(notes.contains("303 items were moved"), "{notes:?}");
        assert_ne!(fs::metadata(&path).expect("stat").ino(), before, "a new file");
        assert_eq!(engine.config().capacity, capacity);
        assert_eq!(counted(&engine), counts, "statistics go on");
        assert_filled(&engine, 3);
        let read = |key: &[u8]| engine_value::get(&engine, key, Touch::No).expect("get");
        assert_eq!(read(b"with a ttl").expect("stored").0.expires_secs(), soon);
        assert!(read(b"expired").is_none() && read(b"gone").is_none());
        assert!(read(b"hidden").is_none() && engine.exists(b"hidden").is_some());
        assert_eq!(read(b"number").expect("stored").1, 41_i64.to_le_bytes());
        assert_eq!(engine.stats().items, u64::from(KEYS) + 3);
        drop(engine);
        let again = Engine::create(&with(&path, capacity, lru)).expect("the same settings");
        assert_eq!(again.notes(), [""; 0]);
        assert_filled(&again, 3);
        counts = counted(&again);
    }
    assert_eq!(files(dir.path()), ["store"], "nothing else is left");
}

/// Whether an item is stored; counts as a use.
fn is_used(engine: &Engine, key: u32) -> bool {
    let mut name = Vec::new();
    engine_value::key_bytes(key, &mut name);
    engine_value::get(engine, &name, Touch::Yes).expect("get").is_some()
}

/// The order of use moves along, and decides which items are dropped if fewer fit.
#[test]
fn the_least_recently_used_go_when_fewer_fit() {
    let _alone = alone();
    let (_dir, path) = place();
    {
        let engine = Engine::create(&with(&path, 2000, true)).expect("a new store");
        fill(&engine, 1);
        (100..150).for_each(|key| assert!(is_used(&engine, key)));
    }
    let engine = Engine::create(&with(&path, 120, true)).expect("fewer items");
    assert!(engine.notes().join("").contains("180 least recently used are gone"), "{:?}", engine.notes());
    let left: Vec<u32> = (0..KEYS).filter(|&key| is_used(&engine, key)).collect();
    let expected: Vec<u32> = (100..150).chain(230..300).collect();
    assert_eq!(left, expected);
    // Reading them has just made 100 the oldest.
    put(&engine, 999, 1).expect("set");
    assert_eq!((seq(&engine, 100), seq(&engine, 101)), (None, Some(1)));
}

/// Reopening a store does not change the order of use, however often, also in caches with an
/// approximate order.
#[test]
fn the_order_of_use_survives_reopening() {
    let _alone = alone();
    let (_dir, path) = place();
    let items = 20_000_u32;
    let lru = with(&path, u64::from(items), true);
    let name = |n: u32| format!("{n}").into_bytes();
    {
        let engine = Engine::create(&lru).expect("a new store");
        for n in 0..items {
            engine.set(&name(n), b"x", &UPDATE).expect("set");
        }
        // Later ticks of the clock.
        std::thread::sleep(Duration::from_millis(50));
        let mut value = Vec::new();
        for n in 0..items / 2 {
            value.clear();
            assert!(engine.get(&name(n), Touch::Yes, &mut value).expect("get").is_some());
        }
    }
    for _ in 0..4 {
        drop(Engine::create(&lru).expect("the store"));
    }
    let engine = Engine::create(&lru).expect("the store");
    for n in 0..items / 4 {
        engine.set(format!("new {n}").as_bytes(), b"x", &UPDATE).expect("set");
    }
    let left = |range: std::ops::Range<u32>| range.filter(|&n| engine.exists(&name(n)).is_some()).count();
    let (used, unused) = (left(0..items / 2), left(items / 2..items));
    // At random 7,500 of each would be left.
    assert!(used > 9500 && unused < 5500, "{used} of those that were used are left, {unused} of the others");
}

/// Both values are named, and the file is unchanged.
#[test]
fn what_cannot_be_done_is_refused() {
    let _alone = alone();
    let (dir, path) = place();
    let engine = Engine::create(&with(&path, 2000, false)).expect("a new store");
    fill(&engine, 1);
    Child::fork(|| {
        refused(Engine::create(&with(&path, 9000, false)), &["in use", "2000", "9000"]);
        refused(Engine::create(&with(&path, 2000, true)), &["in use", "evict=none", "evict=lru"]);
    })
    .join();
    drop(engine);
    refused(Engine::create(&with(&path, 200, false)), &["2000", "200", "300 items do not fit"]);
    fs::write(dir.path().join("store.new"), "somebody's").expect("write");
    refused(Engine::create(&with(&path, 9000, false)), &["2000", "9000", "store.new", "in the way"]);
    assert_eq!(fs::read(dir.path().join("store.new")).expect("read"), b"somebody's");
    fs::remove_file(dir.path().join("store.new")).expect("remove");
    assert_filled(&Engine::create(&with(&path, 2000, false)).expect("the same limits"), 1);
    let mut anew = with(&path, 200, false);
    anew.store = Some(Store { path, delete_unusable: true });
    let engine = Engine::create(&anew).expect("store_delete starts fresh");
    assert_eq!((engine.stats().items, engine.stats().capacity), (0, 200));
}

/// `store_delete` creates a new file; a process that has the old one open keeps it to its end.
#[test]
fn who_has_a_store_that_was_deleted_keeps_it() {
    let _alone = alone();
    let (dir, path) = place();
    let mut anew = with(&path, 9000, false);
    anew.store = Some(Store { path: path.clone(), delete_unusable: true });
    for round in 0..3 {
        let old = Engine::create(&with(&path, 2000 + round, false)).expect("a store");
        fill(&old, 1);
        let before = fs::metadata(&path).expect("stat").ino();
        // The same settings: nothing to delete.
        let mut same = with(&path, 2000 + round, false);
        same.store.clone_from(&anew.store);
        Child::fork(|| assert_filled(&Engine::create(&same).expect("joined"), 1)).join();
        assert_eq!(fs::metadata(&path).expect("stat").ino(), before);
        // All at once: one of them creates the new file.
        engine_proc::in_children(4, |worker| {
            let new = Engine::create(&anew).expect("a new store");
            assert_eq!(new.config().capacity, 9000);
            let told = new.notes().join("");
            assert!(told.is_empty() || told.contains("in use") && told.contains("store_delete"), "{told}");
            let key = 1000 + u32::try_from(worker).expect("few");
            put(&new, key, 7).expect("set");
            assert_eq!((seq(&new, key), seq(&new, 1)), (Some(7), None));
        });
        assert_ne!(fs::metadata(&path).expect("stat").ino(), before);
        let new = Engine::attach(&path).expect("the new store");
        assert_eq!(new.stats().items, 4);
        // The old one keeps working: it is read, written, grown, synced, shared with children, and
        // closed.
        assert_filled(&old, 1);
        Child::fork(|| fill(&old, 2)).join();
        for n in 0..40_u32 {
            old.set(format!("large {n}").as_bytes(), &[7; 190_000], &UPDATE).expect("the old store grows");
        }
        old.sync().expect("sync");
        old.clear().expect("clear");
        fill(&old, 3);
        assert_filled(&old, 3);
        drop(old);
        assert_eq!((new.stats().items, seq(&new, 1000), seq(&new, 1)), (4, Some(7), None));
        drop(new);
        assert_eq!(files(dir.path()), ["store"]);
        fs::remove_file(&path).expect("remove");
    }
}

/// The new file replaces the target of a link, and has the old one's owner and permissions.
#[test]
fn a_link_and_permissions_stay() {
    let _alone = alone();
    let (dir, path) = place();
    let link = dir.path().join("link");
    symlink("store", &link).expect("a link");
    fill(&Engine::create(&with(&link, 2000, false)).expect("a new store"), 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    assert_filled(&Engine::create(&with(&link, 3000, false)).expect("more items"), 1);
    assert_eq!(files(dir.path()), ["link", "store"]);
    assert!(fs::symlink_metadata(&link).expect("stat").is_symlink());
    assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o7777, 0o640);
}

/// SIGKILL while the items move: one of the two files is in place, complete.
#[test]
fn a_death_while_items_move_loses_nothing() {
    let _alone = alone();
    let (dir, path) = place();
    fill(&Engine::create(&with(&path, 2000, false)).expect("a new store"), 1);
    // Its duration on this machine.
    let start = std::time::Instant::now();
    Child::fork(|| drop(Engine::create(&with(&path, 2007, false)).expect("other settings"))).join();
    let longest = u64::try_from(start.elapsed().as_micros() * 3 / 2).expect("short");
    let (mut killed, mut moved) = (0, 0);
    let least = rounds("UCACHE_STORE_MOVES", 100);
    // On a busy machine few are hit.
    for round in 0..10 * least {
        if round >= least && killed > 10 && moved > 0 {
            break;
        }
        let before = fs::metadata(&path).expect("stat").ino();
        let wanted = with(&path, 2000 + (round as u64 + 1) % 7, round % 2 == 0);
        let child = Child::fork(|| drop(Engine::create(&wanted).expect("other settings")));
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..longest.max(1_000))));
        killed += u32::from(child.kill());
        moved += u32::from(fs::metadata(&path).expect("stat").ino() != before);
        let engine = Engine::attach(&path).expect("one of the two");
        assert_filled(&engine, 1);
        assert_eq!(engine.stats().items, u64::from(KEYS));
        drop(engine);
        assert!(files(dir.path()).iter().all(|name| name == "store" || name == "store.new"));
    }
    engine_proc::say(&format!("{killed} killed, {moved} had moved"));
    assert!(killed > 10 && moved > 0, "{killed} killed, {moved} moved: nothing was shown");
    // A leftover file is no obstacle.
    let last = Engine::create(&with(&path, 5000, false)).expect("other settings");
    assert_filled(&last, 1);
    assert_eq!(files(dir.path()), ["store"]);
}

/// Other processes that open the store during the move get the new one.
#[test]
fn openers_meet_in_the_new_file() {
    let _alone = alone();
    let (_dir, path) = place();
    for round in 0..30 {
        let capacity = 2000 + round;
        engine_proc::in_children(4, |worker| {
            let engine = Engine::create(&with(&path, capacity, false)).expect("a store that others open too");
            let key = u32::try_from(worker).expect("few");
            put(&engine, key, u32::try_from(round).expect("few") + 1).expect("set");
            // Two may have come one after the other; none may be left with the old file.
            drop(engine);
            let engine = Engine::attach(&path).expect("the store");
            assert_eq!(seq(&engine, key), Some(u32::try_from(round).expect("few") + 1), "process {worker}");
        });
    }
}

/// A store of format 5, of 2026: 39 values of their numbers' lengths, one of 60,000 bytes, one with an
/// expiry.
#[cfg(target_arch = "x86_64")]
#[test]
fn items_of_format_5_move_to_a_new_store() {
    use std::io::Read;
    let _alone = alone();
    let (_dir, path) = place();
    let mut old = Vec::new();
    let packed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/format-5.gz")).expect("the file");
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut old).expect("gzip");
    let check = |engine: &Engine, items: u64| {
        assert_eq!(engine.stats().items, items);
        let read =
            |key: String| engine_value::get(engine, key.as_bytes(), Touch::No).expect("get").expect("stored");
        for n in 1..40 {
            let value = format!("value {n} {}", "x".repeat(n * 37 % 700));
            assert_eq!(read(format!("key-{n}")).1, value.as_bytes(), "key-{n}");
        }
        assert_eq!(read("big".into()).1, vec![b'b'; 60_000]);
        assert!(read("later".into()).0.expires_secs() > 4_000_000_000);
    };
    // As it was made.
    fs::write(&path, &old).expect("write");
    let engine = Engine::attach(&path).expect("an older store");
    let notes = engine.notes().join("\n");
    assert!(notes.contains("had format 5: its 41 items were moved"), "{notes}");
    check(&engine, 41);
    drop(engine);
    check(&Engine::attach(&path).expect("a store"), 41);
    // With other limits.
    fs::write(&path, &old).expect("write");
    let limits = Config { max_value: 1 << 17, ..with(&path, 1000, true) };
    check(&Engine::create(&limits).expect("other limits"), 41);
    // Too many for the limits.
    fs::write(&path, &old).expect("write");
    let refused = Engine::create(&Config { eviction: Eviction::None, ..with(&path, 40, false) });
    assert!(refused.expect_err("too many").to_string().contains("format 5"));
    assert!(fs::read(&path).expect("read") == old, "the old store is as it was");
    // Damaged items stay behind.
    let at = old.windows(8).position(|w| w == b"value 7 ").expect("a value");
    old[at + 3] ^= 4;
    fs::write(&path, &old).expect("write");
    let engine = Engine::attach(&path).expect("a damaged store");
    assert_eq!(engine.stats().items, 40);
    assert!(engine.exists(b"key-7").is_none() && engine.exists(b"key-8").is_some());
}
