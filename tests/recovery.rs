//! Deaths, stops, forks and panics at the worst moments: nobody hangs, nothing is torn, nothing is lost, nothing leaks.
//!
//! `UCACHE_KILLS=200000` lets the kill storms go on to so many deaths in all.

#[path = "support/engine_audit.rs"]
mod engine_audit;
#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_rig.rs"]
mod engine_rig;
#[path = "support/engine_shared.rs"]
mod engine_shared;
#[path = "support/engine_times.rs"]
mod engine_times;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/engine_worker.rs"]
mod engine_worker;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use engine_proc::{Child, HANG, Scratch, alone, say, wait_for};
use engine_rig::{Load, Rig, Tally, UPDATE};
use engine_value::{Bytes, Hook};
use fastrand::Rng;
use nix::sys::signal::{Signal, raise};
use ucache::{
    Error,
    engine::{Blocks, Config, Engine, Eviction, Expires, Fill, Math, Store, Stored, Touch},
};

const STORMS: u64 = 5;
const KILLS: u64 = 2250;

/// Kills of one storm.
fn kills_wanted() -> u64 {
    let all = std::env::var("UCACHE_KILLS")
        .map_or(KILLS, |text| text.parse().unwrap_or_else(|_| panic!("UCACHE_KILLS={text} is not a number")));
    all.div_ceil(STORMS)
}

/// Every worker does some more operations, or it hangs.
fn everybody_moves(rig: &Rig, kills: u64) {
    let count = |worker| rig.tally(worker, Tally::Ops).load(SeqCst);
    let before: Vec<u64> = (0..rig.load.workers).map(count).collect();
    wait_for(&format!("all workers to move on after {kills} kills: {}", rig.report()), || {
        rig.times.watch();
        (0..rig.load.workers).all(|worker| count(worker) >= before[worker] + 20)
    });
}

/// The workers of a storm, and what befalls them.
struct Storm<'a> {
    rig: &'a Rig,
    rng: Rng,
    children: Vec<Option<Child>>,
    stopped: Vec<Option<Instant>>,
    kills: u64,
    stops: u64,
}

impl Storm<'_> {
    /// A worker of the rig dies, of whatever ends processes; one that is stopped only of SIGKILL.
    fn kill(&mut self, worker: usize) {
        let child = self.children[worker].take().expect("a worker");
        let of = match self.rng.u8(0..4) {
            0 if self.stopped[worker].is_none() => Signal::SIGSEGV,
            1 if self.stopped[worker].is_none() => Signal::SIGABRT,
            _ => Signal::SIGKILL,
        };
        // While somebody is stopped with a lock, what survivors wait for is not the death.
        let stops = self.stopped.iter().any(Option::is_some);
        self.rig.times.death(!stops);
        self.rig.times.watch();
        assert!(child.end_by(of), "a worker ended before it was killed");
        self.kills += 1;
        if self.stopped[worker].take().is_some() {
            self.rig.times.go_on(worker);
        }
    }

    fn stop(&mut self, worker: usize) {
        if let (Some(child), None) = (&self.children[worker], self.stopped[worker]) {
            self.rig.times.pause(worker);
            child.signal(Signal::SIGSTOP);
            self.stopped[worker] = Some(Instant::now() + Duration::from_millis(self.rng.u64(1..30)));
            self.stops += 1;
        }
    }

    /// Stopped workers whose time has come go on.
    fn wake(&mut self, all: bool) {
        for worker in 0..self.children.len() {
            if self.stopped[worker].is_some_and(|until| all || until < Instant::now()) {
                self.stopped[worker] = None;
                if let Some(child) = &self.children[worker] {
                    child.signal(Signal::SIGCONT);
                }
                self.rig.times.go_on(worker);
            }
        }
    }

    /// One worker dies, or several at once, so that a death also meets the repair of another.
    fn strike(&mut self) {
        let workers = self.children.len();
        let several = self.rng.u8(0..4) == 0;
        let one = self.rng.usize(0..workers);
        let victims: Vec<usize> =
            (0..workers).filter(|&worker| worker == one || (several && self.rng.bool())).collect();
        victims.iter().for_each(|&worker| self.kill(worker));
        for worker in victims {
            self.children[worker] = Some(self.rig.start(worker, self.kills));
        }
        if self.rng.u8(0..8) == 0 {
            let worker = self.rng.usize(0..workers);
            self.stop(worker);
        }
    }
}

