//! Cases in which native's network code is wrong or unsafe: its behaviour, and ucache's. The
//! numbers are those of `src/docs/compat.md`.

use std::process::{Command, Stdio};

use crate::{
    c,
    commands::array,
    native::{Server, python},
    patience::within,
    ports::free_address,
    server::{self, ask},
};

/// A native server with a UDP port, and the changes that a native node sent to it by running `code`
/// (cache "u").
fn told_by_a_native_node(code: &str) -> Server {
    let udp = free_address();
    let native = Server::start(&[&format!("name=u,items=100,blocksize=100000,udp={udp}")], &[]);
    within("its udp server runs", || native.log().contains("udp server for cache"));
    // The last change shows that those before it have arrived or never will.
    let code = format!(
        "{code}\nfor i in range(50):\n    uwsgi.cache_update('last', b'v', 0, 'u')\n    time.sleep(0.01)\n"
    );
    let shown = python(&format!("name=u,items=100,blocksize=100000,nodes={udp}"), &code);
    assert_eq!(shown, Vec::<String>::new());
    within("the last change arrives", || c::exists(b"last", &native.cache("u")));
    native
}

/// The same for ucache: a cache with a UDP port, and one with the first as its node.
fn pair(name: &str) -> (String, String) {
    let udp = free_address();
    let (from, to) = (name.to_owned(), format!("{name} node"));
    c::serve_udp(c::create(&format!("name={to},items=100,blocksize=100000,udp={udp},udp_clear=1")));
    c::create(&format!("name={from},items=100,blocksize=100000,nodes={udp}"));
    within("a change arrives", || c::update(b"first", b"v", &from) && c::exists(b"first", &to));
    (from, to)
}

fn settle(from: &str, to: &str) {
    within("the last change arrives", || c::update(b"last", b"v", from) && c::exists(b"last", to));
}

#[test]
fn d18_deletes_and_clears_reach_the_nodes() {
    let native = told_by_a_native_node(
        "for k in ('deleted', 'cleared'): uwsgi.cache_update(k, b'v', 0, 'u')\ntime.sleep(0.1)\n\
         uwsgi.cache_del('deleted', 'u')\nuwsgi.cache_clear('u')",
    );
    assert!(c::exists(b"deleted", &native.cache("u")) && c::exists(b"cleared", &native.cache("u")));

    let (from, to) = pair("d18");
    for key in [&b"deleted"[..], b"cleared"] {
        assert!(c::update(key, b"v", &from));
        within("the set arrives", || c::exists(key, &to));
    }
    assert!(c::del(b"deleted", &from));
    within("the delete arrives", || !c::exists(b"deleted", &to));
    assert!(c::clear(&from));
    within("the clear arrives", || !c::exists(b"cleared", &to));
}

#[test]
fn d19_arithmetic_sends_its_result_to_the_nodes() {
    let native = told_by_a_native_node("for i in range(3): uwsgi.cache_inc('n', 5, 0, 'u')");
    assert_eq!(c::number(b"n", &native.cache("u")), Some(5), "the operand");

    let (from, to) = pair("d19");
    (0..3).for_each(|_| assert!(c::inc(b"n", 5, &from)));
    within("the sum arrives", || c::number(b"n", &to) == Some(15));
}

#[test]
fn d20_a_value_that_fits_no_datagram_is_not_sent() {
    let native = told_by_a_native_node("uwsgi.cache_update('big', b'v' * 70000, 0, 'u')");
    assert_eq!(c::value(b"big", &native.cache("u")).map(|v| v.len()), Some(70_000 - 65_536), "cut");

    let (from, to) = pair("d20");
    assert!(c::update(b"big", &[b'v'; 70_000], &from));
    settle(&from, &to);
    assert!(!c::exists(b"big", &to));
}

