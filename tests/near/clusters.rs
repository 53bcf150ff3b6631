//! Caches whose values are in a cluster. `tests/fleet/clusters.rs` judges failovers and resharding
//! under load.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use ucache::{Backend, Cache, Error, OnDown};

use crate::{
    backend::{self, Server},
    cluster::Cluster,
    copies::{armed, hits, is_hit, machine, within},
    ports::free_port,
};

const MAX_STALE: Duration = Duration::from_millis(500);
const KEYS: usize = 60;

fn key(n: usize) -> String {
    format!("k{n}")
}

/// A key at this node, without the prefix.
pub(crate) fn key_at(cluster: &Cluster, node: usize) -> String {
    let at = |key: &String| cluster.owner(cluster.slot(&format!("p:{key}"))) == node;
    (0..1000).map(key).find(at).expect("a key in one of its slots")
}

/// What the node of a key says to another client.
fn ask(cluster: &Cluster, words: &[&str]) -> String {
    cluster.nodes[cluster.owner(cluster.slot(words[1]))].server.ask(words)
}

/// With a time limit that a busy machine keeps.
fn patient(url: &str) -> Backend {
    Backend::url(url).max_stale(MAX_STALE).timeout(Duration::from_secs(10))
}

/// Waits until a read of this key is answered by a copy. The server may be slow.
pub(crate) fn copied(c: &Cache, key: &str) {
    within("a copy", || {
        let before = hits(c);
        matches!(c.get(key), Ok(Some(_))) && hits(c) > before
    });
}

/// A cache without copies.
fn far(name: &str, url: &str) -> Cache {
    let backend =
        Backend::url(url).timeout(Duration::from_secs(10)).near(false).on_down(OnDown::Error).prefix("p:");
    Cache::builder(name).items(1000).backend(backend).build().expect("a cache")
}

/// Every kind of operation, on keys at all nodes.
pub(crate) fn operate(c: &Cache) {
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    for key in &keys {
        c.set(key, format!("{key} 1")).expect("set");
        assert!(!c.add(key, "no").expect("add") && c.replace(key, format!("{key} 2")).expect("replace"));
        assert_eq!(c.get_str(key).expect("get"), Some(format!("{key} 2")));
        assert!(
            c.append(key, "!").expect("append").is_some()
                && c.compare_and_swap(key, format!("{key} 2!"), key).expect("swap")
        );
        assert!(c.contains(key) && c.touch(key, Duration::from_secs(100)).expect("touch"));
    }
    let found = c.get_many(&keys).expect("get_many");
    assert!(found.iter().zip(&keys).all(|(value, key)| value.as_deref() == Some(key.as_bytes())));
    assert_eq!(c.keys().count(), KEYS);
    assert_eq!(c.keys().collect::<BTreeSet<_>>().len(), KEYS);
    for n in 0..10 {
        let key = format!("n{n}");
        assert_eq!((c.incr(&key, 5).expect("incr"), c.decr(&key, 2).expect("decr")), (5, 3));
        assert_eq!(c.get_or_set_with(&format!("computed{n}"), |_| "v").expect("a value"), b"v");
        assert_eq!(c.take(&key).expect("take").map(|bytes| bytes.len()), Some(8));
        assert!(c.delete(format!("computed{n}")).expect("delete"));
    }
    assert_eq!(c.get_many(["missing1", "missing2", "k0"]).expect("get_many").iter().flatten().count(), 1);
    c.clear().expect("clear");
    assert_eq!((c.keys().count(), c.get("k0").expect("get")), (0, None));
}

