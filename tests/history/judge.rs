//! Tests of the checker itself with handmade histories.

use ucache::engine::Mode;

use crate::history::{Answer, Checker, MARK, Op, Rules, Value, What, lease_of};

const A: Value = Value::Of(1, 1);
const B: Value = Value::Of(2, 1);
const LEASE: What = What::Begin { lease: 1 << 32 | 7, lapses: u64::MAX };
const OTHER: What = What::Begin { lease: 2 << 32 | 7, lapses: u64::MAX };
const END: What = What::End { lease: 1 << 32 | 7, value: A, expires: 0 };

fn set(value: Value) -> What {
    What::Set { value, expires: 0, mode: Mode::Set, keep_ttl: false }
}

fn incr(operand: i64) -> What {
    What::Math { mul: false, operand, add: false, keep_ttl: true, expires: 0 }
}

fn found(value: Value) -> Answer {
    Answer::Found(value, Some(0))
}

/// An operation on key 1 by its own process, in second 100.
fn op((invoked, returned): (u64, u64), what: What, answer: Answer) -> Op {
    Op { process: 9, key: 1, what, answer, invoked, returned, secs: (100, 100) }
}

fn judge(rules: Rules, ops: &[Op]) -> Result<(), String> {
    Checker::new(rules).check(ops)
}

fn good(ops: &[Op]) {
    judge(Rules::default(), ops).unwrap_or_else(|text| panic!("a false alarm: {text}"));
}

fn bad(ops: &[Op]) {
    assert!(judge(Rules::default(), ops).is_err(), "not noticed: {ops:#?}");
}

const STORED: (What, Answer) =
    (What::Set { value: A, expires: 0, mode: Mode::Set, keep_ttl: false }, Answer::Inserted);

/// A write, then a clear, then `what`: nothing of the value may be visible.
fn after_a_clear(what: What, answer: Answer) -> [Op; 3] {
    [op((1, 2), STORED.0, STORED.1), op((3, 4), What::Clear, Answer::Done), op((5, 6), what, answer)]
}

#[test]
fn nothing_from_before_a_clear_shows() {
    let touched = What::Expire { expires: 500 };
    let swapped = What::Swap { expected: A, to: Some(B), expires: None };
    for (what, before, after) in [
        (What::Get, found(A), Answer::Missed),
        (What::Exists, Answer::Yes, Answer::No),
        (What::Take, Answer::Found(A, None), Answer::Missed),
        (What::Delete, Answer::Yes, Answer::No),
        (touched, Answer::Yes, Answer::No),
        (swapped, Answer::Yes, Answer::No),
        (set(B), Answer::Updated, Answer::Inserted),
        (incr(1), Answer::NotANumber, Answer::Number(1)),
        (LEASE, found(A), Answer::Filler),
    ] {
        good(&after_a_clear(what, after));
        bad(&after_a_clear(what, before));
        // While the clear runs, both answers are valid.
        for answer in [before, after] {
            let mut ops = after_a_clear(what, answer);
            ops[1].returned = 7;
            good(&ops);
        }
    }
}

#[test]
fn a_write_that_overlaps_a_clear_is_before_or_after_it() {
    let race = |last| {
        [
            op((1, 2), set(A), Answer::Inserted),
            op((3, 10), What::Expire { expires: 500 }, Answer::Yes),
            op((4, 5), What::Clear, Answer::Done),
            op((11, 12), What::Get, last),
        ]
    };
    // It saw the item, so it came before the clear: the item is gone afterwards.
    good(&race(Answer::Missed));
    bad(&race(Answer::Found(A, Some(500))));
    let stored = |last| {
        [
            op((3, 10), set(A), Answer::Inserted),
            op((4, 5), What::Clear, Answer::Done),
            op((11, 12), What::Get, last),
        ]
    };
    good(&stored(Answer::Missed));
    good(&stored(found(A)));
}

#[test]
fn reads_neither_invent_nor_go_back() {
    let both = |first, second| {
        [
            op((1, 2), set(A), Answer::Inserted),
            op((3, 10), set(B), Answer::Updated),
            op((4, 5), What::Get, found(first)),
            op((6, 7), What::Get, found(second)),
        ]
    };
    good(&both(A, A));
    good(&both(A, B));
    good(&both(B, B));
    bad(&both(B, A));
    bad(&both(A, Value::Of(3, 1)));
    bad(&[op((1, 2), What::Get, Answer::Torn)]);
    // Deleted, then visible again.
    bad(&[
        op((1, 2), set(A), Answer::Inserted),
        op((3, 4), What::Delete, Answer::Yes),
        op((5, 6), What::Get, found(A)),
    ]);
    // Two processes take the value: only one gets it.
    let taken = |second| {
        [
            op((1, 2), set(A), Answer::Inserted),
            op((3, 6), What::Take, Answer::Found(A, None)),
            op((4, 7), What::Take, second),
        ]
    };
    good(&taken(Answer::Missed));
    bad(&taken(Answer::Found(A, None)));
}

