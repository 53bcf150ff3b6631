//! The command on caches of running servers, with the plugin and native, over their sockets.

use std::{
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::symlink,
            net::{SocketAddr, UnixStream},
        },
    },
};

use crate::{native::Server, ports::free_address, ucache, ucache_with};

/// The libucache.so that cargo built for these tests, under the name by which uWSGI finds the
/// plugin.
fn plugin() -> String {
    let library = std::env::current_exe().unwrap().with_file_name("libucache.so");
    assert!(library.is_file(), "{} is missing: cargo builds it with the tests", library.display());
    let link = library.with_file_name("ucache_plugin.so");
    if let Err(e) = symlink("libucache.so", &link) {
        assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{}: {e}", link.display());
    }
    link.to_str().unwrap().to_owned()
}

/// Operations that every server supports.
fn basics(at: &str) {
    let run = |args: &[&str]| ucache([&args[..1], &[at], &args[1..]].concat());
    let bytes: Vec<u8> = (0..=255).collect();
    ucache_with(["set", at, "bytes"], &bytes).text();
    assert_eq!(run(&["get", "bytes"]).out, bytes);
    assert!(run(&["add", "bytes", "other"]).failed(1).contains("exists"));
    run(&["set", "bytes", "other", "--ttl", "10m"]).text();
    assert_eq!(run(&["get", "bytes"]).out, b"other");
    let left: u64 = run(&["ttl", "bytes"]).text().trim().parse().unwrap();
    assert!((500..=600).contains(&left), "{left}");
    assert_eq!(run(&["exists", "bytes"]).code, Some(0));
    run(&["del", "bytes"]).text();
    assert_eq!(run(&["exists", "bytes"]).failed(1), "");
    assert_eq!(run(&["get", "bytes"]).failed(1), "");
    assert_eq!(run(&["del", "bytes"]).failed(1), "");
    let long = vec![b'v'; 100_000];
    ucache_with(["set", at, "long"], &long).text();
    assert_eq!(run(&["get", "long"]).out, long);
    let said = ucache_with(["set", at, "long"], &vec![b'v'; 300_000]).failed(4);
    assert!(said.contains("refused") && said.contains("too long"), "{said}");
    let line = b"{\"key\":\"loaded\",\"value\":\"v\"}\n{\"key\":\"late\",\"value\":\"v\",\"expires\":1}\n";
    assert_eq!(ucache_with(["load", at], line).err, "1 loaded, 1 had expired\n");
    assert_eq!(run(&["get", "loaded"]).out, b"v");
    run(&["clear"]).text();
    assert_eq!(run(&["exists", "loaded"]).failed(1), "");
    let files = [
        &["replace", "k", "v"][..],
        &["append", "k", "v"],
        &["prepend", "k", "v"],
        &["set", "k", "v", "--keep-ttl"],
    ];
    for args in files.into_iter().chain([
        &["stat"][..],
        &["touch", "k", "5"],
        &["check"],
        &["metrics"],
        &["top", "--once"],
    ]) {
        let said = run(args).failed(6);
        assert!(said.contains("cache protocol has no such command"), "{args:?}: {said}");
    }
}

const DEFINITIONS: [&str; 2] = ["name=first,items=100", "name=box,items=100,blocksize=200000"];

#[test]
fn a_server_with_the_plugin() {
    let server = Server::start_with(&plugin(), &free_address(), &DEFINITIONS, &[]);
    assert!(server.log().contains("cache functions of uWSGI"), "{}", server.log());
    basics(&server.cache("box"));
    let at = format!("box@{}", server.unix);
    basics(&at);
    assert_eq!(ucache(["incr", &at, "n", "5"]).text(), "5\n");
    assert_eq!(ucache(["incr", &at, "n", "-7"]).text(), "-2\n");
    ucache(["set", &at, "text", "v", "--ttl", "1h"]).text();
    assert!(ucache(["incr", &at, "text"]).failed(4).contains("did not change"));
    let keys = ucache(["keys", &at, "--long"]).text();
    assert!(keys.contains("never") && keys.contains("8 B  n\n") && keys.contains("1 B  text\n"), "{keys}");
    assert_eq!(ucache(["keys", &at, "t*"]).text(), "text\n");
    let dump = ucache(["dump", &at, "--numbers"]).text();
    assert!(dump.contains("\"value\":\"-2\"") && dump.lines().count() == 2, "{dump}");
    assert_eq!(ucache(["keys", &format!("nosuch@{}", server.tcp)]).failed(4).matches("nosuch").count(), 2);
    // Without a name it means the first cache.
    ucache(["set", &format!("@{}", server.tcp), "k", "v"]).text();
    assert_eq!(ucache(["get", &server.cache("first"), "k"]).out, b"v");
}

