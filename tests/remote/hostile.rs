//! Clients and servers that lie, stop in the middle, send slowly or stay silent, and a real uWSGI
//! with the plugin that continues with the same workers.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use crate::{
    c, commands::array, native::Server, patience::PATIENCE, plugin::start, ports::free_address, server::ask,
};

/// The pid of worker 1, the only one.
fn worker(server: &Server) -> String {
    let log = server.log();
    let pids: Vec<_> = log.lines().filter_map(|l| l.split_once("uWSGI worker 1 (")).collect();
    assert_eq!(pids.len(), 1, "it was started once\n{log}");
    pids[0].1.split(',').next().unwrap().to_owned()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.tcp).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn packet(modifier2: u8, payload: &[u8]) -> Vec<u8> {
    let [low, high] = u16::try_from(payload.len()).unwrap().to_le_bytes();
    [&[111, low, high, modifier2], payload].concat()
}

/// A small generator with a fixed seed, so that failures are reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// Sends bytes, closes the sending side, and reads until the server closes.
fn throw(server: &Server, bytes: &[u8]) {
    let mut stream = connect(server);
    // The server may have closed already.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    match stream.read_to_end(&mut Vec::new()) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("no end: {bytes:?}")
        }
        _ => {}
    }
}

#[test]
fn malformed_packets_of_every_kind_leave_the_worker_alive() {
    let host = start(
        &["name=first,items=1000,blocksize=5000", "name=h,items=100,blocksize=1000"],
        &["--buffer-size", "65535", "--socket-timeout", "2", "--disable-logging"],
    );
    let pid = worker(&host);
    assert!(c::update(b"witness", b"value", &host.cache("first")));
    let set = array(&[b"cmd", b"set", b"key", b"k", b"size", b"5", b"cache", b"h"]);
    let good: Vec<(u8, Vec<u8>, &[u8])> = vec![
        (0, b"witness".to_vec(), b""),
        (1, array(&[b"k", b"v"]), b""),
        (2, b"k".to_vec(), b""),
        (3, array(&[b"key", b"witness"]), b""),
        (4, array(&[b"get", b"nothing"]), b""),
        (5, b"witness".to_vec(), b""),
        (6, b"h".to_vec(), b""),
        (17, set, b"value"),
        (17, array(&[b"cmd", b"get", b"key", b"k", b"keep", b"1"]), b""),
        (17, array(&[b"cmd", b"math", b"key", b"n", b"operand", b"5", b"flags", b"562"]), b""),
        (17, array(&[b"cmd", b"dump", b"cache", b"h"]), b""),
        (17, array(&[b"cache", b"h", b"key", b"k", b"cmd", b"del"]), b""),
    ];
    let mut random = Random(11);
    for (modifier2, payload, body) in &good {
        let whole = [&packet(*modifier2, payload)[..], body].concat();
        // Truncated everywhere, and with every length field (the header's and the first field's)
        // wrong.
        for at in 0..whole.len() {
            throw(&host, &whole[..at]);
        }
        for lie in [0, 1, 0x7f, 0x80, 0xff] {
            for at in [1, 2, 4, 5].into_iter().filter(|at| *at < whole.len()) {
                let mut lying = whole.clone();
                lying[at] = lie;
                throw(&host, &lying);
            }
        }
        for _ in 0..60 {
            let mut damaged = whole.clone();
            for _ in 0..=random.below(5) {
                let at = random.below(damaged.len());
                damaged[at] = u8::try_from(random.below(256)).unwrap();
            }
            // Another modifier1 belongs to another plugin.
            damaged[0] = 111;
            throw(&host, &damaged);
        }
    }
    for modifier2 in [0, 1, 2, 3, 4, 5, 6, 7, 17, 255] {
        let noise: Vec<u8> = (0..65_000).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        throw(&host, &packet(modifier2, &noise));
        throw(&host, &packet(modifier2, &[0; 65_000]));
        throw(&host, &packet(modifier2, &[255; 65_000]));
    }
    assert_eq!(ask(&host.tcp, 0, b"witness", b"")[4..], *b"value");
    assert_eq!(worker(&host), pid, "the same worker answers");
    // One line in ten seconds for each kind, whatever arrives.
    let lines = host.log().matches("[ucache] request with modifier2").count();
    assert!((1..20).contains(&lines), "{lines} lines\n{}", host.log());
}

