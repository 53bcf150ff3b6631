//! What servers do with `CLIENT TRACKING ON BCAST`: the near cache depends on every line of this.
//! When a server behaves in another way, these tests say so, before a user does.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    backend::{self, Client, Server},
    patience::within,
    ports::free_port,
};

/// What one message says.
type Keys = Vec<String>;

/// The message of a flush: all keys.
fn everything() -> Keys {
    vec!["*".to_owned()]
}

/// A reply, or what came between replies.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Reply(String),
    Message(Keys),
}

/// A client with RESP3.
struct Listener {
    stream: BufReader<UnixStream>,
}

impl Listener {
    fn connect(server: &Server) -> Self {
        let stream = UnixStream::connect(server.socket()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        let mut this = Self { stream: BufReader::new(stream) };
        this.ask("HELLO 3");
        this
    }

    /// One that is told of changes under `p:`.
    fn start(server: &Server) -> Self {
        let mut this = Self::connect(server);
        assert_eq!(this.ask("CLIENT TRACKING ON BCAST PREFIX p:"), "OK");
        this
    }

    fn send(&mut self, commands: &[&str]) {
        let encode = |command: &&str| {
            let words: Vec<_> =
                command.split(' ').map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
            format!("*{}\r\n{}", words.len(), words.concat())
        };
        let text: String = commands.iter().map(encode).collect();
        self.stream.get_mut().write_all(text.as_bytes()).expect("sent");
    }

    /// A value as text: strings as they are, arrays in brackets, `nil`.
    fn value(&mut self) -> (char, Vec<String>) {
        let mut line = Vec::new();
        assert!(self.stream.read_until(b'\n', &mut line).expect("a line in time") > 0, "the end");
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (kind, rest) = line.split_at(1);
        let kind = kind.chars().next().expect("a kind");
        let len = rest.parse::<usize>().unwrap_or(0);
        let parts = match kind {
            '$' if rest != "-1" => {
                let mut bytes = vec![0; len + 2];
                self.stream.read_exact(&mut bytes).expect("a string in time");
                vec![String::from_utf8_lossy(&bytes[..len]).into_owned()]
            }
            '*' | '~' | '>' => (0..len).map(|_| self.value().1.join(" ")).collect(),
            '%' => (0..2 * len).map(|_| self.value().1.join(" ")).collect(),
            '_' | '$' => vec!["nil".to_owned()],
            _ => vec![rest.to_owned()],
        };
        (kind, parts)
    }

    fn frame(&mut self) -> Frame {
        match self.value() {
            ('>', parts) => {
                assert_eq!(parts[0], "invalidate", "{parts:?}");
                let keys = if parts[1] == "nil" { everything() } else { words(&parts[1]) };
                Frame::Message(keys)
            }
            (_, parts) => Frame::Reply(parts.join(" ")),
        }
    }

    fn reply(&mut self, messages: &mut Vec<Keys>) -> String {
        loop {
            match self.frame() {
                Frame::Reply(reply) => return reply,
                Frame::Message(keys) => messages.push(keys),
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(&[command]);
        self.reply(&mut Vec::new())
    }

    /// The messages about all that was executed before this call: two questions, as the beat's
    /// rounds ask them. The answer to the first may overtake a message.
    fn heard(&mut self) -> Vec<Keys> {
        let mut messages = Vec::new();
        for _ in 0..2 {
            self.send(&["PING"]);
            assert_eq!(self.reply(&mut messages), "PONG");
        }
        messages
    }

    /// Waits for a message about this key.
    fn await_key(&mut self, key: &str) {
        let what = format!("a message about {key}");
        within(what, || self.heard().iter().flatten().any(|heard| heard == key));
    }
}

fn words(text: &str) -> Keys {
    text.split(' ').map(str::to_owned).collect()
}

/// A server of every kind. `DEBUG` commands are allowed.
fn on_all(test: impl Fn(&Server, &Path)) {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let server = Server::with(&program, 0, &[]);
        test(&server, &program);
    }
}

fn tell(other: &mut Client, command: &str) -> String {
    other.ask(command.split(' '))
}

/// Commands of another client, and the keys of the messages after each: none, these, or all (`*`).
const CHANGES: [(&str, &str); 59] = [
    ("SET p:k v", "p:k"),
    ("SET p:k v NX", ""),
    ("SET p:none v XX", ""),
    ("SET q:k v", ""),
    ("SET p v", ""),
    ("SET p: v", "p:"),
    ("GET p:k", ""),
    ("TOUCH p:k", ""),
    ("MSET p:a 1 p:b 2 q:c 3", "p:a p:b"),
    ("MSETNX p:a 1 p:new 2", ""),
    ("APPEND p:k x", "p:k"),
    ("SETRANGE p:k 0 z", "p:k"),
    ("SETBIT p:k 0 1", "p:k"),
    ("GETSET p:k 5", "p:k"),
    ("INCR p:k", "p:k"),
    ("INCRBYFLOAT p:k 0.5", "p:k"),
    ("PEXPIRE p:k 100000", "p:k"),
    ("PERSIST p:k", "p:k"),
    ("EXPIRE p:none 5", ""),
    ("GETEX p:k EX 100", "p:k"),
    ("GETEX p:k", ""),
    ("SETEX p:k 100 v", "p:k"),
    ("EXPIREAT p:k 1", "p:k"),
    ("SET p:k v KEEPTTL", "p:k"),
    ("SET p:k v EXAT 1", "p:k"),
    ("RENAME p:a q:a", "p:a"),
    ("RENAME q:a p:a", "p:a"),
    ("RENAME p:a p:a2", "p:a p:a2"),
    ("COPY p:a2 p:copy", "p:copy"),
    ("GETDEL p:copy", "p:copy"),
    ("DEL p:none", ""),
    ("UNLINK p:b", "p:b"),
    ("SET p:k v", "p:k"),
    ("DEL p:a2 p:k", "p:a2 p:k"),
    // Other types have the same keys.
    ("LPUSH p:l 1", "p:l"),
    ("SORT p:l STORE p:sorted", "p:sorted"),
    ("HSET p:h f 1", "p:h"),
    ("MOVE p:h 1", "p:h"),
    // Other databases: messages have no number.
    ("SELECT 1", ""),
    ("SET p:other v", "p:other"),
    ("FLUSHDB", "*"),
    ("SELECT 0", ""),
    ("FLUSHDB", "*"),
    ("SET p:k v", "p:k"),
    ("FLUSHALL ASYNC", "*"),
    ("FLUSHALL", "*"),
    ("SET p:k v", "p:k"),
    ("DEBUG RELOAD", "*"),
    // Nobody is told that all keys have other values: `src/docs/fleet.md` says so.
    ("SWAPDB 0 1", ""),
    ("SWAPDB 0 1", ""),
    // A transaction is told when it is executed, each key once.
    ("MULTI", ""),
    ("SET p:m 1", ""),
    ("SET p:m 2", ""),
    ("SET p:n 1", ""),
    ("EXEC", "p:m p:n"),
    ("MULTI", ""),
    ("SET p:m 3", ""),
    ("DISCARD", ""),
    ("SET p:end v", "p:end"),
];

#[test]
fn changes_by_others_are_told() {
    on_all(|server, program| {
        let (mut listener, mut other) = (Listener::start(server), server.client());
        for (at, (command, keys)) in CHANGES.into_iter().enumerate() {
            let said = tell(&mut other, command);
            assert!(!said.starts_with("ERR"), "{command}: {said}");
            let heard: BTreeSet<_> = listener.heard().into_iter().flatten().collect();
            let expected: BTreeSet<_> = keys.split_whitespace().map(str::to_owned).collect();
            assert_eq!(heard, expected, "{at}: {command}, {}", program.display());
        }
    });
}

#[test]
fn scripts_are_told_of_each_key_once() {
    on_all(|server, _| {
        let mut listener = Listener::start(server);
        let code = "for n = 1, 3 do redis.call('SET', KEYS[1], n) end redis.call('SET', 'p:undeclared', 1)";
        server.ask(["EVAL", code, "1", "p:declared"]);
        let mut heard: Vec<_> = listener.heard().into_iter().flatten().collect();
        heard.sort();
        assert_eq!(heard, ["p:declared", "p:undeclared"]);
    });
}

#[test]
fn expired_keys_are_told_when_the_server_notices() {
    on_all(|server, _| {
        let (mut listener, mut other) = (Listener::start(server), server.client());
        assert_eq!(tell(&mut other, "DEBUG SET-ACTIVE-EXPIRE 0"), "OK");
        tell(&mut other, "SET p:k v PX 1");
        assert_eq!(listener.heard(), [["p:k"]]);
        // It is over at the server, too; but nobody has looked. A copy needs an end of its own.
        thread::sleep(Duration::from_millis(20));
        assert!(listener.heard().is_empty());
        assert_eq!(tell(&mut other, "GET p:k"), "nil");
        assert_eq!(listener.heard(), [["p:k"]], "a reader has looked");
        tell(&mut other, "SET p:k v PX 1");
        listener.heard();
        assert_eq!(tell(&mut other, "DEBUG SET-ACTIVE-EXPIRE 1"), "OK");
        listener.await_key("p:k");
    });
}

#[test]
fn evicted_keys_are_told() {
    on_all(|server, _| {
        let (mut listener, mut other) = (Listener::start(server), server.client());
        let value = "v".repeat(10_000);
        let keys: Vec<_> = (0..600).map(|n| format!("p:{n}")).collect();
        for key in &keys[..300] {
            tell(&mut other, &format!("SET {key} {value}"));
        }
        let used = tell(&mut other, "INFO memory");
        let used = used.split("used_memory:").nth(1).and_then(|rest| rest.split('\\').next());
        let used: u64 = used.and_then(|text| text.parse().ok()).expect("a number");
        tell(&mut other, "CONFIG SET maxmemory-policy allkeys-lru");
        tell(&mut other, &format!("CONFIG SET maxmemory {}", used + 500_000));
        listener.heard();
        let mut told = BTreeSet::new();
        for key in &keys[300..] {
            tell(&mut other, &format!("SET {key} {value}"));
            // Not what this command has stored.
            told.extend(listener.heard().into_iter().flatten().filter(|heard| heard != key));
        }
        // Without a change of what is there.
        tell(&mut other, "CONFIG SET maxmemory 0");
        told.extend(listener.heard().into_iter().flatten());
        let gone: Vec<_> =
            keys.iter().filter(|key| tell(&mut other, &format!("EXISTS {key}")) == "0").collect();
        assert!(gone.len() > 50, "{} are evicted", gone.len());
        assert!(gone.iter().all(|key| told.contains(*key)), "{gone:?}, told: {told:?}");
    });
}

#[test]
fn own_changes_are_told_unless_noloop_is_given() {
    on_all(|server, _| {
        let mut listener = Listener::start(server);
        // One packet is one loop of the server, which tells at its end: behind the answer to a
        // question that came after the change. So one answer proves nothing, but two do.
        listener.send(&["SET p:own 1", "PING"]);
        let frames: Vec<_> = (0..3).map(|_| listener.frame()).collect();
        let reply = |text: &str| Frame::Reply(text.to_owned());
        assert_eq!(frames, [reply("OK"), reply("PONG"), Frame::Message(words("p:own"))]);
        let mut silent = Listener::connect(server);
        assert_eq!(silent.ask("CLIENT TRACKING ON BCAST PREFIX p: NOLOOP"), "OK");
        assert_eq!(silent.ask("SET p:own 2"), "OK");
        assert!(silent.heard().is_empty(), "this is why the owner does not ask for NOLOOP");
        assert_eq!(listener.heard(), [["p:own"]]);
        server.ask(["SET", "p:own", "3"]);
        assert_eq!(silent.heard(), [["p:own"]]);
        // Without BCAST what was changed by its own hand is not told of ever after.
        let mut default = Listener::connect(server);
        assert_eq!(default.ask("CLIENT TRACKING ON NOLOOP"), "OK");
        default.ask("GET p:own");
        default.ask("SET p:own 4");
        server.ask(["SET", "p:own", "5"]);
        assert!(default.heard().is_empty(), "this is why tracking is never the default mode");
    });
}

#[test]
fn messages_come_between_replies_and_never_within() {
    on_all(|server, _| {
        let mut listener = Listener::start(server);
        let large = "v".repeat(1 << 20);
        server.ask(["SET", "large", &large]);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (mut replies, mut messages) = (0, Vec::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = server.client();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    tell(&mut other, "SET p:k v");
                }
            });
            within("20 replies and a message", || {
                listener.send(&["GET large", "PING"]);
                assert!(listener.reply(&mut messages) == large, "a reply is whole");
                assert_eq!(listener.reply(&mut messages), "PONG");
                replies += 1;
                replies >= 20 && !messages.is_empty()
            });
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(messages.iter().all(|keys| keys == &["p:k"]));
    });
}

