//! Foreign text in the log: whatever a peer, a caller or the configuration contains, a line stays
//! one line.

use std::net::UdpSocket;

use crate::{
    app::{App, BOTH, Flavor},
    patience::within,
    ports::free_address,
};

/// An attacker's text: a forged line, and a terminal's escape sequence.
const FORGED: &str = r"x\n[pid: 1] forged\r\x1b[31m";

/// Lines that begin with it, and raw escape characters.
fn forged(app: &App) -> usize {
    let log = app.server.log();
    log.lines().filter(|line| line.starts_with("[pid: 1] forged")).count() + log.matches('\x1b').count()
}

#[test]
fn names_and_addresses_of_remote_caches_are_escaped() {
    for flavor in BOTH {
        let app = App::start(flavor, &["name=own,items=10"], &[]);
        for name in
            [format!("{FORGED}@127.0.0.1:1"), format!("c@127.0.0.1:1{FORGED}"), format!("c@/nowhere{FORGED}")]
        {
            assert_eq!(app.eval(&format!("uwsgi.cache_get('k', '{name}')")), "None");
            assert_eq!(app.eval(&format!("uwsgi.cache_update('k', 'v', 0, '{name}')")), "None");
        }
        assert_eq!(forged(&app), 0, "{flavor:?}\n{}", app.server.log());
        if flavor == Flavor::Ucache {
            let log = app.server.log();
            assert!(log.contains(r#"remote cache "x\n[pid: 1] forged\r\u{1b}[31m" at 127.0.0.1:1"#), "{log}");
        }
    }
}

#[test]
fn a_refused_key_is_escaped_and_never_whole() {
    let app = App::start(Flavor::Ucache, &["name=own,items=10,blocksize=100"], &[]);
    let id = "0123456789abcdefghijklmnopqrstuv";
    assert_eq!(app.eval(&format!("uwsgi.cache_update('{id}', 'v' * 200)")), "None");
    let log = app.server.log();
    let line = r#"cache "own": "0123456789abcdef"... (32 bytes) was not stored"#;
    assert!(log.contains(line) && !log.contains(id), "{log}");
    // Longer than a valid key: another kind of line.
    assert_eq!(app.eval(&format!("uwsgi.cache_update('{FORGED}' * 200, 'v')")), "None");
    assert_eq!(forged(&app), 0, "{}", app.server.log());
    let log = app.server.log();
    let line = log.lines().find(|line| line.contains("was not stored: the key has")).expect("a line");
    assert!(line.contains(r#""x\n[pid: 1] forged\r\u{1b}[31mx\n[pid: 1"... ("#), "{line}");
    // Native logs neither.
    let native = App::start(Flavor::Native, &["name=own,items=10,blocksize=100"], &[]);
    assert_eq!(native.eval(&format!("uwsgi.cache_update('{id}', 'v' * 200)")), "None");
    assert!(!native.server.log().contains("01234"), "{}", native.server.log());
}

/// A peer of the protocol and one of the UDP port; and an unreachable node.
#[test]
fn what_peers_send_is_escaped() {
    let udp = free_address();
    let definition = format!("name=own,items=10,udp={udp},nodes=127.255.255.255:9");
    let app = App::start(Flavor::Ucache, &[&definition], &[]);
    let name = app.eval(&format!("uwsgi.cache_get('k', '{FORGED}@{}')", app.server.tcp));
    assert_eq!(name, "None");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    within("the port refuses it", || {
        socket.send_to(b"\x6f\n\x1b\n[pid: 1] forged\n", &udp).unwrap();
        app.server.log().contains("udp server: packet from 127.0.0.1")
    });
    assert_eq!(app.eval("uwsgi.cache_update('k', 'v')"), "True");
    within("a node that is a broadcast address is named", || {
        app.server.log().contains("udp node 127.255.255.255:9: Permission denied")
    });
    assert_eq!(forged(&app), 0, "{}", app.server.log());
    let log = app.server.log();
    assert!(log.contains(r#"there is no cache named "x\n[pid: 1] forged\r\u{1b}[31m""#), "{log}");
}

/// The configuration: names, options, addresses to copy from, items to preload.
#[test]
fn what_a_definition_says_is_escaped() {
    let text = "x\n[pid: 1] forged\r\u{1b}[31m";
    let address = free_address();
    let definitions = [
        format!("name={text},items=10,{text}=1,purge_lru=no"),
        format!("name=c,items=10,sync={address};/nowhere{text}"),
    ];
    let definitions: Vec<_> = definitions.iter().map(String::as_str).collect();
    let item = format!("nosuch{text} k=v");
    let file = format!("c /nowhere{text}");
    let preloads = ["--add-cache-item", &item, "--add-cache-item", &file];
    let app = App::start(Flavor::Ucache, &definitions, &preloads);
    assert_eq!(forged(&app), 0, "{}", app.server.log());
    let log = app.server.log();
    for part in [
        r#"cache "x\n[pid: 1] forged\r\u{1b}[31m" ready"#,
        r"unknown option x\n[pid: 1] forged\r\u{1b}[31m is ignored",
        r"from /nowherex\n[pid: 1] forged\r\u{1b}[31m: ",
        r#"there is no cache "nosuchx\n[pid:"#,
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
}
