use super::*;
use crate::wire::testing::{ROUNDS, Random};

type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

fn pairs(payload: &[u8]) -> (Pairs<'_>, Result<(), PacketError>) {
    let mut found = Vec::new();
    let end = dictionary(payload, |k, v| found.push((k, v)));
    (found, end)
}

#[test]
fn a_packet_is_read_as_it_was_built() {
    let mut b = Builder::new();
    b.pair("cmd", b"get").unwrap();
    b.pair("cache", b"").unwrap();
    b.number("size", 70_000).unwrap();
    let packet = b.finish(17).unwrap();
    let (header, payload) = packet.split_first_chunk().unwrap();
    let header = Header::parse(*header);
    assert_eq!(header, Header { modifier1: 111, size: 32, modifier2: 17 });
    assert_eq!(payload.len(), 32);
    assert_eq!(
        pairs(payload),
        (vec![(&b"cmd"[..], &b"get"[..]), (b"cache", b""), (b"size", b"70000")], Ok(()))
    );
    assert_eq!(packet[..4], [111, 32, 0, 17]);
}

#[test]
fn the_size_is_little_endian_and_has_a_limit() {
    assert_eq!(Header::cache(6, 0x1234).unwrap().to_bytes(), [111, 0x34, 0x12, 6]);
    assert_eq!(Header::cache(6, 65_536), Err(PacketError::TooLong { len: 65_536, limit: MAX_FIELD }));
    let mut b = Builder::new();
    assert_eq!(b.field(&[1; 65_536]), Err(PacketError::TooLong { len: 65_536, limit: MAX_FIELD }));
    b.field(&[1; 65_533]).unwrap();
    assert_eq!(Builder::new().finish(0).unwrap(), [111, 0, 0, 0]);
    b.field(b"x").unwrap();
    assert_eq!(b.finish(0), Err(PacketError::TooLong { len: 65_538, limit: MAX_FIELD }));
}

#[test]
fn dictionaries_with_wrong_lengths_are_refused() {
    for (payload, fault) in [
        (&b"\x03\0cmd\x03\0ge"[..], PacketError::Truncated("a dictionary value")),
        (b"\x03\0cmd\x03", PacketError::Truncated("a dictionary value")),
        (b"\x03\0cmd", PacketError::Truncated("a dictionary value")),
        (b"\xff\xffcmd\0\0", PacketError::Truncated("a dictionary key")),
        (b"\x01", PacketError::Truncated("a dictionary key")),
        (b"\0\0\x01\0a", PacketError::Empty("a dictionary key")),
    ] {
        assert_eq!(pairs(payload).1, Err(fault), "{payload:?}");
    }
    assert_eq!(pairs(b""), (vec![], Ok(())));
}

#[test]
fn arrays_ignore_empty_items_as_native_does() {
    assert_eq!(array::<2>(b"\x01\0k\x02\0vv\x01\0x"), Ok([Some(&b"k"[..]), Some(b"vv")]));
    assert_eq!(array::<2>(b"\0\0\x01\0k\0\0"), Ok([Some(&b"k"[..]), None]));
    assert_eq!(array::<2>(b"\x01\0k\x05\0vv"), Err(PacketError::Truncated("an array item")));
    assert_eq!(array::<1>(b""), Ok([None]));
}

#[test]
fn numbers_are_digits_that_fit() {
    assert_eq!(number(b"18446744073709551615", "n"), Ok(u64::MAX));
    for wrong in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"1a", b"\xff", b"0x1"] {
        assert_eq!(number(wrong, "n"), Err(PacketError::NotANumber("n")), "{wrong:?}");
    }
    assert_eq!(signed(b"-9223372036854775808", "n"), Ok(i64::MIN));
    for wrong in [&b""[..], b"9223372036854775808", b"+1", b"--1", b"-"] {
        assert_eq!(signed(wrong, "n"), Err(PacketError::NotANumber("n")), "{wrong:?}");
    }
}

/// Any input: no panic, and fields lie inside the payload, in order, without overlap.
#[test]
fn fuzzed_dictionaries_and_arrays_stay_inside_their_payload() {
    let mut random = Random(1);
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let mut b = Builder::new();
        for _ in 0..random.below(5) {
            let (k, v) = (random.below(6), random.below(20));
            b.field(&random.bytes(k)).unwrap();
            b.field(&random.bytes(v)).unwrap();
        }
        let packet = b.finish(17).unwrap();
        let payload = if round % 8 == 0 { packet[4..].to_vec() } else { random.damage(&packet[4..]) };
        let mut used = 0;
        let end = dictionary(&payload, |k, v| {
            assert!(!k.is_empty());
            used += k.len() + v.len() + 4;
        });
        assert!(used <= payload.len());
        if end.is_ok() {
            accepted += 1;
            assert_eq!(used, payload.len(), "an accepted dictionary is read to its end");
        }
        if let Ok(items) = array::<3>(&payload) {
            assert!(items.iter().flatten().map(|i| i.len() + 2).sum::<usize>() <= payload.len());
        }
        let _ = (number(&payload, "n"), signed(&payload, "n"));
    }
    assert!(accepted > ROUNDS / 50, "too few valid dictionaries: {accepted}");
}
