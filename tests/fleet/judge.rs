//! The checker of bounded staleness: it accepts what a correct near cache may answer, and finds each
//! broken rule.

use fastrand::Rng;

use crate::staleness::{Deed, EVERY_KEY, Event, NEVER, NOBODY, Value, judge};

const MS: u64 = 1_000_000;
const BOUNDS: [u64; 3] = [200 * MS, 200 * MS, 50 * MS];

/// A time: keys are absent at 0.
fn at(millis: u64) -> u64 {
    millis * MS + 1
}

fn event(machine: u32, deed: Deed, began: u64, ended: u64) -> Event {
    Event { machine, key: 1, deed, began: at(began), ended: if ended == NEVER { NEVER } else { at(ended) } }
}

fn write(machine: u32, value: u64, began: u64, ended: u64) -> Event {
    event(machine, Deed::Write { value: Value::Of(value), ttl: None }, began, ended)
}

fn delete(machine: u32, began: u64, ended: u64) -> Event {
    event(machine, Deed::Write { value: Value::Absent, ttl: None }, began, ended)
}

fn read(machine: u32, value: u64, began: u64, ended: u64) -> Event {
    let value = if value == 0 { Value::Absent } else { Value::Of(value) };
    event(machine, Deed::Read { value }, began, ended)
}

#[track_caller]
fn good(events: &[Event]) {
    let verdict = judge(events, &BOUNDS);
    assert!(verdict.faults.is_empty(), "{:#?}", verdict.faults);
}

#[track_caller]
fn bad(events: &[Event], why: &str) {
    let faults = judge(events, &BOUNDS).faults;
    assert!(faults.len() == 1 && faults[0].contains(why), "{why}: {faults:#?}");
}

#[test]
fn a_foreign_write_is_seen_in_time() {
    let history = |began| [write(0, 1, 0, 10), write(0, 2, 20, 30), read(1, 1, began, began + 5)];
    good(&history(25));
    good(&history(229));
    bad(&history(232), "superseded");
    // The third machine promises less than the others.
    good(&[write(0, 1, 0, 10), write(0, 2, 20, 30), read(2, 1, 79, 80)]);
    bad(&[write(0, 1, 0, 10), write(0, 2, 20, 30), read(2, 1, 81, 82)], "superseded");
    // Writes at the same time have no order.
    good(&[write(0, 1, 0, 30), write(0, 2, 20, 40), read(1, 1, 900, 901), read(1, 2, 910, 911)]);
}

#[test]
fn a_write_of_the_own_machine_is_seen_at_once() {
    let history = |began| [write(0, 1, 0, 10), write(1, 2, 20, 30), read(1, 1, began, began + 5)];
    good(&history(29));
    bad(&history(31), "own machine");
    good(&[write(0, 1, 0, 10), delete(1, 20, 30), read(1, 0, 31, 32)]);
    bad(&[write(0, 1, 0, 10), delete(1, 20, 30), read(1, 1, 31, 32)], "own machine");
    bad(&[write(1, 1, 0, 10), read(1, 0, 11, 12)], "own machine");
}

#[test]
fn nothing_is_read_before_it_was_written() {
    good(&[write(0, 1, 0, 10), read(1, 1, 0, 1)]);
    bad(&[write(0, 1, 10, 20), read(1, 1, 5, 9)], "of the future");
    bad(&[write(0, 1, 10, 20), read(1, 7, 30, 31)], "nobody wrote");
    bad(&[write(0, 1, 0, 10), delete(0, 400, 410), read(1, 0, 300, 310)], "superseded");
}

#[test]
fn a_write_without_an_answer_may_be_done_or_not() {
    let lost = write(0, 2, 20, NEVER);
    good(&[write(0, 1, 0, 10), lost, read(1, 1, 900, 901)]);
    good(&[write(0, 1, 0, 10), lost, read(1, 2, 900, 901), read(1, 1, 1000, 1001)]);
    // Once it was read it is done.
    bad(&[write(0, 1, 0, 10), lost, read(1, 2, 900, 901), read(1, 1, 1102, 1103)], "superseded");
    bad(&[lost, read(1, 2, 30, 31), write(1, 3, 40, 50), read(1, 2, 60, 61)], "own machine");
}

#[test]
fn what_the_server_answers_is_never_old() {
    let ask = |value| event(1, Deed::Ask { value: Value::Of(value) }, 31, 32);
    good(&[write(0, 1, 0, 10), write(0, 2, 20, 30), ask(2)]);
    bad(&[write(0, 1, 0, 10), write(0, 2, 20, 30), ask(1)], "superseded");
}

#[test]
fn a_value_ends_with_its_time_to_live() {
    let mortal = event(0, Deed::Write { value: Value::Of(1), ttl: Some(1000 * MS) }, 0, 10);
    good(&[mortal, read(1, 1, 1009, 1011), read(1, 0, 1001, 1002)]);
    bad(&[mortal, read(1, 1, 1031, 1032)], "time to live");
    bad(&[mortal, read(1, 0, 900, 910)], "superseded");
    // A later write ends the time to live, too.
    bad(&[mortal, write(0, 2, 20, 30), read(1, 0, 1500, 1501)], "superseded");
}

