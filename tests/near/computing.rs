//! One caller of all machines computes a value. A machine is a process with a region of its own, and
//! workers that it forks; or, where no process dies, a cache of this process.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use ucache::{Backend, Cache, Stored};

use crate::{
    backend::{self, Client, Server},
    copies::{machine, patient, within},
};

/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(600);

/// Runs this in a process of its own.
fn process(f: impl FnOnce()) -> Pid {
    // SAFETY: the child uses nothing that another thread of the test may have locked, and ends by
    // `_exit` or a signal.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let code = i32::from(catch_unwind(AssertUnwindSafe(f)).is_err());
            // SAFETY: `_exit` has no preconditions.
            unsafe { nix::libc::_exit(code) }
        }
    }
}

fn ended(child: Pid) -> bool {
    waitpid(child, None).expect("its status") == WaitStatus::Exited(child, 0)
}

fn end(child: Pid) {
    kill(child, Signal::SIGKILL).expect("it is there, if only as a zombie");
    waitpid(child, None).expect("its status");
}

/// Computations of this key so far, as their functions count them at the server.
fn computed(client: &mut Client, key: &str) -> String {
    client.ask(["GET", &format!("computed:{key}")])
}

/// Counts a computation, and takes some time.
fn compute(client: &mut Client, key: &str, value: &str) -> String {
    client.ask(["INCR", &format!("computed:{key}")]);
    thread::sleep(Duration::from_millis(15));
    value.to_owned()
}

/// Waits until `count` processes have come here.
fn meet(client: &mut Client, place: &str, count: usize) {
    client.ask(["INCR", &format!("meet:{place}")]);
    within(place, || client.ask(["GET", &format!("meet:{place}")]) == count.to_string());
}

const MACHINES: usize = 4;
const WORKERS: usize = 3;

/// What one worker does: the same keys as all others, at the same time.
fn stampede(c: &Cache, client: &mut Client, worker: usize, rounds: usize) {
    for round in 0..rounds {
        let key = format!("k{}", round % 4);
        meet(client, &format!("{round}"), MACHINES * WORKERS);
        // Another value each time: an old one would be noticed.
        let mine = format!("{round} by {worker}");
        let count = format!("{key}:{round}");
        let got = c.get_or_set_with(&key, |_| compute(client, &count, &mine)).expect("a value");
        let got = String::from_utf8(got).expect("text");
        assert!(got.starts_with(&format!("{round} by ")), "{round}: {got}");
        assert_eq!(client.ask(["GET", &format!("p:{key}")]), got);
        meet(client, &format!("{round} done"), MACHINES * WORKERS);
        if worker == 0 {
            // Everybody hears of it, some of them when the next round has begun.
            for n in 0..4 {
                c.delete(format!("k{n}")).expect("delete");
            }
        }
        meet(client, &format!("{round} over"), MACHINES * WORKERS);
        // A copy may be as old as `max_stale`: until all have heard of the deletes.
        within("the delete is heard", || c.get(&key).expect("get").is_none());
        meet(client, &format!("{round} heard"), MACHINES * WORKERS);
    }
}

#[test]
fn a_missing_value_is_computed_once_in_the_whole_fleet() {
    const ROUNDS: usize = 12;
    for (n, program) in backend::programs().into_iter().enumerate() {
        eprintln!("{}", program.display());
        let server = Server::with(&program, 0, &[]);
        let machines: Vec<_> = (0..MACHINES)
            .map(|m| {
                process(|| {
                    let (backend, name) = (patient(server.url()), format!("stampede {n} {m}"));
                    let c = match m {
                        0 => machine(&name, backend),
                        3 => apart(&name, backend.near(false)),
                        _ => machine(&name, backend.negative(true)),
                    };
                    let workers: Vec<_> = (0..WORKERS)
                        .map(|w| process(|| stampede(&c, &mut server.client(), m * WORKERS + w, ROUNDS)))
                        .collect();
                    assert!(workers.into_iter().all(ended));
                })
            })
            .collect();
        assert!(machines.into_iter().all(ended), "the output of the processes says why");
        let mut client = server.client();
        for round in 0..ROUNDS {
            let key = format!("k{}:{round}", round % 4);
            assert_eq!(computed(&mut client, &key), "1", "{key}");
        }
    }
}

