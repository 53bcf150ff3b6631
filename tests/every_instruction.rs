//! A process is killed after every instruction of every operation: the next process finds the old
//! value or the new one, everything else unchanged, and no item, block or byte missing.
//!
//! A child single-steps the operation. After each instruction the checker checks whether the region
//! is in a new state (an instruction that changes no byte of it leaves the state unchanged). A new
//! state is loaded into the checker's own region as the kernel would leave it after the child's
//! death, recovered in the ordinary way, and audited. For some states the recovery itself is
//! stepped in the same way, and for some of its states the next recovery.
//!
//! `UCACHE_STEPS=10000000` continues, with other lengths each round, until that many states were
//! visited. `UCACHE_CASE="update"` runs only cases whose name contains this.

#[path = "support/engine_image.rs"]
mod engine_image;
#[path = "support/engine_proc.rs"]
mod engine_proc;
#[path = "support/engine_step.rs"]
mod engine_step;
#[path = "support/engine_value.rs"]
mod engine_value;
#[path = "support/engine_watch.rs"]
mod engine_watch;
#[path = "support/patience.rs"]
mod patience;
#[path = "steps"]
mod steps {
    pub(crate) mod audit;
    pub(crate) mod cases;
    pub(crate) mod eviction;
    pub(crate) mod importing;
    pub(crate) mod more;
    pub(crate) mod opening;
    mod readers;
    pub(crate) mod relocation;
    pub(crate) mod walk;
}

use std::sync::Arc;

use engine_image::Window;
use engine_proc::{alone, say};
use fastrand::Rng;
use steps::{
    audit::audit,
    cases::{self, Case, Lens},
    eviction, importing, more, opening, relocation,
    walk::{self, Count},
};
use ucache::engine::{Config, Engine, Eviction};

/// Minimum number of states to visit; each of the tests below has its share.
fn wanted(share_of_ten: u64, default: u64) -> u64 {
    std::env::var("UCACHE_STEPS").map_or(default, |text| {
        text.parse::<u64>().unwrap_or_else(|_| panic!("UCACHE_STEPS={text} is not a number")) * share_of_ten
            / 10
    })
}