/// Abstract unix sockets, to whose names uWSGI adds a NUL, and a server whose backlog is full.
#[test]
fn unix_sockets_without_a_file_and_busy_ones() {
    let name = format!("ucache-cli-{}", std::process::id());
    let socket = format!("@{name}");
    let native = Server::start(&DEFINITIONS, &["--socket", &socket]);
    for at in [format!("box@@{name}"), format!("box@\\0{name}")] {
        ucache(["set", &at, "k", "v"]).text();
        assert_eq!(ucache(["get", &native.cache("box"), "k"]).out, b"v", "{at}");
    }
    let nobody = ucache(["get", "box@@nobody-listens-here", "k"]).failed(3);
    assert!(nobody.contains("box@@nobody-listens-here: cannot connect: Connection refused"), "{nobody}");
    let forged = ucache(["get", "box@/nowhere\nforged\u{1b}[31m", "k"]).failed(3);
    assert!(forged.starts_with("ucache: box@/nowhere\\nforged\\u{1b}[31m: cannot connect"), "{forged}");
    // Without uWSGI's NUL, and without accepting.
    let plain = format!("{name}-plain");
    let address = SocketAddr::from_abstract_name(&plain).unwrap();
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(format!("\0{plain}")).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _waiting = UnixStream::connect_addr(&address).unwrap();
    let said = ucache(["get", &format!("box@@{plain}"), "k", "--timeout", "0.3"]).failed(3);
    assert!(said.contains("cannot connect") && said.contains("--timeout"), "{said}");
}

#[test]
fn a_native_server() {
    let server = Server::start(&DEFINITIONS, &[]);
    basics(&server.cache("box"));
    basics(&format!("box@{}", server.unix));
    let at = server.cache("box");
    for args in [&["incr", &at, "n"][..], &["keys", &at], &["dump", &at]] {
        let said = ucache(args).failed(6);
        assert!(said.contains("native uWSGI") && said.contains("plugin = ucache"), "{said}");
    }
    assert_eq!(ucache(["exists", &at, "n"]).failed(1), "", "the operand was not stored");
}

#[test]
fn a_native_store_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("native.store");
    let path = file.to_str().unwrap();
    let server = Server::start(&[&format!("name=n,items=50,blocksize=1000,keysize=100,store={path}")], &[]);
    let at = server.cache("n");
    for i in 0..20 {
        ucache(["set", &at, &format!("key {i}"), &format!("value {i}")]).text();
    }
    ucache(["set", &at, "hour", "v", "--ttl", "1h"]).text();
    drop(server);
    let before = std::fs::read(&file).unwrap();
    let shape = ["--items", "50", "--blocksize", "1000", "--keysize", "100", "--name", "n"];
    // Settings that do not match: refused, untouched.
    let said = ucache(["import", path, "--items", "51", "--blocksize", "1000", "--keysize", "100"]).failed(3);
    assert!(said.contains("is not a ucache store") && said.contains("must be those of its cache"), "{said}");
    assert!(std::fs::read(&file).unwrap() == before);
    let said = ucache([&["import", path][..], &shape].concat()).text();
    assert!(said.contains("21 items imported") && said.ends_with("\n21 items\n"), "{said}");
    assert_eq!(ucache(["get", path, "key 7"]).out, b"value 7");
    let left: u64 = ucache(["ttl", path, "hour"]).text().trim().parse().unwrap();
    assert!((3000..=3600).contains(&left), "{left}");
    assert!(ucache([&["import", path][..], &shape].concat()).failed(3).contains("already"));
    let old = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).find(|p| *p != file);
    assert!(std::fs::read(old.expect("the old file is kept")).unwrap() == before);
    // A store of a later version: native settings are irrelevant.
    let mut later = std::fs::read(&file).unwrap();
    later[8..16].copy_from_slice(&99_u64.to_ne_bytes());
    std::fs::write(&file, &later).unwrap();
    let said = ucache([&["import", path][..], &shape].concat()).failed(3);
    assert!(said.contains("has format 99") && !said.contains("blocksize"), "{said}");
    assert!(std::fs::read(&file).unwrap() == later);
    let said = ucache(["import", "/no/such/file", "--items", "5"]).failed(3);
    assert!(said.contains("no such file"), "{said}");
}