/// A machine without copies.
fn apart(name: &str, backend: Backend) -> Cache {
    Cache::builder(name).items(1000).backend(backend.prefix("p:")).build().expect("a cache")
}

/// A worker of machine `name` that computes `k` and does not come to an end. Returns the machine and
/// the worker.
fn stuck(name: &str, server: &Server, lease: Duration) -> (Pid, Pid) {
    let mut client = server.client();
    let parent = process(|| {
        let c = machine(name, patient(server.url())).with_fill_limits(lease, LONG);
        process(|| {
            let mut client = server.client();
            c.get_or_set_with("k", |_| {
                client.ask(["SET", "stuck", &std::process::id().to_string()]);
                within("it may go on", || client.ask(["GET", "go"]) == "on");
                "late"
            })
            .expect("a value");
            client.ask(["SET", "returned", "yes"]);
        });
        // Another worker of the machine goes on where that one ends, when it is told to.
        let mut client = server.client();
        while client.ask(["GET", "sibling"]) != "on" {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(c.get_or_set_with("k", |_| "by its sibling").expect("a value"), b"by its sibling");
        // Until the server ends with the test.
        loop {
            client.ask(["PING"]);
            thread::sleep(Duration::from_millis(100));
        }
    });
    within("a worker computes", || client.ask(["GET", "stuck"]) != "nil");
    let worker = client.ask(["GET", "stuck"]).parse().expect("a pid");
    (parent, Pid::from_raw(worker))
}

#[test]
fn a_filler_that_is_killed_is_replaced_within_its_lease() {
    let server = Server::start();
    let lease = Duration::from_secs(1);
    let (parent, worker) = stuck("killed filler", &server, lease);
    let c = machine("waits for it", patient(server.url())).with_fill_limits(LONG, LONG);
    kill(worker, Signal::SIGKILL).expect("it is there");
    let start = Instant::now();
    assert_eq!(c.get_or_set_with("k", |_| "computed here").expect("a value"), b"computed here");
    // Its lease, and a busy machine.
    assert!(start.elapsed() < lease + Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(server.ask(["GET", "p:k"]), "computed here");
    end(parent);
}

#[test]
fn a_filler_that_is_killed_is_replaced_on_its_machine_at_once() {
    let server = Server::start();
    // Its lease does not end meanwhile.
    let (parent, worker) = stuck("killed sibling", &server, LONG);
    kill(worker, Signal::SIGKILL).expect("it is there");
    server.ask(["SET", "sibling", "on"]);
    within("its sibling has computed", || server.ask(["GET", "p:k"]) == "by its sibling");
    end(parent);
}

#[test]
fn a_filler_that_comes_late_stores_nothing() {
    let server = Server::start();
    let (parent, worker) = stuck("late filler", &server, Duration::from_millis(500));
    kill(worker, Signal::SIGSTOP).expect("it is there");
    let c = machine("does not wait", patient(server.url())).with_fill_limits(LONG, LONG);
    assert_eq!(c.get_or_set_with("k", |_| "in time").expect("a value"), b"in time");
    // It would store over nothing, too.
    c.delete("k").expect("delete");
    server.ask(["SET", "go", "on"]);
    kill(worker, Signal::SIGCONT).expect("it is there");
    within("it has returned", || server.ask(["GET", "returned"]) == "yes");
    assert_eq!(server.ask(["GET", "p:k"]), "nil");
    end(parent);
}

#[test]
fn a_filler_that_lost_its_connections_stores_all_the_same() {
    let server = Server::start();
    let c = machine("cut off", patient(server.url()));
    let value = c.get_or_set_with("k", |_| {
        for kind in ["normal", "pubsub"] {
            server.ask(["CLIENT", "KILL", "TYPE", kind]);
        }
        "v"
    });
    assert_eq!(value.expect("a value"), b"v");
    assert_eq!(server.ask(["GET", "p:k"]), "v");
    assert_eq!(server.ask(["KEYS", "ucl:*"]), "", "the lease has ended");
}

#[test]
fn what_others_do_meanwhile_wins() {
    let server = Server::start();
    let [a, b] = [1, 2].map(|n| machine(&format!("meanwhile {n}"), patient(server.url())));
    for key in ["k", "in{braces}", "in{open", "brace}"] {
        let deeds: [(&dyn Fn(), &str); 5] = [
            (&|| (), "computed"),
            (&|| _ = b.set(key, "newer").expect("set"), "newer"),
            (&|| _ = server.ask(["SET", &format!("p:{key}"), "foreign"]), "foreign"),
            (&|| _ = b.delete(key).expect("delete"), "nil"),
            (&|| b.clear().expect("clear"), "nil"),
        ];
        for (n, (deed, then)) in deeds.into_iter().enumerate() {
            // A key in whose name a lease would not be found is computed once by each machine.
            if key == "brace}" && then == "nil" {
                continue;
            }
            let value = a.get_or_set_with(key, |_| {
                deed();
                "computed"
            });
            assert_eq!(value.expect("a value"), b"computed");
            assert_eq!(server.ask(["GET", &format!("p:{key}")]), then, "{key}: {n}");
            assert_eq!(server.ask(["KEYS", "ucl:*"]), "", "{key}: {n}");
            a.delete(key).expect("delete");
        }
    }
}

#[test]
fn what_was_deleted_a_moment_ago_is_computed_and_stored() {
    let server = Server::start();
    let [a, b] = [1, 2].map(|n| machine(&format!("deleted {n}"), patient(server.url())));
    for n in 0..100_u32 {
        let value = n.to_string();
        // The message about the delete comes while the value is being computed.
        b.delete("k").expect("delete");
        let by = if n % 2 == 0 { &a } else { &b };
        within("the delete is heard", || by.get("k").expect("get").is_none());
        let got = by.get_or_set_with("k", |_| {
            thread::sleep(Duration::from_millis(2));
            &value[..]
        });
        assert_eq!(got.expect("a value"), value.as_bytes());
        assert_eq!(server.ask(["GET", "p:k"]), value);
    }
}

#[test]
fn a_computation_that_fails_lets_the_next_machine_compute() {
    let server = Server::start();
    let [a, b] = [1, 2].map(|n| machine(&format!("fails {n}"), patient(server.url())));
    let [a, b] = [a, b].map(|c| c.with_fill_limits(LONG, LONG));
    thread::scope(|scope| {
        let failed = a.get_or_try_set_with("k", |_| {
            let waits = scope.spawn(|| b.get_or_set_with("k", |_| "by the other").expect("a value"));
            thread::sleep(Duration::from_millis(100));
            assert!(!waits.is_finished(), "it waits");
            Err::<&str, _>(std::io::Error::other("no"))
        });
        assert_eq!(failed.expect_err("an error").to_string(), "no");
    });
    assert_eq!(server.ask(["GET", "p:k"]), "by the other");
}

#[test]
fn a_user_without_rights_on_leases_computes_once_on_each_machine() {
    let server = Server::start();
    let docs = include_str!("../../src/docs/fleet.md");
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the line");
    let without: Vec<_> = line
        .split(' ')
        .filter(|word| !word.starts_with("~ucl:"))
        .map(|w| w.replace("pages:", "p:"))
        .collect();
    assert_eq!(server.ask(without), "OK");
    let url = server.url().replace("unix://", "unix://web:secret@");
    let c = machine("no leases", patient(url));
    let computed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let value = c.get_or_set_with("k", |_| {
                    computed.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(50));
                    "v"
                });
                assert_eq!(value.expect("a value"), b"v");
            });
        }
    });
    assert_eq!((computed.into_inner(), server.ask(["GET", "p:k"])), (1, "v".to_owned()));
    assert!(c.delete("k").expect("delete") && c.clear().is_ok());
}

