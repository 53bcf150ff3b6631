//! `cache@host:port` against a native server and against ucache.

use crate::{
    c,
    native::{self, Server},
    patience::within,
    server,
};

/// Operations required of both kinds of servers; `at` returns the name of one of the server's
/// caches.
pub(crate) fn as_a_cache(at: impl Fn(&str) -> String) {
    let cache = at("box");
    assert_eq!(c::get(b"k", &cache), None);
    assert!(!c::exists(b"k", &cache) && !c::del(b"k", &cache));
    assert!(c::set(b"k", b"one", 0, 0, &cache));
    assert_eq!(c::get(b"k", &cache), Some((b"one".to_vec(), 0)));
    assert!(!c::set(b"k", b"two", 0, 0, &cache), "set does not replace");
    assert!(c::update(b"k", b"three", &cache));
    assert_eq!(c::value(b"k", &cache).unwrap(), b"three");
    assert!(c::exists(b"k", &cache));

    let all: Vec<u8> = (0..=255).collect();
    assert!(c::update(&all, &all, &cache), "any byte in key and value");
    assert_eq!(c::value(&all, &cache).unwrap(), all);
    for len in [1, 65_535, 65_536, 200_000] {
        let value = vec![b'v'; len];
        assert!(c::update(b"long", &value, &cache), "{len} bytes");
        assert!(c::value(b"long", &cache).unwrap() == value, "{len} bytes");
    }
    assert!(!c::update(b"long", &[b'v'; 200_001], &cache), "longer than the server takes");
    assert_eq!(c::value(b"long", &cache).unwrap().len(), 200_000);
    assert!(!c::update(b"long", b"", &cache) && !c::update(b"", b"v", &cache));

    assert!(c::set(b"ttl", b"v", 1000, 0, &cache));
    let (_, expires) = c::get(b"ttl", &cache).unwrap();
    assert!((c::now() + 900..=c::now() + 1000).contains(&expires), "{expires}");

    assert!(c::del(b"k", &cache) && !c::exists(b"k", &cache) && !c::del(b"k", &cache));
    assert!(c::clear(&cache));
    assert_eq!(c::value(b"long", &cache), None);
    assert!(!c::set(b"k", b"v", 0, 0, &at("no such cache")));
    assert_eq!(c::get(b"k", &at("no such cache")), None);
    assert!(!c::clear(&at("no such cache")));
    // The empty name means the server's first cache.
    assert!(c::update(b"in the first", b"v", &at("")));
    assert_eq!(c::value(b"in the first", &at("first")).unwrap(), b"v");
}

#[test]
fn a_native_server_behind_a_tcp_and_a_unix_socket() {
    let native = Server::start(&["name=first,items=100", "name=box,items=100,blocksize=200000"], &[]);
    as_a_cache(|name| native.cache(name));
    as_a_cache(|name| format!("{name}@{}", native.unix));
}

#[test]
fn a_ucache_server() {
    let _first = c::own_first();
    c::create("name=box,items=100,blocksize=200000");
    let address = server::start();
    as_a_cache(|name| format!("{name}@{address}"));
}

/// Native overwrites the number with the operand of remote arithmetic; ucache refuses, and the
/// number stays.
#[test]
fn arithmetic_works_between_ucaches_and_never_harms_a_native_number() {
    let native = Server::start(&["name=n,items=100"], &[]);
    let there = native.cache("n");
    assert!(c::update(b"count", &100_i64.to_ne_bytes(), &there));
    assert!(!c::inc(b"count", 5, &there), "a native server cannot");
    assert_eq!(c::number(b"count", &there), Some(100));

    c::create("name=sums,items=100");
    let there = format!("sums@{}", server::start());
    for sum in [5, 10, 15] {
        assert!(c::inc(b"count", 5, &there));
        assert_eq!(c::number(b"count", "sums"), Some(sum));
    }
    assert!(c::set(b"fixed", &1_i64.to_ne_bytes(), 1000, c::UPDATE, &there));
    let before = c::get(b"fixed", &there).unwrap().1;
    assert!(c::inc(b"fixed", 1, &there));
    assert_eq!(c::get(b"fixed", &there).unwrap(), (2_i64.to_ne_bytes().to_vec(), before), "the TTL stays");
    assert!(c::update(b"text", b"not a number", &there));
    assert!(!c::inc(b"text", 1, &there));
    assert_eq!(c::value(b"text", "sums").unwrap(), b"not a number");
}

/// `(uint64_t) -1` expires at once, at a native server too: its parser turns the minus into a time
/// in the past.
#[test]
fn an_expiry_of_minus_one_is_at_once_on_both_kinds_of_servers() {
    let native = Server::start(&["name=e,items=100,lazy_expire=1"], &[]);
    c::create("name=e,items=100");
    for there in [native.cache("e"), format!("e@{}", server::start())] {
        assert!(c::set(b"gone", b"v", u64::MAX, c::UPDATE, &there));
        within("it has expired", || c::get(b"gone", &there).is_none());
        assert!(c::set(b"stays", b"v", 0, c::UPDATE, &there));
        assert!(c::get(b"stays", &there).is_some());
    }
}

/// A native uWSGI as the client of ucache.
#[test]
fn native_python_uses_a_ucache_server() {
    c::create("name=py,items=100,blocksize=200000");
    native_python_uses(&server::start());
    let (_, expires) = c::get(b"last", "py").unwrap();
    assert!((c::now() + 900..=c::now() + 1000).contains(&expires), "{expires}");
}

/// The server needs a cache "py" with values of up to 200000 bytes; it ends with the key "last".
pub(crate) fn native_python_uses(address: &str) {
    let code = "
show(uwsgi.cache_get('k', AT))
show(uwsgi.cache_exists('k', AT))
show(uwsgi.cache_set('k', b'one', 0, AT))
show(uwsgi.cache_set('k', b'two', 0, AT))
show(uwsgi.cache_get('k', AT))
show(uwsgi.cache_update('k', b'\\0' * 150000, 0, AT))
show(len(uwsgi.cache_get('k', AT)))
show(uwsgi.cache_update('k', b'x' * 200001, 0, AT))
show(uwsgi.cache_exists('k', AT))
show(uwsgi.cache_del('k', AT))
show(uwsgi.cache_del('k', AT))
show(uwsgi.cache_get('k', AT))
show(uwsgi.cache_update('t', b'v', 1000, AT))
show(uwsgi.cache_update('gone', b'v', -1, AT))
show(uwsgi.cache_get('gone', AT))
show(uwsgi.cache_clear(AT))
show(uwsgi.cache_get('t', AT))
show(uwsgi.cache_update('last', b'v', 1000, AT))
show(uwsgi.cache_get('k', 'nosuch' + AT[2:]))
"
    .replace("AT", &format!("'py@{address}'"));
    let shown = native::python("name=local,items=10", &code);
    let expected = [
        "None", "None", "True", "None", "b'one'", "True", "150000", "None", "True", "True", "None", "None",
        "True", "True", "None", "True", "None", "True", "None",
    ];
    assert_eq!(shown, expected);
}
