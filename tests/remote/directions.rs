//! UDP replication and the initial copy between two real servers, native and ucache, in all four
//! directions. Each side's content is read as its memory image (command 6), which both kinds send,
//! and compared key by key.

use std::collections::BTreeMap;

use ucache::wire::image::{self, Geometry};

use crate::{c, native::Server, patience::within, plugin, ports::free_address, server};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Native,
    Ucache,
}
use Kind::{Native, Ucache};

const DIRECTIONS: [(Kind, Kind); 4] =
    [(Native, Native), (Native, Ucache), (Ucache, Native), (Ucache, Ucache)];

fn start_on(kind: Kind, at: &str, definition: &str, options: &[&str]) -> Server {
    match kind {
        Native => Server::start_on(at, &[definition], options),
        Ucache => plugin::start_on(at, &[definition], options),
    }
}

fn start(kind: Kind, definition: &str) -> Server {
    start_on(kind, &free_address(), definition, &[])
}

const SHAPE: &str = "name=u,items=200,keysize=100,blocksize=65536";

/// Keys with value and expiry, from a server's image.
type Content = BTreeMap<String, (Vec<u8>, u64)>;

fn content(server: &Server) -> Content {
    let image = server::ask(&server.tcp, 6, b"u", b"");
    let head = 4 + usize::from(u16::from_le_bytes([image[1], image[2]]));
    let shape = Geometry {
        items: 200,
        blocks: 200,
        blocksize: 65_536,
        keysize: 100,
        hashsize: 65_536,
        hash: |_| 0,
        bitmap: false,
        lru: false,
    };
    let mut found = Content::new();
    let counts = image::read_image(&shape, &mut &image[head..], &mut |item| {
        let key = String::from_utf8(item.key).unwrap();
        assert!(found.insert(key, (item.value, item.expires)).is_none(), "a key is there twice");
    });
    assert_eq!(counts.unwrap().damaged, 0);
    found
}

/// Keys that are on one side only, or with another value, or with an expiry a second off.
fn difference(a: &Content, b: &Content) -> Vec<String> {
    let same = |key: &String| match (a.get(key), b.get(key)) {
        (Some((v, e)), Some((w, f))) => v == w && e.abs_diff(*f) <= 1,
        _ => false,
    };
    let mut keys: Vec<_> = a.keys().chain(b.keys()).filter(|key| !same(key)).cloned().collect();
    keys.dedup();
    keys
}

/// Sends markers until one has arrived: earlier datagrams have arrived by then, or never will.
fn settle(from: &Server, to: &Server, round: usize) {
    let marker = format!("marker {round}");
    within("a marker arrives", || {
        c::del(marker.as_bytes(), &to.cache("u"));
        assert!(c::update(marker.as_bytes(), b"v", &from.cache("u")));
        c::exists(marker.as_bytes(), &to.cache("u"))
    });
}

/// The longest value that fits into a datagram with the key "edge" and no expiry.
const EDGE: usize = 65_507 - 4 - 2 - 4 - 2 - 2 - 1;

/// `pause` lets a receiver catch up: a socket's buffer drops datagrams that do not fit.
fn change(from: &Server, pause: &dyn Fn()) {
    let there = from.cache("u");
    for i in 0..60_usize {
        if i % 10 == 0 {
            pause();
        }
        let ttl = if i % 4 == 0 { 1000 + i as u64 } else { 0 };
        assert!(c::set(format!("set {i}").as_bytes(), &vec![b'a'; i * 50 + 1], ttl, 0, &there));
    }
    for i in 0..20 {
        assert!(c::update(format!("set {i}").as_bytes(), format!("new {i}").as_bytes(), &there));
    }
    assert!(!c::set(b"set 1", b"refused", 0, 0, &there), "a set that is refused is not sent");
    pause();
    assert!(c::set(b"edge", &vec![b'e'; EDGE], 0, 0, &there));
    pause();
    assert!(c::set(b"over", &vec![b'o'; EDGE + 1], 0, 0, &there));
    assert!(c::set(b"short-lived", b"v", 1, 0, &there));
}

/// Runs a test of all four directions concurrently: it mostly waits for uWSGI's sweeper.
fn four(test: impl Fn(Kind, Kind) + Sync) {
    std::thread::scope(|s| {
        DIRECTIONS
            .map(|(from, to)| {
                s.spawn({
                    let test = &test;
                    move || test(from, to)
                })
            })
            .map(|thread| thread.join().unwrap())
    });
}