/// One of all machines refreshes; the others get the old value meanwhile.
#[test]
fn an_old_value_is_refreshed_by_one_machine() {
    const GRACE: Duration = Duration::from_secs(1000);
    for (n, program) in backend::programs().into_iter().enumerate() {
        eprintln!("{}", program.display());
        let server = Server::with(&program, 0, &[]);
        let machines: [Cache; 4] = std::array::from_fn(|m| {
            let backend = patient(server.url()).negative(m == 0);
            machine(&format!("refresh {n} {m}"), backend).with_timeout(Duration::from_secs(100))
        });
        for round in 0..8_u32 {
            server.ask(["SET", "p:k", "old", "PX", "900000"]);
            for c in &machines {
                within("the old value", || c.get_str("k").expect("get").as_deref() == Some("old"));
            }
            let refreshed = AtomicU64::new(0);
            thread::scope(|scope| {
                for c in machines.iter().chain(&machines) {
                    scope.spawn(|| {
                        let got = c.get_or_refresh_with("k", GRACE, |_| {
                            refreshed.fetch_add(1, SeqCst);
                            thread::sleep(Duration::from_millis(20));
                            "new"
                        });
                        let got = got.expect("a value");
                        assert!(got == b"old" || got == b"new", "{got:?}");
                    });
                }
            });
            assert_eq!(refreshed.into_inner(), 1, "round {round}");
            assert_eq!(server.ask(["GET", "p:k"]), "new");
            assert_eq!(server.ask(["KEYS", "ucl:*"]), "");
            for c in &machines {
                within("the new value", || c.get_str("k").expect("get").as_deref() == Some("new"));
            }
        }
    }
}