fn seeded(name: &str) -> Rng {
    let seed =
        std::env::var("UCACHE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    say(&format!("{name}: UCACHE_SEED={seed}"));
    Rng::with_seed(seed)
}

/// Rounds of all cases until enough states were visited.
fn rounds(
    name: &str,
    at_least: u64,
    cases: impl Fn(&Lens) -> Vec<Case>,
    one: impl Fn(&Case, &mut Rng) -> Count,
) {
    let _alone = alone();
    engine_step::pin();
    walk::begin_random();
    let mut rng = seeded(name);
    let mut total = Count::default();
    let mut round = 0;
    let only = std::env::var("UCACHE_CASE").unwrap_or_default();
    while round == 0 || total.visited + total.repairs < at_least {
        let lens = Lens::of_round(round, &mut rng);
        for case in cases(&lens).into_iter().filter(|case| case.name.contains(&only)) {
            let count = one(&case, &mut rng);
            if round == 0 {
                say(&format!("{}: {count}", case.name));
            }
            assert!(count.visited > 50, "{}: only {} instructions", case.name, count.visited);
            total += count;
        }
        round += 1;
    }
    say(&format!("{name}: {round} rounds: {total}, violations 0"));
    assert!(
        total.locked > 100 || !only.is_empty(),
        "{total}: hardly a state in which the dead process held a lock"
    );
}

#[test]
fn reads_and_stores() {
    rounds("reads and stores", wanted(3, 0), cases::reads_and_stores, walk::in_memory);
}

#[test]
fn deletes_and_numbers() {
    rounds("deletes and numbers", wanted(3, 0), cases::deletes_and_numbers, walk::in_memory);
}

#[test]
fn full_caches_and_leases() {
    rounds("full caches and leases", wanted(2, 0), cases::full_caches_and_leases, walk::in_memory);
}

#[test]
fn swaps_and_refreshes() {
    rounds("swaps and refreshes", wanted(1, 0), more::swaps_and_refreshes, walk::in_memory);
}

#[test]
fn replaces_and_joins() {
    rounds("replaces and joins", wanted(1, 0), more::replaces_and_joins, walk::in_memory);
}

#[test]
fn queues() {
    let all = |lens: &Lens| {
        let mut all = more::queues(lens);
        all.extend(more::sampled(lens));
        all
    };
    rounds("queues", wanted(1, 0), all, walk::in_memory);
}

/// The same operations on store files; each state is opened as after the death of all users.
#[test]
fn stores() {
    let all = |lens: &Lens| {
        let mut all = cases::reads_and_stores(lens);
        all.extend(cases::deletes_and_numbers(lens));
        all.extend(cases::full_caches_and_leases(lens));
        all.extend(more::swaps_and_refreshes(lens));
        all.extend(more::replaces_and_joins(lens));
        all.extend(more::queues(lens));
        // Readers leave no traces, and large values only add time.
        all.retain(|case| !case.name.starts_with("get") && !case.name.contains("large"));
        all
    };
    rounds("stores", wanted(1, 0), all, walk::in_a_store);
}

/// An entry is moved, and its old block used again, between any two instructions of a reader.
#[test]
fn a_reader_beside_relocation() {
    let _alone = alone();
    engine_step::pin();
    let memory = relocation::beside_readers(None, 5);
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let store = relocation::beside_readers(Some(&dir.path().join("store")), 17);
    say(&format!("readers stopped: {memory} in memory, {store} in a store"));
    assert!(memory > 60 && store > 15, "{memory} and {store} instructions are no read");
}

/// An item is evicted, and its block used again, between any two instructions of a reader.
#[test]
fn a_reader_beside_eviction() {
    let _alone = alone();
    engine_step::pin();
    // The order of LRU is exact in a small cache; in a large one victims are chosen in advance.
    let (small, large) = ((200, 5), (4200, 17));
    let caches = [Eviction::Lru, Eviction::S3Fifo, Eviction::Sieve].map(|policy| (policy, small));
    for (policy, (items, stride)) in [(Eviction::Lru, large)].into_iter().chain(caches) {
        let readers = eviction::beside_readers(policy, items, stride);
        say(&format!("{policy:?}, {items} items: {readers} readers stopped"));
        assert!(readers * stride > 300, "{readers} stops in no read");
    }
}

/// A death at any point of creating or opening a store.
#[test]
fn opening_a_store() {
    let _alone = alone();
    engine_step::pin();
    let total = opening::cut_off_anywhere();
    say(&format!("opening a store: {total}, violations 0"));
}

/// A death at any point of the import of a native store.
#[test]
fn importing_a_native_store() {
    let _alone = alone();
    engine_step::pin();
    let total = importing::cut_off_anywhere();
    say(&format!("importing a native store: {total}, violations 0"));
}

/// Memory freed by an update stays free, whichever pages a power loss leaves.
#[test]
fn freed_values_are_gone() {
    let _alone = alone();
    let files = opening::freed_values_are_gone();
    say(&format!("{files} mixtures of pages opened"));
}

/// The rig itself: a bucket with items in the middle of an operation, but none before and after, is
/// part of the intermediate states.
#[test]
fn what_is_used_for_a_while_is_watched() {
    let _alone = alone();
    let (_engine, window) = Window::around(|| Engine::create(&cases::base(8)).expect("a cache"));
    let used = window.used();
    let unused = (0..).find(|page| !used.contains(page)).expect("a page");
    let touched = window.touched(|| {
        window.scribble(unused, 0, 1);
        window.scribble(unused, 0, 0);
    });
    assert!(touched.contains(&unused), "page {unused} is not among {touched:?}");
    assert_eq!(touched.len(), used.len() + 1, "{used:?} were used, {touched:?} are watched");
    assert!(!window.used().contains(&unused), "a trial changes nothing");
}

/// Real kills of each operation, spread over all its instructions: with the kernel's own marks, not
/// the rig's. Twice as many in long runs.
const KILLS: u64 = 4;

#[test]
fn real_deaths_are_repaired_at_once() {
    let _alone = alone();
    engine_step::pin();
    let mut rng = seeded("real deaths");
    let lens = Lens::of_round(0, &mut rng);
    let each = if wanted(1, 0) > 0 { 2 * KILLS } else { KILLS };
    let (mut dead, mut kills) = (0, 0);
    let mut all = cases::reads_and_stores(&lens);
    all.extend(cases::deletes_and_numbers(&lens));
    all.extend(cases::full_caches_and_leases(&lens));
    all.extend(more::swaps_and_refreshes(&lens));
    all.extend(more::replaces_and_joins(&lens));
    all.extend(more::queues(&lens));
    for case in all.iter().filter(|case| !case.name.contains("large")) {
        let steps = length(case);
        // More steps would show nothing new here.
        if steps > 20_000 {
            continue;
        }
        for kill in 0..each {
            let engine = Engine::create(&case.config).expect("a cache");
            cases::prepare(case, &engine);
            let mut stepped = walk::stepped(&engine, &case.run);
            let target = steps * kill / each + rng.u64(0..=steps / each);
            stepped.step_to(target);
            let mut at = format!("killed after {} of {steps} instructions", stepped.steps());
            stepped.kill();
            // At every second death the repair is killed, too, and the repair after it.
            for _ in 0..kill % 2 * 2 {
                let mut repair = walk::stepped(&engine, &walk::repair());
                let target = rng.u64(0..4000);
                repair.step_to(target);
                at = format!("{at}, then after {}", repair.steps());
                repair.kill();
            }
            audit(case, &engine, 0, &at);
            dead += engine.stats().owner_dead;
            kills += 1;
        }
    }
    say(&format!("{dead} dead lock holders after {kills} kills"));
    assert!(dead > 20, "only {dead} kills hit a lock holder");
}

/// Number of instructions of a case.
fn length(case: &Case) -> u64 {
    let engine = Engine::create(&case.config).expect("a cache");
    cases::prepare(case, &engine);
    let mut stepped = walk::stepped(&engine, &case.run);
    stepped.step_to(u64::MAX);
    let steps = stepped.steps();
    stepped.kill();
    steps
}

/// Reservations of a dead writer are available elsewhere: in a cache of many shards with one free
/// item, a store in any shard finds it.
#[test]
fn a_dead_writer_keeps_no_item() {
    const ITEMS: u32 = 6000;
    const MANY: u64 = 72;
    let _alone = alone();
    engine_step::pin();
    let engine: Arc<Engine> = Engine::create(&Config::new("many", u64::from(ITEMS))).expect("a cache");
    assert!(engine.stats().shards > 1, "one shard shows nothing");
    for n in 1..ITEMS {
        engine.set(&n.to_le_bytes(), b"x", &cases::ADD).expect("set");
    }
    let operations: [(&str, cases::Run); 2] = [
        ("insert", Box::new(|e| drop(e.set(b"x", &[1; 90], &cases::ADD)))),
        ("delete", Box::new(|e| drop(e.delete(b"x")))),
    ];
    for (name, operation) in &operations {
        let prepare = || {
            engine.delete(b"x").expect("delete");
            if *name == "delete" {
                engine.set(b"x", &[2; 70], &cases::ADD).expect("set");
            }
        };
        prepare();
        let mut whole = walk::stepped(&engine, operation);
        whole.step_to(u64::MAX);
        let steps = whole.steps();
        whole.kill();
        for kill in 0..MANY {
            prepare();
            let mut stepped = walk::stepped(&engine, operation);
            let target = steps * kill / MANY + fastrand::u64(0..=steps / MANY);
            stepped.step_to(target);
            let at = format!("{name}: killed after {} of {steps}", stepped.steps());
            stepped.kill();
            // Readers do not repair: this only gives an upper bound on the number of items.
            let there = engine.exists(b"x").is_some();
            let other = format!("other {kill}");
            let stored = engine.set(other.as_bytes(), b"x", &cases::ADD);
            assert_eq!(stored.is_ok(), !there, "{at}: x is there: {there}, but {stored:?}");
            engine.delete(other.as_bytes()).expect("delete");
        }
        engine.delete(b"x").expect("delete");
    }
}