#[test]
fn d21_arithmetic_on_a_remote_cache_counts() {
    let native = Server::start(&["name=r,items=100"], &[]);
    c::create("name=r,items=100");
    let count = |at: &str| {
        let code = format!("for i in range(3): uwsgi.cache_inc('n', 5, 0, 'r@{at}')\nshow(1)");
        assert_eq!(python("name=x,items=10", &code), ["1"]);
    };
    count(&native.tcp);
    assert_eq!(c::number(b"n", &native.cache("r")), Some(5), "the operand");

    let there = format!("r@{}", server::start());
    (0..3).for_each(|_| assert!(c::inc(b"n", 5, &there)));
    assert_eq!(c::number(b"n", "r"), Some(15));
    // With a server that does not support it, ucache's client fails without harm.
    assert!(!c::inc(b"n", 5, &native.cache("r")));
    assert_eq!(c::number(b"n", &native.cache("r")), Some(5));
}

#[test]
fn d22_the_simple_commands_answer_as_documented() {
    let _first = c::own_first();
    let native = Server::start(&["name=first,items=100"], &[]);
    c::create("name=d22,items=2");
    let ours = server::start();
    for at in [&native.tcp, &ours] {
        assert_eq!(ask(at, 1, &array(&[b"d22", b"value"]), b""), b"");
    }
    for modifier2 in [0, 5] {
        let theirs = ask(&native.tcp, modifier2, b"d22", b"");
        assert!(
            theirs.len() == 9 && theirs[0] != 111 && theirs.ends_with(b"value"),
            "an address: {theirs:?}"
        );
    }
    assert_eq!(ask(&ours, 0, b"d22", b""), b"\x6f\x05\0\0value");
    assert_eq!(ask(&ours, 5, b"d22", b""), b"\x6f\0\0\x01value");
    let get = array(&[b"get", b"d22"]);
    assert!(ask(&native.tcp, 3, &get, b"").starts_with(b"HTTP/1.0 404"), "always a miss");
    assert_eq!(ask(&ours, 3, &get, b""), b"value");
}

/// Native takes the number of slots from the first cache: the first four of "many" are cleared, and
/// reused last.
#[test]
fn d23_a_remote_clear_clears_the_cache_that_it_names() {
    let native = Server::start(&["name=few,items=5", "name=many,items=100"], &[]);
    c::create("name=d23,items=100");
    for (there, left) in [(native.cache("many"), 49), (format!("d23@{}", server::start()), 0)] {
        let keys: Vec<String> = (0..49).map(|i| format!("k{i}")).collect();
        assert!(keys.iter().all(|k| c::update(k.as_bytes(), b"v", &there)));
        assert!(c::clear(&there));
        assert_eq!(keys.iter().filter(|k| c::exists(k.as_bytes(), &there)).count(), left, "{there}");
    }
}

#[test]
fn d24_the_last_sync_server_may_be_down() {
    let definition = format!("name=d24,items=100,sync={}", free_address());
    let uwsgi = std::env::var_os("UWSGI_BIN").unwrap_or_else(|| "uwsgi".into());
    let native = Command::new(uwsgi)
        .args(["--plugin", "cache", "--socket", "127.0.0.1:0", "--cache2", &definition])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(native.status.code(), Some(1), "it ends: {}", String::from_utf8_lossy(&native.stderr));

    c::create(&definition);
    assert!(c::update(b"k", b"v", "d24"));
}

#[cfg(feature = "uwsgi")]
#[test]
fn d25_post_buffering_does_not_change_what_is_stored() {
    let definition = ["name=first,items=10", "name=d25,items=100,blocksize=100000"];
    let options = ["--post-buffering", "4096"];
    let native = Server::start(&definition, &options);
    let ours = crate::plugin::start(&definition, &options);
    let value = vec![b'v'; 10];
    let set = |server: &Server| {
        assert!(c::update(b"k", &value, &server.cache("d25")));
        c::value(b"k", &server.cache("d25")).unwrap()
    };
    assert_ne!(set(&native), value, "bytes that nobody sent");
    assert_eq!(set(&ours), value);
}
