//! A clear between any two instructions of an operation: the operation must appear before or after
//! it.

use ucache::engine::{Config, Engine, Store, Touch};

use crate::{
    beside::ALL,
    engine_proc::{self, alone, say, seed},
    engine_step::{self, Stepped},
    engine_value,
    history::Rules,
    history_actor::{
        Actor, Crowd, Habits,
        Kind::{self, Clear, Exists, Fill, Get, Refresh, Set, SetNumber},
    },
    history_log::Log,
};

/// Instructions between two clears. A clear at each instruction would take time quadratic in their
/// number. Operations on stores have more of them. The first place is another one in each run.
const STRIDE: u64 = 37;
const STRIDE_ON_STORES: u64 = 89;
/// An operation that ends sooner may just have had less to do, so several must end before the loop
/// stops.
const ENDS: u32 = 4;

/// Runs `kind` on the result of `first`, once for each position of a clear; returns their number.
fn clear_anywhere(crowd: &mut Crowd<'_>, kind: Kind, first: Kind, (offset, stride): (u64, u64)) -> u64 {
    let (mut clears, mut ends) = (0, 0);
    let mut parent = Actor::new(crowd.engine, crowd.log, 0, crowd.habits);
    loop {
        parent.step(first);
        parent.step(Get);
        let habits = Habits { around: engine_step::mark, ..crowd.habits };
        let mut actor = Actor::new(crowd.engine, crowd.log, 1, habits);
        actor.last.clone_from(&parent.last);
        // One-time work of each process is not to be stepped.
        let warm_up = || {
            drop(engine_value::get(crowd.engine, b"warm up", Touch::Yes));
            crowd.engine.delete(b"warm up").expect("delete");
        };
        let mut child = Stepped::new(warm_up, || actor.step(kind));
        let steps = offset + clears * stride;
        let inside = (0..steps).all(|_| child.step_marked());
        parent.step(Clear);
        parent.step(Get);
        parent.step(Exists);
        child.finish();
        child.kill();
        clears += 1;
        for after in [Get, Exists, Fill, Refresh, Clear] {
            parent.step(after);
        }
        crowd.judge();
        ends = if inside { 0 } else { ends + 1 };
        if ends == ENDS {
            return clears;
        }
    }
}

/// The preceding operations that make a difference to `kind`.
fn befores(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Add | Kind::NewNumber | Fill | Refresh => &[Clear],
        Set | SetNumber | Kind::Replace => &[Set, Clear],
        Kind::Incr | Kind::IncrTtl | Kind::Mul => &[SetNumber, Clear],
        _ => &[Set, SetNumber],
    }
}

fn each_kind(config: &Config, kinds: &[Kind]) {
    // Each step is a switch between two processes: at normal priority a loaded machine takes
    // minutes.
    engine_proc::priority(-15);
    engine_step::pin();
    let seed = seed();
    let stride = if config.store.is_some() { STRIDE_ON_STORES } else { STRIDE };
    let engine = Engine::create(config).expect("a cache");
    let log = Log::new(2, 100);
    let habits = Habits { pause: 0, max_len: 40, ..Habits::new(1, seed) };
    let mut total = 0;
    let mut faults = Vec::new();
    for (n, kind) in kinds.iter().copied().enumerate() {
        for &first in befores(kind) {
            let mut crowd = Crowd::new(&engine, &log, Rules::default(), habits);
            let clears = clear_anywhere(&mut crowd, kind, first, ((seed >> 8 ^ n as u64) % stride, stride));
            assert!(clears > 5, "{kind:?} takes only {clears} times {stride} instructions");
            total += clears;
            if let Some(text) = crowd.faults.first() {
                faults.push(format!("{kind:?} after {first:?}: {} times: {text}", crowd.faults.len()));
            }
        }
    }
    say(&format!("{}: {total} clears within operations", config.name));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_clear_within_any_operation() {
    let _alone = alone();
    each_kind(&Config::new("stepped", 100), &ALL);
}

#[test]
fn a_clear_within_any_operation_on_a_store() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config::new("stepped-store", 100);
    config.store = Some(Store { path: dir.path().join("store"), delete_unusable: false });
    // Operations that work differently than in memory, where numbers change in place.
    each_kind(&config, &[Kind::Expire, Kind::SwapTtl, Kind::Take, Kind::Incr, Kind::IncrTtl, Kind::Fill]);
}
