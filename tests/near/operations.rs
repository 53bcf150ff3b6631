//! What each operation does at the server.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ucache::{
    BackendFault, Error, Expires, Stored,
    engine::Swap,
    near::{Old, Ttl},
};

use crate::{backend::Server, backend_with, everywhere};

const NEVER: Expires = Expires::Never;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn seconds_left(ttl: Option<Ttl>) -> u64 {
    match ttl {
        Some(Ttl::In(left)) => left.as_secs_f64().ceil() as u64,
        other => panic!("{other:?}"),
    }
}

#[test]
fn set_add_replace_delete() {
    everywhere(|server, b| {
        assert_eq!(b.get(b"k").expect("a reply"), None);
        assert_eq!(b.set(b"k", b"1", NEVER, Old::Goes).expect("set"), Stored::Inserted);
        assert_eq!(b.set(b"k", b"2", NEVER, Old::Goes).expect("set"), Stored::Updated);
        assert_eq!(server.ask(["GET", "c:k"]), "2");
        b.put(b"k", b"3", NEVER, Old::Goes).expect("put");
        assert!(!b.add(b"k", b"4", NEVER).expect("add"));
        assert!(b.add(b"new", b"5", NEVER).expect("add"));
        assert!(b.replace(b"k", b"6", NEVER, Old::Goes).expect("replace"));
        assert!(!b.replace(b"none", b"7", NEVER, Old::Goes).expect("replace"));
        assert_eq!(server.ask(["MGET", "c:k", "c:new", "c:none"]), "6 5 nil");
        assert!(b.exists(b"k").expect("exists") && !b.exists(b"none").expect("exists"));
        assert!(b.delete(b"k").expect("delete") && !b.delete(b"k").expect("delete"));
        assert_eq!(b.get_many(["k", "new"]).expect("many"), [None, Some(b"5".to_vec())]);
        assert!(b.get_many([""; 0]).expect("none").is_empty());
    });
}

#[test]
fn keys_and_values_are_any_bytes() {
    everywhere(|server, b| {
        let key: Vec<u8> = (0..=255).collect();
        let value: Vec<u8> = (0..100_000_u32).map(|n| (n * 7) as u8).collect();
        b.set(&key, &value, NEVER, Old::Goes).expect("set");
        assert_eq!(b.get(&key).expect("get"), Some(value.clone()));
        let full = [b"c:", &key[..]].concat();
        assert_eq!(server.ask([&b"STRLEN"[..], &full]), "100000");
        let big = vec![7; 20 << 20];
        b.put(b"big", &big, NEVER, Old::Goes).expect("put");
        assert!(b.get(b"big").expect("get").expect("a value") == big);
    });
}

#[test]
fn expiries_are_the_servers() {
    everywhere(|server, b| {
        b.set(b"in", b"v", Expires::In(100), Old::Goes).expect("set");
        assert!((99..=100).contains(&seconds_left(b.ttl(b"in").expect("ttl"))));
        b.put(b"at", b"v", Expires::At(now() + 50), Old::Goes).expect("put");
        assert!((49..=50).contains(&seconds_left(b.ttl(b"at").expect("ttl"))));
        b.put(b"never", b"v", NEVER, Old::Goes).expect("put");
        assert_eq!(b.ttl(b"never").expect("ttl"), Some(Ttl::Never));
        assert_eq!(b.ttl(b"none").expect("ttl"), None);
        // Replacing keeps the expiry or not, as it is told.
        assert_eq!(b.set(b"in", b"w", Expires::In(7), Old::Stays).expect("set"), Stored::Updated);
        assert!(seconds_left(b.ttl(b"in").expect("ttl")) > 90);
        assert!(b.replace(b"in", b"x", Expires::In(7), Old::Stays).expect("replace"));
        assert!(seconds_left(b.ttl(b"in").expect("ttl")) > 90);
        assert_eq!(b.set(b"fresh", b"w", Expires::In(7), Old::Stays).expect("set"), Stored::Inserted);
        assert!(seconds_left(b.ttl(b"fresh").expect("ttl")) <= 7);
        b.set(b"in", b"y", NEVER, Old::Goes).expect("set");
        assert_eq!(b.ttl(b"in").expect("ttl"), Some(Ttl::Never));
        // The largest times are far, not an error.
        b.set(b"far", b"v", Expires::In(u64::MAX), Old::Goes).expect("set");
        b.set(b"far", b"v", Expires::At(u64::MAX), Old::Goes).expect("set");
        assert_eq!(server.ask(["EXISTS", "c:far"]), "1");
        let found = b.get_expiring(b"at").expect("get").expect("a value");
        assert_eq!(found.value, b"v");
        assert!(found.ttl.unix_millis().div_ceil(1000).abs_diff(now() + 50) <= 1);
    });
}

