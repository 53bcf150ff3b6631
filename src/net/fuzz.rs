//! Fuzzing of the parsers of connections, with the harness of [`wire::fuzz`](crate::wire::fuzz).

use super::{client, keepalive::frame};
use crate::wire::{
    command::{Answer, MAX_KEPT_VALUE, Status},
    fuzz::{Target, all_requests, fuzz_all},
    packet::{HEADER_LEN, MAX_FIELD},
    records::read_value,
};

const TARGETS: [Target; 2] = [
    Target { name: "answer of a server", seeds: answers, run: answer },
    Target { name: "kept connection", seeds: kept, run: kept_input },
];

#[test]
fn every_connection_stands_any_bytes() {
    fuzz_all(&TARGETS);
}

fn answers() -> Vec<Vec<u8>> {
    let ok = Answer { size: 5, expires: 4_000_000_000, keep: true, ..Status::Ok.into() };
    let all = [ok, Status::NotFound.into(), Status::Error.into()];
    all.iter().map(|a| [&a.encode().expect("short")[..], b"value"].concat()).collect()
}

/// Reads from a stream, as the client does.
fn answer(bytes: &[u8]) -> bool {
    let mut stream = bytes;
    let Ok(Some(answer)) = client::read_answer(&mut stream) else { return false };
    assert_eq!(Answer::parse(&answer.encode().expect("short")[HEADER_LEN..]), Ok(answer));
    if let Ok(value) = read_value(&mut stream, answer.size) {
        assert!(value.len() as u64 == answer.size && bytes.len() >= value.len());
    }
    true
}

fn kept() -> Vec<Vec<u8>> {
    all_requests().into_iter().map(|packet| [&packet[..], b"value"].concat()).collect()
}

fn kept_input(bytes: &[u8]) -> bool {
    let Ok(Some(len)) = frame(bytes).map(|w| w.map(|w| w.len)) else { return false };
    assert!(len <= bytes.len() && len <= HEADER_LEN + MAX_FIELD + MAX_KEPT_VALUE as usize);
    // Bytes behind the frame have no effect.
    assert_eq!(frame(&bytes[..len]).map(|w| w.map(|w| w.len)), Ok(Some(len)));
    assert_eq!(frame(&bytes[..len - 1]), Ok(None));
    true
}
