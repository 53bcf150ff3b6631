//! Keys, prefixes and clear: of this cache alone.

use std::collections::BTreeSet;

use ucache::{Expires, near::Old};

use crate::{backend_with, everywhere};

#[test]
fn keys_are_those_of_the_prefix() {
    everywhere(|server, b| {
        let mut client = server.client();
        let mut wanted = BTreeSet::new();
        for n in 0..3000 {
            let key = format!("key*[{n}]\\?");
            client.ask(["SET", &format!("c:{key}"), "v"]);
            client.ask(["SET", &format!("d:{key}"), "v"]);
            wanted.insert(key.into_bytes());
        }
        client.ask(["RPUSH", "c:list", "of another client"]);
        let keys = b.keys(b"").expect("keys");
        assert_eq!(keys.len(), wanted.len(), "each once");
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(b.keys(b"key*[1]").expect("keys"), [b"key*[1]\\?".to_vec()], "taken literally");
        assert!(b.keys(b"key?").expect("keys").is_empty());
        b.put(b"\0\xff", b"v", Expires::Never, Old::Goes).expect("put");
        assert_eq!(b.keys(b"\0").expect("keys"), [b"\0\xff".to_vec()]);
        let found = b.get_each_expiring([&b"\0\xff"[..], b"none"]).expect("found");
        assert!(found[0].is_some() && found[1].is_none());
        b.clear().expect("clear");
        assert_eq!(client.ask(["EXISTS", "c:list"]), "0", "whatever it held");
        assert_eq!(client.ask(["DBSIZE"]), "3000", "the other cache's stay");
        assert!(b.keys(b"").expect("keys").is_empty());
    });
}

#[test]
fn a_prefix_may_look_like_a_pattern() {
    everywhere(|server, _| {
        let b = backend_with(&server.url(), &[("prefix", "[a-z]*")], 0);
        let mut client = server.client();
        client.ask(["MSET", "abc", "1", "[a-z]*k", "2"]);
        assert_eq!(b.keys(b"").expect("keys"), [b"k".to_vec()]);
        b.clear().expect("clear");
        assert_eq!(client.ask(["KEYS", "*"]), "abc");
        let all = backend_with(&server.url(), &[("prefix", "")], 0);
        assert_eq!(all.keys(b"").expect("keys"), [b"abc".to_vec()]);
    });
}