#[test]
fn a_refresh_that_comes_late_stores_nothing_and_hinders_nobody() {
    let server = Server::start();
    let old = Duration::from_secs(1000);
    let [a, b] = [1, 2].map(|n| machine(&format!("late refresh {n}"), patient(server.url())));
    let [a, b] = [a, b].map(|c| c.with_timeout(Duration::from_secs(100)));
    let a = a.with_fill_limits(Duration::from_millis(300), LONG);
    server.ask(["SET", "p:k", "old", "PX", "900000"]);
    let got = a.get_or_refresh_with("k", old, |_| {
        // Its lease ends, and others refresh.
        within("the other has refreshed", || {
            b.get_or_refresh_with("k", old, |_| "in time").expect("a value") == b"in time"
        });
        "late"
    });
    assert_eq!(got.expect("a value"), b"late");
    assert_eq!(server.ask(["GET", "p:k"]), "in time");
    assert_eq!(server.ask(["KEYS", "ucl:*"]), "");
}

#[test]
fn absent_marks_of_all_machines_end_with_a_computed_value() {
    let server = Server::start();
    let machines: [Cache; 3] =
        std::array::from_fn(|n| machine(&format!("absent {n}"), patient(server.url()).negative(true)));
    for round in 0..20 {
        let key = format!("k{round}");
        for c in &machines {
            let absent = || c.near_stats().expect("it has a backend").absent;
            within("it is remembered that there is none", || {
                let before = absent();
                assert_eq!(c.get(&key).expect("get"), None);
                absent() > before
            });
        }
        assert_eq!(machines[0].get_or_set_with(&key, |_| "v").expect("a value"), b"v");
        for c in &machines {
            let again = || -> &str { unreachable!("it is there") };
            assert_eq!(c.get_or_set_with(&key, |_| again()).expect("a value"), b"v");
            within("it is seen", || c.get(&key).expect("get").is_some());
        }
    }
    assert_eq!(machines[1].set("k0", "w").expect("set"), Stored::Updated);
}
