//! Recorded operations of several processes, checked for an order that explains every answer.
//!
//! *Claim.* The cache is linearizable: each operation takes effect at one point between its
//! invocation and its response, and a clear is such a point for all keys at once. No value, number,
//! lease or expiry from before a clear is visible to an operation invoked after the clear returned.
//!
//! *Method.* A history is split by key; each part also gets all clears. An order that explains the
//! whole history also explains each part, restricted to its operations. So a refuted part refutes
//! the history: splitting causes no false alarms. (It may miss violations that only several keys
//! together show.) A part is checked by the just-in-time linearization of Lowe ("Testing for
//! linearizability", 2017). The checker keeps the set of all possible configurations, each a state
//! of the key and the pending operations that have taken effect in it. At each response only
//! configurations stay in which the operation has taken effect with its answer, possibly after
//! other pending ones. If none is left, no order explains the answers so far.
//!
//! *Rules against false alarms*, each more permissive than the cache where the recorder cannot know
//! more:
//! - Times are from one monotonic clock, read before and after the call. Equal times count as
//!   overlapping.
//! - A killed process gave no answer: its last operation took effect between its invocation and the
//!   time when the death was known, with any answer, or never.
//! - A refused operation (full, timeout, no memory) changed nothing and is left out. A failed end
//!   of a fill may have released the lease.
//! - Expiry: an item may be seen as expired if its time had come when the operation returned, and
//!   as live if it had not come when it was invoked, by the engine's clock. A reader that sees it
//!   as expired changes nothing. If the clock may be set ([`Rules::clock_steps`]), an item with an
//!   expiry may be seen either way, or be gone.
//! - With eviction ([`Rules::evicts`]), any item and any lease may disappear at any time, but not
//!   come back.
//! - A lease whose owner is dead or whose time is over may disappear at any time.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt::Write as _,
};

use ucache::engine::Mode;

/// Keys with this bit are the marks of refreshes, which are tracked separately.
pub(crate) const MARK: u32 = 1 << 31;

/// The value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    /// Bytes of one write: the writer and the write's number.
    Of(u32, u32),
    /// 8 bytes.
    Number(i64),
}

/// An operation and its arguments. Expiries are Unix times, 0 = never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Get,
    Exists,
    Set {
        value: Value,
        expires: u64,
        mode: Mode,
        keep_ttl: bool,
    },
    Expire {
        expires: u64,
    },
    /// `to`: `None` = removes the key; `expires`: `None` = keeps it.
    Swap {
        expected: Value,
        to: Option<Value>,
        expires: Option<u64>,
    },
    Take,
    Delete,
    Math {
        mul: bool,
        operand: i64,
        add: bool,
        keep_ttl: bool,
        expires: u64,
    },
    /// A request to fill the key, or to refresh it. From `lapses` (monotonic) on, another process
    /// may get the lease.
    Begin {
        lease: u64,
        lapses: u64,
    },
    End {
        lease: u64,
        value: Value,
        expires: u64,
    },
    Abandon {
        lease: u64,
    },
    /// Affects all keys.
    Clear,
}

/// The answer of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// No answer: the process died.
    Unknown,
    Done,
    Yes,
    No,
    /// A value, and its expiry if returned.
    Found(Value, Option<u64>),
    Missed,
    /// Bytes of no single write: never explained.
    Torn,
    Inserted,
    Updated,
    Kept,
    Number(i64),
    NotANumber,
    /// Refused, because the key exists.
    Present,
    /// The caller has the lease.
    Filler,
    /// Another caller has it.
    Waits,
    /// The end of a fill failed.
    Failed,
}

/// A recorded operation. Times are monotonic nanoseconds; `secs` is the wall clock before and
/// after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) process: u32,
    pub(crate) key: u32,
    pub(crate) what: What,
    pub(crate) answer: Answer,
    pub(crate) invoked: u64,
    pub(crate) returned: u64,
    pub(crate) secs: (u64, u64),
}

/// What the cache may do on its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) evicts: bool,
    pub(crate) clock_steps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Absent,
    Item { value: Value, expires: u64 },
    Lease { lease: u64, lapses: u64 },
}
use State::{Absent, Item, Lease};

/// A possible state, and the pending operations (as bits) that have taken effect in it.
type Config = (State, u64);

/// The number of a lease: its owner and a count.
pub(crate) fn lease_of(process: u32, nth: u32) -> u64 {
    u64::from(process) << 32 | u64::from(nth)
}

/// Checks one window of a history after another; no operation is pending between two of them.
#[derive(Debug)]
pub(crate) struct Checker {
    rules: Rules,
    /// For each key, the possible states at the end of the checked windows.
    states: BTreeMap<u32, HashSet<State>>,
    /// When ended processes were last known to be alive.
    ended: BTreeMap<u32, u64>,
}

