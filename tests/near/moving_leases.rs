//! Leases of a cluster while the slot of their key is on its way to another primary.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use ucache::{Backend, Cache};

use crate::{
    backend,
    cluster::{Cluster, Move, Stage},
    clusters::key_at,
    copies::{machine, patient, within},
    engine_proc::say,
};

/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(600);

/// A machine without copies.
fn apart(name: &str, url: &str) -> Cache {
    build(name, patient(url).near(false))
}

fn build(name: &str, backend: Backend) -> Cache {
    Cache::builder(name).items(1000).backend(backend.prefix("p:")).build().expect("a cache")
}

/// The leases at all nodes.
fn leases(cluster: &Cluster) -> String {
    let of = |node: &crate::cluster::Node| node.server.ask(["KEYS", "ucl:*"]);
    cluster.nodes.iter().map(of).collect::<Vec<_>>().join("")
}

/// What happens to the key while its value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Nothing,
    Delete,
    Set,
}

/// The key's value when the slot has moved.
fn expected(deed: Deed) -> &'static str {
    match deed {
        Deed::Nothing => "computed",
        Deed::Delete => "nil",
        Deed::Set => "newer",
    }
}

/// A computation that begins and ends while the slot is on its way, and what others do meanwhile:
/// `early` = before the slot moves on. Afterwards the slot is where it should be.
fn compute(c: &Cache, other: &Cache, key: &str, moving: &mut Move<'_>, plan: (Stage, Stage, Deed, bool)) {
    let (begins, ends, deed, early) = plan;
    let act = || match deed {
        Deed::Nothing => {}
        Deed::Delete => _ = other.delete(key).expect("delete"),
        Deed::Set => _ = other.set(key, "newer").expect("set"),
    };
    moving.go_on_to(begins);
    thread::scope(|scope| {
        let got = c.get_or_set_with(key, |_| {
            if early {
                act();
            }
            moving.go_on_to(ends);
            if !early {
                act();
            }
            // Who stores a value while the lease is at the old node waits: the key can only be made
            // at the new one.
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(30));
                moving.go_on_to(Stage::Done);
            });
            "computed"
        });
        assert_eq!(got.expect("a value"), b"computed");
    });
}

#[test]
fn a_computation_outlives_the_move_of_its_slot() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let cluster = Cluster::of_primaries(&program);
        let name = |name: &str| format!("{name} {}", program.display());
        let far = apart(&name("outlives far"), &cluster.url());
        let near = machine(&name("outlives near"), patient(cluster.url()));
        let key = key_at(&cluster, 0);
        let full = format!("p:{key}");
        let (mut from, mut to) = (0, 1);
        let plans = Stage::ALL.into_iter().flat_map(|begins| {
            let ends = Stage::ALL.into_iter().filter(move |&ends| ends >= begins);
            ends.flat_map(move |ends| {
                [(Deed::Nothing, true), (Deed::Delete, true), (Deed::Delete, false), (Deed::Set, true)]
                    .map(|(deed, early)| (begins, ends, deed, early))
            })
        });
        for (n, plan) in plans.enumerate() {
            let (c, other) = if n % 2 == 0 { (&far, &near) } else { (&near, &far) };
            let mut moving = Move::new(&cluster, cluster.slot(&full), from, to);
            compute(c, other, &key, &mut moving, plan);
            assert_eq!(cluster.nodes[to].server.ask(["GET", &full]), expected(plan.2), "{plan:?}");
            assert_eq!(leases(&cluster), "", "{plan:?}");
            far.delete(&key).expect("delete");
            within("the delete is heard", || near.get(&key).expect("get").is_none());
            (from, to) = (to, from);
        }
    }
}

