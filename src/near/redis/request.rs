//! Requests as bytes, and which slots of a cluster they are for.

use std::ops::Range;

use super::slots::slot_of;

/// One or more commands that are sent together.
#[derive(Debug, Default)]
pub(super) struct Request {
    bytes: Vec<u8>,
    commands: Vec<Command>,
    is_in_order: bool,
    for_newcomer: Option<Box<Self>>,
}

/// Where a command is in the bytes.
#[derive(Clone, Debug)]
struct Command {
    end: usize,
    /// Its key.
    key: Option<Range<usize>>,
}

/// Commands that one node must get together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Their numbers in the request.
    pub(super) commands: Range<usize>,
    /// `None` = any node will do.
    pub(super) slot: Option<u16>,
}

impl Request {
    /// A single command.
    pub(super) fn one(words: &[&[u8]]) -> Self {
        Self::default().then(words)
    }

    /// Adds a command.
    pub(super) fn then(mut self, words: &[&[u8]]) -> Self {
        self.add(words);
        self
    }

    /// Adds a command.
    pub(super) fn add(&mut self, words: &[&[u8]]) {
        self.bytes.reserve(words.iter().map(|word| word.len() + 16).sum::<usize>() + 16);
        self.head(b'*', words.len());
        let (at_key, mut key) = (key_of(words), None);
        for (at, word) in words.iter().enumerate() {
            self.head(b'$', word.len());
            let start = self.bytes.len();
            self.bytes.extend_from_slice(word);
            if at_key == Some(at) {
                key = Some(start..self.bytes.len());
            }
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.commands.push(Command { end: self.bytes.len(), key });
    }

    /// Whatever becomes of the slots of a cluster, each command is executed after those before it: it
    /// may be executed earlier, too, and what both times count is added.
    pub(super) fn in_order(self) -> Self {
        Self { is_in_order: true, ..self }
    }

    pub(super) fn is_in_order(&self) -> bool {
        self.is_in_order
    }

    /// Adds what is sent instead to a node that takes the slot over and refuses commands of several
    /// keys, of which it does not have all yet. The old node has none of them then.
    pub(super) fn for_newcomer(self, other: Self) -> Self {
        Self { for_newcomer: Some(Box::new(other)), ..self }
    }

    pub(super) fn to_newcomer(&self) -> Option<&Self> {
        self.for_newcomer.as_deref()
    }

    fn head(&mut self, mark: u8, n: usize) {
        self.bytes.push(mark);
        self.bytes.extend_from_slice(n.to_string().as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// What goes over the wire.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many replies come back.
    pub(super) fn commands(&self) -> usize {
        self.commands.len()
    }

    /// The parts that may go to different nodes: each command by itself. With a command that has no
    /// key (`MULTI`) all of them are one.
    pub(super) fn units(&self) -> Vec<Unit> {
        let slot = |command: &Command| {
            let key = self.bytes.get(command.key.clone()?)?;
            Some(slot_of(key))
        };
        if self.commands.iter().all(|command| command.key.is_some()) {
            let unit = |(at, command)| Unit { commands: at..at + 1, slot: slot(command) };
            return self.commands.iter().enumerate().map(unit).collect();
        }
        vec![Unit { commands: 0..self.commands.len(), slot: self.commands.iter().find_map(slot) }]
    }

    /// Adds commands of another request. `asking`: with leave to ask a node that is taking the slot
    /// over; the reply to that comes first.
    pub(super) fn copy(&mut self, from: &Self, unit: &Unit, asking: bool) {
        if asking {
            self.add(&[b"ASKING"]);
        }
        let start_of =
            |at: usize| at.checked_sub(1).and_then(|at| from.commands.get(at)).map_or(0, |c| c.end);
        for at in unit.commands.clone() {
            let bytes = from.bytes.get(start_of(at)..start_of(at + 1)).unwrap_or_default();
            self.bytes.extend_from_slice(bytes);
            self.commands.push(Command { end: self.bytes.len(), key: None });
        }
    }
}

/// Which word of a command is its key: the first of several, which are in one slot.
fn key_of(words: &[&[u8]]) -> Option<usize> {
    let at = match *words.first()? {
        b"EVAL" | b"EVALSHA" => 3,
        b"MULTI" | b"EXEC" | b"SCAN" | b"SCRIPT" | b"CLIENT" | b"CLUSTER" | b"HELLO" | b"ROLE" | b"PING"
        | b"AUTH" | b"SELECT" | b"ASKING" | b"SENTINEL" => return None,
        _ => 1,
    };
    (at < words.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(commands: Range<usize>, key: &[u8]) -> Unit {
        Unit { commands, slot: Some(slot_of(key)) }
    }

    #[test]
    fn commands_go_to_the_node_of_their_key() {
        let pair = Request::one(&[b"GET", b"a"]).then(&[b"PTTL", b"b"]);
        assert_eq!(pair.units(), [unit(0..1, b"a"), unit(1..2, b"b")]);
        let script = Request::one(&[b"EVALSHA", b"0123", b"1", b"k", b"x"]);
        assert_eq!(script.units(), [unit(0..1, b"k")]);
        let steps = Request::one(&[b"MULTI"]).then(&[b"EXISTS", b"k"]).then(&[b"EXEC"]);
        assert_eq!(steps.units(), [unit(0..3, b"k")]);
        assert_eq!(Request::one(&[b"SCRIPT", b"LOAD", b"return 1"]).units()[0].slot, None);
    }

    #[test]
    fn parts_of_a_request_are_whole_commands() {
        let all = Request::one(&[b"GET", b"a\r\n*"]).then(&[b"GET", b"b"]).then(&[b"GET", b"c"]);
        let units = all.units();
        let mut some = Request::default();
        some.copy(&all, &units[2], false);
        some.copy(&all, &units[0], true);
        let expected = Request::one(&[b"GET", b"c"]).then(&[b"ASKING"]).then(&[b"GET", b"a\r\n*"]);
        assert_eq!((some.bytes(), some.commands()), (expected.bytes(), 3));
    }
}
