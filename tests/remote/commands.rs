//! The commands of modifier 111, byte by byte.

use ucache::{capi::host::caches, net::handler::Peer};

use crate::{
    c,
    native::Server,
    server::{self, ask},
};

pub(crate) fn array(items: &[&[u8]]) -> Vec<u8> {
    items.iter().flat_map(|i| [&u16::try_from(i.len()).unwrap().to_le_bytes()[..], i].concat()).collect()
}

#[test]
fn the_commands_about_the_first_cache() {
    let _first = c::own_first();
    c::create("name=unused,items=2");
    let at = server::start();
    let set = |key: &[u8], value: &[u8]| assert!(c::update(key, value, "first"));
    // 0: get of at most 65,535 bytes.
    set(b"c0", b"value");
    assert_eq!(ask(&at, 0, b"c0", b""), b"\x6f\x05\0\0value");
    assert_eq!(ask(&at, 0, b"c0 no", b""), b"");
    set(b"c0 long", &[b'v'; 65_535]);
    assert_eq!(ask(&at, 0, b"c0 long", b"")[..4], *b"\x6f\xff\xff\0");
    set(b"c0 long", &[b'v'; 65_536]);
    assert_eq!(ask(&at, 0, b"c0 long", b""), b"", "a length that does not fit is not sent");
    // 1: set, 2: del.
    assert_eq!(ask(&at, 1, &array(&[b"c1", b"value"]), b""), b"");
    assert_eq!(c::value(b"c1", "first").unwrap(), b"value");
    assert_eq!(ask(&at, 1, &array(&[b"c1", b"other"]), b""), b"");
    assert_eq!(c::value(b"c1", "first").unwrap(), b"value", "set does not replace");
    assert_eq!(ask(&at, 1, &array(&[b"c1 alone"]), b""), b"");
    assert!(!c::exists(b"c1 alone", "first"));
    assert_eq!(ask(&at, 2, b"c1", b""), b"");
    assert!(!c::exists(b"c1", "first"));
    // 3 and 4: dictionary.
    for modifier2 in [3, 4] {
        assert_eq!(ask(&at, modifier2, &array(&[b"key", b"c0"]), b""), b"value");
        assert_eq!(ask(&at, modifier2, &array(&[b"key", b"c0 no"]), b""), b"");
        assert_eq!(ask(&at, modifier2, &array(&[b"get", b"c0"]), b""), b"value");
        assert_eq!(ask(&at, modifier2, &array(&[b"get", b"c0 no"]), b""), b"404");
        assert_eq!(ask(&at, modifier2, &array(&[b"HTTP_HOST", b"c0", b"get", b"c0"]), b""), b"value");
        assert_eq!(ask(&at, modifier2, &array(&[b"get"]), b""), b"", "a dictionary that is none");
    }
    // 5: get and stream.
    assert_eq!(ask(&at, 5, b"c0", b""), b"\x6f\0\0\x01value");
    assert_eq!(ask(&at, 5, b"c0 no", b""), b"\x6f\0\0\0");
    assert_eq!(ask(&at, 5, b"c0 long", b"").len(), 4 + 65_536);
    // Nothing requested, or nothing known.
    for modifier2 in [0, 1, 2, 3, 4, 5, 8, 17, 200] {
        assert_eq!(ask(&at, modifier2, b"", b""), b"");
    }
    assert_eq!(ask(&at, 8, b"c0", b""), b"");
}

