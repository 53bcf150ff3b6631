//! Locks that are held and not released: a thread that sleeps with one stands for a stopped
//! process.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

use super::{
    tests::{ADD, UPDATE, key},
    *,
};
use crate::{
    error::Error,
    shm::{layout::header, span, sync::*},
};

const LOCK_TIMEOUT: Duration = Duration::from_millis(50);

fn config(capacity: u64) -> Config {
    Config { lock_timeout: LOCK_TIMEOUT, ..Config::new("held", capacity) }
}

/// Runs `body` while another thread is inside `hold`, which calls what it is given when it has its
/// lock.
fn meanwhile(hold: impl FnOnce(&dyn Fn()) + Send, body: impl FnOnce()) {
    let (taken, wait_taken) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            hold(&|| {
                taken.send(()).unwrap();
                let _ = wait_release.recv();
            });
        });
        wait_taken.recv().unwrap();
        // Dropped by a panic, too, so that the thread ends.
        let _release = release;
        body();
    });
}

/// Holds a lock of the header.
fn while_held(e: &Engine, lock: u64, body: impl FnOnce()) {
    meanwhile(|sleep| e.under(lock, LOCK_TIMEOUT, || {}, sleep).unwrap(), body);
}

/// Holds a shard.
fn while_shard_held(e: &Engine, no: u64, body: impl FnOnce()) {
    let hold = |sleep: &dyn Fn()| {
        let guard = e.lock(no).unwrap();
        sleep();
        guard.release();
    };
    meanwhile(hold, body);
}

#[test]
fn no_write_waits_for_the_quotas() {
    for eviction in [Eviction::None, Eviction::Lru] {
        let blocks = Some(Blocks { size: 64, count: 15_000 });
        let e = Engine::create(&Config { blocks, eviction, ..config(15_000) }).unwrap();
        while_held(&e, header::LOCK_CAPACITY, || {
            // Also what the held shard has reserved.
            while_shard_held(&e, 0, || {
                let mine = |&n: &u64| e.shard_of_hash(e.hash(&key(n))) != 0;
                (0..).filter(mine).take(15_000).for_each(|n| _ = e.set(&key(n), b"v", &ADD).unwrap());
            });
            // A rebuild may have left something to count.
            e.note_lost();
            e.sweep().unwrap();
        });
        let stats = e.stats();
        assert_eq!((stats.items, stats.blocks_used, stats.evicted, stats.full), (15_000, 15_000, 0, 0));
        assert_eq!(stats.timeouts, 0);
        let more = e.set(b"one more", b"v", &ADD);
        assert_eq!(more.is_ok(), eviction == Eviction::Lru, "{more:?}");
    }
}

#[test]
fn no_write_waits_for_a_release_of_pages() {
    let e = Engine::create(&Config { max_value: 1 << 20, ..config(1000) }).unwrap();
    let value = vec![1; 1 << 20];
    for n in 0..64 {
        e.set(&key(n), &value, &ADD).unwrap();
    }
    while_held(&e, header::LOCK_POOL, || {
        for n in 0..64 {
            assert!(e.delete(&key(n)).unwrap());
        }
        assert!(span::dirty(&e.region) > 512, "free memory that a write would release");
        let (before, start) = (e.stats(), Instant::now());
        for n in 0..200 {
            e.set(&key(n), b"small", &UPDATE).unwrap();
        }
        assert!(start.elapsed() < LOCK_TIMEOUT * 20, "a tenth of what waiting takes");
        assert_eq!(e.stats().timeouts, before.timeouts);
        e.sweep().unwrap();
    });
    let before = span::dirty(&e.region);
    e.set(&key(1), b"small", &UPDATE).unwrap();
    let piece = before - span::dirty(&e.region);
    assert!((1..=1024).contains(&piece), "a write released {piece} spans");
    e.sweep().unwrap();
    assert_eq!(span::dirty(&e.region), 0);
}

#[test]
fn a_store_with_a_held_pool_is_not_full() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store { path: dir.path().join("s"), delete_unusable: false };
    let e = Engine::create(&Config {
        store: Some(store),
        max_value: 1 << 20,
        eviction: Eviction::Lru,
        ..config(1000)
    })
    .unwrap();
    for n in 0..100 {
        e.set(&key(n), b"small", &ADD).unwrap();
    }
    while_held(&e, header::LOCK_POOL, || {
        let refused = (100..200).find_map(|n| e.set(&key(n), &vec![1; 1 << 20], &ADD).err());
        assert!(matches!(refused, Some(Error::Timeout { .. })), "{refused:?}");
    });
    assert_eq!((e.stats().evicted, e.stats().no_space), (0, 0));
    assert!((0..100).all(|n| e.exists(&key(n)).is_some()));
}