#[test]
fn every_operation_works_on_all_slots() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let cluster = Cluster::of_primaries(&program);
        let name = |name: &str| format!("{name} {}", program.display());
        operate(&far(&name("slots far"), &cluster.url()));
        let [a, b] = ["slots a", "slots b"].map(|n| machine(&name(n), patient(&cluster.url())));
        b.clear().expect("clear");
        operate(&a);
        // Each key has a copy, and each change at each node is heard.
        for n in 0..KEYS {
            let key = key(n);
            a.set(&key, "1").expect("set");
            within("a copy", || is_hit(&b, &key));
            ask(&cluster, &["SET", &format!("p:{key}"), "2"]);
            within("the change", || b.get_str(&key).expect("get").as_deref() == Some("2"));
        }
        let all: Vec<_> = (0..KEYS).map(key).collect();
        let before = hits(&b);
        assert_eq!(b.get_many(&all).expect("get_many").iter().flatten().count(), KEYS);
        within("copies of all", || {
            let before = hits(&b);
            assert_eq!(b.get_many(&all).expect("get_many").iter().flatten().count(), KEYS);
            hits(&b) - before == KEYS as u64
        });
        assert!(hits(&b) > before);
        // A flush of one node.
        let gone = key_at(&cluster, 1);
        cluster.nodes[1].server.ask(["FLUSHALL"]);
        within("the flush", || b.get(&gone).expect("get").is_none());
        assert!(b.get(key_at(&cluster, 0)).expect("get").is_some());
        let stats = b.near_stats().expect("a backend");
        assert!(stats.terms == 1 && stats.flushes == 1 && stats.beat_age_ms.is_some(), "{stats:?}");
    }
}

#[test]
fn a_prefix_with_a_hash_tag_is_at_one_node() {
    let cluster = Cluster::of_primaries(&backend::programs()[0]);
    let backend = || patient(&cluster.url()).prefix("{pages}:");
    let build = |name, backend| Cache::builder(name).items(1000).backend(backend).build().expect("a cache");
    operate(&build("tag far", Backend::url(cluster.url()).near(false).prefix("{pages}:")));
    let near = build("tag near", backend());
    operate(&near);
    armed(&near);
    let home = cluster.owner(cluster.slot("{pages}:x"));
    cluster.nodes[home].server.ask(["SET", "{pages}:armed", "changed"]);
    within("the change", || near.get_str("armed").expect("get").as_deref() == Some("changed"));
}

#[test]
fn a_node_that_is_stopped_ends_the_use_of_its_copies_only() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let cluster = Cluster::of_primaries(&program);
        let backend = Backend::url(cluster.url()).max_stale(MAX_STALE).timeout(Duration::from_millis(300));
        let builder = Cache::builder(format!("stopped node {}", program.display())).items(1000);
        let c = builder.backend(backend.prefix("p:")).build().expect("a cache");
        let set = |key: &str, value: &str| within("a write", || c.set(key, value).is_ok());
        let keys: Vec<_> = (0..3).map(|node| key_at(&cluster, node)).collect();
        for key in &keys {
            set(key, "v");
            copied(&c, key);
        }
        let terms = c.near_stats().expect("a backend").terms;
        cluster.nodes[0].server.freeze(true);
        within("its keys are asked for", || c.get(&keys[0]).is_err());
        within("the beat of all nodes is too old", || {
            let age = c.near_stats().expect("a backend").beat_age_ms;
            age.is_none_or(|age| Duration::from_millis(age) > 2 * MAX_STALE)
        });
        assert!(c.near_stats().expect("a backend").is_down, "one of them does not answer");
        for _ in 0..10 {
            assert!(c.get(&keys[0]).is_err(), "its copy is too old");
            keys[1..].iter().for_each(|key| copied(&c, key));
            within("two copies", || {
                let before = hits(&c);
                let found = c.get_many(&keys[1..]);
                found.is_ok_and(|found| found.iter().flatten().count() == 2) && hits(&c) == before + 2
            });
        }
        // Copies of the others are kept up to date, new ones are made, and writes succeed.
        let reads =
            |key: &str, value: &str| c.get_str(key).is_ok_and(|found| found.as_deref() == Some(value));
        for (node, key) in keys.iter().enumerate().skip(1) {
            cluster.nodes[node].server.ask(["SET", &format!("p:{key}"), "w"]);
            within("the change", || reads(key, "w"));
            set(key, "x");
            copied(&c, key);
        }
        cluster.nodes[0].server.freeze(false);
        set(&keys[0], "w");
        assert!(!c.near_stats().expect("a backend").is_down, "all of them answer");
        keys.iter().for_each(|key| copied(&c, key));
        assert_eq!(c.near_stats().expect("a backend").terms, terms, "no new term");
        cluster.nodes[0].server.ask(["SET", &format!("p:{}", keys[0]), "heard"]);
        within("its messages", || reads(&keys[0], "heard"));
    }
}

