//! Linearizability of the operations that the server executes: two machines on one primary, every
//! read asks it.

use std::{thread::scope, time::Duration};

use fastrand::Rng;
use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{
            Action::{self, Call, Response},
            History,
        },
    },
    specifications::Specification,
};
use ucache::{Backend, Cache, Expires};

use crate::{
    backend::{Server, programs},
    engine_proc::{now, say, seed},
};

/// An operation on a number, with its answer.
#[derive(Clone, Copy, Debug)]
enum Op {
    Get(Option<i64>),
    Set(i64),
    Add(i64, bool),
    Incr(i64, i64),
    Mul(i64, i64),
    Swap(i64, i64, bool),
    Delete(bool),
    Take(Option<i64>),
}

/// A key that may hold a number.
struct Number;

impl Specification for Number {
    type State = Option<i64>;
    type Operation = Op;

    fn init() -> Option<i64> {
        None
    }

    fn apply(op: &Op, &state: &Option<i64>) -> (bool, Option<i64>) {
        match *op {
            Op::Get(answer) => (answer == state, state),
            Op::Set(value) => (true, Some(value)),
            Op::Add(value, answer) => (answer == state.is_none(), state.or(Some(value))),
            Op::Incr(by, answer) => {
                let sum = state.unwrap_or(0).wrapping_add(by);
                (answer == sum, Some(sum))
            }
            Op::Mul(by, answer) => {
                let product = state.unwrap_or(0).wrapping_mul(by);
                (answer == product, Some(product))
            }
            Op::Swap(old, new, answer) => {
                let swaps = state == Some(old);
                (answer == swaps, if swaps { Some(new) } else { state })
            }
            Op::Delete(answer) => (answer == state.is_some(), None),
            Op::Take(answer) => (answer == state, None),
        }
    }
}

const KEY: &str = "n";
/// Operations of each of the four threads of a history.
const OPERATIONS: usize = 60;

fn operate(cache: &Cache, rng: &mut Rng) -> Op {
    let (small, other) = (rng.i64(0..4), rng.i64(0..4));
    let bytes = |number: i64| number.to_ne_bytes();
    let number = |bytes: Vec<u8>| i64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
    match rng.u8(0..16) {
        0..4 => Op::Get(cache.get(KEY).expect("get").map(number)),
        4 => {
            cache.set(KEY, bytes(small)).expect("set");
            Op::Set(small)
        }
        5 => Op::Add(small, cache.add(KEY, bytes(small)).expect("add")),
        6..9 => Op::Incr(small, cache.incr(KEY, small).expect("incr")),
        // Odd: what was added is not lost after some multiplications.
        9 => Op::Mul(-3, cache.mul(KEY, -3).expect("mul")),
        10..14 => {
            Op::Swap(small, other, cache.compare_and_swap(KEY, bytes(small), bytes(other)).expect("swap"))
        }
        14 => Op::Delete(cache.delete(KEY).expect("delete")),
        _ => Op::Take(cache.take(KEY).expect("take").map(number)),
    }
}

/// Operations of two threads on each machine, by their times.
fn history(machines: &[Cache], rng: &mut Rng) -> Vec<(usize, Action<Op>)> {
    machines[0].delete(KEY).expect("delete");
    let mut actions = scope(|threads| {
        let run = |(process, cache): (usize, &Cache)| {
            let (cache, mut rng) = (cache.clone(), rng.fork());
            threads.spawn(move || {
                let mut done = Vec::new();
                for _ in 0..OPERATIONS {
                    let began = now();
                    let op = operate(&cache, &mut rng);
                    // A call with its answer: the checker looks at the response alone.
                    done.push((began, 0, process, Call(op)));
                    done.push((now(), 1, process, Response(op)));
                }
                done
            })
        };
        let running: Vec<_> = machines.iter().chain(machines).enumerate().map(run).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    // At one time calls come first: such operations overlap.
    actions.sort_by_key(|&(time, is_response, process, _)| (time, is_response, process));
    actions.into_iter().map(|(_, _, process, action)| (process, action)).collect()
}

fn is_linearizable(actions: &[(usize, Action<Op>)]) -> bool {
    WGLChecker::<Number>::is_linearizable(History::from_actions(actions.to_vec()))
}

/// Gives an answer that cannot be: a number that is far from all others.
fn falsify(actions: &mut [(usize, Action<Op>)], rng: &mut Rng) -> bool {
    let is_sum = |action: &Action<Op>| matches!(action, Response(Op::Incr(..)));
    let sums: Vec<_> = (0..actions.len()).filter(|&n| is_sum(&actions[n].1)).collect();
    let Some(&at) = rng.choice(&sums) else { return false };
    if let Response(Op::Incr(_, answer)) = &mut actions[at].1 {
        *answer = answer.wrapping_add(1 << 40 | 1);
    }
    true
}

#[test]
fn counters_and_swaps_are_linearizable() {
    let mut rng = Rng::with_seed(seed());
    let (mut operations, mut refuted) = (0, 0);
    for program in programs() {
        let server = Server::with(&program, 0, &[]);
        let machines = ["one", "two"].map(|name| {
            let backend =
                Backend::url(server.url()).near(false).prefix("shared:").timeout(Duration::from_secs(20));
            let builder = Cache::builder(format!("{name} {}", program.display())).items(10);
            builder.timeout(Expires::Never).backend(backend).build().expect("a cache")
        });
        for round in 0..25 {
            let mut actions = history(&machines, &mut rng);
            assert!(is_linearizable(&actions), "{program:?}, round {round}: {actions:#?}");
            operations += actions.len() / 2;
            if falsify(&mut actions, &mut rng) {
                refuted += 1;
                assert!(!is_linearizable(&actions), "a wrong sum was accepted");
            }
        }
    }
    say(&format!("{operations} operations linearizable, {refuted} wrong answers refuted"));
    assert!(refuted > 20);
}

#[test]
fn a_lost_update_is_refuted() {
    // Two increments that both saw 0.
    let both = [
        (0, Call(Op::Incr(1, 1))),
        (1, Call(Op::Incr(1, 1))),
        (0, Response(Op::Incr(1, 1))),
        (1, Response(Op::Incr(1, 1))),
    ];
    assert!(!is_linearizable(&both));
    // Two swaps of one value.
    let swaps = |n| {
        let op = Op::Swap(0, 1, true);
        [(n, Call(op)), (n, Response(op))]
    };
    let set = [(0, Call(Op::Set(0))), (0, Response(Op::Set(0)))];
    assert!(is_linearizable(&[set.clone(), swaps(1)].concat()));
    assert!(!is_linearizable(&[set, swaps(1), swaps(0)].concat()));
}