#[test]
fn a_computed_value_is_stored_while_its_slot_is_on_its_way() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let cluster = Cluster::of_primaries(&program);
        let c = apart(&format!("on its way {}", program.display()), &cluster.url());
        let key = key_at(&cluster, 0);
        let full = format!("p:{key}");
        let mut moving = Move::new(&cluster, cluster.slot(&full), 0, 1);
        // The lease moves, or it is made at the new node.
        for value in ["moved", "new"] {
            let got = c.get_or_set_with(&key, |_| {
                moving.go_on_to(Stage::Taken);
                value
            });
            assert_eq!(got.expect("a value"), value.as_bytes());
            assert_eq!(cluster.nodes[0].server.ask(["GET", &full]).split(' ').next(), Some("ASK"));
            let mut client = cluster.nodes[1].server.client();
            client.ask(["ASKING"]);
            assert_eq!(client.ask(["GET", &full]), value);
            assert!(c.delete(&key).expect("delete"));
            assert_eq!(leases(&cluster), "");
        }
        moving.go_on_to(Stage::Done);
    }
}

#[test]
fn a_value_that_is_there_is_not_hidden_by_one_that_was_computed_elsewhere() {
    let cluster = Cluster::of_primaries(&backend::programs()[0]);
    let c = apart("not hidden", &cluster.url());
    let key = key_at(&cluster, 0);
    let (full, lease) = (format!("p:{key}"), format!("ucl:{{p:{key}}}f"));
    let mut moving = Move::new(&cluster, cluster.slot(&full), 0, 1);
    thread::scope(|scope| {
        let (moving, full) = (&mut moving, &full);
        let got = c.get_or_set_with(&key, |_| {
            // The value stays at the old node when the lease has left it.
            cluster.nodes[0].server.ask(["SET", full, "newer"]);
            moving.go_on_to(Stage::Announced);
            moving.take(&[&lease]);
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(200));
                // It would fail if the new node had one.
                moving.go_on_to(Stage::Done);
            });
            "computed"
        });
        assert_eq!(got.expect("a value"), b"computed");
    });
    assert_eq!(cluster.nodes[1].server.ask(["GET", &full]), "newer");
    assert_eq!(leases(&cluster), "");
}

#[test]
fn a_delete_voids_the_lease_before_it_removes_the_key_wherever_they_are() {
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let cluster = Cluster::of_primaries(&program);
        let c = apart(&format!("in order {}", program.display()), &cluster.url());
        let key = key_at(&cluster, 0);
        let (full, lease) = (format!("p:{key}"), format!("ucl:{{p:{key}}}f"));
        let [source, target] = [0, 1].map(|n| &cluster.nodes[n].server);
        source.ask(["SET", &full, "old"]);
        let mut moving = Move::new(&cluster, cluster.slot(&full), 0, 1);
        moving.go_on_to(Stage::Announced);
        let mut client = target.client();
        client.ask(["ASKING"]);
        assert_eq!(client.ask(["SET", &lease, "somebody"]), "OK");
        // What a script that has met a key which is on its way says: it is sent again.
        let said = source.ask(["EVAL", "return redis.call('EXISTS', ARGV[1])", "1", &full, &lease]);
        assert!(said.contains("non local key in a cluster node"), "{said}");
        let mut monitor = target.client();
        monitor.ask(["MONITOR"]);
        assert!(c.delete(&key).expect("delete"), "it was there");
        assert_eq!(
            (source.ask(["EXISTS", &full]).split(' ').next(), leases(&cluster)),
            (Some("ASK"), String::new())
        );
        target.ask(["ECHO", "the end"]);
        let mut seen = String::new();
        while !seen.contains("the end") {
            seen += &monitor.reply().expect("a line");
            seen += "\n";
        }
        let at = |key: &str| seen.find(&format!("\"UNLINK\" \"{key}\""));
        let (first, then) = (at(&lease), at(&full));
        assert!(first.is_some() && first < then, "{seen}");
        moving.go_on_to(Stage::Done);
        assert!(!c.delete(&key).expect("delete"));
    }
}

/// Waits until all threads have come here so often; whether this one was the last.
fn meet(arrived: &AtomicUsize, threads: usize) -> bool {
    let number = arrived.fetch_add(1, SeqCst);
    within("all are here", || arrived.load(SeqCst) > number / threads * threads + threads - 1);
    number % threads == threads - 1
}