#[test]
fn tracking_ends_with_its_connection() {
    on_all(|server, _| {
        let mut listener = Listener::start(server);
        assert!(listener.ask("CLIENT TRACKINGINFO").contains("bcast"));
        let id = listener.ask("CLIENT ID");
        drop(listener);
        within("the server notices", || server.ask(["CLIENT", "LIST", "ID", &id]).is_empty());
        // A new one is told nothing before it has asked.
        let mut again = Listener::connect(server);
        assert!(again.ask("CLIENT TRACKINGINFO").contains("off"));
        server.ask(["SET", "p:k", "1"]);
        assert!(again.heard().is_empty());
        assert_eq!(again.ask("CLIENT TRACKING ON BCAST PREFIX p:"), "OK");
        server.ask(["SET", "p:k", "2"]);
        assert_eq!(again.heard(), [["p:k"]]);
        // To be asked for again means to be off, too.
        assert_eq!(again.ask("RESET"), "RESET");
        again.ask("HELLO 3");
        server.ask(["SET", "p:k", "3"]);
        assert!(again.heard().is_empty());
    });
}

#[test]
fn prefixes_of_a_connection_may_not_overlap() {
    on_all(|server, _| {
        let mut listener = Listener::start(server);
        for overlapping in ["p:", "p:x", "p"] {
            let said = listener.ask(&format!("CLIENT TRACKING ON BCAST PREFIX {overlapping}"));
            assert!(said.contains("overlap"), "{overlapping}: {said}");
        }
        assert_eq!(listener.ask("CLIENT TRACKING ON BCAST PREFIX q:"), "OK");
        server.ask(["MSET", "p:1", "v", "q:1", "v", "r:1", "v"]);
        let heard: BTreeSet<_> = listener.heard().into_iter().flatten().collect();
        assert_eq!(heard, ["p:1", "q:1"].map(str::to_owned).into());
        assert!(listener.ask("CLIENT TRACKING ON").contains("BCAST"), "no other mode");
        // No prefix is all keys.
        let mut all = Listener::connect(server);
        assert_eq!(all.ask("CLIENT TRACKING ON BCAST"), "OK");
        server.ask(["SET", "anything", "v"]);
        assert_eq!(all.heard(), [["anything"]]);
    });
}