#[test]
fn keys_of_every_byte_and_length() {
    let host = start(&["name=k,items=2000,keysize=65535"], &["--buffer-size", "65535"]);
    let there = host.cache("k");
    for byte in 0..=255_u8 {
        for key in [vec![byte], vec![byte; 3], vec![b'a', byte, b'z']] {
            assert!(c::update(&key, &key, &there), "{key:?}");
            assert_eq!(c::value(&key, &there).as_deref(), Some(&key[..]));
        }
    }
    for len in [255, 256, 4000, 40_000, 65_400] {
        assert!(c::update(&vec![b'l'; len], b"v", &there), "{len}");
        assert!(c::del(&vec![b'l'; len], &there), "{len}");
    }
    // Too long for one packet with the other fields: an error, and nothing is truncated.
    assert!(!c::update(&[b'l'; 65_535], b"v", &there));
    assert_eq!(c::get(&[b'l'; 65_535], &there), None);
}

#[test]
fn names_with_nothing_behind_the_at() {
    c::create("name=at,items=10");
    for name in ["at@", "@", "@@", "at@:", "at@127.0.0.1:", "at@127.0.0.1:99999", "at@/", "at@\\0", "@:0"] {
        assert_eq!(c::get(b"k", name), None, "{name}");
        assert!(!c::update(b"k", b"v", name) && !c::exists(b"k", name) && !c::del(b"k", name), "{name}");
        assert!(!c::inc(b"k", 1, name) && !c::clear(name), "{name}");
    }
}

/// Bytes of a value that a server accepts at ten per second, at most 60.
fn drip(server: &Server) -> usize {
    let mut stream = connect(server);
    stream.write_all(&packet(17, &array(&[b"cmd", b"set", b"key", b"slow", b"size", b"1000"]))).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for sent in 0..60 {
        let mut answer = [0; 100];
        match stream.read(&mut answer) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(n) => {
                assert!(n == 0 || answer[..n].ends_with(b"error"), "{answer:?}");
                return sent;
            }
            Err(_) => return sent,
        }
        let _ = stream.write_all(b"v");
    }
    60
}

/// With a socket-timeout of one second a value must have arrived by then; in native each byte has a
/// second.
#[test]
fn d52_a_value_that_drips_does_not_hold_a_worker() {
    let options = ["--socket-timeout", "1"];
    let definition = ["name=first,items=100,blocksize=100000"];
    let native = Server::start(&definition, &options);
    assert_eq!(drip(&native), 60, "its only worker waits for the next byte");

    let host = start(&definition, &options);
    let pid = worker(&host);
    let sent = drip(&host);
    assert!(sent < 40, "{sent} bytes");
    // A client that announces a value and stays silent: the only worker serves the next one.
    let mut idle = connect(&host);
    idle.write_all(&packet(17, &array(&[b"cmd", b"set", b"key", b"slow", b"size", b"1000"]))).unwrap();
    assert!(c::update(b"k", b"v", &host.cache("first")));
    assert_eq!(c::value(b"k", &host.cache("first")).unwrap(), b"v");
    assert!(!c::exists(b"slow", &host.cache("first")));
    assert_eq!(worker(&host), pid);
}

/// Whether the only worker serves another client within four seconds, while one client is slow in
/// this way.
fn serves_others(server: &Server, slow: fn(UnixStream)) -> bool {
    let stream = UnixStream::connect(&server.unix).unwrap();
    thread::spawn(move || slow(stream));
    thread::sleep(Duration::from_millis(300));
    c::update(b"k", b"v", &server.cache("first"))
}

/// A large dump that is read slowly, and a large value that is sent slowly: an announcement buys no
/// time.
#[test]
fn d52_large_transfers_that_drip_do_not_hold_a_worker() {
    fn takes_slowly(mut stream: UnixStream) {
        stream.write_all(&packet(6, b"first")).unwrap();
        (0..100).for_each(|_| {
            let _ = stream.read(&mut [0; 16_384]);
            thread::sleep(Duration::from_millis(50));
        });
    }
    fn sends_slowly(mut stream: UnixStream) {
        let request = array(&[b"cmd", b"set", b"key", b"slow", b"size", b"90000000"]);
        stream.write_all(&packet(17, &request)).unwrap();
        (0..100).for_each(|_| {
            let _ = stream.write_all(&[b'v'; 1024]);
            thread::sleep(Duration::from_millis(50));
        });
    }
    let definition = ["name=first,items=4,blocksize=100000000"];
    for slow in [takes_slowly, sends_slowly] {
        let native = Server::start(&definition, &["--socket-timeout", "1"]);
        assert!(!serves_others(&native, slow), "its only worker waits for the next byte");
        let host = start(&definition, &["--socket-timeout", "1"]);
        assert!(serves_others(&host, slow), "{}", host.log());
    }
}