#[test]
fn slots_that_move_are_followed() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let mut cluster = Cluster::of_primaries(&program);
        let name = |name: &str| format!("{name} {}", program.display());
        let (idle, c) =
            (far(&name("moved far"), &cluster.url()), machine(&name("moved"), patient(&cluster.url())));
        let key = key_at(&cluster, 0);
        let (full, other) = (format!("p:{key}"), key_at(&cluster, 1));
        for c in [&idle, &c] {
            c.set(&key, "before").expect("set");
            c.set(&other, "before").expect("set");
        }
        within("a copy", || is_hit(&c, &key));
        // A node that is new to everybody.
        cluster.add(&program);
        let slot = cluster.slot(&full);
        cluster.move_slot(slot, 0, 3);
        cluster.nodes[3].server.ask(["SET", &full, "there"]);
        assert_eq!(idle.get_str(&key).expect("get").as_deref(), Some("there"));
        within("the change", || c.get_str(&key).expect("get").as_deref() == Some("there"));
        within("a copy of what is there", || is_hit(&c, &key));
        cluster.nodes[3].server.ask(["SET", &full, "heard"]);
        within("its messages", || c.get_str(&key).expect("get").as_deref() == Some("heard"));
        assert!(c.near_stats().expect("a backend").terms > 1);
        // Back, with its keys on the way: each write is executed once.
        let (source, target) = (&cluster.nodes[3], &cluster.nodes[0]);
        let set = |node: &crate::cluster::Node, what: [&str; 2]| {
            node.server.ask(["CLUSTER", "SETSLOT", &slot.to_string(), what[0], what[1]])
        };
        assert_eq!(set(target, ["IMPORTING", &source.id]), "OK");
        assert_eq!(set(source, ["MIGRATING", &target.id]), "OK");
        idle.delete(&key).expect("delete");
        for n in 1..=20 {
            assert_eq!(idle.incr(&key, 1).expect("incr"), n, "ASK");
        }
        idle.set(&key, "asked").expect("set");
        assert_eq!(source.server.ask(["EXISTS", &full]).split(' ').next(), Some("ASK"));
        within("the change", || c.get_str(&key).expect("get").as_deref() == Some("asked"));
        assert_eq!(c.get_many([&key, &other]).expect("get_many").iter().flatten().count(), 2);
        cluster.move_slot(slot, 3, 0);
        assert_eq!(idle.get_str(&key).expect("get").as_deref(), Some("asked"));
        within("a copy", || is_hit(&c, &key));
    }
}

