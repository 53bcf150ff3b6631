//! Every parser that meets foreign bytes, against mutations of good ones: the options of a cache, and each packet.
//!
//! A fixed number of rounds for each as part of the tests. `UCACHE_FUZZ_SECS=600` makes it that many seconds in all,
//! `UCACHE_FUZZ_SEED` chooses another start; what breaks something is printed with the seed it came from.

use std::{
    env,
    ffi::CString,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{
    client,
    datagram::Datagram,
    dump::{self, Geometry, Record},
    magic::{Answer, Command, MAGIC, MAX_TTL, Request, Status},
    packet::{self, Builder, HEADER_LEN, Header, MAX_FIELD},
    serve::{self, Peer},
    service,
    testing::{ROUNDS, Random},
};
use crate::{
    capi::{kvlist, lifecycle::uwsgi_cache_create, options},
    engine::config::{MAX_ITEMS, MAX_KEY, MAX_VALUE},
};

/// A parser, good input for it, and what must hold of whatever it makes of any bytes; `true` = it accepted them.
struct Target {
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    run: fn(&[u8]) -> bool,
}

const TARGETS: [Target; 10] = [
    Target { name: "options", seeds: definitions, run: options },
    Target { name: "kvlist", seeds: definitions, run: pairs },
    Target { name: "dictionary and array", seeds: dictionaries, run: fields },
    Target { name: "request", seeds: requests, run: request },
    Target { name: "answer", seeds: answers, run: answer },
    Target { name: "datagram", seeds: datagrams, run: datagram },
    Target { name: "image", seeds: images, run: image },
    Target { name: "records", seeds: records, run: stream },
    Target { name: "server", seeds: served, run: server },
    Target { name: "kept connection", seeds: kept, run: kept_input },
];

#[test]
fn every_parser_stands_any_bytes() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("UCACHE_FUZZ_SEED").unwrap_or(1);
    let time = number("UCACHE_FUZZ_SECS").map(|secs| Duration::from_secs(secs) / TARGETS.len() as u32);
    for (n, target) in (1_u64..).zip(&TARGETS) {
        let (rounds, accepted) = fuzz(target, seed.wrapping_mul(1_000_003).wrapping_add(n), time);
        eprintln!("{}: {rounds} inputs, {accepted} accepted", target.name);
        assert!(accepted > rounds / 100, "{} meets good input, too: {accepted} of {rounds}", target.name);
    }
}