#[test]
fn a_time_that_has_passed_stores_nothing() {
    everywhere(|server, b| {
        for past in [Expires::In(0), Expires::At(0), Expires::At(1)] {
            assert_eq!(b.set(b"k", b"v", past, Old::Goes).expect("set"), Stored::Inserted, "{past:?}");
            assert!(b.add(b"k", b"v", past).expect("add"));
            assert!(!b.replace(b"k", b"v", past, Old::Goes).expect("replace"));
            assert_eq!(server.ask(["EXISTS", "c:k"]), "0");
            b.put(b"k", b"v", NEVER, Old::Goes).expect("put");
            assert!(!b.add(b"k", b"v", past).expect("add"), "{past:?}");
            assert_eq!(b.set(b"k", b"v", past, Old::Goes).expect("set"), Stored::Updated);
            assert_eq!(server.ask(["EXISTS", "c:k"]), "0", "{past:?}");
            b.put(b"k", b"v", NEVER, Old::Goes).expect("put");
            assert!(b.expire(b"k", past).expect("expire") && !b.expire(b"k", past).expect("expire"));
        }
        b.put(b"short", b"v", Expires::In(1), Old::Goes).expect("put");
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(b.get(b"short").expect("get"), None);
    });
}

#[test]
fn another_expiry() {
    everywhere(|_, b| {
        assert!(!b.expire(b"k", NEVER).expect("expire") && !b.expire(b"k", Expires::In(9)).expect("expire"));
        b.put(b"k", b"v", NEVER, Old::Goes).expect("put");
        assert!(b.expire(b"k", NEVER).expect("expire"), "there, and without an expiry already");
        assert!(b.expire(b"k", Expires::In(9)).expect("expire"));
        assert!(seconds_left(b.ttl(b"k").expect("ttl")) <= 9);
        assert!(b.expire(b"k", Expires::At(now() + 99)).expect("expire"));
        assert!(seconds_left(b.ttl(b"k").expect("ttl")) > 90);
        assert!(b.expire(b"k", NEVER).expect("expire"));
        assert_eq!(b.ttl(b"k").expect("ttl"), Some(Ttl::Never));
    });
}

#[test]
fn compare_and_swap() {
    everywhere(|server, b| {
        let to = |value, expires| Swap::Value(value, expires);
        assert!(!b.swap(b"k", b"a", &to(b"b", None)).expect("swap"), "nothing there");
        b.put(b"k", b"a", Expires::In(100), Old::Goes).expect("put");
        assert!(!b.swap(b"k", b"x", &to(b"b", None)).expect("swap"));
        assert!(b.swap(b"k", b"a", &to(b"b\0c", None)).expect("swap"));
        assert!(seconds_left(b.ttl(b"k").expect("ttl")) > 90, "the expiry stays");
        assert!(b.swap(b"k", b"b\0c", &to(b"d", Some(Expires::In(5)))).expect("swap"));
        assert!(seconds_left(b.ttl(b"k").expect("ttl")) <= 5);
        assert!(b.swap(b"k", b"d", &to(b"e", Some(NEVER))).expect("swap"));
        assert_eq!(b.ttl(b"k").expect("ttl"), Some(Ttl::Never));
        assert!(b.swap(b"k", b"e", &to(b"f", Some(Expires::In(0)))).expect("swap"));
        assert_eq!(server.ask(["EXISTS", "c:k"]), "0");
        b.put(b"k", b"a", NEVER, Old::Goes).expect("put");
        assert!(!b.swap(b"k", b"b", &Swap::Nothing).expect("swap"));
        assert!(b.swap(b"k", b"a", &Swap::Nothing).expect("swap"));
        assert_eq!(server.ask(["EXISTS", "c:k"]), "0");
    });
}

#[test]
fn append_and_prepend_where_the_key_is() {
    everywhere(|server, b| {
        assert_eq!(b.append(b"k", b"x").expect("append"), None);
        assert_eq!(b.prepend(b"k", b"x").expect("prepend"), None);
        assert_eq!(server.ask(["EXISTS", "c:k"]), "0");
        b.put(b"k", b"b", Expires::In(100), Old::Goes).expect("put");
        assert_eq!(b.append(b"k", b"c\0").expect("append"), Some(3));
        assert_eq!(b.prepend(b"k", b"\xffa").expect("prepend"), Some(5));
        assert_eq!(b.get(b"k").expect("get").as_deref(), Some(&b"\xffabc\0"[..]));
        assert!(seconds_left(b.ttl(b"k").expect("ttl")) > 90, "the expiry stays");
    });
}

