//! Fuzzing of a cache's options and of requests to a cache, with the harness of
//! [`wire::fuzz`](crate::wire::fuzz).

use std::time::Duration;

use super::{caches, create, env::Definition, kvlist, options};
use crate::{
    engine::config::{MAX_ITEMS, MAX_KEY, MAX_VALUE},
    net::{client, handler::Peer},
    wire::{
        command::{Command, MAGIC, Request, Status},
        fuzz::{Target, all_requests, fuzz_all},
        packet::{HEADER_LEN, Header},
        records::{Record, read_records},
    },
};

const TARGETS: [Target; 3] = [
    Target { name: "options", seeds: definitions, run: options },
    Target { name: "kvlist", seeds: definitions, run: pairs },
    Target { name: "server", seeds: served, run: server },
];

#[test]
fn options_and_the_server_survive_any_bytes() {
    fuzz_all(&TARGETS);
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

/// A client in memory: what it sends behind the packet, and what it receives.
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

/// The cache "fuzz" exists, and its values consist of this byte.
const VALUE: u8 = 0xd7;

fn served() -> Vec<Vec<u8>> {
    let definition = b"name=fuzz,items=20,blocksize=64,keysize=32,ignore_full=1".to_vec();
    create::create(&Definition::Cache2(definition)).expect("a cache");
    all_requests().into_iter().map(|packet| [&packet[..], &[VALUE; 64]].concat()).collect()
}

/// Handles the bytes as if they came from a client. Every byte sent back must be part of an
/// answer's words or of a value.
fn server(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return false };
    let header = Header::parse(*head);
    let Some((payload, _)) = rest.split_at_checked(header.size.into()) else { return false };
    // An empty name means the first cache of the process, which belongs to another test.
    if Request::parse(payload).is_ok_and(|request| request.cache.is_empty()) {
        return false;
    }
    let mut client = Script { body: &[VALUE; 64], got: Vec::new(), kept: false };
    caches::serve(MAGIC, payload, &mut client);
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
            assert!(answer.status != Status::Ok || read_records(&mut stream, &mut each).is_ok());
        }
        Command::Get => {
            assert_eq!(stream.len() as u64, answer.size);
            assert!(stream.len() == 8 || stream.iter().all(|b| *b == VALUE), "a byte that was never stored");
        }
        _ => assert!(stream.is_empty()),
    }
    answer.status == Status::Ok
}
