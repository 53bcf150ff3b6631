use super::*;
use crate::wire::testing::{ROUNDS, Random};

/// The checks of native's receiver (facts about its code), written independently of our parser.
fn native_accepts(p: &[u8]) -> bool {
    let word = |at: usize| p.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let Some(size) = word(1) else { return false };
    if p.len() <= 7 || p[0] != 111 || size != p.len() - 4 {
        return false;
    }
    let Some(key) = word(4) else { return false };
    if 4 + key > size {
        return false;
    }
    match p[3] {
        10 => word(6 + key).is_some_and(|value| key + 4 <= size && 4 + key + value <= size),
        11 => true,
        _ => false,
    }
}

#[test]
fn a_native_receiver_accepts_sets_and_deletes() {
    for (key, value, expires) in [(&b"k"[..], &b"v"[..], 0), (b"a longer key", &[7; 5000], u64::MAX)] {
        assert!(native_accepts(&Datagram::Set { key, value, expires }.encode().unwrap()));
        assert!(native_accepts(&Datagram::Delete { key }.encode().unwrap()));
    }
    let clear = Datagram::Clear.encode().unwrap();
    assert_eq!(clear, [111, 4, 0, 12, 0, 0, 0, 0]);
    assert!(!native_accepts(&clear) && clear.len() > 7, "ignored without a log line");
}

#[test]
fn what_native_sends_is_read() {
    let set = b"\x6f\x0e\0\x0a\x03\0key\x02\0vv\x03\x00120";
    assert_eq!(Datagram::parse(set), Ok(Datagram::Set { key: b"key", value: b"vv", expires: 120 }));
    // Without the two bytes that native's own receiver requires.
    assert_eq!(Datagram::parse(b"\x6f\x05\0\x0b\x03\0key"), Ok(Datagram::Delete { key: b"key" }));
    let no_expiry = b"\x6f\x06\0\x0a\x01\0k\x01\0v";
    assert_eq!(Datagram::parse(no_expiry), Ok(Datagram::Set { key: b"k", value: b"v", expires: 0 }));
}

#[test]
fn a_too_long_value_is_refused_and_never_truncated() {
    let fits = vec![1; MAX_DATAGRAM - 4 - 2 - 1 - 2 - 2 - 1];
    assert_eq!(Datagram::Set { key: b"k", value: &fits, expires: 0 }.encode().unwrap().len(), MAX_DATAGRAM);
    for more in [1, 4, 20, 70_000] {
        let value = vec![1; fits.len() + more];
        let sent = Datagram::Set { key: b"k", value: &value, expires: 0 }.encode();
        assert!(matches!(sent, Err(PacketError::TooLong { .. })), "{more} bytes too many: {sent:?}");
    }
}

#[test]
fn malformed_datagrams_are_refused() {
    for bad in [
        &b""[..],
        b"\x6f",
        b"\x6f\0\0\x0a",
        b"\x70\x05\0\x0b\x03\0key",
        b"\x6f\x06\0\x0b\x03\0key",
        b"\x6f\x04\0\x0b\x03\0key",
        b"\x6f\x05\0\x0b\x04\0key",
        b"\x6f\x05\0\x0d\x03\0key",
        b"\x6f\x02\0\x0b\0\0",
        b"\x6f\x05\0\x0a\x03\0key",
        b"\x6f\x05\0\x0a\x01\0k\0\0",
        b"\x6f\x09\0\x0a\x01\0k\x01\0v\x01\0x",
        b"\x6f\x0a\0\x0a\x01\0k\x01\0v\x01\x005!",
        b"\x6f\x04\0\x0c\0\0\0\x01",
        b"\x6f\0\0\x0c",
    ] {
        assert!(Datagram::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn fuzzed_datagrams_keep_what_they_accept() {
    let mut random = Random(3);
    let seeds = [
        Datagram::Set { key: b"key", value: b"value", expires: 4_000_000_000 }.encode().unwrap(),
        Datagram::Delete { key: b"key" }.encode().unwrap(),
        Datagram::Clear.encode().unwrap(),
    ];
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let mut bytes = random.damage(&seeds[round % seeds.len()]);
        if round % 2 == 0 && bytes.len() > 4 {
            // Otherwise most damage would only be detected as a wrong length.
            let size = u16::try_from(bytes.len() - 4).unwrap().to_le_bytes();
            bytes[1..3].copy_from_slice(&size);
        }
        if let Ok(datagram) = Datagram::parse(&bytes) {
            accepted += 1;
            assert_eq!(Datagram::parse(&datagram.encode().unwrap()), Ok(datagram));
        }
    }
    assert!(accepted > ROUNDS / 50, "too few valid datagrams: {accepted}");
}
