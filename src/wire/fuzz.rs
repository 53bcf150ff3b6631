//! Fuzzing of every parser of foreign bytes with mutations of valid input. This file has the
//! harness and the parsers of this folder; those of connections and of a cache's options are in
//! `net` and in `capi::host`.
//!
//! The tests run a fixed number of rounds each. `UCACHE_FUZZ_SECS=600` sets a duration in seconds
//! per folder, `UCACHE_FUZZ_SEED` another seed. A failing input is printed with its seed.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{
    command::{Answer, Command, MAX_TTL, Request, Status},
    datagram::Datagram,
    image::{Geometry, read_image, write_image},
    packet::{self, Builder, HEADER_LEN},
    records::{Record, encode_record, end_of_records, read_records},
    testing::{ROUNDS, Random},
    uwsgi_hash::Algorithm,
};

/// A parser, valid input for it, and a check of its result for any bytes; `true` = it accepted
/// them.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    pub(crate) run: fn(&[u8]) -> bool,
}

const TARGETS: [Target; 6] = [
    Target { name: "dictionary and array", seeds: dictionaries, run: fields },
    Target { name: "request", seeds: requests, run: request },
    Target { name: "answer", seeds: answers, run: answer },
    Target { name: "datagram", seeds: datagrams, run: datagram },
    Target { name: "image", seeds: images, run: image },
    Target { name: "records", seeds: records, run: stream },
];

#[test]
fn every_parser_stands_any_bytes() {
    fuzz_all(&TARGETS);
}

/// Fuzzes each target.
pub(crate) fn fuzz_all(targets: &[Target]) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("UCACHE_FUZZ_SEED").unwrap_or(1);
    let time = number("UCACHE_FUZZ_SECS").map(|secs| Duration::from_secs(secs) / targets.len() as u32);
    for (n, target) in (1_u64..).zip(targets) {
        let (rounds, accepted) = fuzz(target, seed.wrapping_mul(1_000_003).wrapping_add(n), time);
        eprintln!("{}: {rounds} inputs, {accepted} accepted", target.name);
        assert!(accepted > rounds / 100, "{}: too few valid inputs: {accepted} of {rounds}", target.name);
    }
}

/// Returns the numbers of inputs tried and accepted.
fn fuzz(target: &Target, seed: u64, time: Option<Duration>) -> (usize, usize) {
    let mut random = Random(seed);
    let mut corpus = (target.seeds)();
    let (seeds, end) = (corpus.len(), time.map(|time| Instant::now() + time));
    let (mut rounds, mut accepted) = (0, 0);
    while end.map_or(rounds < ROUNDS / 4, |end| rounds % 64 != 0 || Instant::now() < end) {
        rounds += 1;
        let mut input = corpus[random.below(corpus.len())].clone();
        // Splicing two inputs reaches states that damage alone does not.
        if random.below(4) == 0 {
            let other = &corpus[random.below(corpus.len())];
            input.truncate(random.below(input.len() + 1));
            input.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        if random.below(8) != 0 {
            input = random.damage(&input);
        }
        match catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
            Ok(true) => {
                accepted += 1;
                let at = random.below(256);
                if input.len() < 4096 && (corpus.len() < seeds + 256 || at >= seeds && at < corpus.len()) {
                    if corpus.len() < seeds + 256 {
                        corpus.push(input);
                    } else {
                        corpus[at] = input;
                    }
                }
            }
            Ok(false) => {}
            Err(_) => panic!("{} (seed {seed}, round {rounds}): {}", target.name, input.escape_ascii()),
        }
    }
    (rounds, accepted)
}

fn packed(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut b = Builder::new();
    fields.iter().for_each(|(key, value)| b.pair(key, value).expect("short"));
    b.finish(0).expect("short")[HEADER_LEN..].to_vec()
}

fn dictionaries() -> Vec<Vec<u8>> {
    vec![packed(&[("key", b"k"), ("get", b"other")]), packed(&[("a", b""), ("b", &[0xff; 300])]), packed(&[])]
}

fn fields(payload: &[u8]) -> bool {
    let mut bytes = 0;
    let whole = packet::dictionary(payload, |key, value| {
        assert!(!key.is_empty());
        bytes += key.len() + value.len() + 4;
    });
    assert!(if whole.is_ok() { bytes == payload.len() } else { bytes < payload.len() });
    if let Ok(items) = packet::array::<3>(payload) {
        assert!(items.iter().flatten().all(|item| !item.is_empty()));
        assert!(items.iter().flatten().map(|item| item.len() + 2).sum::<usize>() <= payload.len());
    }
    whole.is_ok()
}

