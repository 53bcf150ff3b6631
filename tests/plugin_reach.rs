//! D-56: what unauthenticated clients can reach through a socket of the server: with
//! `plugin = ucache` nothing that native does not serve with the same configuration.

#[path = "support/patience.rs"]
mod patience;
#[path = "support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::UdpSocket,
    os::unix::net::UnixStream,
    time::Duration,
};

use nix::unistd::Pid;
use patience::within;
use ports::free_address;
use server::{Build, Flavor, Server};

const SERVED: &str = "the cache protocol is served: modifier1 ";

/// Native's default configuration, and the same with ucache; `lines` more.
fn start(build: Build, flavor: Flavor, lines: &str) -> Server {
    let caches = "cache2 = name=c,items=100,blocksize=100\ncache2 = name=other,items=10,blocksize=100";
    let server =
        Server::start_on(build, flavor, 1, &format!("socket = %duwsgi\nmap-socket = 1:1\n{caches}\n{lines}"));
    let fill = "uwsgi.cache_set('k', 'secret'), uwsgi.cache_set('k', 'secret', 0, 'other')";
    assert_eq!(server.run(1, fill), "(True, True)");
    server
}

/// The answer to a client's packet and the bytes behind it.
fn ask(server: &Server, modifier1: u8, modifier2: u8, payload: &[u8], body: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(server.dir().join("uwsgi")).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    let [low, high] = u16::try_from(payload.len()).expect("a short payload").to_le_bytes();
    let mut answer = Vec::new();
    // If it closes before all was sent, it has not answered.
    if stream.write_all(&[&[modifier1, low, high, modifier2], payload, body].concat()).is_ok() {
        let _ = stream.read_to_end(&mut answer);
    }
    answer
}

/// Words, each preceded by its length.
fn array(words: &[&str]) -> Vec<u8> {
    let len = |word: &str| u16::try_from(word.len()).expect("a short word").to_le_bytes();
    words.iter().flat_map(|word| [&len(word)[..], word.as_bytes()].concat()).collect()
}

/// Every kind of request that the cache protocol has.
fn payloads() -> Vec<(Vec<u8>, &'static [u8])> {
    vec![
        (b"k".to_vec(), b""),
        (array(&["get", "k"]), b""),
        (array(&["key", "k", "value", "mine"]), b""),
        (array(&["cmd", "get", "key", "k", "cache", "other"]), b""),
        (array(&["cmd", "update", "key", "k", "size", "4"]), b"mine"),
        (array(&["cmd", "clear", "cache", "c"]), b""),
        (Vec::new(), b""),
    ]
}

/// Everything that a client learns over the uwsgi socket.
fn told(server: &Server) -> Vec<(u8, u8, usize, Vec<u8>)> {
    let mut all = Vec::new();
    let packets = (0..=255).map(|one| (one, 0)).chain((0..=255).map(|two| (111, two)));
    for (one, two) in packets {
        let payloads = payloads();
        let some = if one == 111 { &payloads[..] } else { &payloads[3..4] };
        for (n, (payload, body)) in some.iter().enumerate() {
            all.push((one, two, n, ask(server, one, two, payload, body)));
        }
    }
    all
}

fn content(server: &Server) -> String {
    server.run(1, "[(sorted(uwsgi.cache_keys(c)), uwsgi.cache_get('k', c)) for c in ('c', 'other')]")
}

const UNTOUCHED: &str = "[([b'k'], b'secret'), ([b'k'], b'secret')]";

#[test]
fn the_plugin_alone_makes_nothing_reachable() {
    let answers = [Flavor::Native, Flavor::Ucache].map(|flavor| {
        let server = start(Build::Installed, flavor, "");
        let told = told(&server);
        assert_eq!(content(&server), UNTOUCHED, "{flavor:?}\n{}", server.log());
        let log = server.log();
        assert!(log.contains("unavailable modifier requested: 111"), "{flavor:?}\n{log}");
        assert!(!log.contains(SERVED), "{log}");
        told
    });
    let [native, ucache] = answers;
    assert_eq!(native.len(), 255 + 256 * 7 + 7);
    assert!(native.iter().any(|answer| !answer.3.is_empty()), "native serves something");
    for (native, ucache) in native.iter().zip(&ucache) {
        assert_eq!(native, ucache, "modifier1, modifier2, request, answer");
    }
}