#[test]
fn walks_skip_a_held_shard_and_come_back() {
    let e = Engine::create(&config(20_000)).unwrap();
    let expired = SetOptions { expires: Expires::At(1), ..ADD };
    for n in 0..20_000 {
        e.set(&key(n), b"value", &expired).unwrap();
    }
    let held = e.region.shard(0).used();
    while_shard_held(&e, 0, || {
        assert_eq!(e.sweep().unwrap(), 20_000 - held);
        assert!(!e.nothing_due());
        // Full of items that expired in the held shard alone: other shards' new keys find no room,
        // and say why.
        let mut new = (30_000..).filter(|&n| e.shard_of_hash(e.hash(&key(n))) != 0);
        for n in new.by_ref().take(20_000 - held as usize) {
            e.set(&key(n), b"value", &ADD).unwrap();
        }
        let full = e.set(&key(new.next().unwrap()), b"value", &ADD);
        assert!(matches!(full, Err(Error::Timeout { .. })), "{full:?}");
    });
    // The next locker of the shard frees the items.
    let one = (90_000..).find(|&n| e.shard_of_hash(e.hash(&key(n))) != 0).unwrap();
    e.set(&key(one), b"value", &ADD).unwrap();
    assert_eq!(e.stats().rejected_full, 0);
}

/// How often this thread gave up its processor to wait.
fn sleeps() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    usage.voluntary_context_switches()
}

#[test]
fn a_visit_waits_for_no_shard_before_it_has_seen_the_others() {
    let e = Engine::create(&config(20_000)).unwrap();
    while_shard_held(&e, 0, || {
        let (before, mut seen) = (sleeps(), 0);
        let missed = e.visit(
            0,
            LOCK_TIMEOUT,
            |_| true,
            |guard| {
                assert_ne!(guard.no, 0);
                seen += 1;
                // The last one ends it: shard 0 is not waited for.
                seen + 1 < e.geo.shards
            },
        );
        assert_eq!((missed.count(), missed.has(0), seen + 1), (1, true, e.geo.shards));
        assert_eq!(sleeps(), before, "it waited");
    });
}

#[test]
fn a_timeout_names_the_limit_that_passed() {
    let e = Engine::create(&Config { eviction: Eviction::Lru, ..config(100) }).unwrap();
    assert_eq!(e.geo.shards, 1);
    let limit = |done: Result<(), Error>| match done {
        Err(Error::Timeout { waited }) => waited,
        other => panic!("{other:?}"),
    };
    while_shard_held(&e, 0, || {
        assert_eq!(limit(e.sweep().map(drop)), Duration::from_millis(20));
        assert_eq!(limit(e.set(&key(1), b"value", &ADD).map(drop)), LOCK_TIMEOUT);
    });
}

#[test]
fn a_clear_does_not_wait_and_revives_nothing() {
    let e = Engine::create(&config(20_000)).unwrap();
    let mine = (0..).find(|&n| e.shard_of_hash(e.hash(&key(n))) == 0).unwrap();
    let idle = (0..).find(|&n| e.shard_of_hash(e.hash(&key(n))) == 1).unwrap();
    e.set(&key(mine), b"old", &ADD).unwrap();
    e.set(&key(idle), b"old", &ADD).unwrap();
    let mut cleared = 0;
    while_shard_held(&e, 0, || {
        let start = Instant::now();
        let mut refused = 0;
        for _ in 0..10_000 {
            match e.clear() {
                Ok(()) => cleared += 1,
                Err(Error::Timeout { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            assert!(
                e.exists(&key(mine)).is_none() && e.exists(&key(idle)).is_none(),
                "after {cleared} clears"
            );
            if refused == 3 {
                break;
            }
        }
        assert!((3072..4096).contains(&cleared), "{cleared} clears before the first is refused");
        assert!(start.elapsed() > LOCK_TIMEOUT * 3);
    });
    for _ in 0..10_000 {
        e.clear().unwrap();
        cleared += 1;
        assert!(e.exists(&key(mine)).is_none() && e.exists(&key(idle)).is_none(), "after {cleared} clears");
    }
}

/// A writer notes ever earlier expiries while a sweeper recomputes the earliest one repeatedly.
#[test]
fn an_expiry_is_never_forgotten() {
    const FIRST: u64 = 1 << 35;
    const ROUNDS: u64 = 3_000_000;
    let e = Engine::create(&config(10)).unwrap();
    // A shard without items is not looked at.
    e.set(b"item", b"value", &SetOptions::set(Expires::Never)).unwrap();
    let all = e.region.word(header::EARLIEST);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let guard = e.lock(0).unwrap();
            let forgotten = (0..ROUNDS).find_map(|round| {
                let expires = FIRST - round;
                e.note_expiry(&guard, expires);
                let known = all.load(SeqCst);
                // A ticket is of a sweeper that began after the shard's word was there, or its
                // exchange fails.
                (!shard::expiry::is_ticket(known) && known > expires).then(|| (round, known - expires))
            });
            guard.release();
            forgotten
        });
        while !writer.is_finished() {
            e.note_swept();
        }
        assert_eq!(writer.join().unwrap(), None, "round, and how much too late something seems to expire");
    });
}