#[test]
fn a_missing_value_is_computed_once_while_its_slot_moves() {
    const THREADS: usize = 3;
    const ROUNDS: usize = 25;
    for program in backend::programs() {
        eprintln!("{}", program.display());
        let cluster = Cluster::of_primaries(&program);
        let name = |name: &str| format!("{name} {}", program.display());
        let [a, b] = ["once a", "once b"].map(|n| machine(&name(n), patient(cluster.url())));
        let far = apart(&name("once far"), &cluster.url());
        let machines = [a, b, far].map(|c| c.with_fill_limits(LONG, LONG));
        let key = key_at(&cluster, 0);
        let slot = cluster.slot(&format!("p:{key}"));
        let arrived = AtomicUsize::new(0);
        let meet = || meet(&arrived, machines.len() * THREADS);
        let computed: Vec<_> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
        let mut moves = 0;
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for c in &machines {
                for _ in 0..THREADS {
                    let (key, meet, computed) = (&key, &meet, &computed);
                    workers.push(scope.spawn(move || {
                        for (round, computed) in computed.iter().enumerate() {
                            meet();
                            let got = c.get_or_set_with(key, |_| {
                                computed.fetch_add(1, SeqCst);
                                thread::sleep(Duration::from_millis(5));
                                round.to_string()
                            });
                            assert_eq!(got.expect("a value"), round.to_string().as_bytes());
                            if meet() {
                                c.delete(key).expect("delete");
                            }
                            meet();
                            within("the delete is heard", || c.get(key).expect("get").is_none());
                        }
                    }));
                }
            }
            let (mut from, mut to) = (0, 1);
            while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
                let mut moving = Move::new(&cluster, slot, from, to);
                for stage in Stage::ALL {
                    moving.go_on_to(stage);
                    thread::sleep(Duration::from_millis(fastrand::u64(0..10)));
                }
                (from, to, moves) = (to, from, moves + 1);
            }
        });
        let counts: Vec<_> = computed.iter().map(|count| count.load(SeqCst)).collect();
        // Whoever cannot store, because the slot moves on between two round trips, lets another compute.
        let again = counts.iter().sum::<usize>() - ROUNDS;
        say(&format!("{moves} moves, {again} of {ROUNDS} values computed again"));
        assert!(counts.iter().all(|&count| count <= 2) && again <= 3, "{moves} moves: {counts:?}");
        assert!(moves > 5, "{moves} moves");
    }
}

#[test]
fn a_lease_whose_holder_is_gone_ends_while_its_slot_moves() {
    let cluster = Cluster::of_primaries(&backend::programs()[0]);
    let near = machine("ends near", patient(cluster.url()));
    let machines = [near, apart("ends far", &cluster.url())].map(|c| c.with_fill_limits(LONG, LONG));
    let key = key_at(&cluster, 0);
    let full = format!("p:{key}");
    let (mut from, mut to) = (0, 1);
    for stage in [Stage::Announced, Stage::Taken, Stage::Known] {
        let mut moving = Move::new(&cluster, cluster.slot(&full), from, to);
        let lease = ["SET", &format!("ucl:{{p:{key}}}f"), "somebody", "PX", "1000"];
        assert_eq!(cluster.nodes[from].server.ask(lease), "OK");
        moving.go_on_to(stage);
        let computed = AtomicUsize::new(0);
        thread::scope(|scope| {
            for c in machines.iter().chain(&machines) {
                scope.spawn(|| {
                    let got = c.get_or_set_with(&key, |_| {
                        computed.fetch_add(1, SeqCst);
                        "computed"
                    });
                    assert_eq!(got.expect("a value"), b"computed");
                });
            }
        });
        assert_eq!(computed.into_inner(), 1, "{stage:?}");
        moving.go_on_to(Stage::Done);
        assert_eq!(cluster.nodes[to].server.ask(["GET", &full]), "computed", "{stage:?}");
        assert_eq!(leases(&cluster), "", "{stage:?}");
        machines[1].delete(&key).expect("delete");
        within("the delete is heard", || machines[0].get(&key).expect("get").is_none());
        (from, to) = (to, from);
    }
}