/// A server with the given behaviour towards each client.
fn peer(act: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let act = act.clone();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                act(stream);
            });
        }
    });
    address
}

fn hostile_peers() -> Vec<(&'static str, String)> {
    let ok = packet(17, &array(&[b"status", b"ok", b"size", b"1000", b"keep", b"1"]));
    let cut = [&ok[..], &[b'v'; 500]].concat();
    let huge = packet(17, &array(&[b"status", b"ok", b"size", b"18446744073709551615"]));
    let lie = [111, 255, 255, 17, 6, 0];
    let surplus = [&ok[..], &[b'v'; 3000]].concat();
    let until_gone = |mut stream: TcpStream| drop(stream.read_to_end(&mut Vec::new()));
    let say = |bytes: Vec<u8>, then_wait: bool| {
        peer(move |mut stream| {
            let _ = stream.write_all(&bytes);
            if then_wait {
                until_gone(stream);
            }
        })
    };
    vec![
        ("accepts and never answers", peer(until_gone)),
        ("closes at once", peer(drop)),
        ("closes in the middle of the value", say(cut.clone(), false)),
        ("stops in the middle of the value", say(cut, true)),
        ("announces more than there is", say(huge, true)),
        ("lies about the packet", say(lie.to_vec(), true)),
        ("talks HTTP", say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), false)),
        ("sends noise", say(vec![0x5a; 65_536], false)),
        ("sends more than it announced", say(surplus, true)),
        (
            "drips",
            peer(|mut stream| {
                while stream.write_all(b"\x6f").is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
            }),
        ),
        ("is not there", free_address()),
    ]
}

#[test]
fn a_worker_survives_every_server() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.py");
    let text = "import os, uwsgi\ndef application(e, start):\n    start('200 OK', [])\n    \
                name = 'c@' + e['QUERY_STRING']\n    \
                r = [uwsgi.cache_get('k', name), uwsgi.cache_exists('k', name), uwsgi.cache_del('k', name),\n         \
                uwsgi.cache_set('k', b'v', 0, name), uwsgi.cache_inc('k', 1, 0, name), uwsgi.cache_clear(name)]\n    \
                return [repr((os.getpid(), r)).encode()]\n";
    std::fs::write(&app, text).unwrap();
    let http = free_address();
    let options = [
        "--plugin",
        "python3",
        "--http-socket",
        &http,
        "--socket-timeout",
        "1",
        "--disable-logging",
        "--wsgi-file",
    ];
    let host = start(&["name=x,items=10"], &[&options[..], &[app.to_str().unwrap()]].concat());
    let pid = worker(&host).replace("pid: ", "");
    let ask = &|address: &str| {
        let mut stream = TcpStream::connect(&http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("GET /?{address} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").expect("an answer").1.to_owned()
    };
    // All at once, in threads of the one worker.
    let answers: Vec<_> = thread::scope(|s| {
        let asked =
            hostile_peers().into_iter().map(|(what, at)| (what, s.spawn(move || [ask(&at), ask(&at)])));
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|(what, thread)| (what, thread.join().unwrap())).collect()
    });
    for (what, body) in answers.into_iter().flat_map(|(what, two)| two.map(|body| (what, body))) {
        if what == "sends more than it announced" {
            assert!(body.starts_with(&format!("({pid}, [b'v")), "{what}: {body}");
            continue;
        }
        // Commands without a value may believe a server that answers "ok"; a missing value is a
        // miss.
        let said_ok = what.contains("value") || what == "announces more than there is";
        let all =
            if said_ok { "None, True, True, True, True, True" } else { "None, None, None, None, None, None" };
        assert_eq!(body, format!("({pid}, [{all}])"), "{what}");
    }
    assert_eq!(worker(&host), format!("pid: {pid}"));
    let lines = host.log().matches("[ucache] remote cache").count();
    assert!((1..12).contains(&lines), "{lines} lines\n{}", host.log());
}

/// A server that copies from such a server at its start continues without the copy.
#[test]
fn a_start_survives_every_server_to_copy_from() {
    let peers: Vec<_> = hostile_peers().into_iter().map(|(_, address)| address).collect();
    let definition = format!("name=s,items=100,sync={}", peers.join(";"));
    let host = start(&[&definition], &["--socket-timeout", "1"]);
    assert!(host.log().contains("no server could provide a copy"), "{}", host.log());
    assert!(c::update(b"k", b"v", &host.cache("s")));
    assert_eq!(c::value(b"k", &host.cache("s")).unwrap(), b"v");
}
