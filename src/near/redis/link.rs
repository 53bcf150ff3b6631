//! The owner's connection: the server tells it every change of a key with the cache's prefix.
//!
//! `CLIENT TRACKING ON BCAST` has no state for each key at the server, and names changes by any
//! client, this machine's included: so what a worker has changed, and was killed before it removed
//! its copy, is removed all the same (no `NOLOOP`). Messages and answers share the one connection
//! (no `REDIRECT`): their order is what the beat is made of.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use super::{
    cluster::Node,
    config::Settings,
    conn::Conn,
    generations::{Name, name_of},
    mode, only,
    resp::{Reply, Request, Value, array, fine, int, unexpected},
    sentinel::{Finder, OWNER, is_primary},
    url::Address,
    watch::Watch,
};
use crate::{
    error::BackendFault,
    os::{clock::coarse_millis, process::random_words},
};

/// See the module. Dropped, it ends for every process that has it.
#[derive(Debug)]
pub(super) struct Link {
    conn: Conn,
    /// The longest that the server may be silent while an answer is awaited.
    patience: Duration,
    /// When something arrived last, or was asked.
    heard: Instant,
    prefix: usize,
    /// Keys have numbers behind the prefix: the newest one heard of.
    newest: Option<u64>,
    question: Question,
    /// The server that sentinels named.
    named: Option<Address>,
    /// Of the sentinels, if these named the server.
    watch: Option<Watch>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.conn.end();
    }
}

/// What the server is asked again and again. `PING` would not do: a server answers it whatever it
/// has become.
#[derive(Debug)]
enum Question {
    /// Whether it is the primary.
    Role,
    /// Whether this key is there, which is in a slot of this node of a cluster. A node that has lost
    /// the slot, is a replica now or is cut off from the others says that instead.
    Exists(Vec<u8>),
}

impl Question {
    fn request(&self) -> Request {
        match self {
            Self::Role => Request::one(&[b"ROLE"]),
            Self::Exists(key) => Request::one(&[b"EXISTS", key]),
        }
    }

    /// Whether the server is what it was.
    fn check(&self, reply: Value) -> Reply<()> {
        match (self, reply) {
            (Self::Role, reply) => is_primary(reply),
            // A slot that is about to move is here still.
            (Self::Exists(_), Value::Error(text)) if text.starts_with("ASK ") => Ok(()),
            (Self::Exists(_), Value::Error(text)) if text.starts_with("MOVED ") => {
                Err(BackendFault::Unavailable { reply: text })
            }
            (Self::Exists(_), reply) => int(reply).map(drop),
        }
    }
}

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Keys that have changed, without the cache's prefix.
    Changed(Vec<Vec<u8>>),
    /// Everything has.
    Everything,
    /// The cache was cleared: other keys are in force.
    Cleared,
    /// It is still the primary.
    Primary,
    /// Nothing, for now.
    Nothing,
}

/// A connection as other owners can find it: its number at the server, and a word of its name that
/// no other connection has.
pub(super) type Place = [u64; 2];

impl Link {
    /// Connects and asks to be told. Returns when the server was asked for its role, too, in
    /// milliseconds since boot.
    pub(super) fn open(
        settings: &Settings,
        finder: &Finder,
        patience: Duration,
    ) -> Reply<(Self, Place, u64)> {
        // Finding the server may take as long as using it.
        let (conn, named) = finder.connect(settings, OWNER, Instant::now() + settings.timeout)?;
        Self::over(conn, named, settings, Question::Role, patience)
    }

    /// The same of a node of a cluster. `probe`: a key in a slot that it serves.
    pub(super) fn open_node(
        settings: &Settings,
        node: &Node,
        probe: &[u8],
        patience: Duration,
    ) -> Reply<(Self, Place, u64)> {
        let conn = node.connect(settings, Instant::now() + settings.timeout)?;
        Self::over(conn, None, settings, Question::Exists(probe.to_vec()), patience)
    }