#[test]
fn limits_are_checked_before_anything_is_sent() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[], 0);
    let long = vec![b'k'; 2049];
    assert!(matches!(b.set(b"", b"v", NEVER, Old::Goes), Err(Error::EmptyKey)));
    assert!(matches!(b.add(&long, b"v", NEVER), Err(Error::KeyTooLong { len: 2049, limit: 2048 })));
    assert!(matches!(b.put(b"k", b"", NEVER, Old::Goes), Err(Error::EmptyValue)));
    assert!(matches!(b.swap(b"k", b"x", &Swap::Value(b"", None)), Err(Error::EmptyValue)));
    assert!(!b.swap(&long, b"x", &Swap::Nothing).expect("nothing there"));
    let huge = vec![0; (512 << 20) + 1];
    assert!(matches!(b.put(b"k", &huge, NEVER, Old::Goes), Err(Error::ValueTooLong { .. })));
    assert_eq!(b.figures().requests, 0);
    assert_eq!(b.get(&long).expect("a miss"), None);
}

#[test]
fn what_the_server_refuses_is_an_error_with_its_words() {
    let server = Server::with(std::path::Path::new("redis-server"), 0, &["--maxmemory", "1mb"]);
    let b = backend_with(&server.url(), &[], 0);
    let full =
        b.put(b"k", &vec![0; 1 << 20], NEVER, Old::Goes).and_then(|()| b.put(b"l", b"v", NEVER, Old::Goes));
    match full.expect_err("no memory") {
        Error::Backend { fault: BackendFault::Full { reply }, server: at } => {
            assert!(reply.starts_with("OOM"), "{reply}");
            assert_eq!(at, server.url());
        }
        other => panic!("{other:?}"),
    }
    let set = b.set(b"l", b"v", NEVER, Old::Goes).expect_err("no memory, in a transaction, too");
    assert!(matches!(set, Error::Backend { fault: BackendFault::Full { .. }, .. }), "{set:?}");
}

#[test]
fn users_and_secrets() {
    let server = Server::start();
    let rules = [
        "ACL",
        "SETUSER",
        "web",
        "on",
        ">hush",
        "~c:*",
        "+@read",
        "+@write",
        "+@connection",
        "+@scripting",
        "+@transaction",
    ];
    assert_eq!(server.ask(rules), "OK");
    let with = |secret: &str, prefix: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), secret).expect("written");
        let from = format!("file:{}", file.path().display());
        backend_with(
            &server.url(),
            &[("backend_user", "web"), ("backend_secret", &from), ("prefix", prefix)],
            0,
        )
    };
    let b = with("hush\n", "c:");
    b.ping().expect("let in");
    assert_eq!(b.set(b"k", b"v", NEVER, Old::Goes).expect("set"), Stored::Inserted);
    assert!(b.swap(b"k", b"v", &Swap::Value(b"w", None)).expect("swap"));
    let wrong = with("wrong", "c:").ping().expect_err("kept out").to_string();
    assert!(wrong.contains("WRONGPASS") && !wrong.contains("hush"), "{wrong}");
    let other = with("hush", "d:").ping().expect_err("no such keys").to_string();
    assert!(other.contains("NOPERM"), "{other}");
    assert_eq!(server.ask(["CONFIG", "SET", "requirepass", "secret"]), "OK");
    let none = backend_with(&server.url(), &[], 0).ping().expect_err("kept out").to_string();
    assert!(none.contains("NOAUTH"), "{none}");
    let url = server.url().replace("redis+unix://", "redis+unix://:secret@");
    let in_url = backend_with(&format!("{url}?db=3"), &[], 0);
    in_url.put(b"k", b"in 3", NEVER, Old::Goes).expect("put");
    assert!(!format!("{in_url:?}").contains("secret"));
    let mut client = server.client();
    client.ask(["AUTH", "secret"]);
    assert_eq!(client.ask(["GET", "c:k"]), "w");
    client.ask(["SELECT", "3"]);
    assert_eq!(client.ask(["GET", "c:k"]), "in 3");
}

#[test]
fn the_servers_digests_of_the_scripts_are_the_ones_sent() {
    everywhere(|_, b| {
        for (computed, sent) in b.load_scripts().expect("scripts") {
            assert_eq!(computed, sent);
        }
    });
}
