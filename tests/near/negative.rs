//! `negative=1`: a machine remembers that a key is not there.

use std::time::Duration;

use ucache::Cache;

use crate::{
    backend::{self, Server},
    copies::{machine, patient, within},
};

fn absent(c: &Cache) -> u64 {
    c.near_stats().expect("it has a backend").absent
}

/// Whether a read of this key, which is not there, needs no server.
fn is_remembered(c: &Cache, key: &str) -> bool {
    let before = absent(c);
    assert_eq!(c.get(key).expect("get"), None, "{key}");
    absent(c) > before
}

#[test]
fn a_missing_key_is_asked_for_once_until_it_is_there() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let server = Server::with(&program, 0, &[]);
        let [a, b] = [1, 2].map(|n| {
            let name = format!("negative {n} {}", program.display());
            machine(&name, patient(server.url()).negative(true))
        });
        within("it is remembered", || is_remembered(&a, "k"));
        let stores: [&dyn Fn(); 4] = [
            &|| _ = server.ask(["SET", "p:k", "v"]),
            &|| _ = b.set("k", "v").expect("set"),
            &|| _ = b.incr("k", 5).expect("incr"),
            &|| _ = server.ask(["EVAL", "redis.call('SET', KEYS[1], 'v')", "1", "p:k"]),
        ];
        for store in stores {
            store();
            within("it is seen", || a.get("k").expect("get").is_some());
            server.ask(["DEL", "p:k"]);
            within("it is gone", || a.get("k").expect("get").is_none());
            within("it is remembered again", || is_remembered(&a, "k"));
        }
        // What this machine stores is there at once.
        a.set("k", "own").expect("set");
        assert_eq!(a.get_str("k").expect("get").as_deref(), Some("own"));
        a.delete("k").expect("delete");
        within("it is remembered", || is_remembered(&a, "k"));
        assert!(a.add("k", "added").expect("add"));
        assert_eq!(a.get_str("k").expect("get").as_deref(), Some("added"));
    }
}

#[test]
fn who_computes_a_missing_value_is_not_kept_from_it() {
    let server = Server::start();
    let c = machine("negative fills", patient(server.url()).negative(true));
    within("it is remembered", || is_remembered(&c, "k"));
    assert_eq!(c.get_or_set_with("k", |_| "computed").expect("a value"), b"computed");
    assert_eq!(server.ask(["GET", "p:k"]), "computed");
    assert!(!c.contains("none") && c.get("none").expect("get").is_none());
    within("several", || {
        let before = absent(&c);
        assert_eq!(c.get_many(["k", "m", "n"]).expect("get"), [Some(b"computed".to_vec()), None, None]);
        absent(&c) - before == 2
    });
    // It is no item.
    assert_eq!(c.keys().filter(|key| key != b"armed").count(), 1);
    let stats = c.near_stats().expect("it has a backend");
    let reads = c.stats().hits + c.stats().misses;
    assert_eq!(stats.hits + stats.misses + stats.absent + stats.bypassed, reads, "{stats:?}");
}

#[test]
fn without_it_and_without_messages() {
    let server = Server::start();
    let c = machine("not negative", patient(server.url()));
    assert!((0..5).all(|_| !is_remembered(&c, "k")));
    let untold = patient(server.url()).tracking(false).negative(true).copy_ttl(Duration::from_secs(2));
    let c =
        Cache::builder("negative, untold").items(100).backend(untold.prefix("p:")).build().expect("a cache");
    assert!(!is_remembered(&c, "k") && is_remembered(&c, "k"));
    server.ask(["SET", "p:k", "v"]);
    within("its time is over", || c.get("k").expect("get").is_some());
}