#[test]
fn changes_replicate_in_four_directions() {
    four(|source, target| {
        let way = format!("{source:?} -> {target:?}");
        let udp = free_address();
        let to = start(target, &format!("{SHAPE},udp={udp},udp_clear=1"));
        let from = start(source, &format!("{SHAPE},nodes={udp}"));
        settle(&from, &to, 0);
        change(&from, &|| settle(&from, &to, 0));
        settle(&from, &to, 1);
        within("what is short-lived has gone", || !content(&from).contains_key("short-lived"));
        // Native never sweeps an item received by UDP, unless others have a TTL.
        if target == Ucache {
            within("there too", || !content(&to).contains_key("short-lived"));
        }
        let (a, mut b) = (content(&from), content(&to));
        b.remove("short-lived");
        eprintln!("{way}: {} keys and {} keys after sets and updates", a.len(), b.len());
        assert_eq!(difference(&a, &b), ["over"], "{way}: all but what fits no datagram");
        assert!(a["edge"].0.len() == EDGE && a["set 16"].0 == b"new 16" && a["set 56"].1 != 0, "{way}");
        if source == Ucache {
            assert!(from.log().contains("change not sent to the udp nodes"), "{}", from.log());
        }

        for i in 0..10 {
            assert!(c::del(format!("set {i}").as_bytes(), &from.cache("u")));
        }
        settle(&from, &to, 2);
        let (a, mut b) = (content(&from), content(&to));
        b.remove("short-lived");
        eprintln!("{way}: {} keys and {} keys after deletes", a.len(), b.len());
        let left: Vec<_> = difference(&a, &b).into_iter().filter(|key| key != "over").collect();
        // D-18: native does not accept its own packet.
        let expected = if (source, target) == (Native, Native) { 10 } else { 0 };
        assert_eq!(left.len(), expected, "{way}: {left:?}");

        let before = b.len();
        assert!(c::clear(&from.cache("u")));
        settle(&from, &to, 3);
        let (a, mut b) = (content(&from), content(&to));
        b.remove("short-lived");
        eprintln!("{way}: {} keys and {} keys after a clear", a.len(), b.len());
        assert_eq!(a.keys().collect::<Vec<_>>(), ["marker 3"], "{way}");
        // D-18: only ucache sends a clear, and only ucache accepts it.
        let expected = if (source, target) == (Ucache, Ucache) { 1 } else { before + 1 };
        assert_eq!(b.len(), expected, "{way}: {:?}", b.keys());
    });
}

#[test]
fn copies_at_start_in_four_directions() {
    four(|source, target| {
        let way = format!("{source:?} -> {target:?}");
        let stats = free_address();
        let from = start_on(source, &free_address(), SHAPE, &["--stats", &stats]);
        change(&from, &|| ());
        within("what is short-lived has gone", || !content(&from).contains_key("short-lived"));
        let to = start(target, &format!("{SHAPE},sync={}", from.tcp));
        let (a, b) = (content(&from), content(&to));
        eprintln!("{way}: {} keys and {} keys after the copy", a.len(), b.len());
        assert_eq!(a.len(), 62, "{way}");
        assert_eq!(difference(&a, &b), [""; 0], "{way}");
        // No value was read: copies do not count as hits.
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let hits = plugin::stats(&stats)["caches"][0]["hits"].clone();
        assert_eq!(hits, 0, "{way}");
    });
}

/// An unreachable node, or a copy source that is not up yet, blocks nothing, and is used once it is
/// up.
#[test]
fn peers_that_are_away_are_waited_for() {
    for peer in [Native, Ucache] {
        let (udp, later) = (free_address(), free_address());
        let here = start(Ucache, &format!("{SHAPE},nodes={udp},sync={later}"));
        let there = here.cache("u");
        for i in 0..50_u32 {
            assert!(c::update(b"nobody hears", &i.to_le_bytes(), &there));
        }
        let node = || start(peer, &format!("{SHAPE},udp={udp}"));
        let first = node();
        settle(&here, &first, 0);
        drop(first);
        assert!(c::update(b"nobody hears", b"again", &there));
        let second = node();
        settle(&here, &second, 1);
        let late = start_on(peer, &later, SHAPE, &[]);
        assert!(c::update(b"late", b"value", &late.cache("u")));
        assert!(c::update(b"nobody hears", b"older", &late.cache("u")));
        within("the copy arrives", || c::value(b"late", &there).as_deref() == Some(b"value"));
        assert_eq!(c::value(b"nobody hears", &there).unwrap(), b"again", "what is newer stays");
    }
}
