use std::os::unix::net::UnixStream;

use super::*;
use crate::net::host::testing::NoHost;

#[test]
fn a_request_is_whole_when_its_value_is_there() {
    let request = Request { size: 5, ..Request::new(Command::Update, b"c", b"k") };
    let packet = request.encode().unwrap();
    let all = [&packet[..], b"value"].concat();
    for len in 0..all.len() {
        assert_eq!(frame(&all[..len]), Ok(None), "{len}");
    }
    let found = Frame { body_at: packet.len(), len: all.len() };
    assert_eq!(frame(&all), Ok(Some(found)));
    let two = [&all[..], &all].concat();
    assert_eq!(frame(&two).unwrap().unwrap().len, all.len());
    // A get has no value, whatever its size field says.
    let get = Request::new(Command::Get, b"c", b"k").encode().unwrap();
    assert_eq!(frame(&get).unwrap().unwrap().len, get.len());
}

#[test]
fn other_requests_are_rejected_at_once() {
    let too_long =
        Request { size: MAX_KEPT_VALUE + 1, ..Request::new(Command::Set, b"c", b"k") }.encode().unwrap();
    let dump = Request::new(Command::Dump, b"c", b"").encode().unwrap();
    for bytes in
        [&b"\x6f\0\0\x11"[..], b"\x6f\x01\0\x06", b"\x6e\x01\0\x11", b"GET / HTTP/1.0", &too_long, &dump]
    {
        assert_eq!(frame(bytes), Err(NotARequest), "{bytes:?}");
    }
}

#[test]
fn a_connection_that_arrives_as_the_process_ends_gets_its_goodbye() {
    let (inbox, arrivals) = mpsc::channel();
    let (wake, woken) = UnixDatagram::pair().unwrap();
    let service: &'static Service = Box::leak(Box::new(Service {
        host: &NoHost,
        forks: 0,
        places: AtomicUsize::new(1),
        inbox,
        wake,
        ending: AtomicBool::new(true),
        ended: AtomicBool::new(false),
    }));
    let (kept, mut peer) = UnixStream::pair().unwrap();
    // As a child of fork has one.
    let copy = kept.try_clone().unwrap();
    Place(service).take_over(kept.into());
    run(service, &arrivals, &woken);
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, GOODBYE);
    assert_eq!(service.places.load(Ordering::Relaxed), 0);
    drop(copy);
}
