use super::*;
use crate::{engine::Config, net::host::testing::NoHost};

fn strings(addresses: &[&str]) -> Vec<Vec<u8>> {
    addresses.iter().map(|a| a.as_bytes().to_vec()).collect()
}

#[test]
fn an_invalid_address_is_named() {
    for wrong in ["127.0.0.1", "127.0.0.1:http", "no.such.host.invalid:1", "127.0.0.1:70000"] {
        let error = setup_nodes(1, &strings(&["127.0.0.1:9", wrong])).unwrap_err();
        assert!(error.contains(wrong), "{error}");
        let error = bind(&strings(&[wrong])).unwrap_err();
        assert!(error.contains(wrong), "{error}");
    }
    // Assigned to no machine: an address for documentation.
    let error = bind(&strings(&["192.0.2.1:9"])).unwrap_err();
    assert!(error.contains("udp server 192.0.2.1:9: "), "{error}");
}

#[test]
fn nodes_receive_each_change_of_their_cache_only() {
    let sockets = bind(&strings(&["127.0.0.1:0", "127.0.0.1:0"])).unwrap();
    let names: Vec<String> = sockets.iter().map(|s| s.local_addr().unwrap().to_string()).collect();
    setup_nodes(0x1000, &strings(&["127.0.0.1:9"])).unwrap();
    setup_nodes(0x1000, &strings(&[&names[0], &names[1]])).unwrap();
    send_set(&NoHost, 0x2000, b"other", b"v", 0);
    send_set(&NoHost, 0, b"nobody", b"v", 0);
    send_set(&NoHost, 0x1000, b"k", &[1; 70_000], 0);
    send_set(&NoHost, 0x1000, b"k", b"v", 5);
    send_del(&NoHost, 0x1000, b"k");
    send_clear(&NoHost, 0x1000);
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut buf = [0; 100];
        for expected in [
            Datagram::Set { key: b"k", value: b"v", expires: 5 },
            Datagram::Delete { key: b"k" },
            Datagram::Clear,
        ] {
            let len = socket.recv(&mut buf).unwrap();
            assert_eq!(Datagram::parse(&buf[..len]), Ok(expected));
        }
    }
}

#[test]
fn a_clear_is_taken_from_nodes_whatever_their_port_and_family() {
    let engine: &'static Engine = Box::leak(Box::new(Engine::create(&Config::new("clears", 10)).unwrap()));
    let nodes = |handle, text: &[&str]| setup_nodes(handle, &strings(text)).unwrap();
    let clear = Datagram::Clear.encode().unwrap();
    let takes = |handle, clears, from: &str| {
        let receiver = Receiver { host: &NoHost, engine, handle, clears };
        receiver.take(from.parse().unwrap(), &clear).is_ok()
    };
    nodes(0x3000, &["127.0.0.5:1", "[::1]:2", ":3"]);
    // The last one is this machine, by any of its loopback addresses.
    for node in ["127.0.0.5", "::ffff:127.0.0.5", "::1", "127.0.0.9"] {
        assert!(takes(0x3000, false, node), "{node}");
    }
    for stranger in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
        assert!(!takes(0x3000, false, stranger) && takes(0x3000, true, stranger), "{stranger}");
    }
    // A multicast group never sends; and without nodes no address is accepted.
    nodes(0x4000, &["225.1.1.1:1"]);
    assert!(!takes(0x4000, false, "127.0.0.1") && !takes(0x5000, false, "127.0.0.1"));
    // A change that names a key is accepted from anyone, as in native.
    let set = Datagram::Set { key: b"k", value: b"v", expires: 0 }.encode().unwrap();
    let receiver = Receiver { host: &NoHost, engine, handle: 0x5000, clears: false };
    receiver.take("192.0.2.1".parse().unwrap(), &set).unwrap();
    assert!(engine.exists(b"k").is_some());
}

#[test]
fn what_arrives_is_applied() {
    let engine = Engine::create(&Config::new("udp", 10)).unwrap();
    let apply = |d: Datagram<'_>| apply(&engine, d);
    let (key, value) = (&b"k"[..], &b"v"[..]);
    apply(Datagram::Set { key, value, expires: 4_000_000_000 }).unwrap();
    assert!(engine.exists(key).is_some());
    apply(Datagram::Set { key, value: b"w", expires: 1_100_000_000 }).unwrap();
    assert!(engine.exists(key).is_none(), "a time that has passed");
    apply(Datagram::Set { key, value, expires: 1000 }).unwrap();
    assert!(engine.exists(key).is_some(), "a TTL where a native LRU node should send a time");
    apply(Datagram::Delete { key }).unwrap();
    apply(Datagram::Delete { key }).unwrap();
    assert!(engine.exists(key).is_none());
    apply(Datagram::Set { key, value, expires: 0 }).unwrap();
    apply(Datagram::Clear).unwrap();
    assert!(engine.exists(key).is_none());
    assert!(apply(Datagram::Set { key: &[1; 3000], value, expires: 0 }).is_err(), "a key over the limit");
}
