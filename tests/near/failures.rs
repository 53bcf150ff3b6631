//! Servers that are killed, stopped, restarted, or something else entirely.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ucache::{
    BackendFault, Error, Expires,
    engine::Math,
    near::{Backend, Calculation, Old},
};

use crate::{backend::Server, backend_with, patience::within, ports};

const INCREMENT: Calculation =
    Calculation { op: Math::Inc, operand: 1, expires: Expires::Never, old: Old::Stays, only_new: false };

#[track_caller]
fn fault<T: std::fmt::Debug>(result: ucache::Result<T>) -> BackendFault {
    match result {
        Err(Error::Backend { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

/// Asks until the server is there again: the breaker lets one call through each 100 ms.
fn await_server(b: &Backend) {
    within("the server is there", || b.ping().is_ok());
}

#[test]
fn a_server_that_is_not_there_fails_fast_and_comes_back() {
    let mut server = Server::start();
    let b = backend_with(&server.url(), &[], 0);
    server.down();
    assert!(matches!(fault(b.get(b"k")), BackendFault::Unreachable { .. }));
    let start = Instant::now();
    let mut skipped = 0;
    for _ in 0..1000 {
        match fault(b.put(b"k", b"v", Expires::Never, Old::Goes)) {
            BackendFault::Down { .. } => skipped += 1,
            BackendFault::Unreachable { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(skipped > 900, "{skipped} of 1000 calls were not tried");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    server.up();
    await_server(&b);
    b.put(b"k", b"v", Expires::Never, Old::Goes).expect("it is back");
}

#[test]
fn reads_of_a_server_that_is_down_are_misses_if_so_asked() {
    let mut server = Server::start();
    let b = backend_with(&server.url(), &[("on_down", "miss")], 0);
    b.put(b"k", b"v", Expires::Never, Old::Goes).expect("put");
    server.down();
    assert_eq!(b.get(b"k").expect("a miss"), None);
    assert_eq!(b.get_many(["k", "l"]).expect("misses"), [None, None]);
    assert!(b.get_expiring(b"k").expect("a miss").is_none());
    assert!(!b.exists(b"k").expect("a miss") && b.ttl(b"k").expect("a miss").is_none());
    assert!(b.keys(b"").expect("none").is_empty());
    // A write is never made up.
    assert!(fault(b.put(b"k", b"v", Expires::Never, Old::Goes)).is_down());
    assert!(fault(b.delete(b"k")).is_down());
    assert!(fault(b.math(b"k", &INCREMENT)).is_down() && fault(b.clear()).is_down());
}

#[test]
fn a_restarted_server_is_found_by_the_next_call() {
    let mut server = Server::start();
    let b = backend_with(&server.url(), &[], 0);
    for n in 0..5 {
        b.put(b"k", b"v", Expires::Never, Old::Goes).expect("the connection is renewed before it is used");
        assert_eq!(b.get(b"k").expect("get").as_deref(), Some(&b"v"[..]));
        assert_eq!(b.figures().connects, n + 1);
        server.down();
        server.up();
    }
    // The scripts are gone with the server that knew them.
    b.math(b"n", &INCREMENT).expect("a number");
    server.down();
    server.up();
    assert_eq!(b.math(b"n", &INCREMENT).expect("a number"), 1);
    server.ask(["SCRIPT", "FLUSH"]);
    assert_eq!(b.math(b"n", &INCREMENT).expect("a number"), 2);
}

#[test]
fn a_stopped_server_costs_the_timeout_and_no_more() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[("backend_timeout", "200ms")], 0);
    // From now on the server knows the script.
    assert_eq!(b.math(b"n", &INCREMENT).expect("a number"), 1);
    server.freeze(true);
    let start = Instant::now();
    assert_eq!(
        fault(b.math(b"n", &INCREMENT)),
        BackendFault::TimedOut { waited: Duration::from_millis(200) }
    );
    let took = start.elapsed();
    assert!((200..400).contains(&took.as_millis()), "{took:?}");
    // The next ones do not wait one behind the other.
    let start = Instant::now();
    assert!(matches!(fault(b.get(b"n")), BackendFault::Down { .. }));
    assert!(start.elapsed() < Duration::from_millis(50));
    server.freeze(false);
    await_server(&b);
    // The increment that timed out was executed, once, when the server went on.
    assert_eq!(b.number_of(&b.get(b"n").expect("get").expect("a value")), Some(2));
    assert_eq!(b.figures().timeouts, 1);
}

#[test]
fn a_late_reply_is_nobodys() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[("backend_timeout", "100ms")], 0);
    b.put(b"a", b"of a", Expires::Never, Old::Goes).expect("put");
    b.put(b"b", b"of b", Expires::Never, Old::Goes).expect("put");
    server.freeze(true);
    assert!(matches!(fault(b.get(b"a")), BackendFault::TimedOut { .. }));
    server.freeze(false);
    await_server(&b);
    for _ in 0..10 {
        assert_eq!(b.get(b"b").expect("get").as_deref(), Some(&b"of b"[..]));
    }
}

/// Accepts connections on a port of its own, one after the other, and does this with each.
fn impostor(accepted: usize, mut serve: impl FnMut(usize, &mut std::net::TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", ports::free_port())).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for n in 0..accepted {
            let (mut stream, _) = listener.accept().expect("a connection");
            serve(n, &mut stream);
        }
    });
    port
}

/// Reads a request and replies to the command that every connection begins with.
fn greet(stream: &mut std::net::TcpStream) {
    let mut bytes = [0; 4096];
    let _ = stream.read(&mut bytes).expect("a request");
    stream.write_all(b"+OK\r\n").expect("sent");
}

#[test]
fn a_write_that_may_have_been_executed_is_not_sent_again() {
    // Each connection is closed after the request has come.
    let (sender, receiver) = std::sync::mpsc::channel();
    let port = impostor(4, move |_, stream| {
        greet(stream);
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).expect("a request");
        sender.send(String::from_utf8_lossy(&bytes[..n]).into_owned()).expect("heard");
    });
    let b = backend_with(&format!("redis://127.0.0.1:{port}"), &[], 0);
    assert!(matches!(fault(b.put(b"k", b"v", Expires::Never, Old::Goes)), BackendFault::Lost { .. }));
    assert!(receiver.recv().expect("one").contains("SET"));
    thread::sleep(Duration::from_millis(120));
    // A read is asked once more.
    assert!(matches!(fault(b.get(b"k")), BackendFault::Lost { .. }));
    assert!(receiver.recv().expect("one").contains("GET") && receiver.recv().expect("two").contains("GET"));
    assert!(receiver.try_recv().is_err());
    assert_eq!(b.figures().connects, 3);
}