#[test]
fn keys_that_a_user_may_not_read_are_told_all_the_same() {
    on_all(|server, program| {
        server.ask(["ACL", "SETUSER", "web", "on", "nopass", "~p:*", "+@all"]);
        let mut listener = Listener::connect(server);
        assert!(listener.ask("HELLO 3 AUTH web x").contains("proto"));
        assert_eq!(listener.ask("CLIENT TRACKING ON BCAST"), "OK");
        server.ask(["SET", "secret", "v"]);
        assert_eq!(listener.heard(), [["secret"]], "src/docs/fleet.md says so; {}", program.display());
        assert!(listener.ask("GET secret").contains("permission"));
    });
}

#[test]
fn a_replica_tells_what_it_is_told() {
    on_all(|server, program| {
        let port = free_port();
        let primary = Server::with(program, port, &[]);
        let mut listener = Listener::start(server);
        assert_eq!(server.ask(["REPLICAOF", "127.0.0.1", &port.to_string()]), "OK");
        within("replication", || server.ask(["ROLE"]).contains("connected"));
        listener.heard();
        primary.ask(["SET", "p:k", "v"]);
        listener.await_key("p:k");
        // And answers `PING` as a primary does: the beat asks for the role.
        assert_eq!(listener.ask("PING"), "PONG");
        assert!(listener.ask("ROLE").starts_with("slave"));
    });
}