impl Checker {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, states: BTreeMap::new(), ended: BTreeMap::new() }
    }

    /// Notes that this process ended at that time at the earliest: its leases may go to others.
    pub(crate) fn ended(&mut self, process: u32, time: u64) {
        self.ended.insert(process, time);
    }

    /// Checks the next window; the error describes the violations.
    pub(crate) fn check(&mut self, ops: &[Op]) -> Result<(), String> {
        let mut keys: BTreeSet<u32> = self.states.keys().copied().collect();
        keys.extend(ops.iter().filter(|op| op.what != What::Clear).map(|op| op.key));
        let mut faults = Vec::new();
        for key in keys {
            let of_key: Vec<Op> =
                ops.iter().filter(|op| op.key == key || op.what == What::Clear).map(resolved).collect();
            let before = self.states.remove(&key).unwrap_or_else(|| HashSet::from([Absent]));
            let after = Part { checker: self, ops: &of_key }.check(&before);
            match after {
                Ok(after) => _ = self.states.insert(key, after),
                Err(text) => faults.push(format!("key {key}: {text}")),
            }
        }
        // The states of a refuted key are unknown, so later windows cannot check it.
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    /// The states that `op` may see when the key is in `state`.
    fn seen(&self, state: State, op: &Op) -> Vec<State> {
        let (live, gone) = match state {
            Absent => (true, false),
            Item { expires: 0, .. } => (true, self.rules.evicts),
            Item { .. } if self.rules.clock_steps => (true, true),
            Item { expires, .. } => (op.secs.0 < expires, expires <= op.secs.1 || self.rules.evicts),
            Lease { lease, lapses } => {
                let owner = u32::try_from(lease >> 32).expect("32 bits");
                let orphan = self.ended.get(&owner).is_some_and(|&time| time <= op.returned);
                let late = lapses <= op.returned;
                (true, orphan || late || self.rules.evicts || self.rules.clock_steps)
            }
        };
        [live.then_some(state), gone.then_some(Absent)].into_iter().flatten().collect()
    }

    /// The possible states of the key after `op` with its answer.
    fn after(&self, state: State, op: &Op) -> Vec<State> {
        let mut all = Vec::new();
        for seen in self.seen(state, op) {
            let (answer, next) = step(seen, op.what);
            if op.answer != answer && op.answer != Answer::Unknown {
                continue;
            }
            all.push(next);
            // A reader that saw it as expired has not removed it.
            if seen != state && matches!(op.what, What::Get | What::Exists) {
                let may_stay = matches!(state, Item { expires, .. } if expires != 0);
                all.extend(may_stay.then_some(state));
            }
        }
        all
    }
}

/// A failed end of a fill may have released the lease.
fn resolved(op: &Op) -> Op {
    match op.what {
        What::End { lease, .. } if op.answer == Answer::Failed => {
            Op { what: What::Abandon { lease }, answer: Answer::Unknown, ..*op }
        }
        _ => *op,
    }
}

/// A key's answer in a state, and its state afterwards. This is the specification.
fn step(seen: State, what: What) -> (Answer, State) {
    use Answer::{Done, Filler, Found, Inserted, Kept, Missed, No, Updated, Waits, Yes};
    let yes = |is| if is { Yes } else { No };
    let there = matches!(seen, Item { .. });
    match (what, seen) {
        (What::Get | What::Begin { .. }, Item { value, expires }) => (Found(value, Some(expires)), seen),
        (What::Get, _) => (Missed, seen),
        (What::Exists, _) => (yes(there), seen),
        (What::Set { mode: Mode::Add, .. }, Item { .. }) => (Kept, seen),
        (What::Set { mode: Mode::Replace, .. }, Absent | Lease { .. }) => (Kept, seen),
        (What::Set { value, expires, keep_ttl, .. }, Item { expires: old, .. }) => {
            (Updated, Item { value, expires: if keep_ttl { old } else { expires } })
        }
        (What::Set { value, expires, .. }, _) => (Inserted, Item { value, expires }),
        (What::Expire { expires }, Item { value, .. }) => (Yes, Item { value, expires }),
        (What::Swap { expected, to, expires }, Item { value, expires: old }) if value == expected => {
            (Yes, to.map_or(Absent, |value| Item { value, expires: expires.unwrap_or(old) }))
        }
        (What::Expire { .. } | What::Swap { .. }, _) => (No, seen),
        (What::Take, Item { value, .. }) => (Found(value, None), Absent),
        (What::Take, _) => (Missed, seen),
        (What::Delete, _) => (yes(there), Absent),
        (What::Math { mul, operand, add, keep_ttl, expires }, _) => {
            let old =
                if let Item { value: Value::Number(n), expires } = seen { Some((n, expires)) } else { None };
            if there && (add || old.is_none()) {
                return (if add { Answer::Present } else { Answer::NotANumber }, seen);
            }
            let n = old.map_or(0, |(n, _)| n);
            let n = if mul { n.wrapping_mul(operand) } else { n.wrapping_add(operand) };
            let until = old.filter(|_| keep_ttl).map_or(expires, |(_, until)| until);
            (Answer::Number(n), Item { value: Value::Number(n), expires: until })
        }
        (What::Begin { lease, lapses }, Absent) => (Filler, Lease { lease, lapses }),
        (What::Begin { .. }, Lease { .. }) => (Waits, seen),
        (What::End { lease, value, expires }, Lease { lease: held, .. }) if lease == held => {
            (Inserted, Item { value, expires })
        }
        (What::End { .. }, _) => (Kept, seen),
        (What::Abandon { lease }, Lease { lease: held, .. }) if lease != held => (Done, seen),
        (What::Abandon { .. }, Item { .. }) => (Done, seen),
        (What::Abandon { .. } | What::Clear, _) => (Done, Absent),
    }
}