#[test]
fn numbers_are_exact() {
    let sum = |second| [op((1, 4), incr(5), Answer::Number(5)), op((2, 5), incr(7), Answer::Number(second))];
    good(&sum(12));
    bad(&sum(7)); // a lost update
    bad(&[
        op((1, 2), incr(5), Answer::Number(5)),
        op((3, 4), What::Clear, Answer::Done),
        op((5, 6), incr(1), Answer::Number(6)),
    ]);
    // A restarted number is explained by an overlapping clear only.
    let anew = |clear| {
        [
            op((1, 2), incr(5), Answer::Number(5)),
            op(clear, What::Clear, Answer::Done),
            op((5, 6), incr(1), Answer::Number(1)),
        ]
    };
    good(&anew((3, 9)));
    bad(&anew((7, 9)));
}

#[test]
fn expiries_stay_as_the_last_write_left_them() {
    let ttl = What::Set { value: A, expires: 500, mode: Mode::Set, keep_ttl: false };
    let keeps = What::Set { value: B, expires: 900, mode: Mode::Set, keep_ttl: true };
    let read = |until| op((5, 6), What::Get, Answer::Found(B, Some(until)));
    let written = [op((1, 2), ttl, Answer::Inserted), op((3, 4), keeps, Answer::Updated)];
    good(&[written[0], written[1], read(500)]);
    bad(&[written[0], written[1], read(900)]);
    let short =
        op((1, 2), What::Set { value: A, expires: 101, mode: Mode::Set, keep_ttl: false }, Answer::Inserted);
    let later = |answer| Op { secs: (102, 102), ..op((3, 4), What::Get, answer) };
    good(&[short, later(Answer::Missed)]);
    bad(&[short, later(Answer::Found(A, Some(101)))]);
    bad(&[short, op((3, 4), What::Get, Answer::Missed)]);
    let stepped = Rules { clock_steps: true, ..Rules::default() };
    judge(stepped, &[short, later(Answer::Found(A, Some(101)))]).expect("the clock may have been set back");
}

#[test]
fn a_lease_is_one_caller_s_and_ends_with_a_clear() {
    let begun = op((1, 2), LEASE, Answer::Filler);
    good(&[begun, op((3, 4), OTHER, Answer::Waits), op((5, 6), END, Answer::Inserted)]);
    bad(&[begun, op((3, 4), OTHER, Answer::Filler)]);
    bad(&[begun, op((3, 4), END, Answer::Kept)]);
    bad(&[op((3, 4), OTHER, Answer::Waits)]);
    let clear = op((3, 4), What::Clear, Answer::Done);
    good(&[begun, clear, op((5, 6), END, Answer::Kept)]);
    bad(&[begun, clear, op((5, 6), END, Answer::Inserted)]);
    bad(&[begun, clear, op((5, 6), OTHER, Answer::Waits)]);
    let marks = |ops: [Op; 3]| ops.map(|op| Op { key: MARK | 1, ..op });
    bad(&marks([begun, clear, op((5, 6), OTHER, Answer::Waits)]));
    // The owner of lease 1 << 32 is process 1.
    assert_eq!(lease_of(1, 7), 1 << 32 | 7);
    let mut checker = Checker::new(Rules::default());
    checker.ended(1, 3);
    checker.check(&[begun, op((3, 4), OTHER, Answer::Filler)]).expect("its owner is dead");
    let late = What::Begin { lease: 1 << 32 | 7, lapses: 3 };
    good(&[op((1, 2), late, Answer::Filler), op((3, 4), OTHER, Answer::Filler)]);
}

#[test]
fn a_killed_operation_was_done_or_was_not() {
    let cut = |first, second| {
        [
            op((1, 2), set(A), Answer::Inserted),
            op((3, 9), set(B), Answer::Unknown),
            op((4, 5), What::Get, found(first)),
            op((10, 11), What::Get, found(second)),
            op((12, 13), What::Get, found(second)),
        ]
    };
    good(&cut(A, A));
    good(&cut(A, B));
    good(&cut(B, B));
    bad(&cut(B, A));
    // Not after the death was known.
    let late = [
        op((1, 2), set(A), Answer::Inserted),
        op((3, 5), set(B), Answer::Unknown),
        op((6, 7), What::Get, found(A)),
        op((8, 9), What::Get, found(B)),
    ];
    bad(&late);
    // A clear cut off by a death cleared everything or nothing, once.
    let cleared = [
        op((1, 2), set(A), Answer::Inserted),
        op((3, 5), What::Clear, Answer::Unknown),
        op((6, 7), What::Get, Answer::Missed),
    ];
    good(&cleared);
    bad(&[cleared[0], cleared[1], cleared[2], op((8, 9), What::Get, found(A))]);
}

#[test]
fn what_was_evicted_stays_away() {
    let evicts = Rules { evicts: true, ..Rules::default() };
    let gone = [op((1, 2), set(A), Answer::Inserted), op((3, 4), What::Get, Answer::Missed)];
    judge(evicts, &gone).expect("it may be evicted");
    bad(&gone);
    let back = [gone[0], gone[1], op((5, 6), What::Get, found(A))];
    assert!(judge(evicts, &back).is_err(), "it came back");
}

/// The states at the end of one window are those at the start of the next.
#[test]
fn windows_follow_one_another() {
    let mut checker = Checker::new(Rules::default());
    checker.check(&[op((1, 2), set(A), Answer::Inserted)]).expect("a store");
    checker.check(&[op((3, 4), What::Clear, Answer::Done)]).expect("a clear");
    assert!(checker.check(&[op((5, 6), What::Get, found(A))]).is_err());
}