#[test]
fn a_flush_is_a_write_to_every_key() {
    let flush = Event { key: EVERY_KEY, ..delete(NOBODY, 20, 30) };
    good(&[write(0, 1, 0, 10), flush, read(1, 1, 229, 230), read(1, 0, 21, 22)]);
    bad(&[write(0, 1, 0, 10), flush, read(1, 1, 231, 232)], "superseded");
    bad(&[write(0, 1, 0, 10), flush, write(0, 2, 40, 50), read(1, 0, 251, 252)], "superseded");
}

/// A random history that a correct near cache may produce: writes take effect at one moment, and a
/// reader sees the state of any moment that its bound allows.
fn random_good(rng: &mut Rng) -> Vec<Event> {
    let mut events = Vec::new();
    // When each write takes effect; `u64::MAX` = never.
    let mut effects = vec![(0, Value::Absent)];
    for n in 0..rng.u64(1..12) {
        let (began, took) = (rng.u64(0..1500), rng.u64(1..200));
        let value = if rng.u8(0..4) == 0 { Value::Absent } else { Value::Of(n + 1) };
        let machine = rng.u32(0..3);
        let lost = rng.u8(0..6) == 0;
        let effect = if lost && rng.bool() { NEVER } else { at(began) + rng.u64(0..took * MS) };
        let ended = if lost { NEVER } else { began + took };
        events.push(event(machine, Deed::Write { value, ttl: None }, began, ended));
        effects.push((effect, value));
    }
    let writes = events.clone();
    for _ in 0..rng.u64(1..20) {
        let (began, took, machine) = (rng.u64(0..2000), rng.u64(0..30), rng.u32(0..3));
        let (from, to) = (at(began), at(began + took));
        let own = writes.iter().zip(&effects[1..]).filter(|(w, _)| w.machine == machine && w.ended < from);
        let own = own.map(|(_, &(effect, _))| effect).max().unwrap_or(0);
        let moment = rng.u64(own.max(from.saturating_sub(BOUNDS[machine as usize]))..=to);
        let seen = effects.iter().filter(|(at, _)| *at <= moment).max_by_key(|(at, _)| *at);
        let value = seen.expect("absent at first").1;
        events.push(event(machine, Deed::Read { value }, began, began + took));
    }
    rng.shuffle(&mut events);
    events
}

/// The rules word by word. `None`: the read fits; otherwise the number of the broken rule.
fn broken_rule(events: &[Event], read: &Event) -> Option<u8> {
    let Deed::Read { value } = read.deed else { return None };
    let writes = || {
        events.iter().filter_map(|e| match e.deed {
            Deed::Write { value, .. } => {
                let seen = |r: &&Event| r.deed == Deed::Read { value } && value != Value::Absent;
                let seen = events.iter().filter(seen).map(|r| r.ended).min().unwrap_or(NEVER);
                Some((e.began, e.ended, e.ended.min(seen), e.machine, value))
            }
            _ => None,
        })
    };
    let first = (0, 0, 0, NOBODY, Value::Absent);
    let of_value = || std::iter::once(first).chain(writes()).filter(|w| w.4 == value);
    if of_value().next().is_none() {
        return Some(0);
    }
    let bound = BOUNDS[read.machine as usize];
    let rule = |w: (u64, u64, u64, u32, Value)| {
        if w.0 > read.ended {
            Some(1)
        } else if writes().any(|v| v.0 > w.2 && v.3 == read.machine && v.1 < read.began) {
            Some(2)
        } else if writes().any(|v| v.0 > w.2 && v.2.saturating_add(bound) < read.began) {
            Some(3)
        } else {
            None
        }
    };
    let rules: Vec<_> = of_value().map(rule).collect();
    if rules.contains(&None) { None } else { rules[0] }
}

#[test]
fn random_histories() {
    let mut rng = Rng::with_seed(17);
    let mut found = [0; 4];
    for round in 0..20_000 {
        let mut events = random_good(&mut rng);
        good(&events);
        // One read is given the value of another write.
        let reads: Vec<_> =
            (0..events.len()).filter(|&n| matches!(events[n].deed, Deed::Read { .. })).collect();
        let one = *rng.choice(&reads).expect("a read");
        events[one].deed = Deed::Read { value: Value::Of(rng.u64(1..14)) };
        let rules: Vec<_> = events.iter().filter_map(|read| broken_rule(&events, read)).collect();
        let faults = judge(&events, &BOUNDS).faults;
        assert_eq!(faults.len(), rules.len(), "round {round}: {events:#?}\n{faults:#?}");
        rules.into_iter().for_each(|rule| found[usize::from(rule)] += 1);
    }
    assert!(found.iter().all(|&count| count > 1000), "each rule was broken: {found:?}");
}