/// The operations of one key.
struct Part<'a> {
    checker: &'a Checker,
    ops: &'a [Op],
}

impl Part<'_> {
    fn check(&self, before: &HashSet<State>) -> Result<HashSet<State>, String> {
        // Invocations come first among equal times: they overlap.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(self.ops.len() * 2);
        for (n, op) in self.ops.iter().enumerate() {
            assert!(op.invoked <= op.returned, "{op:?}");
            events.extend([(op.invoked, false, n), (op.returned, true, n)]);
        }
        events.sort_unstable();
        let mut pending: Vec<Option<usize>> = Vec::new();
        let mut configs: HashSet<Config> = before.iter().map(|&state| (state, 0)).collect();
        for (_, is_response, n) in events {
            if !is_response {
                let free = pending.iter().position(Option::is_none).unwrap_or(pending.len());
                assert!(free < 64, "more than 64 operations at a time");
                pending.resize(pending.len().max(free + 1), None);
                pending[free] = Some(n);
                continue;
            }
            let bit = pending.iter().position(|&p| p == Some(n)).expect("an invoked operation");
            let next = self.respond(&configs, &pending, bit);
            if next.is_empty() {
                return Err(self.tell(n, &pending, &configs));
            }
            configs = next;
            pending[bit] = None;
        }
        Ok(configs.into_iter().map(|(state, _)| state).collect())
    }

    /// The configurations in which the pending operation `bit` has taken effect, or need not have.
    fn respond(&self, configs: &HashSet<Config>, pending: &[Option<usize>], bit: usize) -> HashSet<Config> {
        let unset = |config: &&Config| config.1 >> bit & 1 == 0;
        let maybe = pending[bit].is_some_and(|n| self.ops[n].answer == Answer::Unknown);
        let mut done: HashSet<Config> = configs.iter().filter(|c| maybe && unset(c)).copied().collect();
        let mut met: HashSet<Config> = configs.clone();
        let mut open: Vec<Config> = configs.iter().copied().collect();
        while let Some((state, mask)) = open.pop() {
            if mask >> bit & 1 == 1 {
                done.insert((state, mask & !(1 << bit)));
                continue;
            }
            for (other, &n) in pending.iter().enumerate() {
                let Some(n) = n.filter(|_| mask >> other & 1 == 0) else { continue };
                for next in self.checker.after(state, &self.ops[n]) {
                    let config = (next, mask | 1 << other);
                    if met.insert(config) {
                        open.push(config);
                    }
                }
            }
        }
        done
    }

    fn tell(&self, n: usize, pending: &[Option<usize>], configs: &HashSet<Config>) -> String {
        const BEFORE: usize = 14;
        let op = &self.ops[n];
        let line = |op: &Op| {
            let (key, process) = (op.key, op.process);
            format!(
                "  {:>12} {:>12}  process {process}, key {key}: {:?} = {:?}\n",
                op.invoked, op.returned, op.what, op.answer
            )
        };
        let mut text = String::from("no order explains the answer of\n") + &line(op);
        let states: BTreeSet<String> = configs.iter().map(|(state, _)| format!("{state:?}")).collect();
        let _ = writeln!(text, "possible before: {states:?}\nnot returned by then:");
        pending.iter().flatten().filter(|&&p| p != n).for_each(|&p| text += &line(&self.ops[p]));
        let mut earlier: Vec<&Op> = self.ops.iter().filter(|o| o.returned < op.returned).collect();
        earlier.sort_unstable_by_key(|o| o.returned);
        let own: Vec<&Op> = earlier.iter().copied().filter(|o| o.what != What::Clear).collect();
        text += "of the key, returned last:\n";
        own[own.len().saturating_sub(BEFORE)..].iter().for_each(|op| text += &line(op));
        text += "clears included:\n";
        earlier[earlier.len().saturating_sub(BEFORE)..].iter().for_each(|op| text += &line(op));
        text
    }
}
