//! The protocol of copies in a small model, in every order of its steps: one key, a server that is a
//! loop and a queue, an owner that may lose its connection, a worker that fills, one that writes and
//! may be killed, one that reads, and another machine that writes and flushes.
//!
//! Time is counted in changes: "before the question was sent" is the number of changes that had been
//! executed by then. A reader must never use a copy that is older than the beat that it loaded, nor
//! one that is older than what this machine has written.

use std::collections::HashSet;

/// A step that is left out, or done in another way: then some order must break the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// The server does not tell this machine of its own changes.
    NoLoop,
    /// The beat is the time at which the answer was read.
    BeatOfReceipt,
    /// The beat is the time at which the question of this very answer was sent.
    BeatOfThisQuestion,
    /// The reader looks for a copy, and then loads the beat.
    BeatAfterCopy,
    /// The owner removes what was kept, and then asks to be told.
    ClearBeforeTracking,
    /// The owner does not remove what was kept.
    NoClear,
    /// A copy is stored though there is no placeholder.
    NoLease,
    /// A change removes copies, but no placeholders.
    PlaceholdersStay,
    /// A write returns without removing the copy.
    NoDelete,
    /// A flush is not understood.
    NullIgnored,
    /// The beat stays when the connection is lost, and the next one raises it at once.
    NoTerm,
}

const BUGS: [Bug; 11] = [
    Bug::NoLoop,
    Bug::BeatOfReceipt,
    Bug::BeatOfThisQuestion,
    Bug::BeatAfterCopy,
    Bug::ClearBeforeTracking,
    Bug::NoClear,
    Bug::NoLease,
    Bug::PlaceholdersStay,
    Bug::NoDelete,
    Bug::NullIgnored,
    Bug::NoTerm,
];

/// What this machine has of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Local {
    Nothing,
    Placeholder,
    /// The value after so many changes.
    Copy(u8),
}

/// What is on its way to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Message {
    Changed,
    Flushed,
    Answer,
}

/// Adds the moment after a step, if that can be made.
type May<'a> = dyn FnMut(bool, &dyn Fn(&mut World)) + 'a;

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Changes that the server has executed.
    version: u8,
    is_tracked: bool,
    /// Written in this loop of the server: answers at once, messages of changes at its end.
    answers: Vec<Message>,
    changes: Vec<Message>,
    wire: Vec<Message>,
    local: Local,
    /// Changes that are known to have been applied; `None` = copies must not be used.
    beat: Option<u8>,
    owner: u8,
    /// Changes before the question that was answered last, and before the one that was sent.
    before: u8,
    asked: Option<u8>,
    questions: u8,
    losses: u8,
    filler: u8,
    got: u8,
    writer: u8,
    /// The newest change that a write of this machine has returned from.
    own: u8,
    foreign: u8,
    reader: u8,
    seen_beat: Option<u8>,
    seen_own: u8,
    seen: Local,
}

impl World {
    /// Of two machines, or of one whose worker writes.
    fn new(foreign: bool) -> Self {
        Self {
            version: 1,
            is_tracked: false,
            answers: Vec::new(),
            changes: Vec::new(),
            wire: Vec::new(),
            local: Local::Nothing,
            beat: None,
            owner: 0,
            before: 0,
            asked: None,
            questions: 0,
            losses: 0,
            filler: 0,
            got: 0,
            writer: u8::from(foreign),
            own: u8::from(foreign),
            foreign: if foreign { 0 } else { 2 },
            reader: 0,
            seen_beat: None,
            seen_own: 0,
            seen: Local::Nothing,
        }
    }

    /// The server executes a change.
    fn change(&mut self, message: Message, is_told: bool) {
        self.version += 1;
        // Changes of a key within one loop are one message.
        if self.is_tracked && is_told && !self.changes.contains(&message) {
            self.changes.push(message);
        }
    }

    fn invalidate(&mut self, bug: Bug) {
        if bug != Bug::PlaceholdersStay || self.local != Local::Placeholder {
            self.local = Local::Nothing;
        }
    }

