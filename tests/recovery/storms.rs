//! Storms of kills and stops among workers at full speed.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::sys::signal::Signal;
use ucache::engine::{Blocks, Eviction, Store};

use crate::{
    engine_audit,
    engine_proc::{self, Child, alone, say},
    engine_rig::{Load, Rig, Tally},
    engine_slow::Watch,
    patience::within,
};

const STORMS: u64 = 5;
const KILLS: u64 = 2250;
/// After this many deaths all workers must have made progress, and the cache is audited.
const CHECK: u64 = 400;
/// The killing and watching process has a higher priority than the workers if permitted, or it
/// would wait for them.
const URGENT: i32 = -10;

/// Kills of one storm.
fn kills_wanted() -> u64 {
    let all = std::env::var("UCACHE_KILLS")
        .map_or(KILLS, |text| text.parse().unwrap_or_else(|_| panic!("UCACHE_KILLS={text} is not a number")));
    all.div_ceil(STORMS)
}

/// The workers of a storm, and the events they suffer.
struct Storm<'a> {
    rig: &'a Rig,
    rng: Rng,
    children: Vec<Option<Child>>,
    /// Killed, not dead yet.
    dying: Vec<(usize, Child, Signal)>,
    stopped: Vec<Option<Instant>>,
    slow: Watch,
    kills: u64,
    stops: u64,
}

impl Storm<'_> {
    fn watch(&mut self) {
        self.reap();
        self.rig.times.watch();
        self.slow.look(&self.rig.times, &self.children);
    }

    /// Every worker must complete more operations, or it hangs.
    fn everybody_moves(&mut self) {
        let rig = self.rig;
        let count = |worker| rig.tally(worker, Tally::Ops).load(SeqCst);
        let before: Vec<u64> = (0..rig.load.workers).map(count).collect();
        within(format!("all workers to move on after {} kills: {}", self.kills, rig.report()), || {
            self.watch();
            (0..rig.load.workers).all(|worker| count(worker) >= before[worker] + 20)
        });
    }

    /// Workers of the rig die at the same time, each by another signal that ends processes; a
    /// stopped one only by SIGKILL.
    fn kill(&mut self, victims: &[usize]) {
        let stops = self.stopped.iter().any(Option::is_some);
        self.rig.times.death(!stops);
        for &worker in victims {
            let child = self.children[worker].take().expect("a worker");
            let of = match self.rng.u8(0..4) {
                0 if self.stopped[worker].is_none() => Signal::SIGSEGV,
                1 if self.stopped[worker].is_none() => Signal::SIGABRT,
                _ => Signal::SIGKILL,
            };
            child.signal(of);
            self.dying.push((worker, child, of));
        }
    }

    /// Counts the dead and replaces them.
    fn reap(&mut self) {
        for (worker, mut child, of) in std::mem::take(&mut self.dying) {
            let Some(of_that) = child.try_ended_by(of) else {
                self.dying.push((worker, child, of));
                continue;
            };
            assert!(of_that, "a worker ended before it was killed");
            self.kills += 1;
            if self.stopped[worker].take().is_some() {
                self.rig.times.go_on(worker);
            }
            self.children[worker] = Some(self.rig.start(worker, self.kills));
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

    /// Continues stopped workers whose time has come.
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

    /// One worker dies, or several at once, so that a death can hit a repair after another.
    fn strike(&mut self) {
        let alive: Vec<usize> =
            (0..self.children.len()).filter(|&worker| self.children[worker].is_some()).collect();
        // A survivor must be left to notice the deaths.
        if alive.len() > self.children.len() / 2 {
            let several = self.rng.u8(0..3) == 0;
            let one = alive[self.rng.usize(0..alive.len())];
            let victims: Vec<usize> =
                alive.into_iter().filter(|&worker| worker == one || (several && self.rng.bool())).collect();
            self.kill(&victims);
            if self.rng.u8(0..16) == 0 {
                let worker = self.rng.usize(0..self.children.len());
                self.stop(worker);
            }
        }
    }
}

/// Kills and stops random workers at random moments and replaces the dead.
fn storm(load: Load) {
    let _alone = alone();
    engine_proc::die_of_signals();
    let rig = Rig::new(load);
    let workers = rig.load.workers;
    let children = (0..workers).map(|worker| Some(rig.start(worker, 0))).collect();
    let (rng, stopped) = (Rng::with_seed(rig.seed), vec![None; workers]);
    let (slow, dying) = (Watch::new(workers), Vec::new());
    let mut storm = Storm { rig: &rig, rng, children, dying, stopped, slow, kills: 0, stops: 0 };
    engine_proc::priority(URGENT);
    let (mut checked, start) = (0, Instant::now());
    while storm.kills < kills_wanted() {
        // The more processes share the processor, the longer it takes until each has run.
        std::thread::sleep(Duration::from_micros(storm.rng.u64(0..800 + 150 * workers as u64)));
        storm.strike();
        storm.wake(false);
        storm.watch();
        if storm.kills >= checked + CHECK {
            checked = storm.kills;
            storm.wake(true);
            storm.everybody_moves();
            rig.assert_clean();
        }
    }
    storm.wake(true);
    storm.everybody_moves();
    engine_proc::priority(0);
    rig.stop();
    let Storm { kills, stops, slow, children, .. } = storm;
    let seconds = start.elapsed().as_secs_f64();
    children.into_iter().flatten().for_each(Child::join);
    let stats = rig.engine.stats();
    let (dead, repaired, dropped) = (stats.owner_dead, stats.repaired, stats.dropped_corrupt);
    let (name, rate, lost) = (rig.load.name, kills as f64 / seconds, slow.lost_wakeups());
    say(&format!(
        "{name}: {kills} deaths in {seconds:.0} s ({rate:.0} a second), {stops} stops, {dead} of lock holders, {repaired} repairs, {dropped} dropped; {}",
        rig.times
    ));
    say(&format!("{name}: {}", slow.stop()));
    assert!(dead > 0, "{kills} kills and none hit a lock holder: the storm proves nothing");
    assert_eq!(dropped, 0, "a death damages nothing");
    assert_eq!(lost, 0, "a sleeper that nobody woke");
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