#[test]
fn the_protocol_is_served_where_it_is_asked_for() {
    // Another number for uWSGI's plugin, and for ours.
    let cases = [
        ("plugin = cache", 111),
        ("ucache-serve = true", 111),
        ("plugin = 42:cache", 42),
        ("plugin = cache\nucache-serve = true", 111),
    ];
    for (line, modifier) in cases {
        let server = start(Build::Installed, Flavor::Ucache, line);
        assert_eq!(server.log().matches(SERVED).count(), 1, "{line}\n{}", server.log());
        let get = |modifier| ask(&server, modifier, 17, &array(&["cmd", "get", "key", "k"]), b"");
        assert!(get(modifier).ends_with(b"secret"), "{line}\n{}", server.log());
        // Native's answer to command 5 starts with the address of a header: this one is ours.
        assert_eq!(ask(&server, modifier, 5, b"k", b""), b"\x6f\0\0\x01secret", "{line}");
        if modifier != 111 {
            assert_eq!(get(111), b"", "{line}");
        }
    }
    // Built in, as in PyPI's by default: native serves it, and so does ucache.
    for flavor in [Flavor::Native, Flavor::Ucache] {
        let server = start(Build::Pypi, flavor, "");
        let answer = ask(&server, 111, 17, &array(&["cmd", "get", "key", "k"]), b"");
        assert!(answer.ends_with(b"secret"), "{flavor:?}\n{}", server.log());
    }
    // A slot of another plugin is left to it, as in native.
    let other = |flavor| {
        let server = start(Build::Installed, flavor, "plugin = 111:ping");
        ask(&server, 111, 0, b"", b"")
    };
    assert_eq!(other(Flavor::Native), other(Flavor::Ucache));
}

/// The internet sockets of a server's processes.
fn internet_sockets(master: Pid) -> usize {
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).expect("a process");
    let processes = children.split_whitespace().map(str::to_owned).chain([master.to_string()]);
    let mut own = BTreeSet::new();
    for process in processes {
        let files = fs::read_dir(format!("/proc/{process}/fd")).expect("its descriptors");
        own.extend(files.filter_map(|file| {
            let to = fs::read_link(file.ok()?.path()).ok()?;
            Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        }));
    }
    let known = ["tcp", "tcp6", "udp", "udp6"].map(|table| {
        let table = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(9))
            .filter(|inode| own.contains(*inode))
            .count()
    });
    known.iter().sum()
}

#[test]
fn nothing_new_by_udp() {
    let seen = [Flavor::Native, Flavor::Ucache].map(|flavor| {
        // uWSGI's own UDP server, which passes packets to plugins, and one for a cache.
        let (general, cache) = (free_address(), free_address());
        let lines = format!("udp = {general}\ncache2 = name=told,items=10,blocksize=100,udp={cache}");
        let server = start(Build::Installed, flavor, &lines);
        within("the server of the cache", || server.log().contains("udp server"));
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        stranger.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
        for address in [&general, &cache] {
            for (one, two) in
                (0..=255).map(|one| (one, 0)).chain((0..10).chain(13..=255).map(|two| (111, two)))
            {
                let payload = array(&["cmd", "get", "key", "k"]);
                let head = [one, u8::try_from(payload.len()).expect("a short payload"), 0, two];
                stranger.send_to(&[&head[..], &payload].concat(), address).expect("a datagram can be sent");
            }
        }
        let mut answers = 0;
        while stranger.recv(&mut [0; 1000]).is_ok() {
            answers += 1;
        }
        assert_eq!(content(&server), UNTOUCHED, "{flavor:?}\n{}", server.log());
        (answers, internet_sockets(server.master()))
    });
    assert_eq!(seen[0].0, 0);
    assert_eq!(seen[0], seen[1], "answers and open sockets, native and ucache");
    assert_eq!(seen[0].1, 2, "the two that were asked for");
}