    /// All moments that may follow. `Err` = the promise is broken.
    fn next(&self, bug: Bug) -> Result<Vec<World>, String> {
        if self.reader == 2 {
            return match (self.seen_beat, self.seen) {
                (Some(beat), Local::Copy(copy)) if copy < beat || copy < self.seen_own => {
                    Err(format!("{bug:?}: {self:?}"))
                }
                _ => Ok(Vec::new()),
            };
        }
        let mut all = Vec::new();
        let mut may = |can: bool, step: &dyn Fn(&mut World)| {
            if can {
                let mut next = self.clone();
                step(&mut next);
                all.push(next);
            }
        };
        // The server ends a loop: what it wrote is on its way.
        may(!self.answers.is_empty() || !self.changes.is_empty(), &|w| {
            let mut out = std::mem::take(&mut w.answers);
            out.append(&mut w.changes);
            w.wire.append(&mut out);
        });
        self.owner_steps(bug, &mut may);
        // A worker that fills: it looks at the beat first.
        may(self.filler == 0 && self.beat.is_some(), &|w| w.filler = 1);
        may(self.filler == 1 && self.local == Local::Nothing, &|w| {
            w.local = Local::Placeholder;
            w.filler = 2;
        });
        may(self.filler == 2, &|w| {
            w.got = w.version;
            w.filler = 3;
        });
        may(self.filler == 3, &|w| {
            if w.local == Local::Placeholder || bug == Bug::NoLease && w.local == Local::Nothing {
                w.local = Local::Copy(w.got);
            }
            w.filler = 4;
        });
        // A worker that writes, and is killed in between, or not.
        may(self.writer == 0, &|w| {
            w.change(Message::Changed, bug != Bug::NoLoop);
            w.writer = w.version;
        });
        may(self.writer > 0 && self.own == 0, &|w| {
            if bug != Bug::NoDelete {
                w.invalidate(bug);
            }
            w.own = w.writer;
        });
        // Another machine.
        may(self.foreign == 0, &|w| {
            w.change(Message::Changed, true);
            w.foreign = 1;
        });
        may(self.foreign == 1, &|w| {
            w.change(Message::Flushed, true);
            w.foreign = 2;
        });
        // A worker that reads.
        let beat_first = bug != Bug::BeatAfterCopy;
        for (step, is_beat) in [(0, beat_first), (1, !beat_first)] {
            may(self.reader == step, &|w| {
                w.reader += 1;
                if step == 0 {
                    w.seen_own = w.own;
                }
                if is_beat {
                    w.seen_beat = w.beat;
                } else {
                    w.seen = w.local;
                }
            });
        }
        Ok(all)
    }

    fn owner_steps(&self, bug: Bug, may: &mut May<'_>) {
        let early = bug == Bug::ClearBeforeTracking;
        let clear = |w: &mut World| {
            if bug != Bug::NoClear {
                w.local = Local::Nothing;
            }
        };
        let track = |w: &mut World| {
            w.is_tracked = true;
            // The first question is answered before the next step.
            w.before = w.version;
        };
        may(self.owner == 0, &|w| {
            if early {
                clear(w)
            } else {
                track(w)
            }
            w.owner = 1;
        });
        may(self.owner == 1, &|w| {
            if early {
                track(w)
            } else {
                clear(w)
            }
            w.owner = 2;
        });
        let owns = self.owner == 2;
        may(owns && self.asked.is_none() && self.questions < 3, &|w| {
            w.asked = Some(w.version);
            w.questions += 1;
            w.owner = 3;
        });
        // The question arrives at the server, in some loop.
        may(self.owner == 3, &|w| {
            w.answers.push(Message::Answer);
            w.owner = 2;
        });
        may(owns && !self.wire.is_empty(), &|w| match w.wire.remove(0) {
            Message::Changed => w.invalidate(bug),
            Message::Flushed if bug == Bug::NullIgnored => {}
            Message::Flushed => w.local = Local::Nothing,
            Message::Answer => {
                let asked = w.asked.take().expect("it was asked");
                w.beat = Some(match bug {
                    Bug::BeatOfReceipt => w.version,
                    Bug::BeatOfThisQuestion => asked,
                    _ => w.before,
                });
                w.before = asked;
            }
        });
        // The connection is lost, or the owner is killed: another one begins.
        may(self.owner >= 2 && self.losses == 0, &|w| {
            w.is_tracked = false;
            w.answers.clear();
            w.changes.clear();
            w.wire.clear();
            w.asked = None;
            w.owner = 0;
            w.losses = 1;
            if bug == Bug::NoTerm {
                w.beat = Some(w.version);
            } else {
                w.beat = None;
            }
        });
    }
}

/// Looks at every moment that can be reached.
fn check(bug: Bug, foreign: bool) -> Result<usize, String> {
    let mut known = HashSet::from([World::new(foreign)]);
    let mut open = vec![World::new(foreign)];
    while let Some(world) = open.pop() {
        for next in world.next(bug)? {
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(known.len())
}

#[test]
fn the_promise_holds_in_every_order() {
    let moments = [true, false].map(|foreign| check(Bug::None, foreign).expect("the promise"));
    assert!(moments.iter().all(|&moments| moments > 1000), "{moments:?}");
    for bug in BUGS {
        assert!([true, false].iter().any(|&foreign| check(bug, foreign).is_err()), "{bug:?} goes unnoticed");
    }
}