    fn over(
        mut conn: Conn,
        named: Option<Address>,
        settings: &Settings,
        question: Question,
        patience: Duration,
    ) -> Reply<(Self, Place, u64)> {
        let deadline = Instant::now() + settings.timeout;
        conn.close_on_fork();
        let mut word = [0];
        random_words(&mut word);
        let mut request = Request::one(&[b"HELLO", b"3"]);
        request.add(&[b"CLIENT", b"SETNAME", name(word[0]).as_bytes()]);
        let mut track: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
        if !settings.prefix.is_empty() {
            track.extend([&b"PREFIX"[..], &settings.prefix]);
        }
        request.add(&track);
        let mut replies = conn.round_trip(&request, deadline).map_err(|failure| failure.fault)?.into_iter();
        let mut next = || fine(replies.next().unwrap_or_default());
        let hello = next()?;
        if matches!(question, Question::Role) && mode::is_node(hello.clone())? == Some(true) {
            return Err(BackendFault::Refused { reply: mode::IS_CLUSTER.to_owned() });
        }
        let id = client_id(hello)?;
        next()?;
        next()?;
        let asked = coarse_millis();
        let reply = conn.round_trip(&question.request(), deadline).map_err(|failure| failure.fault)?;
        question.check(only(reply))?;
        let watch = named.clone().and_then(|address| Watch::start(settings, address, conn.node()));
        let (heard, prefix) = (Instant::now(), settings.prefix.len());
        let newest = settings.generations.then_some(0);
        let link = Self { conn, patience, heard, prefix, newest, question, named, watch };
        Ok((link, [id, word[0]], asked))
    }

    /// The server that sentinels named, if there are some.
    pub(super) fn named(&self) -> Option<&Address> {
        self.named.as_ref()
    }

    /// The number of the server's address.
    pub(super) fn node(&self) -> u64 {
        self.conn.node()
    }

    /// Ends the connection of an owner that is stopped, or was cut off: the server would go on
    /// queueing messages for it. A user who may not do so leaves it to the server's limits.
    pub(super) fn end_other(&mut self, [id, word]: Place, timeout: Duration) {
        let (id, deadline) = (id.to_string(), Instant::now() + timeout);
        // Numbers begin anew when a server restarts: the name tells whose it is.
        let list = Request::one(&[b"CLIENT", b"LIST", b"ID", id.as_bytes()]);
        let Ok(found) = self.conn.round_trip(&list, deadline) else { return };
        if is_owner(only(found), word) {
            let kill = Request::one(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()]);
            let _ = self.conn.round_trip(&kill, deadline);
        }
    }

    /// Asks whether the server still is the primary.
    pub(super) fn ask(&mut self) -> Reply<()> {
        self.heard = Instant::now();
        self.conn.send(&self.question.request(), self.heard + self.patience).map_err(|failure| failure.fault)
    }

    /// Waits for so long.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn hear(&mut self, wait: Duration, awaited: bool) -> Reply<Heard> {
        if self.watch.as_ref().is_some_and(Watch::has_moved) {
            return Err(BackendFault::Unavailable { reply: "the sentinels name another primary".to_owned() });
        }
        match self.conn.next(Instant::now() + wait) {
            Ok(Value::Push(parts)) => {
                self.heard = Instant::now();
                Ok(told(parts, self.prefix, self.newest.as_mut()))
            }
            Ok(reply) => self.question.check(reply).map(|()| Heard::Primary),
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                if awaited && self.heard.elapsed() > self.patience {
                    return Err(BackendFault::TimedOut { waited: self.patience });
                }
                Ok(Heard::Nothing)
            }
            Err(e) => Err(self.conn.fault(&e)),
        }
    }
}

/// A message of the server, about keys whose first `prefix` bytes are the cache's prefix. `newest`:
/// numbers follow it; see [`of_numbered`].
fn told(parts: Vec<Value>, prefix: usize, newest: Option<&mut u64>) -> Heard {
    let mut parts = parts.into_iter();
    if parts.next() != Some(Value::Bulk(b"invalidate".to_vec())) {
        return Heard::Nothing;
    }
    let Some(Value::Array(keys)) = parts.next() else {
        // Null: the server was flushed. Whatever else it may be, it is not less.
        return Heard::Everything;
    };
    let key = |key| match key {
        Value::Bulk(mut key) => Some(key.split_off(prefix.min(key.len()))),
        _ => None,
    };
    let Some(keys) = keys.into_iter().map(key).collect::<Option<Vec<_>>>() else { return Heard::Everything };
    match newest {
        Some(newest) => of_numbered(keys, newest),
        None => Heard::Changed(keys),
    }
}

