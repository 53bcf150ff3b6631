//! Deaths, stops, forks and panics at the worst moments: no hang, no torn value, no loss, no leak.
//!
//! `UCACHE_KILLS=200000` continues the kill storms to this many deaths in total.

#[path = "../support/engine_audit.rs"]
mod engine_audit;
#[path = "../support/engine_proc.rs"]
mod engine_proc;
#[path = "../support/engine_rig.rs"]
mod engine_rig;
#[path = "../support/engine_shared.rs"]
mod engine_shared;
#[path = "../support/engine_slow.rs"]
mod engine_slow;
#[path = "../support/engine_step.rs"]
mod engine_step;
#[path = "../support/engine_times.rs"]
mod engine_times;
#[path = "../support/engine_value.rs"]
mod engine_value;
#[path = "../support/engine_worker.rs"]
mod engine_worker;
#[path = "../support/patience.rs"]
mod patience;
mod storms;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use engine_proc::{Child, HANG, Scratch, alone, say};
use engine_rig::UPDATE;
use engine_value::{Bytes, Hook};
use nix::sys::signal::{Signal, raise};
use patience::within;
use ucache::{
    Error,
    engine::{Config, Engine, Eviction, Expires, Fill, Math, Stored, Touch},
};

/// A cache with 100 keys, whose writers give up after a quarter of a second.
fn hundred(eviction: Eviction) -> Arc<Engine> {
    hundred_patient(eviction, Duration::from_millis(250))
}

fn hundred_patient(eviction: Eviction, lock_timeout: Duration) -> Arc<Engine> {
    let mut config = Config::new("hundred", 1000);
    config.eviction = eviction;
    config.lock_timeout = lock_timeout;
    let engine = Engine::create(&config).expect("a cache");
    for n in 0..100_u32 {
        engine.set(&n.to_le_bytes(), &value(n), &UPDATE).expect("set");
    }
    engine
}

fn value(n: u32) -> Vec<u8> {
    vec![u8::try_from(n % 251).expect("a byte"); 50 + usize::try_from(n).expect("small") * 13]
}

