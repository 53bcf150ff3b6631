//! `clear=generation`: a clear in one step, of which all machines hear.

use std::{sync::atomic::Ordering::SeqCst, thread, time::Duration};

use ucache::{Backend, Cache, Stored};

use crate::{
    backend::{self, Server},
    copies::{is_hit, machine, patient, within},
    engine_proc::{Child, Scratch},
    proxy::{Address, Kind, Link, Proxy, Way},
};

fn numbered(server: &Server) -> Backend {
    patient(server.url()).clear_by_generation(true)
}

/// The names at the server that begin with the cache's prefix and do not have the number in force.
fn others(server: &Server) -> Vec<String> {
    let now = format!("p:{}:", server.ask(["GET", "p:#gen"]));
    let names = server.ask(["KEYS", "p:*"]);
    names.split(' ').filter(|name| !name.is_empty() && !name.starts_with(&now)).map(str::to_owned).collect()
}

#[test]
fn a_clear_hides_everything_and_is_swept_later() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let server = Server::with(&program, 0, &[]);
        for name in ["q:1:k", "p:no number", "p", "pp:1:k"] {
            server.ask(["SET", name, "of somebody else"]);
        }
        let name = |n| format!("generations {n} {}", program.display());
        let [a, b] = [1, 2].map(|n| machine(&name(n), numbered(&server)));
        for round in 0..5 {
            a.set_many((0..2500).map(|n| (format!("k{n}"), format!("{round}")))).expect("set");
            b.set("k0", "by b").expect("set");
            within("a copy", || is_hit(&b, "k1"));
            assert_eq!(a.keys().count(), 2500 + usize::from(a.contains("armed")));
            a.clear().expect("clear");
            assert_eq!(a.get("k0").expect("get"), None, "this machine's own clear");
            within("the clear is heard", || b.get("k1").expect("get").is_none());
            assert_eq!((a.keys().count(), b.contains("k2")), (0, false));
        }
        within("old keys are removed", || {
            let names = others(&server).join(" ");
            names.matches("p:").count() == 3
                && ["p:#gen", "p:#swept", "p:no"].iter().all(|n| names.contains(n))
        });
        assert_eq!(server.ask(["MGET", "q:1:k", "pp:1:k", "p"]).matches("of somebody else").count(), 3);
        let stats = b.near_stats().expect("it has a backend");
        assert_eq!(stats.flushes, 0, "{stats:?}");
    }
}

/// A write that begins when a clear has returned is there, also on a machine that has not heard of it.
#[test]
fn a_write_after_a_clear_is_not_lost() {
    let server = Server::start();
    let [a, b] = [1, 2].map(|n| machine(&format!("after a clear {n}"), numbered(&server)));
    let text = |c: &Cache, key: &str| c.get_str(key).expect("get");
    for n in 0..100_u32 {
        let value = n.to_string();
        b.set("old", "v").expect("set");
        a.clear().expect("clear");
        match n % 6 {
            0 => _ = b.set("k", &value).expect("set"),
            1 => assert!(b.add("k", &value).expect("add")),
            2 => assert!(b.incr("n", 7).expect("incr") == 7 && b.add("k", &value).expect("add")),
            3 => {
                assert!(!b.replace("old", "w").expect("replace"), "it was cleared");
                assert_eq!(b.append("old", "w").expect("append"), None);
                assert!(!b.compare_and_swap("old", "v", "w").expect("swap"));
                assert_eq!(b.set_with("k", &value, Duration::from_secs(50)).expect("set"), Stored::Inserted);
            }
            4 => {
                assert!(
                    !b.delete("old").expect("delete")
                        && !b.touch("old", Duration::from_secs(9)).expect("touch")
                );
                assert_eq!(b.set_keep_ttl("k", &value).expect("set"), Stored::Inserted);
            }
            _ => {
                // A copy from before the clear would do as well.
                within("the clear is heard", || b.get("k").expect("get").is_none());
                assert_eq!(b.get_or_set_with("k", |_| &value[..]).expect("a value"), value.as_bytes());
            }
        }
        assert_eq!(text(&b, "k").as_deref(), Some(&value[..]), "{n}");
        within("it is seen", || text(&a, "k").as_deref() == Some(&value[..]));
        assert_eq!(text(&a, "old"), None, "{n}");
    }
}

