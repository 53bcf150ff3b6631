//! The near cache: copies on this machine, which the server's messages keep up to date. A "machine"
//! is a cache of this process with a region of its own.

use std::{
    thread,
    time::{Duration, Instant},
};

use ucache::{Backend, BackendFault, Cache, Error, Expires, OnDown};

use crate::backend::{self, Server};
pub(crate) use crate::patience::within;

/// A machine with this prefix, whose copies are in use.
pub(crate) fn machine(name: &str, backend: Backend) -> Cache {
    let c = Cache::builder(name).items(1000).backend(backend.prefix("p:")).build().expect("a cache");
    armed(&c);
    c
}

/// A backend that a busy machine does not make fail.
pub(crate) fn patient(url: impl AsRef<str>) -> Backend {
    let long = Duration::from_secs(30);
    Backend::url(url).timeout(long).connect_timeout(long)
}

/// Waits until reads are answered by copies.
pub(crate) fn armed(c: &Cache) {
    c.set("armed", "yes").expect("set");
    within("copies are in use", || is_hit(c, "armed"));
}

/// Whether a read of this key, which is there, needs no server.
pub(crate) fn is_hit(c: &Cache, key: &str) -> bool {
    let before = hits(c);
    assert!(c.get(key).expect("get").is_some(), "{key}");
    hits(c) > before
}

pub(crate) fn hits(c: &Cache) -> u64 {
    c.near_stats().expect("it has a backend").hits
}

#[test]
fn a_change_by_anybody_is_seen() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let server = Server::with(&program, 0, &[]);
        let name = |n| format!("seen {n} {}", program.display());
        let [a, b] = [1, 2].map(|n| machine(&name(n), patient(server.url())));
        a.set("k", "1").expect("set");
        assert_eq!(b.get_str("k").expect("get").as_deref(), Some("1"));
        within("a copy is kept", || is_hit(&b, "k"));
        let ask = |words: &[&str]| server.ask(words.iter().copied());
        let steps: [(&[&str], Option<&str>); 9] = [
            (&["SET", "p:k", "2"], Some("2")),
            (&["MSET", "p:other", "x", "p:k", "3"], Some("3")),
            (&["APPEND", "p:k", "!"], Some("3!")),
            (&["DEL", "p:k"], None),
            (&["SET", "p:k", "4", "PX", "100000"], Some("4")),
            (&["PEXPIRE", "p:k", "1"], None),
            (&["RENAME", "p:other", "p:k"], Some("x")),
            (&["FLUSHALL"], None),
            (&["EVAL", "redis.call('SET', KEYS[1], 'lua')", "1", "p:k"], Some("lua")),
        ];
        for (words, expected) in steps {
            ask(words);
            within(format!("{words:?}"), || b.get_str("k").expect("get").as_deref() == expected);
            if expected.is_some() {
                within("a copy is kept", || is_hit(&b, "k"));
            }
        }
        // Each change by a machine.
        let changes: [&dyn Fn(); 6] = [
            &|| _ = a.set("k", "5").expect("set"),
            &|| _ = a.append("k", "6").expect("append"),
            &|| _ = a.compare_and_swap("k", "56", "7").expect("swap"),
            &|| _ = a.delete("k").expect("delete"),
            &|| _ = a.incr("k", 5).expect("incr"),
            &|| a.clear().expect("clear"),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let before = b.get("k").expect("get");
            change();
            within(format!("change {n}"), || b.get("k").expect("get") != before);
        }
        let stats = b.near_stats().expect("it has a backend");
        assert!(stats.invalidated > 5 && stats.flushes == 1 && stats.fills > 5, "{stats:?}");
        assert!(stats.owner_pid == std::process::id() && stats.beat_age_ms.is_some(), "{stats:?}");
    }
}

#[test]
fn a_machine_reads_its_own_writes() {
    let server = Server::start();
    let c = machine("own writes", patient(server.url()));
    thread::scope(|scope| {
        for thread in 0..4 {
            let c = &c;
            scope.spawn(move || {
                let key = format!("k{thread}");
                for n in 0..500_u32 {
                    c.set(&key, n.to_string()).expect("set");
                    assert_eq!(c.get_str(&key).expect("get"), Some(n.to_string()));
                    assert_eq!(c.get_str(&key).expect("get"), Some(n.to_string()));
                }
            });
        }
    });
    assert!(hits(&c) > 100);
    assert_eq!(c.get_or_set_with("computed", |_| "v").expect("a value"), b"v");
    within("a copy of the computed value", || is_hit(&c, "computed"));
    c.touch("computed", Duration::ZERO).expect("touch");
    assert_eq!(c.get("computed").expect("get"), None);
}

#[test]
fn several_keys_come_from_copies_and_the_rest_in_one_round_trip() {
    let server = Server::start();
    let c = machine("several", patient(server.url()));
    let value = |n: u32| Some(n.to_string().into_bytes());
    c.set_many((0..50_u32).map(|n| (format!("k{n}"), n.to_string()))).expect("set");
    // The messages of the writes above would remove copies.
    within("all are copies", || {
        let before = hits(&c);
        let keys: Vec<_> = (0..60_u32).map(|n| format!("k{n}")).collect();
        let found = c.get_many(&keys).expect("get");
        assert!((0..50).all(|n| found[n as usize] == value(n)) && found[50..].iter().all(Option::is_none));
        hits(&c) - before == 50
    });
    let stats = c.stats();
    assert!(stats.hits > 50 && stats.misses >= 10, "{stats:?}");
}

