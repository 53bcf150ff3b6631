//! The plugin in a real uWSGI from the operator's view: reloads, stores, the log, invalid options.

#[path = "support/patience.rs"]
mod patience;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;

use std::fs;

use patience::within;
use server::{Flavor, Server};

const BOTH: [Flavor; 2] = [Flavor::Native, Flavor::Ucache];

#[test]
fn a_reload_begins_with_an_empty_cache_and_a_full_store() {
    for flavor in BOTH {
        let store = tempfile::tempdir().expect("a temporary directory");
        let store = store.path().join("store");
        let options =
            format!("cache2 = name=memory,items=100\ncache2 = name=disk,items=100,store={}", store.display());
        let mut server = Server::start(flavor, 2, &options);
        let fill =
            "[uwsgi.cache_set(k, k, 0, c) for k in ('a', 'b') for c in ('memory', 'disk')].count(True)";
        for _ in 0..2 {
            server.run(1, "uwsgi.cache_clear('disk')");
            assert_eq!(server.run(1, fill), "4", "{}", server.log());
            server.reload();
            assert_eq!(
                server.run(2, "uwsgi.cache_keys('memory'), sorted(uwsgi.cache_keys('disk'))"),
                "([], [b'a', b'b'])"
            );
            assert_eq!(
                server.run(1, "uwsgi.cache_get('b', 'disk'), uwsgi.cache_get('b', 'memory')"),
                "(b'b', None)"
            );
            assert_eq!(server.run(2, "uwsgi.cache_set('c', 'c'), uwsgi.cache_get('c')"), "(True, b'c')");
            assert_eq!(server.run(1, "uwsgi.cache_get('c')"), "b'c'");
        }
    }
}

#[test]
fn reloaded_workers_keep_the_cache() {
    for flavor in BOTH {
        let touched = tempfile::NamedTempFile::new().expect("a temporary file");
        let options = format!(
            "lazy-apps = true\ntouch-workers-reload = {}\ncache2 = name=c,items=100",
            touched.path().display()
        );
        let server = Server::start(flavor, 2, &options);
        assert_eq!(server.run(1, "uwsgi.cache_set('kept', 'value')"), "True");
        let before = [server.run(1, "os.getpid()"), server.run(2, "os.getpid()")];
        // uWSGI looks once a second, at modification times in whole seconds
        within("new workers", || {
            fs::write(touched.path(), b"again").expect("the file can be written");
            let answers = [server.run(1, "os.getpid()"), server.run(2, "os.getpid()")];
            answers.iter().zip(&before).all(|(now, then)| now != then && !now.contains('('))
        });
        assert_eq!(
            server.run(2, "uwsgi.cache_get('kept'), uwsgi.cache_update('kept', 'new')"),
            "(b'value', True)"
        );
        assert_eq!(server.run(1, "uwsgi.cache_get('kept')"), "b'new'");
    }
}

/// Runs `first` in a server, stops it, and runs `second` in a server with other options, both with
/// a store at STORE.
fn over_a_restart(flavor: Flavor, first: (&str, &str), second: (&str, &str)) -> String {
    let store = tempfile::tempdir().expect("a temporary directory");
    let path = store.path().join("store").display().to_string();
    let server = Server::start(flavor, 1, &first.0.replace("STORE", &path));
    server.run(1, first.1);
    drop(server);
    Server::start(flavor, 1, &second.0.replace("STORE", &path)).run(1, second.1)
}

#[test]
fn a_restored_bitmap_cache_knows_its_blocks() {
    let cache = "cache2 = name=c,items=10,blocks=20,blocksize=10,bitmap=1,store=STORE";
    let fill = "uwsgi.cache_set('a', 'A' * 50)";
    let more = "uwsgi.cache_set('b', 'B' * 50), uwsgi.cache_get('a') == b'A' * 50, uwsgi.cache_get('b') == b'B' * 50";
    assert_eq!(over_a_restart(Flavor::Native, (cache, fill), (cache, more)), "(True, False, True)");
    assert_eq!(over_a_restart(Flavor::Ucache, (cache, fill), (cache, more)), "(True, True, True)");
}

#[test]
fn a_store_may_be_opened_with_another_hash() {
    let fill = "for n in range(9): uwsgi.cache_set(f'k{n}', 'v')";
    let plain = "cache2 = name=c,items=10,store=STORE";
    let rehashed = "cache2 = name=c,items=10,hash=murmur2,hashsize=61,store=STORE";
    let found = "[uwsgi.cache_get(f'k{n}') for n in range(9)].count(b'v')";
    assert_ne!(over_a_restart(Flavor::Native, (plain, fill), (rehashed, found)), "9");
    assert_eq!(over_a_restart(Flavor::Ucache, (plain, fill), (rehashed, found)), "9");
}

#[test]
fn a_store_without_lru_gets_it_newly_on() {
    let fill = "for n in range(9): uwsgi.cache_set(f'k{n}', 'v')";
    let plain = "cache2 = name=c,items=10,store=STORE";
    // native opens it, and cannot evict the existing items
    let lru = "cache2 = name=c,items=10,purge_lru=1,store=STORE";
    let all_new = "[uwsgi.cache_get(f'k{n}') for n in range(9)].count(b'v'), \
                   [uwsgi.cache_set(f'n{n}', 'v') for n in range(9)].count(True), len(uwsgi.cache_keys()), \
                   [uwsgi.cache_get(f'n{n}') for n in range(9)].count(b'v')";
    assert_ne!(over_a_restart(Flavor::Native, (plain, fill), (lru, all_new)), "(9, 9, 9, 9)");
    assert_eq!(over_a_restart(Flavor::Ucache, (plain, fill), (lru, all_new)), "(9, 9, 9, 9)");
    // and with another number of items, at which native stops
    let more = "cache2 = name=c,items=30,store=STORE";
    assert_eq!(over_a_restart(Flavor::Ucache, (plain, fill), (more, "len(uwsgi.cache_keys())")), "9");
}