/// One process of a machine is told of a clear, and the message of it has not come yet.
#[test]
fn what_a_process_writes_after_a_clear_is_read_by_the_others_of_its_machine() {
    let server = Server::start();
    let proxy = Proxy::start(Address::Unix(server.socket()));
    let backend = patient(proxy.url()).clear_by_generation(true).max_stale(Duration::from_secs(3));
    let c = machine("processes and a clear", backend);
    c.set("k", "before").expect("set");
    c.set("untouched", "before").expect("set");
    within("a copy is kept", || is_hit(&c, "k"));
    let words = Scratch::new(2);
    let text = |key: &str| c.get_str(key).expect("get");
    let child = Child::fork(|| {
        // It knows the number.
        assert_eq!(text("k").as_deref(), Some("before"));
        words[0].store(1, SeqCst);
        within("a write of the parent", || words[1].load(SeqCst) == 1);
        assert_eq!(text("k").as_deref(), Some("after"));
        assert_eq!(text("untouched"), None, "it was cleared");
    });
    let terms = c.near_stats().expect("it has a backend").terms;
    proxy.set(Kind::Tracking, Way::ToClient, Link::Stalled);
    within("a read of the child", || words[0].load(SeqCst) == 1);
    server.ask(["INCR", "p:#gen"]);
    c.set("k", "after").expect("set");
    words[1].store(1, SeqCst);
    child.join();
    assert_eq!(c.near_stats().expect("it has a backend").terms, terms, "copies were in use");
}

#[test]
fn a_value_that_was_being_computed_during_a_clear_is_not_stored() {
    let server = Server::start();
    let [a, b] = [1, 2].map(|n| machine(&format!("computed over {n}"), numbered(&server)));
    for n in 0..10 {
        let value = a.get_or_set_with("k", |_| {
            b.clear().expect("clear");
            if n % 2 == 0 {
                // The clear is heard, or not.
                thread::sleep(Duration::from_millis(20));
            }
            "computed before"
        });
        assert_eq!(value.expect("a value"), b"computed before");
        within("nothing is there", || a.get("k").expect("get").is_none());
        assert_eq!(b.get("k").expect("get"), None, "{n}");
    }
}

#[test]
fn a_number_that_is_lost_is_a_clear() {
    let server = Server::start();
    let [a, b] = [1, 2].map(|n| machine(&format!("lost {n}"), numbered(&server)));
    let lost = ["DEL p:#gen", "FLUSHALL"].map(str::to_owned).into_iter();
    // Lua takes most of these for numbers, and Rust one.
    let no_numbers = ["text", "+7", "-7", "007", "0", "7.5", "1e9", "0x10", "inf", "9007199254740992"];
    for lose in lost.chain(no_numbers.map(|text| format!("SET p:#gen {text}"))) {
        a.set("k", "before").expect("set");
        within("a copy", || is_hit(&b, "k"));
        server.ask(lose.split(' '));
        within("it is seen", || b.get("k").expect("get").is_none());
        assert_eq!(a.set("k", "after").expect(&lose), Stored::Inserted);
        within("it is seen", || b.get_str("k").expect("get").as_deref() == Some("after"));
        server.ask(lose.split(' '));
        a.clear().expect(&lose);
        assert_eq!(a.get("k").expect("get"), None, "{lose}");
    }
}

/// The right to sweep of a machine that has gone ends in time. Nobody clears, and no owner begins.
#[test]
fn a_sweep_that_was_given_up_goes_on() {
    let server = Server::start();
    for words in ["SET p:#gen 7", "SET p:1:k old", "SET p:#sweep another"] {
        server.ask(words.split(' '));
    }
    let tries = || {
        let stats = server.ask(["INFO", "commandstats"]);
        let gets = stats.split("cmdstat_set:calls=").nth(1).and_then(|calls| calls.split(',').next());
        gets.and_then(|calls| calls.parse::<u64>().ok()).expect("calls of SET")
    };
    let before = tries();
    let c = Cache::builder("given up").items(9);
    let _c = c
        .backend(numbered(&server).prefix("p:").max_stale(Duration::from_millis(50)))
        .build()
        .expect("a cache");
    within("the owner tries to sweep", || tries() > before);
    assert_eq!(server.ask(["GET", "p:1:k"]), "old");
    server.ask(["DEL", "p:#sweep"]);
    within("old keys are removed", || server.ask(["EXISTS", "p:1:k"]) == "0");
}

#[test]
fn the_user_of_the_documentation_may_clear() {
    let server = Server::start();
    let docs = include_str!("../../src/docs/fleet.md");
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the line");
    assert_eq!(server.ask(format!("{} +time", line.replace("pages:", "p:")).split(' ')), "OK");
    let url = server.url().replace("unix://", "unix://web:secret@");
    let c = machine("may clear", patient(url).clear_by_generation(true));
    c.set("k", "v").expect("set");
    c.clear().expect("clear");
    assert_eq!(c.get("k").expect("get"), None);
    within("old keys are removed", || others(&server).iter().all(|name| name.starts_with("p:#")));
}