#[test]
fn a_copy_lives_no_longer_than_its_value() {
    let server = Server::start();
    let c = machine("lives", patient(server.url()));
    server.ask(["SET", "p:k", "v", "PX", "1500"]);
    let start = Instant::now();
    // Nobody touches the key at the server, which need not tell of its end.
    assert_eq!(server.ask(["DEBUG", "SET-ACTIVE-EXPIRE", "0"]), "OK");
    while start.elapsed() < Duration::from_millis(1490) {
        assert!(c.get("k").expect("get").is_some() || start.elapsed() > Duration::from_millis(1400));
    }
    thread::sleep(Duration::from_millis(20));
    assert_eq!(c.get("k").expect("get"), None);
}

#[test]
fn without_tracking_a_copy_lives_as_long_as_it_may() {
    let server = Server::start();
    let c = Cache::builder("untracked")
        .items(100)
        .backend(patient(server.url()).tracking(false).copy_ttl(Duration::from_secs(2)))
        .build()
        .expect("a cache");
    c.set("k", "1").expect("set");
    assert!(!is_hit(&c, "k") && is_hit(&c, "k"));
    c.set("k", "2").expect("set");
    assert_eq!(c.get_str("k").expect("get").as_deref(), Some("2"), "its own write");
    server.ask(["SET", "untracked:k", "3"]);
    assert_eq!(c.get_str("k").expect("get").as_deref(), Some("2"), "nobody told");
    within("the copy ends", || c.get_str("k").expect("get").as_deref() == Some("3"));
    assert_eq!(server.ask(["CLIENT", "LIST"]).matches("name=ucache-owner").count(), 0);
}

#[test]
fn with_near_0_there_are_no_copies() {
    let server = Server::start();
    let c = Cache::builder("far").items(100).backend(patient(server.url()).near(false)).build();
    let c = c.expect("a cache");
    c.set("k", "1").expect("set");
    assert!(!is_hit(&c, "k") && !is_hit(&c, "k"));
    assert_eq!(server.ask(["CLIENT", "LIST"]).matches("name=ucache-owner").count(), 0);
}

#[test]
fn values_that_have_no_place_are_served_all_the_same() {
    let server = Server::start();
    let c = Cache::builder("small").items(4).max_value_bytes(100).backend(patient(server.url()).prefix("p:"));
    let c = c.build().expect("a cache");
    armed(&c);
    let long = "v".repeat(1000);
    c.set("long", &long).expect("set");
    for n in 0..20 {
        c.set(format!("k{n}"), n.to_string()).expect("set");
    }
    for _ in 0..3 {
        assert_eq!(c.get_str("long").expect("get").as_deref(), Some(&long[..]));
        assert!((0..20).all(|n| c.get_str(format!("k{n}")).expect("get") == Some(n.to_string())));
    }
    assert!(c.stats().items <= 4);
    server.ask(["SET", "p:empty", ""]);
    assert_eq!(c.get("empty").expect("get").as_deref(), Some(&b""[..]));
}

#[test]
fn what_the_owner_asks_for() {
    let server = Server::start();
    let mut monitor = server.client();
    assert_eq!(monitor.ask(["MONITOR"]), "OK");
    let _c = machine("asks", patient(server.url()));
    let mut lines = std::iter::from_fn(|| monitor.reply().ok());
    let asked = lines.find(|line| line.contains("\"TRACKING\"")).expect("it asks");
    // Neither NOLOOP, which would keep this machine's own changes from it, nor REDIRECT.
    assert!(asked.ends_with("\"CLIENT\" \"TRACKING\" \"ON\" \"BCAST\" \"PREFIX\" \"p:\""), "{asked}");
}

#[test]
fn a_down_server_is_what_on_down_says() {
    let mut server = Server::start();
    let with = |name: &str, on_down| {
        machine(name, Backend::url(server.url()).on_down(on_down).max_stale(Duration::from_millis(300)))
    };
    let error = with("down error", OnDown::Error);
    let miss = with("down miss", OnDown::Miss);
    let stale = with("down stale", OnDown::Stale(Duration::from_secs(3)));
    let caches = [&error, &miss, &stale];
    for c in caches {
        c.set_with("k", "v", Expires::Never).expect("set");
    }
    for c in caches {
        within("a copy", || is_hit(c, "k"));
    }
    server.down();
    let start = Instant::now();
    within("an error", || error.get("k").is_err());
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
    assert!(matches!(
        error.get("k"),
        Err(Error::Backend {
            fault: BackendFault::Unreachable { .. } | BackendFault::Down { .. } | BackendFault::Lost { .. },
            ..
        })
    ));
    within("a miss", || miss.get("k").expect("a miss").is_none());
    let served = || stale.near_stats().expect("it has a backend").stale_served;
    within("an old copy", || stale.get_str("k").expect("a copy").as_deref() == Some("v") && served() > 0);
    assert!(stale.contains("k") && stale.get("none").expect("a miss").is_none());
    // A write is never made up, and its key is no copy any more.
    assert!(stale.set("k", "w").is_err());
    assert_eq!(stale.get("k").expect("a miss"), None);
    assert_eq!(stale.get_str("armed").expect("a copy").as_deref(), Some("yes"));
    within("the time is over", || stale.get("armed").expect("a miss").is_none());
    assert!(start.elapsed() > Duration::from_secs(3));
    server.up();
    for c in caches {
        within("it is back, empty", || c.set("k", "new").is_ok());
        armed(c);
        assert_eq!(c.get_str("k").expect("get").as_deref(), Some("new"));
        assert!(c.get("armed").expect("get").is_some());
    }
}