#[test]
fn preloaded_items_renew_a_store() {
    let options =
        |value: &str| format!("cache2 = name=c,items=10,store=STORE\nadd-cache-item = motd={value}");
    let (old, new) = (options("old"), options("new"));
    let read = "uwsgi.cache_get('motd')";
    assert_eq!(over_a_restart(Flavor::Native, (&old, read), (&new, read)), "b'old'");
    assert_eq!(over_a_restart(Flavor::Ucache, (&old, read), (&new, read)), "b'new'");
}

#[test]
fn memory_follows_the_data() {
    // KiB of shared memory that 4000 items of 100 bytes add to a worker
    let grown = |flavor: Flavor| {
        let server = Server::start(flavor, 1, "cache2 = name=c,items=5000");
        let resident = "int(next(l for l in open('/proc/self/status') if 'RssShmem' in l).split()[1])";
        let kib = || server.run(1, resident).parse::<u64>().expect("a number");
        let before = kib();
        assert_eq!(
            server.run(1, "[uwsgi.cache_set(f'{n:016}', 'v' * 100) for n in range(4000)].count(True)"),
            "4000"
        );
        kib() - before
    };
    let (native, ucache) = (grown(Flavor::Native), grown(Flavor::Ucache));
    assert!(native > 4000 * 4, "a page an item: {native}");
    assert!(ucache < 2000, "a few times 4000 * 116 bytes: {ucache}");
}

/// D-55: RLIMIT_AS and `reload-on-as` count more, resident memory is less.
#[test]
fn addresses_are_reserved_for_the_largest_values() {
    // KiB of address space that a cache with default limits adds to a worker
    let added = |flavor: Flavor| {
        let size = "int(next(l for l in open('/proc/self/status') if 'VmSize' in l).split()[1])";
        let [with, without] = [2000, 2].map(|items| {
            let server = Server::start(flavor, 1, &format!("cache2 = name=c,items={items}"));
            server.run(1, size).parse::<u64>().expect("a number")
        });
        with - without
    };
    let (native, ucache) = (added(Flavor::Native), added(Flavor::Ucache));
    assert!((130_000..160_000).contains(&native), "{native}");
    assert!(ucache > native && ucache < 2 * native, "{ucache} and {native}");
}

#[test]
fn the_log_says_who_serves_the_cache() {
    let server = Server::start(Flavor::Ucache, 1, "cache2 = name=c,items=10");
    assert!(server.log().contains("[ucache] "), "{}", server.log());
    assert!(!server.log().contains("preallocated"), "a native cache was made\n{}", server.log());
}

#[test]
fn the_log_says_what_was_refused_and_does_not_repeat_it() {
    // log lines about the cache after 50 refusals of one kind
    let refused = |flavor: Flavor, source: &str| {
        let options = "cache2 = name=tiny,items=3,keysize=20,blocksize=100\ndisable-logging = true";
        let server = Server::start(flavor, 1, options);
        server.run(1, "uwsgi.cache_set('a', 'v'), uwsgi.cache_set('b', 'v')");
        let before = server.log().len();
        server.run(1, &format!("for n in range(50): {source}"));
        server.log()[before..]
            .lines()
            .filter(|line| line.contains("tiny"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (source, native, why) in [
        ("uwsgi.cache_set(str(n), 'v')", 50, "full"),
        ("uwsgi.cache_set('a' * 21, 'v')", 0, "20"),
        ("uwsgi.cache_update('a', 'v' * 101)", 0, "100"),
    ] {
        assert_eq!(refused(Flavor::Native, source).len(), native, "native: {source}");
        let lines = refused(Flavor::Ucache, source);
        assert!(lines.len() == 1 && lines[0].to_lowercase().contains(why), "{source}: {lines:?}");
    }
}

#[test]
fn unknown_and_switched_off_keys_of_a_definition_are_logged() {
    for (key, flavor, told) in [
        ("purgelru=1", Flavor::Native, false),
        ("purgelru=1", Flavor::Ucache, true),
        ("purge_lru=0", Flavor::Native, false),
        ("purge_lru=0", Flavor::Ucache, true),
    ] {
        let server = Server::start(flavor, 1, &format!("cache2 = name=c,items=10,{key}"));
        let name = key.split('=').next().expect("a key");
        assert_eq!(server.log().contains(name), told, "{key} on {flavor:?}\n{}", server.log());
    }
}

#[test]
fn definitions_that_cannot_be_end_the_server() {
    for definition in [
        "items=10",
        "name=a",
        "name=a,items=0",
        "name=a,items=ten",
        "name=a, items=10",
        "name=a,items=10,blocks=5",
        "name=a,items=10,blocksize=0",
        "name=a,items=4,keysize=70000",
        "name=a,items=4,keysize=0",
        "name=a,items=4,hashsize=0",
        "name=a,items=4,hash=sha256",
    ] {
        for flavor in BOTH {
            let log = Server::refuse(flavor, &format!("cache2 = {definition}"));
            assert!(!log.contains("spawned uWSGI worker"), "{flavor:?} with {definition}:\n{log}");
        }
    }
}
