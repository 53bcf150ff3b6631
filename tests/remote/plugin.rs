//! The plugin inside a real uWSGI as server and client: `request.rs` and the host's wait functions.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpListener,
    os::unix::fs::symlink,
    sync::Barrier,
    thread,
};

use crate::{
    c,
    client::{as_a_cache, native_python_uses},
    commands::array,
    native::Server,
    patience::{PATIENCE, within},
    ports::free_address,
    server::ask,
    sync,
};

/// The libucache.so that cargo built for these tests, under the only name by which uWSGI finds the
/// plugin.
fn plugin() -> String {
    let library = std::env::current_exe().unwrap().with_file_name("libucache.so");
    assert!(library.is_file(), "{} is missing: cargo builds it with the tests", library.display());
    let link = library.with_file_name("ucache_plugin.so");
    if let Err(e) = symlink("libucache.so", &link) {
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{}: {e}", link.display());
    }
    link.to_str().unwrap().to_owned()
}

pub(crate) fn start(definitions: &[&str], options: &[&str]) -> Server {
    start_on(&free_address(), definitions, options)
}

/// Like `start`, on a given TCP address.
pub(crate) fn start_on(tcp: &str, definitions: &[&str], options: &[&str]) -> Server {
    let host = Server::start_with(&plugin(), tcp, definitions, options);
    assert!(host.log().contains("cache functions of uWSGI"), "{}", host.log());
    host
}

/// A server's statistics.
pub(crate) fn stats(address: &str) -> serde_json::Value {
    let mut text = String::new();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_plugin_serves_ucache_and_native_clients() {
    let definitions =
        ["name=first,items=100", "name=box,items=100,blocksize=200000", "name=py,items=100,blocksize=200000"];
    // With post-buffering a native server stores other bytes than were sent.
    for options in [&[][..], &["--post-buffering", "4096"], &["--threads", "4"]] {
        let host = start(&definitions, options);
        as_a_cache(|name| host.cache(name));
        as_a_cache(|name| format!("{name}@{}", host.unix));
        native_python_uses(&host.tcp);
        assert!(c::inc(b"n", 5, &host.cache("box")) && c::inc(b"n", 5, &host.cache("box")));
        assert_eq!(c::number(b"n", &host.cache("box")), Some(10));
    }
}

#[test]
fn the_plugin_answers_every_command() {
    let host = start(&["name=first,items=100,blocksize=1000"], &[]);
    let ask = |modifier2, payload: &[u8]| ask(&host.tcp, modifier2, payload, b"");
    assert_eq!(ask(1, &array(&[b"k", b"value"])), b"");
    assert_eq!(ask(0, b"k"), b"\x6f\x05\0\0value");
    assert_eq!(ask(0, b"no"), b"");
    assert_eq!(ask(3, &array(&[b"get", b"k"])), b"value");
    assert_eq!(ask(4, &array(&[b"key", b"no"])), b"");
    let missing = String::from_utf8(ask(4, &array(&[b"get", b"no"]))).unwrap();
    assert!(missing.starts_with("HTTP/1.0 404 Not Found\r\n"), "{missing}");
    assert_eq!(ask(5, b"k"), b"\x6f\0\0\x01value");
    assert_eq!(ask(5, b"no"), b"\x6f\0\0\0");
    assert_eq!(ask(6, b"").len(), 4 + 29 + 100 * (88 + 2048) + 100 * 1000);
    assert_eq!(ask(2, b"k"), b"");
    assert_eq!(ask(0, b"k"), b"");
    assert_eq!(ask(99, b"k"), b"");
    // After a client announces a value and leaves, the worker is ready for the next one.
    let half = array(&[b"cmd", b"set", b"key", b"half", b"size", b"900"]);
    let mut stream = std::net::TcpStream::connect(&host.tcp).unwrap();
    let size = u8::try_from(half.len()).unwrap();
    stream.write_all(&[&[111, size, 0, 17], &half[..], b"not 900 bytes"].concat()).unwrap();
    drop(stream);
    assert_eq!(ask(17, &array(&[b"cmd", b"exists", b"key", b"half"]))[4..], array(&[b"status", b"notfound"]));
}

#[test]
fn the_plugin_and_a_native_server_copy_from_and_replicate_to_each_other() {
    let (to_native, to_ucache) = (free_address(), free_address());
    let shape = "items=500,keysize=100,blocksize=1000";
    let first = start(&[&format!("name=p,{shape}")], &[]);
    sync::fill(&first.cache("p"));
    let copy = format!("name=p,{shape},sync={}", first.tcp);
    let native = Server::start(&[&format!("{copy},udp={to_native},nodes={to_ucache}")], &[]);
    sync::check(&native.cache("p"));
    let third = format!("name=p,{shape},sync={},udp={to_ucache},nodes={to_native}", native.tcp);
    let third = start(&[&third], &[]);
    sync::check(&third.cache("p"));
    for (from, to) in [(&third, &native), (&native, &third)] {
        within("a change arrives", || {
            assert!(c::update(b"changed", from.tcp.as_bytes(), &from.cache("p")));
            c::value(b"changed", &to.cache("p")).as_deref() == Some(from.tcp.as_bytes())
        });
        within("a delete arrives", || {
            c::del(b"changed", &from.cache("p"));
            // Native's deletes are too short for native receivers; ours accepts them.
            !c::exists(b"changed", &to.cache("p"))
        });
    }
}

/// A server that answers no client before three wait for it: three greenlets of one process, or
/// none.
#[test]
fn under_gevent_a_remote_call_lets_other_greenlets_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        let barrier = std::sync::Arc::new(Barrier::new(3));
        for mut stream in listener.incoming().flatten() {
            let barrier = barrier.clone();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 100]);
                barrier.wait();
                let status = array(&[b"status", b"ok", b"size", b"5"]);
                let head = [111, u8::try_from(status.len()).unwrap(), 0, 17];
                let _ = stream.write_all(&[&head, &status[..], b"value"].concat());
            });
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.py");
    let text = format!(
        "import uwsgi\ndef application(e, start):\n    start('200 OK', [])\n    \
         return [uwsgi.cache_get('k', 'c@{at}') or b'a miss']\n"
    );
    std::fs::write(&app, text).unwrap();
    let http = free_address();
    let options =
        ["--plugin", "python3,gevent_python3", "--gevent", "10", "--http-socket", &http, "--wsgi-file"];
    let host = start(&["name=x,items=10"], &[&options[..], &[app.to_str().unwrap()]].concat());
    let got: Vec<String> = thread::scope(|s| {
        let one = || {
            let mut stream = std::net::TcpStream::connect(&http).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let all: Vec<_> = (0..3).map(|_| s.spawn(one)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(got.iter().all(|a| a.ends_with("\r\n\r\nvalue")), "{got:?}\n{}", host.log());
}
