//! UDP replication, with ucache and with native nodes.

use std::net::UdpSocket;

use crate::{
    c,
    native::{self, Server},
    patience::within,
    ports::free_address,
};

#[test]
fn changes_of_ucache_arrive_at_a_native_node() {
    let udp = free_address();
    let native = Server::start(&[&format!("name=u1,items=100,udp={udp}")], &[]);
    within("its udp server runs", || native.log().contains("udp server for cache"));
    c::create(&format!("name=u1,items=100,nodes={udp}"));
    let there = native.cache("u1");
    // Datagrams may be lost while the node starts.
    within("a first change arrives", || {
        assert!(c::update(b"probe", b"v", "u1"));
        c::exists(b"probe", &there)
    });
    assert!(c::set(b"k", b"value", 1000, 0, "u1"));
    within("the set arrives", || c::value(b"k", &there).as_deref() == Some(b"value"));
    let (here, expires) = (c::get(b"k", "u1").unwrap().1, c::get(b"k", &there).unwrap().1);
    assert!(here.abs_diff(expires) <= 1, "{here} {expires}");
    assert!(c::del(b"k", "u1"));
    within("the delete arrives", || !c::exists(b"k", &there));
    for sum in [5, 10, 15] {
        assert!(c::inc(b"n", 5, "u1"));
        within("the result arrives, not the operand", || c::number(b"n", &there) == Some(sum));
    }
    assert!(c::set(b"ttl", &1_i64.to_ne_bytes(), 1000, 0, "u1") && c::inc(b"ttl", 1, "u1"));
    within("the sum arrives", || c::number(b"ttl", &there) == Some(2));
    assert_eq!(c::get(b"ttl", &there), c::get(b"ttl", "u1"), "with the expiry that was kept");
    assert!(c::update(b"big", &[1; 65_535], "u1"));
    assert!(c::update(b"after", b"v", "u1"));
    within("what comes after arrives", || c::exists(b"after", &there));
    assert!(!c::exists(b"big", &there), "what does not fit a datagram is not sent");
}

#[test]
fn changes_of_a_native_server_arrive_here() {
    let udp = free_address();
    c::serve_udp(c::create(&format!("name=u2,items=100,udp={udp}")));
    let code = "
for i in range(1000):
    uwsgi.cache_update('probe', b'v', 0, 'u2')
    if uwsgi.cache_update('k', b'value', 1000, 'u2') and uwsgi.cache_update('gone', b'v', 0, 'u2'):
        uwsgi.cache_del('gone', 'u2')
    time.sleep(0.01)
    if i > 20: break
show('done')
";
    let shown = native::python(&format!("name=u2,items=100,nodes={udp}"), code);
    assert_eq!(shown, ["'done'"]);
    within("the set arrives", || c::value(b"k", "u2").as_deref() == Some(b"value"));
    let (_, expires) = c::get(b"k", "u2").unwrap();
    assert!((c::now() + 900..=c::now() + 1000).contains(&expires), "{expires}");
    within("the delete arrives", || !c::exists(b"gone", "u2"));
}

/// A native node with `purge_lru` sends a TTL instead of an absolute time.
#[test]
fn a_relative_expiry_of_a_native_lru_node_is_understood() {
    let udp = free_address();
    c::serve_udp(c::create(&format!("name=u3,items=100,udp={udp}")));
    let code = "
for i in range(20):
    uwsgi.cache_update('k', b'value', 1000, 'u3')
    time.sleep(0.01)
show('done')
";
    let shown = native::python(&format!("name=u3,items=100,purge_lru=1,nodes={udp}"), code);
    assert_eq!(shown, ["'done'"]);
    within("the set arrives", || c::exists(b"k", "u3"));
    let (_, expires) = c::get(b"k", "u3").unwrap();
    assert!((c::now() + 900..=c::now() + 1000).contains(&expires), "{expires}");
}

#[test]
fn ucaches_replicate_clears_too_and_do_not_echo() {
    let (udp, echo) = (free_address(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let sink = echo.local_addr().unwrap();
    c::create(&format!("name=u4,items=100,nodes={udp}"));
    // Changes received from a node must not be sent on.
    c::serve_udp(c::create(&format!("name=u4 copy,items=100,udp={udp},nodes={sink}")));
    within("a change arrives", || {
        assert!(c::update(b"k", b"v", "u4"));
        c::exists(b"k", "u4 copy")
    });
    assert!(c::clear("u4"));
    within("the clear arrives", || !c::exists(b"k", "u4 copy"));
    echo.set_nonblocking(true).unwrap();
    assert!(echo.recv(&mut [0; 100]).is_err(), "a change that came from a node is not sent on");
    assert!(c::update(b"own", b"v", "u4 copy"));
    within("its own change is", || echo.recv(&mut [0; 100]).is_ok());
}

#[test]
fn garbage_on_the_udp_port_changes_nothing() {
    let udp = free_address();
    c::serve_udp(c::create(&format!("name=u5,items=100,udp={udp}")));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let good = b"\x6f\x0c\0\x0a\x04\0good\x01\0v\x01\x000";
    within("the server runs", || {
        socket.send_to(good, &udp).unwrap();
        c::exists(b"good", "u5")
    });
    for len in 0..good.len() {
        socket.send_to(&good[..len], &udp).unwrap();
        let mut bad = good.to_vec();
        bad[len] ^= 0x55;
        // Bytes of key, value and expiry may have any value; the rest is checked.
        if ![6, 7, 8, 9, 12].contains(&len) {
            socket.send_to(&bad, &udp).unwrap();
        }
    }
    socket.send_to(&[0x6f; 65_507], &udp).unwrap();
    within("the server still runs", || {
        socket.send_to(b"\x6f\x0a\0\x0a\x02\0ok\x01\0v\x01\x000", &udp).unwrap();
        c::exists(b"ok", "u5")
    });
    assert_eq!(c::value(b"good", "u5").unwrap(), b"v");
    assert!(c::del(b"good", "u5") && c::del(b"ok", "u5"));
}