/// Kills and stops random workers at random moments and puts new ones in the places of the dead.
fn storm(load: Load) {
    let _alone = alone();
    engine_proc::die_of_signals();
    let rig = Rig::new(load);
    let workers = rig.load.workers;
    let children = (0..workers).map(|worker| Some(rig.start(worker, 0))).collect();
    let (rng, stopped) = (Rng::with_seed(rig.seed), vec![None; workers]);
    let mut storm = Storm { rig: &rig, rng, children, stopped, kills: 0, stops: 0 };
    let mut checked = 0;
    while storm.kills < kills_wanted() {
        std::thread::sleep(Duration::from_micros(storm.rng.u64(0..1500)));
        storm.strike();
        storm.wake(false);
        rig.times.watch();
        if storm.kills >= checked + 100 {
            checked = storm.kills;
            storm.wake(true);
            everybody_moves(&rig, storm.kills);
            rig.assert_clean();
        }
    }
    storm.wake(true);
    everybody_moves(&rig, storm.kills);
    rig.stop();
    let (kills, stops) = (storm.kills, storm.stops);
    storm.children.into_iter().flatten().for_each(Child::join);
    let stats = rig.engine.stats();
    let (dead, repaired, dropped) = (stats.owner_dead, stats.repaired, stats.dropped_corrupt);
    say(&format!(
        "{}: {kills} deaths, {stops} stops, {dead} of lock holders, {repaired} repairs, {dropped} dropped; {}",
        rig.load.name, rig.times
    ));
    assert!(dead > 0, "{kills} kills and none hit a lock holder: the storm proves nothing");
    assert_eq!(dropped, 0, "a death damages nothing");
    engine_audit::audit(&rig, true);
}

#[test]
fn storm_plain() {
    storm(Load { max_len: 4096, ..Load::new("storm", 4) });
}

#[test]
fn storm_large_values() {
    storm(Load::new("storm-large", 6));
}

#[test]
fn storm_lru() {
    let mut load = Load { may_miss: true, max_len: 4096, ..Load::new("storm-lru", 4) };
    load.config.capacity = load.keys() / 2;
    load.config.eviction = Eviction::Lru;
    storm(load);
}

#[test]
fn storm_blocks_and_shards() {
    let mut load = Load { max_len: 4096, shared: 6000, ..Load::new("storm-blocks", 16) };
    load.config.capacity = load.keys();
    load.config.blocks = Some(Blocks { size: 512, count: load.keys() * 20 });
    storm(load);
}

#[test]
fn storm_in_a_store_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut load = Load { max_len: 20_000, ..Load::new("storm-store", 5) };
    load.config.store = Some(Store { path: dir.path().join("store"), delete_unusable: false });
    storm(load);
}

/// A cache with 100 keys, whose writers give up after a quarter of a second.
fn hundred(eviction: Eviction) -> Arc<Engine> {
    let mut config = Config::new("hundred", 1000);
    config.eviction = eviction;
    config.lock_timeout = Duration::from_millis(250);
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
    let timeouts = engine.stats().timeouts;
    let all = [
        engine.set(&key(7), b"x", &UPDATE).map(drop),
        engine.delete(&key(7)).map(drop),
        engine.math(&key(7), Math::Inc, 1, &UPDATE).map(drop),
    ];
    for result in all {
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
    }
    assert_eq!(engine.stats().timeouts, timeouts + 3);
    // Reads of the very shard, and of all others, go on.
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
            wait_for("the holder", || inside[0].load(SeqCst) == 1);
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

/// A child forked while another thread of its parent is inside uses the cache at once, and owns nothing of it.
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
                    wait_for("the child", || words[1].load(SeqCst) == 1);
                });
            });
            wait_for("the thread", || words[0].load(SeqCst) == 1);
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
        wait_for("the filler", || begun[0].load(SeqCst) == 1);
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
    let begin = |lease| engine.begin_fill(b"slow", lease, HANG, &mut Bytes::default()).expect("begin_fill");
    let Fill::Filler(first) = begin(lease) else { panic!("nobody fills it yet") };
    // Waits the lease out, then is the filler.
    let Fill::Filler(second) = begin(HANG) else { panic!("the lease is over") };
    let late = engine.end_fill(b"slow", first, b"late", Expires::Never).expect("end_fill");
    assert_eq!(late, Stored::Kept, "the lease was lost");
    assert!(engine_value::get(&engine, b"slow", Touch::No).expect("get").is_none());
    engine.end_fill(b"slow", second, b"in time", Expires::Never).expect("end_fill");
    let found = engine_value::get(&engine, b"slow", Touch::No).expect("get").expect("filled");
    assert_eq!(found.1, b"in time");
}