fn key(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

fn all_readable(engine: &Engine) {
    for n in 0..100 {
        let found = engine_value::get(engine, &key(n), Touch::Yes).expect("get");
        assert_eq!(found.map(|(_, bytes)| bytes), Some(value(n)), "key {n}");
        assert!(engine.exists(&key(n)).is_some(), "key {n}");
    }
}

/// All operations that change something work on every key.
fn all_writable(engine: &Engine) {
    for n in 0..100 {
        assert_eq!(engine.set(&key(n), &value(n), &UPDATE).expect("set"), Stored::Updated, "key {n}");
        assert_eq!(engine.set(&key(n + 500), b"new", &UPDATE).expect("set"), Stored::Inserted, "key {n}");
        assert!(engine.delete(&key(n + 500)).expect("delete"), "key {n}");
    }
    assert_eq!(engine.math(b"number", Math::Inc, 2, &UPDATE).expect("math"), 2);
    assert!(engine.delete(b"number").expect("delete"));
    assert_eq!(engine.stats().items, 100);
    all_readable(engine);
}

/// Runs `body` inside a read of key 7 that holds its shard's lock.
fn under_the_lock(engine: &Engine, body: impl FnMut()) {
    let found = engine.get_counted(&key(7), &mut Hook(body)).expect("get_counted");
    assert!(found.is_some(), "key 7");
}

fn writers_time_out(engine: &Engine) {
    let before = engine.stats();
    let all = [
        engine.set(&key(7), b"x", &UPDATE).map(drop),
        engine.delete(&key(7)).map(drop),
        engine.math(&key(7), Math::Inc, 1, &UPDATE).map(drop),
    ];
    for result in all {
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
    }
    let after = engine.stats();
    assert_eq!((after.timeouts, after.lock_waits), (before.timeouts + 3, before.lock_waits + 3));
    // Reads of this shard, and of all others, continue.
    all_readable(engine);
}

#[test]
fn a_killed_holder_is_replaced() {
    let _alone = alone();
    for eviction in [Eviction::None, Eviction::Lru] {
        let engine = hundred(eviction);
        for round in 1..=20 {
            let inside = Scratch::new(1);
            let holder = Child::fork(|| {
                under_the_lock(&engine, || {
                    inside[0].store(1, SeqCst);
                    std::thread::sleep(HANG * 2);
                });
            });
            within("the holder", || inside[0].load(SeqCst) == 1);
            if round == 1 {
                writers_time_out(&engine);
            }
            assert!(holder.kill());
            all_writable(&engine);
            assert_eq!(engine.stats().owner_dead, round, "deaths noticed");
            assert!(engine.stats().repaired >= round, "shards rebuilt");
            assert_eq!(engine.stats().dropped_corrupt, 0, "nothing was damaged");
        }
    }
}

/// A thread woken to take a lock that dies first loses the wake-up if another thread has the lock
/// by then: neither glibc nor the kernel notices. The next sleeper must not sleep until its timeout
/// on a free lock.
#[test]
fn a_waiter_that_dies_as_it_is_woken_holds_nobody_up() {
    const ROUNDS: u64 = 40;
    let _alone = alone();
    // Far longer than any holder keeps the lock here.
    let engine = hundred_patient(Eviction::None, HANG / 4);
    let met = Scratch::new(1);
    let round = || {
        // All on one core: a woken process with low priority runs only when the others sleep.
        engine_step::pin();
        let (inside, done) = (Scratch::new(1), Scratch::new(1));
        let wait = |polite| {
            if polite {
                // SAFETY: changes only this process's priority.
                unsafe { libc::nice(19) };
            }
            let done = engine.set(&key(7), &value(7), &UPDATE);
            assert!(done.is_ok(), "nobody has the lock, yet a writer sleeps until its time-out: {done:?}");
        };
        let mut waiters = Vec::new();
        under_the_lock(&engine, || {
            for polite in [true, false] {
                let child = Child::fork(|| {
                    wait(polite);
                    done[0].fetch_add(1, SeqCst);
                });
                within("a sleeper", || engine_slow::sleeps_on_a_lock(child.pid()));
                waiters.push(child);
            }
        });
        let (second, first) = (waiters.pop().expect("two"), waiters.pop().expect("two"));
        under_the_lock(&engine, || {
            // Woken, not run, and dead.
            if inside[0].swap(1, SeqCst) == 0 && done[0].load(SeqCst) == 0 {
                met[0].fetch_add(1, SeqCst);
            }
            first.signal(Signal::SIGKILL);
            within("a death", || engine_slow::is_gone(first.pid()));
        });
        second.join();
    };
    for _ in 0..ROUNDS {
        Child::fork(round).join();
    }
    let met = met[0].load(SeqCst);
    say(&format!("{met} of {ROUNDS} waiters died after their wake-up"));
    assert!(met > 0, "no waiter died at the right moment");
}

#[test]
fn a_stopped_holder_stops_writers_only_and_only_so_long() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    let holder = Child::fork(|| under_the_lock(&engine, || raise(Signal::SIGSTOP).expect("raise")));
    holder.wait_stopped();
    writers_time_out(&engine);
    holder.signal(Signal::SIGCONT);
    holder.join();
    all_writable(&engine);
    assert_eq!(engine.stats().owner_dead, 0, "a stopped holder is not a dead one");
}

#[test]
fn a_stopped_reader_holds_nobody_up() {
    let _alone = alone();
    let engine = hundred(Eviction::Lru);
    let reader = Child::fork(|| {
        let mut stop = Hook(|| raise(Signal::SIGSTOP).expect("raise"));
        engine.get(&key(7), Touch::Yes, &mut stop).expect("get");
    });
    reader.wait_stopped();
    for _ in 0..50 {
        all_writable(&engine);
    }
    assert_eq!(engine.stats().timeouts, 0);
    assert!(reader.kill());
    all_writable(&engine);
    assert_eq!(engine.stats().owner_dead, 0, "a reader owns nothing");
}

#[test]
fn a_panic_under_the_lock_leaves_the_cache_whole() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    for _ in 0..5 {
        let caught = catch_unwind(AssertUnwindSafe(|| under_the_lock(&engine, || panic!("in the sink"))));
        assert!(caught.is_err(), "the panic is the caller's");
        all_writable(&engine);
        Child::fork(|| all_writable(&engine)).join();
    }
}

#[test]
fn reentry_is_an_error_not_a_deadlock() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    let mut seen = 0;
    under_the_lock(&engine, || {
        let all = [
            engine.set(&key(7), b"x", &UPDATE).map(drop),
            engine.delete(&key(7)).map(drop),
            engine.math(&key(7), Math::Inc, 1, &UPDATE).map(drop),
            engine.get_counted(&key(7), &mut Bytes::default()).map(drop),
        ];
        for result in all {
            assert!(matches!(result, Err(Error::WouldDeadlock)), "{result:?}");
            seen += 1;
        }
        all_readable(&engine);
    });
    assert_eq!(seen, 4);
    all_writable(&engine);
    engine.exclusive_begin().expect("exclusive_begin");
    let again = engine.exclusive_begin();
    assert!(matches!(again, Err(Error::WouldDeadlock)), "{again:?}");
    all_writable(&engine);
    engine.exclusive_end();
    engine.exclusive_end();
    Child::fork(|| all_writable(&engine)).join();
}