/// What a message about these names says. `newest`: the highest number since the last clear. What has
/// a lower one is not read any more: a sweep must not cost copies of what is.
fn of_numbered(names: Vec<Vec<u8>>, newest: &mut u64) -> Heard {
    if names.iter().any(|name| name_of(name) == Name::Number) {
        *newest = 0;
        return Heard::Cleared;
    }
    let mut keys = Vec::with_capacity(names.len());
    for mut name in names {
        if let Name::Key { number, at } = name_of(&name)
            && number >= *newest
        {
            *newest = number;
            keys.push(name.split_off(at));
        }
    }
    Heard::Changed(keys)
}

/// Whether a reply to `CLIENT LIST ID` is of the owner's connection with this word.
pub(super) fn is_owner(list: Value, word: u64) -> bool {
    let text = match list {
        Value::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
        Value::Simple(text) => text,
        _ => return false,
    };
    text.contains(&format!(" name={} ", name(word)))
}

fn name(word: u64) -> String {
    format!("ucache-owner-{word:016x}")
}

/// The number of this connection, of the reply to `HELLO`: a map.
fn client_id(hello: Value) -> Reply<u64> {
    let fields = array(hello)?;
    let id = fields.chunks(2).find_map(|pair| match pair {
        [Value::Bulk(name), Value::Int(id)] if name == b"id" => u64::try_from(*id).ok(),
        _ => None,
    });
    id.ok_or(unexpected("HELLO without the connection's number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.into())
    }

    #[test]
    fn a_node_is_asked_for_a_key_of_its_own() {
        let check = |reply| Question::Exists(b"k".to_vec()).check(reply);
        let said = |text: &str| check(Value::Error(text.to_owned()));
        assert!(check(Value::Int(0)).is_ok() && said("ASK 5 10.0.0.1:7").is_ok());
        for text in ["MOVED 5 10.0.0.1:7", "CLUSTERDOWN The cluster is down", "LOADING the data", "BUSY"] {
            assert!(said(text).expect_err(text).is_down(), "{text}");
        }
        assert!(check(Value::Simple("OK".to_owned())).is_err());
    }

    #[test]
    fn every_key_of_a_message_has_changed() {
        let keys = Value::Array(vec![bulk("p:a"), bulk("p:"), bulk("p:\0b")]);
        let heard = told(vec![bulk("invalidate"), keys], 2, None);
        assert_eq!(heard, Heard::Changed(vec![b"a".to_vec(), Vec::new(), b"\0b".to_vec()]));
        assert_eq!(told(vec![bulk("invalidate"), Value::Nil], 2, None), Heard::Everything);
        assert_eq!(told(vec![bulk("invalidate")], 2, None), Heard::Everything);
        assert_eq!(
            told(vec![bulk("invalidate"), Value::Array(vec![Value::Int(1)])], 2, None),
            Heard::Everything
        );
        assert_eq!(told(vec![bulk("message"), bulk("x")], 2, None), Heard::Nothing);
    }

    #[test]
    fn numbers_stand_before_keys() {
        let mut newest = 0;
        let mut heard = |names: &[&str]| {
            let names = Value::Array(names.iter().map(|name| bulk(name)).collect());
            told(vec![bulk("invalidate"), names], 2, Some(&mut newest))
        };
        let changed =
            |keys: &[&str]| Heard::Changed(keys.iter().map(|key| key.as_bytes().to_vec()).collect());
        assert_eq!(heard(&["p:12:a", "p:12:4:b", "p:12:"]), changed(&["a", "4:b", ""]));
        assert_eq!(heard(&["p:#sweep", "p:a", "p::a", "p:12", "p:99999999999999999999:k"]), changed(&[]));
        assert_eq!(heard(&["p:11:swept", "p:12:c"]), changed(&["c"]));
        assert_eq!(heard(&["p:12:a", "p:#gen"]), Heard::Cleared);
        assert_eq!(heard(&["p:12:swept", "p:13:d", "p:12:swept"]), changed(&["swept", "d"]));
        // The number was lost, and the server's clock set back.
        assert_eq!((heard(&["p:#gen"]), heard(&["p:5:e"])), (Heard::Cleared, changed(&["e"])));
    }
}