#[test]
fn a_cluster_and_a_server_are_not_mistaken_for_each_other() {
    let cluster = Cluster::of_primaries(&backend::programs()[0]);
    let port = free_port();
    let server = Server::with(Path::new("redis-server"), port, &[]);
    let refused = |url: &str| {
        let backend = Backend::url(url).connect_timeout(Duration::from_secs(10));
        let built = Cache::builder("mistaken").items(10).backend(backend).build();
        match built.expect_err("it is not what the URL says") {
            error @ Error::InvalidOption { option: "backend", .. } => error.to_string(),
            other => panic!("{other}"),
        }
    };
    let said = refused(&format!("redis://{}", cluster.nodes[0].address()));
    assert!(said.contains("it is a node of a cluster: write redis+cluster://"), "{said}");
    let said = refused(&format!("redis+cluster://127.0.0.1:{port}"));
    assert!(said.contains("it is not a node of a cluster: write redis://"), "{said}");
    // One that is down at start is found out later, by reads and by the owner.
    drop(server);
    let late = |name, url: String| {
        let backend = Backend::url(url).on_down(OnDown::Error);
        Cache::builder(name).items(10).backend(backend).build().expect("nobody can tell")
    };
    let c = late("late server", format!("redis+cluster://127.0.0.1:{port}"));
    assert!(c.get("k").is_err());
    let _server = Server::with(Path::new("redis-server"), port, &[]);
    let says = |c: &Cache, text: &str| {
        within(text, || c.get("k").is_err_and(|error| error.to_string().contains(text)));
    };
    says(&c, "it is not a node of a cluster: write redis://");
    within("the owner knows", || c.near_stats().expect("a backend").untracked);
}

#[test]
fn a_cluster_that_is_down_at_start_is_found_later() {
    let mut cluster = Cluster::of_primaries(&backend::programs()[0]);
    let url = cluster.url();
    cluster.nodes.iter_mut().for_each(|node| node.server.down());
    let backend = patient(&url).prefix("p:").on_down(OnDown::Error);
    let c = Cache::builder("late cluster").items(10).backend(backend).build().expect("it starts");
    let error = c.get("k").expect_err("nobody is there").to_string();
    assert!(
        error.contains(&cluster.nodes[1].address()) && error.contains(&cluster.nodes[2].address()),
        "{error}"
    );
    cluster.nodes.iter_mut().for_each(|node| node.server.up());
    within("writes", || c.set("k", "v").is_ok());
    armed(&c);
}

#[test]
fn forks_and_threads_share_a_cluster() {
    let cluster = Cluster::of_primaries(&backend::programs()[0]);
    let c = machine("shared cluster", patient(&cluster.url()));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (c, done) = (&c, &done);
            scope.spawn(move || {
                for n in 0..300_u32 {
                    let key = format!("t{thread} {}", n % 7);
                    c.set(&key, n.to_string()).expect("set");
                    assert_eq!(c.get_str(&key).expect("get"), Some(n.to_string()), "its own write");
                    assert_eq!(c.get_str(&key).expect("get"), Some(n.to_string()));
                }
                done.store(true, SeqCst);
            });
        }
    });
    assert!(done.load(SeqCst));
    for n in 0..20 {
        // SAFETY: the child uses the cache, which survives a fork, and ends by `_exit`.
        match unsafe { nix::unistd::fork() }.expect("a child") {
            nix::unistd::ForkResult::Child => {
                let fine =
                    (0..10).all(|m| c.set(format!("f{m}"), "v").is_ok() && c.get(format!("f{m}")).is_ok());
                // SAFETY: `_exit` has no preconditions.
                unsafe { nix::libc::_exit(i32::from(!fine)) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).expect("its status");
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0), "{n}");
            }
        }
    }
    assert!(c.get_str("f0").expect("get").is_some());
}

#[test]
fn the_user_of_the_documentation_may_use_a_cluster() {
    let cluster = Cluster::of_primaries(&backend::programs()[0]);
    let docs = include_str!("../../src/docs/fleet.md");
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the line");
    let line = format!("{} +cluster|slots", line.replace("~pages:*", "~p:*"));
    for node in &cluster.nodes {
        assert_eq!(node.server.ask(line.split(' ')), "OK");
    }
    let url = cluster.url().replace("://", "://web:secret@");
    let c = machine("user of a cluster", patient(&url));
    c.clear().expect("clear");
    operate(&c);
    // Without the permission that only a cluster needs.
    for node in &cluster.nodes {
        assert_eq!(node.server.ask(["ACL", "SETUSER", "web", "-cluster|slots"]), "OK");
    }
    let said = far("may not", &url).get("k").expect_err("it may not ask").to_string();
    assert!(said.contains("NOPERM") && !said.contains("secret"), "{said}");
}
