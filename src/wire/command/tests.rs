use super::*;
use crate::wire::{
    packet::HEADER_LEN,
    testing::{ROUNDS, Random},
};

fn all() -> Vec<Request<'static>> {
    let mut set = Request::new(Command::Update, b"sessions", b"key");
    (set.size, set.expires, set.flags) = (70_000, 60, 512);
    let mut math = Request::new(Command::Math, b"", b"\0\xff");
    (math.operand, math.flags, math.keep) = (i64::MIN, 2 | 16 | 32 | 512, true);
    let mut gone = Request::new(Command::Set, b"", b"k");
    (gone.size, gone.expires) = (1, AT_ONCE);
    vec![
        Request::new(Command::Get, b"", b"k"),
        Request::new(Command::Exists, b"c", b"k"),
        Request::new(Command::Del, b"c", b"k"),
        Request::new(Command::Clear, b"c", b""),
        Request::new(Command::Dump, b"c", b""),
        set,
        math,
        gone,
    ]
}

#[test]
fn requests_are_read_as_they_were_written() {
    for request in all() {
        let packet = request.encode().unwrap();
        assert_eq!(packet[0], 111);
        assert_eq!(packet[3], MAGIC);
        assert_eq!(Request::parse(&packet[HEADER_LEN..]), Ok(request));
    }
}

/// Native writes `size` twice and ignores unknown fields.
#[test]
fn native_requests_are_read() {
    let payload =
        b"\x03\0cmd\x03\0set\x03\0key\x01\0k\x04\0size\x02\x0099\x07\0expires\x02\0-1\x04\0size\x01\x005\
        \x03\0new\x05\0field\x05\0cache\0\0";
    let request = Request::parse(payload).unwrap();
    assert_eq!((request.command, request.key, request.size), (Command::Set, &b"k"[..], 5));
    assert_eq!((request.expires, request.cache), (AT_ONCE, &b""[..]));
}

#[test]
fn an_expiry_that_wraps_is_sent_the_way_native_sends_it() {
    for expires in [u64::MAX, MAX_TTL + 1] {
        let request = Request { size: 1, expires, ..Request::new(Command::Set, b"", b"k") };
        let packet = request.encode().unwrap();
        let needle = b"\x07\0expires\x02\0-1";
        assert!(packet.windows(needle.len()).any(|w| w == needle));
    }
}

#[test]
fn invalid_requests_are_refused() {
    for (payload, fault) in [
        (&b""[..], PacketError::Unknown { what: "cmd of length", value: 0 }),
        (b"\x03\0cmd\x04\0geta", PacketError::Unknown { what: "cmd of length", value: 4 }),
        (b"\x03\0cmd\x03\0get\x04\0size\x02\0-5", PacketError::NotANumber("size")),
        (b"\x03\0cmd\x03\0get\x07\0expires\x02\0x5", PacketError::NotANumber("expires")),
        (b"\x03\0cmd\x03\0get\x03\0key\x09\0k", PacketError::Truncated("a dictionary value")),
    ] {
        assert_eq!(Request::parse(payload), Err(fault), "{payload:?}");
    }
    let long = vec![b'k'; 65_535];
    let too_long = Request::new(Command::Get, b"", &long).encode();
    assert!(matches!(too_long, Err(PacketError::TooLong { .. })), "{too_long:?}");
}

#[test]
fn answers_are_read_as_they_were_written() {
    for status in [Status::Ok, Status::NotFound, Status::Error] {
        for (size, expires) in [(0, 0), (1 << 40, 4_000_000_000)] {
            let answer = Answer { status, size, expires, keep: size % 2 == 0 };
            assert_eq!(Answer::parse(&answer.encode().unwrap()[HEADER_LEN..]), Ok(answer));
        }
    }
    assert!(Answer::parse(b"\x06\0status\x02\0OK").is_err());
    assert!(Answer::parse(b"").is_err());
    let expired = Answer::parse(b"\x06\0status\x02\0ok\x07\0expires\x03\0-29").unwrap();
    assert_eq!(expired.expires, 1, "native prints a wrapped expiry as a negative number");
}

#[test]
fn fuzzed_requests_and_answers_keep_what_they_accept() {
    let mut random = Random(2);
    let seeds: Vec<Vec<u8>> = all()
        .iter()
        .map(|r| r.encode().unwrap())
        .chain([Answer { size: 9, expires: 5, ..Status::Ok.into() }.encode().unwrap()])
        .map(|packet| packet[HEADER_LEN..].to_vec())
        .collect();
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let seed = random.below(seeds.len());
        let payload = random.damage(&seeds[seed]);
        if let Ok(request) = Request::parse(&payload) {
            accepted += 1;
            let again = request.encode().unwrap();
            let mut read = Request::parse(&again[HEADER_LEN..]).unwrap();
            // Fields that do not apply to the command are not encoded.
            if !matches!(request.command, Command::Set | Command::Update) {
                read.size = request.size;
            }
            if request.command != Command::Math {
                read.operand = request.operand;
            }
            let expires = if request.expires > MAX_TTL { AT_ONCE } else { request.expires };
            assert_eq!(read, Request { expires, ..request });
        }
        if let Ok(answer) = Answer::parse(&payload) {
            assert_eq!(Answer::parse(&answer.encode().unwrap()[HEADER_LEN..]), Ok(answer));
        }
    }
    assert!(accepted > ROUNDS / 50, "too few valid requests: {accepted}");
}