#[test]
fn a_server_of_another_kind_is_no_server() {
    let port = impostor(2, |_, stream| {
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).expect("a request");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("sent");
    });
    let b = backend_with(&format!("redis://127.0.0.1:{port}"), &[("on_down", "miss")], 0);
    assert!(matches!(fault(b.get(b"k")), BackendFault::Protocol { .. }));
    // Replies of the wrong kind, in the right protocol.
    let port = impostor(1, |_, stream| {
        greet(stream);
        greet(stream);
    });
    let b = backend_with(&format!("redis://127.0.0.1:{port}"), &[], 0);
    assert!(matches!(fault(b.get(b"k")), BackendFault::Protocol { what: "neither a string nor nil" }));
}

#[test]
fn a_reply_that_drips_does_not_prolong_the_timeout() {
    let port = impostor(1, |_, stream| {
        greet(stream);
        let _ = stream.read(&mut [0; 4096]).expect("a request");
        for byte in b"$100000\r\n".iter().chain(std::iter::repeat_n(&b'x', 500)) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    let b = backend_with(&format!("redis://127.0.0.1:{port}"), &[("backend_timeout", "300ms")], 0);
    let start = Instant::now();
    assert!(matches!(fault(b.get(b"k")), BackendFault::TimedOut { .. }));
    assert!((300..600).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[test]
fn a_port_that_nobody_accepts_on_costs_the_connect_timeout() {
    // A full backlog: connections are made by the kernel until it is, and then not at all.
    let listener = TcpListener::bind(("127.0.0.1", ports::free_port())).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let more = [("connect_timeout", "50ms"), ("backend_timeout", "150ms")];
    let b = backend_with(&format!("redis://127.0.0.1:{port}"), &more, 0);
    let start = Instant::now();
    assert!(fault(b.get(b"k")).is_down());
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
}

#[test]
fn a_server_that_loads_or_is_busy_is_down_for_now() {
    let server = Server::with(Path::new("redis-server"), 0, &["--lua-time-limit", "50"]);
    let b = backend_with(&server.url(), &[("on_down", "miss"), ("backend_timeout", "2s")], 0);
    b.put(b"k", b"v", Expires::Never, Old::Goes).expect("put");
    let mut client = server.client();
    let blocked = thread::spawn(move || client.ask(["EVAL", "while true do end", "0"]));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(b.get(b"k").expect("a miss"), None);
    assert!(matches!(fault(b.delete(b"k")), BackendFault::Unavailable { .. }));
    server.ask(["SCRIPT", "KILL"]);
    blocked.join().expect("it ended");
    assert_eq!(b.get(b"k").expect("get").as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_replica_is_not_written_to() {
    let server = Server::start();
    server.ask(["REPLICAOF", "127.0.0.1", "1"]);
    let b = backend_with(&server.url(), &[], 0);
    match fault(b.put(b"k", b"v", Expires::Never, Old::Goes)) {
        BackendFault::Unavailable { reply } => assert!(reply.starts_with("READONLY"), "{reply}"),
        other => panic!("{other:?}"),
    }
}