#[test]
fn what_a_native_server_answers_is_answered_alike() {
    let _first = c::own_first();
    let native = Server::start(&["name=first,items=100,blocksize=200000"], &[]);
    c::create("name=unused too,items=2");
    let at = server::start();
    for server in [&native.tcp, &at] {
        assert_eq!(ask(server, 1, &array(&[b"a1", b"value"]), b""), b"");
        assert_eq!(ask(server, 1, &array(&[b"", b"a2", b"value", b"extra"]), b""), b"");
    }
    let set = array(&[b"cmd", b"set", b"key", b"a3", b"size", b"5", b"expires", b"0"]);
    let get = |key: &[u8]| array(&[b"cmd", b"get", b"key", key, b"cache", b"first"]);
    let asked: Vec<(u8, Vec<u8>, &[u8])> = vec![
        (17, set.clone(), b"three"),
        (17, get(b"a1"), b""),
        (17, get(b"a2"), b""),
        (17, get(b"a3"), b""),
        (17, array(&[b"cmd", b"exists", b"key", b"a3"]), b""),
        (17, array(&[b"key", b"a3", b"cmd", b"del"]), b""),
        (0, b"missing".to_vec(), b""),
        (2, b"a1".to_vec(), b""),
        (17, array(&[b"cmd", b"clear"]), b""),
    ];
    for (modifier2, payload, body) in &asked {
        let theirs = ask(&native.tcp, *modifier2, payload, body);
        let ours = ask(&at, *modifier2, payload, body);
        assert_eq!(ours, theirs, "{modifier2} {payload:?}");
    }
    // Where native sends no answer, ucache sends a reason; a client treats both as no.
    assert_eq!(ask(&native.tcp, 17, &get(b"a3"), b""), b"");
    assert_eq!(
        ask(&at, 17, &get(b"a3"), b""),
        [&b"\x6f\x12\0\x11"[..], &array(&[b"status", b"notfound"])].concat()
    );
    let nowhere = array(&[b"cmd", b"clear", b"cache", b"nosuch"]);
    assert_eq!(ask(&at, 17, &nowhere, b"")[4..], array(&[b"status", b"notfound"]));
    assert_eq!(ask(&at, 17, &array(&[b"cmd", b"nosuch"]), b"")[4..], array(&[b"status", b"error"]));
}

/// A peer in memory.
struct Script {
    body: Vec<u8>,
    sent: usize,
}

impl Peer for Script {
    fn read(&mut self, want: usize, _: std::time::Duration) -> Option<&[u8]> {
        self.sent = want.min(self.body.len());
        self.body.get(..self.sent).filter(|b| !b.is_empty())
    }
    fn write(&mut self, bytes: &[u8]) -> bool {
        self.sent += bytes.len();
        self.sent < 1 << 20
    }
    fn not_found(&mut self) {}
}

/// Damaged requests of every kind: the server finishes each, and the cache keeps working.
#[test]
fn fuzzed_requests_leave_the_server_whole() {
    let _first = c::own_first();
    c::create("name=fuzzed,items=50,blocksize=1000");
    let mut seed = 7_u64;
    let mut random = move |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let name: &[u8] = b"fuzzed";
    let seeds = [
        array(&[b"cmd", b"set", b"key", b"k", b"size", b"9", b"cache", name]),
        array(&[b"cmd", b"math", b"key", b"n", b"operand", b"-9", b"flags", b"562", b"cache", name]),
        array(&[b"cmd", b"get", b"key", b"k", b"cache", name]),
        array(&[b"cmd", b"dump", b"cache", name]),
        array(&[b"key", b"k", b"get", b"k"]),
        name.to_vec(),
    ];
    for _ in 0..20_000 {
        let mut payload = seeds[usize::try_from(random(6)).unwrap()].clone();
        for _ in 0..random(4) {
            let at = usize::try_from(random(payload.len() as u64)).unwrap();
            payload[at] = u8::try_from(random(256)).unwrap();
        }
        payload.truncate(usize::try_from(random(payload.len() as u64 * 2) + 1).unwrap());
        let modifier2 = [0, 1, 2, 3, 4, 5, 6, 17, 17, 17, 17, 9][usize::try_from(random(12)).unwrap()];
        let body = vec![b'b'; usize::try_from(random(20)).unwrap()];
        caches::serve(modifier2, &payload, &mut Script { body, sent: 0 });
    }
    assert!(c::update(b"after", b"value", "fuzzed"));
    assert_eq!(c::value(b"after", "fuzzed").unwrap(), b"value");
}
