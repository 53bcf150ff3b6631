//! Peers that accept no connection, or are slow: a call ends within the socket-timeout, at once
//! where native ends at once, and meanwhile the worker serves its other requests.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    app::{App, BOTH, Flavor},
    c,
};

/// Timeout of the servers here, seconds.
const TIMEOUT: u64 = 3;
/// An operation that is not delayed takes milliseconds; half of this is for a loaded machine.
const SOON: Duration = Duration::from_millis(TIMEOUT * 1000 / 2);
/// Native counts whole seconds, and restarts with each byte.
const IN_TIME: Duration = Duration::from_secs(TIMEOUT * 2 + 2);

/// Objects that keep a peer in its state.
type Keep = Box<dyn std::any::Any>;

/// A unix socket whose backlog is full.
fn full_unix() -> (String, Keep) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(1).unwrap();
    let name = path.to_str().unwrap().to_owned();
    let mut waiting = Vec::new();
    loop {
        let one = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        one.set_nonblocking(true).unwrap();
        match one.connect(&socket2::SockAddr::unix(&path).unwrap()) {
            Ok(()) => waiting.push(one),
            Err(e) => break assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
        }
        assert!(waiting.len() < 100, "the backlog has an end");
    }
    (name, Box::new((dir, socket, waiting)))
}

/// A TCP port whose backlog is full: the kernel drops further SYNs.
fn full_tcp() -> (String, Keep) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(1).unwrap();
    let address = socket.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        let one = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if one.connect_timeout(&address, Duration::from_millis(300)).is_err() {
            break;
        }
        waiting.push(one);
        assert!(waiting.len() < 100, "the backlog has an end");
    }
    (address.as_socket().unwrap().to_string(), Box::new((socket, waiting)))
}

/// A server with the given behaviour towards each client, in threads.
fn peer(act: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let act = act.clone();
            thread::spawn(move || act(stream));
        }
    });
    address
}

/// Accepts when the client has given up (or at the end of the test), and never answers.
fn accepts_late() -> (String, Keep) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        thread::sleep(IN_TIME);
        listener.incoming().for_each(drop);
    });
    (address, Box::new(()))
}

/// Sends an answer at ten bytes a second.
fn drips() -> (String, Keep) {
    let address = peer(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
        for byte in [&[111, 200, 0, 17][..], &[0; 200]].concat() {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    (address, Box::new(()))
}

/// Ways in which a worker handles several requests at a time.
const LOOPS: [(&str, &[&str]); 4] = [
    ("gevent", &["--plugin", "gevent_python3", "--gevent", "20"]),
    ("greenlets", &["--plugin", "greenlet_python3", "--async", "20", "--greenlet"]),
    ("uGreen", &["--plugin", "ugreen", "--async", "20", "--ugreen"]),
    ("threads", &["--threads", "8"]),
];

fn app(flavor: Flavor, options: &[&str]) -> App {
    // After the loop's own options: gevent's raises it to 30.
    let timeout = TIMEOUT.to_string();
    let options = [options, &["--socket-timeout", &timeout]].concat();
    App::start(flavor, &["name=x,items=10"], &options)
}

/// One remote call, its duration, and the longest delay of another request of the worker meanwhile.
fn call(app: &App, peer: &str) -> (String, Duration, Duration) {
    let begin = Instant::now();
    thread::scope(|s| {
        let call = s.spawn(|| (app.eval(&format!("uwsgi.cache_get('k', r'c@{peer}')")), begin.elapsed()));
        let mut longest = Duration::ZERO;
        while !call.is_finished() {
            let before = Instant::now();
            assert_eq!(app.eval("uwsgi.cache_exists('nothing')"), "None");
            longest = longest.max(before.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
        let (answer, took) = call.join().unwrap();
        (answer, took, longest)
    })
}

#[test]
fn a_peer_that_takes_no_connection_holds_up_no_other_request() {
    let peers = [
        ("a full unix backlog", full_unix()),
        ("a full TCP backlog", full_tcp()),
        ("accepts late", accepts_late()),
        ("drips", drips()),
    ];
    thread::scope(|s| {
        for (name, options) in LOOPS {
            let peers = &peers;
            for flavor in BOTH {
                let app = app(flavor, options);
                let addresses: Vec<_> = peers.iter().map(|(what, (at, _))| (*what, at.clone())).collect();
                s.spawn(move || {
                    for (what, at) in addresses {
                        // A native client waits for each next byte anew.
                        if (flavor, what) == (Flavor::Native, "drips") {
                            continue;
                        }
                        let (answer, took, longest) = call(&app, &at);
                        let said = format!("{name}, {flavor:?}, {what}: {took:?}, others {longest:?}");
                        assert_eq!(answer, "None", "{said}");
                        assert!(longest < SOON, "{said}");
                        assert!(took < if what.contains("unix") { SOON } else { IN_TIME }, "{said}");
                    }
                });
            }
        }
    });
}

/// Without a host, too: a program may serve other requests in its thread.
#[test]
fn a_full_unix_backlog_fails_at_once() {
    let (path, _keep) = full_unix();
    let begin = Instant::now();
    for _ in 0..5 {
        assert_eq!(c::get(b"k", &format!("c@{path}")), None);
        assert!(!c::update(b"k", b"v", &format!("c@{path}")));
    }
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    // A server with a free backlog again is reached.
    let dir = tempfile::tempdir().unwrap();
    let free = UnixListener::bind(dir.path().join("s")).unwrap();
    let there = format!("c@{}", dir.path().join("s").to_str().unwrap());
    thread::scope(|s| {
        s.spawn(|| {
            let (mut stream, _): (UnixStream, _) = free.accept().unwrap();
            let _ = stream.read(&mut [0; 100]);
        });
        assert_eq!(c::get(b"k", &there), None);
    });
}
