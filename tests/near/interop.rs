//! Values that other clients wrote, and the reverse.

use std::process::Command;

use ucache::{Expires, near::Old};

use crate::{backend::Server, backend_with, everywhere, ports};

#[test]
fn values_of_other_types_are_misses() {
    everywhere(|server, b| {
        let mut client = server.client();
        client.ask(["RPUSH", "c:list", "a"]);
        client.ask(["HSET", "c:hash", "f", "v"]);
        assert_eq!(b.get(b"list").expect("a miss"), None);
        assert_eq!(b.get_expiring(b"hash").expect("a miss"), None);
        assert_eq!(b.get_many(["list", "hash"]).expect("misses"), [None, None]);
        assert!(!b.swap(b"list", b"a", &ucache::engine::Swap::Nothing).expect("another value"));
        assert_eq!(b.figures().wrong_type, 2);
        let refused = b.append(b"list", b"x").expect_err("no string").to_string();
        assert!(refused.contains("WRONGTYPE"), "{refused}");
        // Stored over it, as by any client.
        b.put(b"list", b"v", Expires::Never, Old::Goes).expect("put");
        assert_eq!(client.ask(["TYPE", "c:list"]), "string");
    });
}

#[test]
fn redis_cli_reads_and_writes_the_same_keys() {
    let server = Server::with("redis-server".as_ref(), ports::free_port(), &[]);
    let cli = |args: &[&str]| {
        let output = Command::new("redis-cli").arg("-s").arg(server.socket()).args(args).output();
        String::from_utf8(output.expect("redis-cli").stdout).expect("text").trim_end().to_owned()
    };
    let b = backend_with(&server.url(), &[], 0);
    assert_eq!(cli(&["SET", "c:greeting", "hello", "EX", "100"]), "OK");
    let found = b.get_expiring(b"greeting").expect("get").expect("a value");
    assert_eq!(found.value, b"hello");
    assert!(found.ttl.unix_millis() > 0);
    b.put(b"reply", b"good day", Expires::In(60), Old::Goes).expect("put");
    assert_eq!(cli(&["GET", "c:reply"]), "good day");
    assert!((59..=60).contains(&cli(&["TTL", "c:reply"]).parse().expect("a number")));
    assert_eq!(cli(&["SET", "c:empty", ""]), "OK");
    assert_eq!(b.get(b"empty").expect("get"), Some(Vec::new()), "another client's value of no bytes");
}

#[test]
fn a_name_or_an_address_and_a_port() {
    let port = ports::free_port();
    let server = Server::with("redis-server".as_ref(), port, &[]);
    server.ask(["SET", "c:k", "v"]);
    for url in [format!("redis://127.0.0.1:{port}"), format!("redis://localhost:{port}/0")] {
        let b = backend_with(&url, &[], 0);
        assert_eq!(b.get(b"k").expect("get").as_deref(), Some(&b"v"[..]), "{url}");
    }
}
