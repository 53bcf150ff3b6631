use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::net::testing::server;

#[test]
fn a_value_is_sent_behind_its_packet_and_an_early_refusal_is_heard() {
    let (address, handle) = server(|mut stream, payload| {
        let request = Request::parse(&payload).unwrap();
        assert_eq!((request.command, request.size, request.expires), (Command::Update, 100_000, 60));
        let mut value = vec![0; 100_000];
        stream.read_exact(&mut value).unwrap();
        assert!(value.iter().all(|b| *b == 7));
        stream.write_all(&Answer::from(Status::Ok).encode().unwrap()).unwrap();
    });
    assert!(set(address.as_bytes(), b"c", b"k", &[7; 100_000], 60, FLAG_UPDATE));
    handle.join().unwrap();

    let (address, handle) = server(|mut stream, _| {
        stream.write_all(&Answer::from(Status::Error).encode().unwrap()).unwrap();
    });
    assert!(!set(address.as_bytes(), b"c", b"k", &vec![7; 50 << 20], 0, 0));
    handle.join().unwrap();
}

#[test]
fn arithmetic_goes_as_a_request_of_its_own_that_native_does_not_answer() {
    let flags = FLAG_UPDATE | FLAG_MATH | FLAG_FIXEXPIRE | FLAG_DEC;
    let (address, handle) = server(move |mut stream, payload| {
        let request = Request::parse(&payload).unwrap();
        assert_eq!((request.command, request.operand, request.flags), (Command::Math, -5, flags));
        stream.write_all(&Answer::from(Status::Ok).encode().unwrap()).unwrap();
    });
    assert!(set(address.as_bytes(), b"", b"n", &(-5_i64).to_ne_bytes(), 0, flags));
    handle.join().unwrap();
    let (address, handle) = server(|stream, _| drop(stream));
    assert!(!set(address.as_bytes(), b"", b"n", &5_i64.to_ne_bytes(), 0, flags));
    handle.join().unwrap();
    assert!(!set(b"127.0.0.1:1", b"", b"n", b"7 bytes", 0, flags), "not an operand");
}

#[test]
fn nobody_there_is_a_miss() {
    // a port that is kept and at which nobody listens
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let server = held.local_addr().unwrap().as_socket().unwrap().to_string();
    let server = server.as_bytes();
    assert!(get(server, b"", b"k").is_none());
    assert!(!exists(server, b"", b"k") && !del(server, b"", b"k") && !clear(server, b""));
    assert!(!set(server, b"", b"k", b"v", 0, 0));
}

#[test]
fn absolute_expiries_become_relative() {
    assert_eq!(ttl_from(0, 100), 0);
    assert_eq!(ttl_from(160, 100), 60);
    assert_eq!(ttl_from(100, 100), AT_ONCE);
    assert_eq!(ttl_from(5, 100), AT_ONCE);
}
