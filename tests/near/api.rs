//! The Rust crate's handle on a cache with a backend.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use ucache::{Backend, BackendFault, Cache, Error, Expires, OnDown, Stored};

use crate::{
    backend::{self, Server},
    copies::patient,
    ports,
};

fn cache(name: &str, backend: Backend) -> Cache {
    Cache::builder(name).items(100).backend(backend).build().expect("a cache")
}

#[test]
fn every_operation() {
    for program in backend::programs() {
        let server = Server::with(&program, 0, &[]);
        let name = format!("api {}", program.display());
        let c = cache(&name, patient(server.url()).prefix("p:"));
        assert_eq!(c.set("k", "v").expect("set"), Stored::Inserted);
        assert_eq!(c.set_with("k", "w", Duration::from_secs(100)).expect("set"), Stored::Updated);
        assert_eq!(server.ask(["GET", "p:k"]), "w");
        assert!(c.expires("k").and_then(Expires::deadline).is_some());
        assert_eq!(c.set_keep_ttl("k", "x").expect("set"), Stored::Updated);
        assert!(c.expires("k").and_then(Expires::deadline).is_some());
        assert!(!c.add("k", "y").expect("add") && c.add("l", "y").expect("add"));
        assert!(c.replace("l", "z").expect("replace") && !c.replace("m", "z").expect("replace"));
        assert_eq!(c.append("l", "!").expect("append"), Some(2));
        assert_eq!(c.prepend("l", "").expect("prepend"), Some(2));
        assert_eq!(c.get_str("l").expect("get").as_deref(), Some("z!"));
        let mut buffer = [0; 1];
        assert!(matches!(c.get_into("l", &mut buffer), Err(Error::BufferTooSmall { needed: 2, len: 1 })));
        assert_eq!(c.get_with("l", <[u8]>::len).expect("get"), Some(2));
        assert_eq!(
            c.get_many(["k", "none", "l"]).expect("get"),
            [Some(b"x".to_vec()), None, Some(b"z!".to_vec())]
        );
        let mut bytes = 0;
        c.get_many_with(["k", "l"], |_, value| bytes += value.map_or(0, <[u8]>::len)).expect("get");
        assert_eq!(bytes, 3);
        assert_eq!(c.incr("n", i64::MAX).expect("incr"), i64::MAX);
        assert_eq!(c.incr("n", 1).expect("incr"), i64::MIN);
        assert_eq!(c.get_int("n").expect("get"), Some(i64::MIN));
        assert!(matches!(c.incr("k", 1), Err(Error::NotANumber { len: 1 })));
        assert!(c.compare_and_swap("k", "x", "swapped").expect("swap"));
        assert!(!c.compare_and_delete("k", "x").expect("swap"));
        let mut keys: Vec<_> = c.keys().collect();
        keys.sort();
        assert_eq!(keys, [b"k", b"l", b"n"]);
        assert_eq!(c.keys_with_prefix("l").count(), 1);
        let entry = c.entries_with_prefix("k").next().expect("an entry");
        assert_eq!((&entry.key[..], &entry.value[..]), (&b"k"[..], &b"swapped"[..]));
        assert!(c.touch("k", Duration::ZERO).expect("touch"));
        assert!(!c.contains("k"));
        assert_eq!(c.take("l").expect("take").as_deref(), Some(&b"z!"[..]));
        assert!(c.delete("n").expect("delete"));
        let stats = c.stats();
        assert!(stats.hits > 5 && stats.misses > 0 && stats.stored > 5 && stats.deleted >= 2, "{stats:?}");
        c.set("k", "v").expect("set");
        c.clear().expect("clear");
        assert_eq!(server.ask(["DBSIZE"]), "0");
        assert!(format!("{c:?}").contains("redis+unix://"), "{c:?}");
    }
}

#[test]
fn one_caller_computes() {
    let server = Server::start();
    let c = cache("computes", Backend::url(server.url()).timeout(Duration::from_secs(20)));
    let calls = AtomicU32::new(0);
    let compute = |_: &str| {
        calls.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
        "value"
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| c.get_or_set_with("k", compute))).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic").expect("a value"), b"value");
        }
    });
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(server.ask(["GET", "computes:k"]), "value");
    // Whoever deletes while a value is computed knows better than who computes it.
    let value = c.get_or_set_with("l", |_| {
        c.delete("l").expect("delete");
        "old"
    });
    assert_eq!(value.expect("a value"), b"old");
    assert!(!c.contains("l"));
    // What failed is tried by the next one.
    c.get_or_try_set_with("m", |_| Err::<&str, Error>(Error::NotUtf8)).expect_err("failed");
    assert_eq!(c.get_or_set_with("m", |_| "now").expect("a value"), b"now");
    // A value is computed anew before it ends, once.
    c.set_with("stale", "old", Duration::from_secs(5)).expect("set");
    let fresh = c.get_or_refresh_with("stale", Duration::from_secs(60), |_| "new").expect("a value");
    assert_eq!(fresh, b"new");
    assert_eq!(server.ask(["GET", "computes:stale"]), "new");
}

#[test]
fn a_server_that_is_down_is_an_error_or_a_miss() {
    let mut server = Server::start();
    let c = cache("down", Backend::url(server.url()));
    let m = cache("down or miss", Backend::url(server.url()).on_down(OnDown::Miss));
    server.down();
    match c.get("k") {
        Err(Error::Backend { server: at, fault: BackendFault::Unreachable { .. } }) => {
            assert_eq!(at, server.url())
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(m.get("k").expect("a miss"), None);
    assert!(m.set("k", "v").is_err() && m.take("k").is_err());
    assert_eq!(m.get_or_set_with("k", |_| "computed").expect("the caller's"), b"computed");
    assert!(!c.contains("k") && c.keys().next().is_none());
    c.set("k", "v").expect_err("it is down");
    c.set("", "v").expect_err("a key has bytes");
    let stats = c.stats();
    assert_eq!((stats.rejected_full, stats.rejected_limit), (0, 1), "the cache is not full");
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |backend: Backend| {
        let builder = Cache::builder("refused").items(10).backend(backend);
        builder.build().expect_err("cannot be").to_string()
    };
    assert!(refused(Backend::url("cache:1")).contains("must begin with redis://"));
    assert!(refused(Backend::url("redis://a").timeout(Duration::ZERO)).contains("1 to 60000"));
    assert!(refused(Backend::url("redis://a").secret_env("UCACHE_NO_SUCH")).contains("no such variable"));
    assert!(refused(Backend::url("redis://a").tracking(false)).contains("needs l1_ttl"));
    assert!(refused(Backend::url("redis://a").max_stale(Duration::from_millis(9))).contains("at least 50"));
    // A name that was refused is free.
    Cache::builder("refused").items(10).build().expect("a cache");
}

#[test]
fn handles_by_name_share_the_backend() {
    let port = ports::free_port();
    let server = Server::with("redis-server".as_ref(), port, &[]);
    let _first = cache("by name", Backend::url(format!("redis://127.0.0.1:{port}")).decimal_numbers(true));
    let c = Cache::open("by name").expect("it is there");
    assert_eq!(c.incr("n", 41).expect("incr"), 41);
    assert_eq!(server.ask(["INCR", "by name:n"]), "42");
    assert_eq!(c.get_int("n").expect("get"), Some(42));
}