/// One request of each kind, whole packets.
pub(crate) fn all_requests() -> Vec<Vec<u8>> {
    let of = |command| Request::new(command, b"fuzz", b"k");
    let all = [
        of(Command::Get),
        Request { keep: true, ..of(Command::Get) },
        of(Command::Exists),
        of(Command::Del),
        of(Command::Clear),
        of(Command::Dump),
        Request { size: 5, expires: 60, flags: 1, ..of(Command::Set) },
        Request { size: 5, expires: u64::MAX, keep: true, ..of(Command::Update) },
        Request { operand: -5, flags: 562, keep: true, ..of(Command::Math) },
    ];
    all.iter().map(|r| r.encode().expect("short")).collect()
}

fn requests() -> Vec<Vec<u8>> {
    all_requests().iter().map(|packet| packet[HEADER_LEN..].to_vec()).collect()
}

fn request(payload: &[u8]) -> bool {
    let Ok(request) = Request::parse(payload) else { return false };
    // Encoding and parsing again gives the same, except for fields that do not apply to the
    // command.
    let Ok(again) = request.encode() else { return true };
    let read = Request::parse(&again[HEADER_LEN..]).expect("our own");
    assert_eq!(
        (read.command, read.cache, read.key, read.keep),
        (request.command, request.cache, request.key, request.keep)
    );
    assert_eq!((read.body(), read.flags), (request.body(), request.flags));
    assert!(request.expires > MAX_TTL || read.expires == request.expires);
    true
}

fn answers() -> Vec<Vec<u8>> {
    let ok = Answer { size: 5, expires: 4_000_000_000, keep: true, ..Status::Ok.into() };
    let all = [ok, Status::NotFound.into(), Status::Error.into()];
    all.iter().map(|a| a.encode().expect("short")[HEADER_LEN..].to_vec()).collect()
}

fn answer(payload: &[u8]) -> bool {
    let Ok(answer) = Answer::parse(payload) else { return false };
    assert_eq!(Answer::parse(&answer.encode().expect("short")[HEADER_LEN..]), Ok(answer));
    true
}

fn datagrams() -> Vec<Vec<u8>> {
    let (key, value) = (&b"key"[..], &b"value"[..]);
    let all = [
        Datagram::Set { key, value, expires: 0 },
        Datagram::Set { key, value, expires: 4_000_000_000 },
        Datagram::Delete { key },
        Datagram::Clear,
    ];
    let ours = all.iter().map(|d| d.encode().expect("short"));
    // Native's delete is two bytes shorter.
    ours.chain([b"\x6f\x05\0\x0b\x03\0key".to_vec()]).collect()
}

fn datagram(bytes: &[u8]) -> bool {
    let Ok(datagram) = Datagram::parse(bytes) else { return false };
    let again = datagram.encode().expect("it was parsed from one");
    assert_eq!(Datagram::parse(&again), Ok(datagram));
    if let Datagram::Set { key, value, .. } = datagram {
        assert!(!key.is_empty() && !value.is_empty() && key.len() + value.len() < bytes.len());
    }
    true
}

fn shape() -> Geometry {
    let hash = |key: &[u8]| Algorithm::Djb33x.hash(key);
    Geometry { items: 6, blocks: 8, blocksize: 16, keysize: 8, hashsize: 4, hash, bitmap: true, lru: true }
}

fn some_records() -> Vec<Record> {
    let one = |n: u8| Record {
        key: vec![n; usize::from(n)],
        value: vec![n; 20],
        expires: n.into(),
        ungettable: n == 2,
    };
    (1..4).map(one).collect()
}

fn images() -> Vec<Vec<u8>> {
    let mut image = Vec::new();
    assert!(write_image(&shape(), &some_records(), &mut |piece| {
        image.extend_from_slice(piece);
        true
    }));
    vec![image]
}

fn image(bytes: &[u8]) -> bool {
    let mut found = 0;
    let whole = read_image(&shape(), &mut &bytes[..], &mut |r| {
        found += 1;
        assert!((1..=8).contains(&r.key.len()) && (1..=128).contains(&r.value.len()));
        assert!(bytes.windows(r.value.len()).any(|window| window == r.value));
    });
    assert!(found <= 6);
    whole.is_ok() && found > 0
}

fn records() -> Vec<Vec<u8>> {
    let one: Vec<u8> = some_records().iter().filter_map(encode_record).flatten().collect();
    vec![[&one[..], &end_of_records()].concat(), end_of_records().to_vec()]
}

fn stream(bytes: &[u8]) -> bool {
    let mut taken = 0;
    let whole = read_records(&mut &bytes[..], &mut |r| {
        assert!(!r.key.is_empty() && !r.value.is_empty());
        taken += r.key.len() + r.value.len();
    });
    assert!(taken <= bytes.len());
    whole.is_ok()
}