/// A child forked while another thread of its parent is inside can use the cache at once, and owns
/// nothing of it.
#[test]
fn fork_while_another_thread_holds_the_lock() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    for _ in 0..10 {
        let words = Scratch::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                under_the_lock(&engine, || {
                    words[0].store(1, SeqCst);
                    within("the child", || words[1].load(SeqCst) == 1);
                });
            });
            within("the thread", || words[0].load(SeqCst) == 1);
            let child = Child::fork(|| {
                writers_time_out(&engine);
                words[1].store(1, SeqCst);
                all_writable(&engine);
            });
            child.join();
        });
        all_writable(&engine);
    }
    assert_eq!(engine.stats().owner_dead, 0, "nobody died with a lock");
}

/// A child that exits does not release what its parent's thread holds.
#[test]
fn a_childs_exit_releases_nothing_of_its_parent() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    under_the_lock(&engine, || {
        Child::fork(|| all_readable(&engine)).join();
        Child::fork(|| writers_time_out(&engine)).join();
    });
    assert_eq!(engine.stats().owner_dead, 0);
    all_writable(&engine);
}

#[test]
fn an_exclusive_holder_that_dies_or_stops() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    for round in 0..10 {
        let hold = || {
            engine.exclusive_begin().expect("exclusive_begin");
            engine.set(&key(3), &value(3), &UPDATE).expect("the holder's own writes go on");
            raise(Signal::SIGSTOP).expect("raise");
            engine.exclusive_end();
        };
        let holder = Child::fork(hold);
        holder.wait_stopped();
        writers_time_out(&engine);
        let begun = engine.exclusive_begin();
        assert!(matches!(begun, Err(Error::Timeout { .. })), "{begun:?}");
        if round % 2 == 0 {
            assert!(holder.kill());
        } else {
            holder.signal(Signal::SIGCONT);
            holder.join();
        }
        all_writable(&engine);
        engine.exclusive_begin().expect("exclusive_begin");
        engine.exclusive_end();
    }
}

#[test]
fn a_filler_that_dies_is_replaced_at_once() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    for round in 0..10_u32 {
        let name = format!("page {round}");
        let begun = Scratch::new(1);
        // A lease far longer than the test: only the death can end it.
        let begin =
            || engine.begin_fill(name.as_bytes(), Duration::from_secs(3600), HANG * 2, &mut Bytes::default());
        let filler = Child::fork(|| {
            assert!(matches!(begin(), Ok(Fill::Filler(_))), "the first is the filler");
            begun[0].store(1, SeqCst);
            std::thread::sleep(HANG * 2);
        });
        within("the filler", || begun[0].load(SeqCst) == 1);
        let waiter = Child::fork(|| {
            let Ok(Fill::Filler(token)) = begin() else { panic!("a waiter must replace a dead filler") };
            engine.end_fill(name.as_bytes(), token, b"content", Expires::Never).expect("end_fill");
        });
        std::thread::sleep(Duration::from_millis(u64::from(round)));
        assert!(filler.kill());
        waiter.join();
        let found = engine_value::get(&engine, name.as_bytes(), Touch::Yes).expect("get").expect("filled");
        assert_eq!(found.1, b"content");
        assert_eq!(engine.stats().items, 101 + u64::from(round));
    }
}

#[test]
fn a_filler_that_is_too_slow_loses_its_lease() {
    let _alone = alone();
    let engine = hundred(Eviction::None);
    let lease = Duration::from_millis(50);
    let begin = |lease| engine.begin_fill(b"slow", lease, HANG, &mut Bytes::default());
    let Ok(Fill::Filler(first)) = begin(lease) else { panic!("nobody fills it yet") };
    assert!(matches!(begin(lease), Err(Error::WouldDeadlock)), "it would wait for itself");
    // Another caller waits for the end of the lease, then becomes the filler.
    let other = std::thread::scope(|threads| threads.spawn(|| begin(HANG)).join().expect("no panic"));
    let Ok(Fill::Filler(second)) = other else { panic!("the lease is over") };
    let late = engine.end_fill(b"slow", first, b"late", Expires::Never).expect("end_fill");
    assert_eq!(late, Stored::Kept, "the lease was lost");
    assert!(engine_value::get(&engine, b"slow", Touch::No).expect("get").is_none());
    engine.end_fill(b"slow", second, b"in time", Expires::Never).expect("end_fill");
    let found = engine_value::get(&engine, b"slow", Touch::No).expect("get").expect("filled");
    assert_eq!(found.1, b"in time");
}