/// Inputs tried and accepted.
fn fuzz(target: &Target, seed: u64, time: Option<Duration>) -> (usize, usize) {
    let mut random = Random(seed);
    let mut corpus = (target.seeds)();
    let (seeds, end) = (corpus.len(), time.map(|time| Instant::now() + time));
    let (mut rounds, mut accepted) = (0, 0);
    while end.map_or(rounds < ROUNDS / 4, |end| rounds % 64 != 0 || Instant::now() < end) {
        rounds += 1;
        let mut input = corpus[random.below(corpus.len())].clone();
        // Half of one and half of another reach what damage alone does not.
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

fn definitions() -> Vec<Vec<u8>> {
    [
        "name=a,items=10",
        "name=all,max_items=100,blocksize=4096,blocks=200,hash=murmur2,hashsize=64,keysize=100,bitmap=1,lastmod=1",
        "name=b,maxitems=5,store=/nowhere/\\,x,store_sync=5,store_delete=1,purge_lru=0,lazy_expire=yes",
        "name=c,items=7,nodes=127.0.0.1:1;127.0.0.1:2,sync=host:3,udp=:4,math_initial=-9223372036854775808",
        "name=d,items=9,sweep_on_full=10,clear_on_full=off,ignore_full=1,no_expire=1,lock_timeout=50,max-items=3",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn options(text: &[u8]) -> bool {
    let Ok(s) = options::parse(text, options::Defaults::default()) else { return false };
    let c = &s.config;
    assert!(
        (1..=MAX_ITEMS + 1).contains(&s.items) && c.capacity == (s.items - 1).max(1) && s.blocks >= s.items
    );
    assert!((1..=MAX_KEY).contains(&c.max_key) && (1..=MAX_VALUE).contains(&c.max_value));
    assert!(!s.name.is_empty() && s.name.to_bytes().len() <= 255 && !s.name.to_bytes().contains(&b'@'));
    assert!(c.check().is_ok());
    let listed = s.nodes.iter().chain(&s.sync_nodes).chain(&s.udp_servers);
    assert!(listed.map(|l| l.to_bytes().len()).sum::<usize>() <= text.len());
    true
}

fn pairs(text: &[u8]) -> bool {
    let found = kvlist::parse(text);
    let bytes: usize = found.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, |v| v.len() + 1)).sum();
    assert!(bytes <= text.len() && found.len() <= text.len().div_ceil(2));
    found.iter().any(|(key, value)| key == b"name" && value.is_some())
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

fn all_requests() -> Vec<Vec<u8>> {
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
    // What is written again is read again, but for fields that the command has no use for.
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
    all.iter().map(|a| [&a.encode().expect("short")[..], b"value"].concat()).collect()
}

/// As the client reads it: from a stream.
fn answer(bytes: &[u8]) -> bool {
    let mut stream = bytes;
    let Ok(Some(answer)) = client::read_answer(&mut stream) else { return false };
    assert_eq!(Answer::parse(&answer.encode().expect("short")[HEADER_LEN..]), Ok(answer));
    if let Ok(value) = super::net::read_value(&mut stream, answer.size) {
        assert!(value.len() as u64 == answer.size && bytes.len() >= value.len());
    }
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
    let again = datagram.encode().expect("it came in one");
    assert_eq!(Datagram::parse(&again), Ok(datagram));
    if let Datagram::Set { key, value, .. } = datagram {
        assert!(!key.is_empty() && !value.is_empty() && key.len() + value.len() < bytes.len());
    }
    true
}

fn shape() -> Geometry {
    let hash = |key: &[u8]| crate::capi::hash::Algorithm::Djb33x.hash(key);
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
    assert!(dump::write_image(&shape(), &some_records(), &mut |piece| {
        image.extend_from_slice(piece);
        true
    }));
    vec![image]
}

fn image(bytes: &[u8]) -> bool {
    let mut found = 0;
    let whole = dump::read_image(&shape(), &mut &bytes[..], &mut |r| {
        found += 1;
        assert!((1..=8).contains(&r.key.len()) && (1..=128).contains(&r.value.len()));
        assert!(bytes.windows(r.value.len()).any(|window| window == r.value));
    });
    assert!(found <= 6);
    whole.is_ok() && found > 0
}

fn records() -> Vec<Vec<u8>> {
    let one: Vec<u8> = some_records().iter().filter_map(dump::encode_record).flatten().collect();
    vec![[&one[..], &dump::end_of_records()].concat(), dump::end_of_records().to_vec()]
}

fn stream(bytes: &[u8]) -> bool {
    let mut taken = 0;
    let whole = dump::read_records(&mut &bytes[..], &mut |r| {
        assert!(!r.key.is_empty() && !r.value.is_empty());
        taken += r.key.len() + r.value.len();
    });
    assert!(taken <= bytes.len());
    whole.is_ok()
}

/// A client in memory: what it sends behind the packet, and what it got.
struct Script<'a> {
    body: &'a [u8],
    got: Vec<u8>,
    kept: bool,
}

impl Peer for Script<'_> {
    fn read(&mut self, want: usize, _: Duration) -> Option<&[u8]> {
        let (now, later) = self.body.split_at(want.min(self.body.len()));
        self.body = later;
        Some(now).filter(|now| !now.is_empty())
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        self.got.extend_from_slice(bytes);
        self.got.len() < 1 << 20
    }

    fn not_found(&mut self) {}

    fn keep(&mut self) -> bool {
        self.kept = true;
        true
    }
}

/// The cache "fuzz" exists, and its values are of this byte only.
const VALUE: u8 = 0xd7;

fn served() -> Vec<Vec<u8>> {
    let definition =
        CString::new("name=fuzz,items=20,blocksize=64,keysize=32,ignore_full=1").expect("no NUL");
    // SAFETY: a NUL-terminated string, which the function does not keep.
    let cache = unsafe { uwsgi_cache_create(definition.as_ptr()) };
    assert!(!cache.is_null());
    all_requests().into_iter().map(|packet| [&packet[..], &[VALUE; 64]].concat()).collect()
}

/// Runs what would arrive from a client; whatever it is, a byte that leaves is of an answer's words or of a value.
fn server(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return false };
    let header = Header::parse(*head);
    let Some((payload, _)) = rest.split_at_checked(header.size.into()) else { return false };
    // No name is the first cache of the process, which belongs to another test.
    if Request::parse(payload).is_ok_and(|request| request.cache.is_empty()) {
        return false;
    }
    let mut client = Script { body: &[VALUE; 64], got: Vec::new(), kept: false };
    serve::serve(MAGIC, payload, &mut client);
    let Ok(request) = Request::parse(payload) else {
        assert!(client.got.ends_with(b"error") || payload.is_empty());
        return false;
    };
    assert!(!client.kept || request.keep);
    let mut stream = &client.got[..];
    let answer = client::read_answer(&mut stream).expect("an answer").expect("not nothing");
    assert!(!answer.keep || client.kept);
    match request.command {
        Command::Dump => {
            let mut each = |r: Record| assert!(r.value.iter().all(|b| *b == VALUE) || r.value.len() == 8);
            assert!(answer.status != Status::Ok || dump::read_records(&mut stream, &mut each).is_ok());
        }
        Command::Get => {
            assert_eq!(stream.len() as u64, answer.size);
            assert!(stream.len() == 8 || stream.iter().all(|b| *b == VALUE), "a byte that nobody stored");
        }
        _ => assert!(stream.is_empty()),
    }
    answer.status == Status::Ok
}

fn kept() -> Vec<Vec<u8>> {
    all_requests().into_iter().map(|packet| [&packet[..], b"value"].concat()).collect()
}

fn kept_input(bytes: &[u8]) -> bool {
    let Ok(Some(len)) = service::whole(bytes).map(|w| w.map(|w| w.len)) else { return false };
    assert!(len <= bytes.len() && len <= HEADER_LEN + MAX_FIELD + service::MAX_BODY as usize);
    // What is behind it does not matter.
    assert_eq!(service::whole(&bytes[..len]).map(|w| w.map(|w| w.len)), Ok(Some(len)));
    assert_eq!(service::whole(&bytes[..len - 1]), Ok(None));
    true
}
