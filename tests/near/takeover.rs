//! The owner of a machine's copies is killed, stopped, cut off or refused. A machine is a process
//! that builds the cache and owns, and a worker that it forks: the worker runs the scenario.

use std::{
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, getpid},
};
use ucache::{Backend, Cache, NearStats};

use crate::{
    backend::{Client, Server},
    copies::{armed, hits, is_hit, machine, within},
};

const MAX_STALE: Duration = Duration::from_millis(200);

fn stats(c: &Cache) -> NearStats {
    c.near_stats().expect("it has a backend")
}

/// Connections of owners, as the server sees them.
fn owners(client: &mut Client) -> usize {
    client.ask(["CLIENT", "LIST"]).matches("name=ucache-owner").count()
}

/// Waits until a read of this key is answered by a copy.
fn is_copied(c: &Cache, key: &str) {
    within("a copy", || is_hit(c, key));
}

/// Reads until this process owns: who reads and finds no beat sees to it.
fn becomes_owner(c: &Cache) {
    within("this process owns", || {
        let _ = c.get("k");
        stats(c).owner_pid == getpid().as_raw().unsigned_abs()
    });
}

/// Runs `scenario` in a worker of a machine whose owner is another process.
fn in_worker(name: &str, backend: Backend, scenario: impl Fn(&Cache, Pid)) {
    let (mut result, mut report) = std::io::pipe().expect("a pipe");
    // SAFETY: the children use nothing that another thread of the test may have locked, and end by
    // `_exit` or a signal.
    let owner = match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop(result);
            let c = machine(name, backend.max_stale(MAX_STALE));
            let owner = getpid();
            // SAFETY: as above.
            if let ForkResult::Child = unsafe { fork() }.expect("a worker") {
                let done = catch_unwind(AssertUnwindSafe(|| scenario(&c, owner)));
                report.write_all(if done.is_ok() { b"+" } else { b"-" }).expect("reported");
                // SAFETY: `_exit` has no preconditions.
                unsafe { nix::libc::_exit(0) }
            }
            drop(report);
            loop {
                thread::sleep(Duration::from_secs(1));
            }
        }
    };
    drop(report);
    let mut said = Vec::new();
    result.read_to_end(&mut said).expect("a report");
    kill(owner, Signal::SIGKILL).expect("it is there, if only as a zombie");
    waitpid(owner, None).expect("its status");
    assert_eq!(said, b"+", "the worker's output says why");
}

/// Changes a key at the server, and reads it until the change is seen. Returns how long that took.
fn sees_change(c: &Cache, client: &mut Client, value: &str) -> Duration {
    assert_eq!(client.ask(["SET", "p:k", value]), "OK");
    let start = Instant::now();
    within("the change", || c.get_str("k").expect("get").as_deref() == Some(value));
    start.elapsed()
}

#[test]
fn an_owner_that_is_killed_has_a_successor() {
    let server = Server::start();
    in_worker("killed", Backend::url(server.url()), |c, owner| {
        let mut client = server.client();
        assert_eq!(stats(c).owner_pid, owner.as_raw().unsigned_abs());
        sees_change(c, &mut client, "1");
        is_copied(c, "k");
        kill(owner, Signal::SIGKILL).expect("it is there");
        let took = sees_change(c, &mut client, "2");
        assert!(took < MAX_STALE + Duration::from_millis(500), "{took:?}");
        becomes_owner(c);
        armed(c);
        is_copied(c, "k");
        // This process was forked from the owner while that was connected, and kept no copy of the
        // connection.
        within("one owner", || owners(&mut client) == 1);
        assert!(stats(c).terms >= 2);
        sees_change(c, &mut client, "3");
    });
}

#[test]
fn a_write_of_a_killed_worker_is_heard() {
    let server = Server::start();
    in_worker("killed worker", Backend::url(server.url()), |c, _| {
        let mut client = server.client();
        for n in 0..30 {
            sees_change(c, &mut client, "old");
            is_copied(c, "k");
            // SAFETY: as in `in_worker`.
            match unsafe { fork() }.expect("a worker") {
                ForkResult::Child => loop {
                    let _ = c.set("k", "new");
                },
                ForkResult::Parent { child } => {
                    thread::sleep(Duration::from_micros(300 * n));
                    kill(child, Signal::SIGKILL).expect("it is there");
                    waitpid(child, None).expect("its status");
                    let now = client.ask(["GET", "p:k"]);
                    within("what the server has", || {
                        c.get_str("k").expect("get").as_deref() == Some(&now[..])
                    });
                    is_copied(c, "k");
                }
            }
        }
    });
}

#[test]
fn an_owner_that_is_stopped_loses_its_term() {
    let server = Server::start();
    in_worker("stopped", Backend::url(server.url()), |c, owner| {
        let mut client = server.client();
        sees_change(c, &mut client, "1");
        is_copied(c, "k");
        kill(owner, Signal::SIGSTOP).expect("it is there");
        thread::sleep(Duration::from_millis(50));
        let took = sees_change(c, &mut client, "2");
        assert!(took < MAX_STALE + Duration::from_millis(500), "{took:?}");
        thread::sleep(MAX_STALE);
        // Nobody waits for it: the server is asked.
        let before = hits(c);
        let start = Instant::now();
        (0..100).for_each(|_| assert!(c.get("k").expect("get").is_some()));
        assert!(hits(c) == before && start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        becomes_owner(c);
        armed(c);
        // The server queues nothing for the one that is stopped.
        within("one owner", || owners(&mut client) == 1);
        is_copied(c, "k");
        kill(owner, Signal::SIGCONT).expect("it is there");
        for n in 0..50 {
            sees_change(c, &mut client, &format!("after {n}"));
            thread::sleep(Duration::from_millis(10));
        }
        is_copied(c, "k");
        assert!(owners(&mut client) == 1 && stats(c).owner_pid == getpid().as_raw().unsigned_abs());
    });
}

#[test]
fn an_owner_that_is_cut_off_begins_anew() {
    let server = Server::start();
    let c = machine("cut off", Backend::url(server.url()).max_stale(MAX_STALE));
    let mut client = server.client();
    for n in 0..5 {
        sees_change(&c, &mut client, &n.to_string());
        is_copied(&c, "k");
        let terms = stats(&c).terms;
        let list = client.ask(["CLIENT", "LIST"]);
        let owner = list.split("\\n").find(|line| line.contains("name=ucache-owner")).expect("an owner");
        let id = owner.split(' ').find_map(|word| word.strip_prefix("id=")).expect("its number");
        // The change comes while nobody listens.
        client.ask(["MULTI"]);
        client.ask(["CLIENT", "KILL", "ID", id]);
        client.ask(["SET", "p:k", "unheard"]);
        client.ask(["EXEC"]);
        let start = Instant::now();
        within("the change", || c.get_str("k").expect("get").as_deref() == Some("unheard"));
        assert!(start.elapsed() < MAX_STALE + Duration::from_millis(500), "{:?}", start.elapsed());
        within("a new term", || stats(&c).terms > terms);
        // Until here the server may have been asked; from here on copies answer.
        armed(&c);
        assert_eq!(c.get_str("k").expect("get").as_deref(), Some("unheard"), "a copy of the term before");
    }
}

#[test]
fn a_server_that_is_stopped_ends_the_use_of_copies() {
    let server = Server::start();
    let c = machine(
        "stopped server",
        Backend::url(server.url()).max_stale(MAX_STALE).timeout(Duration::from_millis(100)),
    );
    c.set("k", "v").expect("set");
    is_copied(&c, "k");
    server.freeze(true);
    let start = Instant::now();
    within("an error", || c.get("k").is_err());
    assert!(start.elapsed() < MAX_STALE + Duration::from_millis(500), "{:?}", start.elapsed());
    thread::sleep(Duration::from_millis(500));
    assert!(c.get("k").is_err());
    server.freeze(false);
    within("it is back", || c.set("k", "w").is_ok());
    armed(&c);
    is_copied(&c, "k");
    assert_eq!(c.get_str("k").expect("get").as_deref(), Some("w"));
    within("one owner", || owners(&mut server.client()) == 1);
}

#[test]
fn a_server_that_is_not_the_primary_any_more_ends_the_use_of_copies() {
    let server = Server::start();
    let c = machine("demoted", Backend::url(server.url()).max_stale(MAX_STALE));
    c.set("k", "v").expect("set");
    is_copied(&c, "k");
    server.ask(["REPLICAOF", "127.0.0.1", "1"]);
    within("no beat", || stats(&c).beat_age_ms.is_none());
    let before = stats(&c);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(20));
        assert!(c.get("k").is_ok());
        assert!(stats(&c).beat_age_ms.is_none(), "a replica is not listened to");
    }
    let after = stats(&c);
    assert!(after.hits == before.hits && after.bypassed > before.bypassed, "{after:?}");
    server.ask(["REPLICAOF", "NO", "ONE"]);
    armed(&c);
}

#[test]
fn a_server_that_a_script_blocks_gives_no_beat() {
    let server = Server::with("redis-server".as_ref(), 0, &["--lua-time-limit", "50"]);
    let c = machine("busy", Backend::url(server.url()).max_stale(MAX_STALE).timeout(Duration::from_secs(2)));
    c.set("k", "v").expect("set");
    is_copied(&c, "k");
    let mut client = server.client();
    let blocked = thread::spawn(move || client.ask(["EVAL", "while true do end", "0"]));
    within("no beat", || stats(&c).beat_age_ms.is_none());
    assert!(c.get("k").is_err());
    server.ask(["SCRIPT", "KILL"]);
    blocked.join().expect("it ended");
    armed(&c);
}

#[test]
fn a_user_who_may_not_track_reads_without_copies() {
    let server = Server::start();
    server.ask(["ACL", "SETUSER", "web", "on", ">hush", "~p:*", "+@all", "-client|tracking"]);
    let url = server.url().replace("unix://", "unix://web:hush@");
    let c = Cache::builder("no tracking")
        .items(100)
        .backend(Backend::url(url).prefix("p:"))
        .build()
        .expect("a cache");
    c.set("k", "v").expect("set");
    for _ in 0..20 {
        assert_eq!(c.get_str("k").expect("get").as_deref(), Some("v"));
        thread::sleep(Duration::from_millis(10));
    }
    let refused = stats(&c);
    assert!(refused.hits == 0 && refused.bypassed >= 20 && refused.beat_age_ms.is_none(), "{refused:?}");
    assert!(refused.untracked, "{refused:?}");
    server.ask(["ACL", "SETUSER", "web", "+client|tracking"]);
    armed(&c);
    assert!(!stats(&c).untracked);
}

#[test]
fn a_server_that_cannot_track_is_said_to_and_l1_ttl_bounds_copies() {
    // As Redis 5 and some proxies are; what they lack is refused.
    for missing in ["HELLO", "CLIENT"] {
        let server = Server::with("redis-server".as_ref(), 0, &["--rename-command", missing, ""]);
        let backend = || Backend::url(server.url()).prefix("p:");
        let build = |name: &str, backend| {
            Cache::builder(format!("{name} {missing}")).items(100).backend(backend).build().expect("a cache")
        };
        let c = build("cannot track", backend());
        c.set("k", "1").expect("set");
        within("the reason", || c.get_str("k").expect("get").as_deref() == Some("1") && stats(&c).untracked);
        assert!(stats(&c).hits == 0 && stats(&c).beat_age_ms.is_none(), "{:?}", stats(&c));
        let ttl = Duration::from_secs(2);
        let c = build("need not track", backend().tracking(false).copy_ttl(ttl));
        within("a copy", || is_hit(&c, "k"));
        assert!(!stats(&c).untracked);
        let changed = Instant::now();
        server.ask(["SET", "p:k", "2"]);
        within("the change", || c.get_str("k").expect("get").as_deref() == Some("2"));
        assert!(changed.elapsed() < ttl + Duration::from_millis(500), "{:?}", changed.elapsed());
    }
}

#[test]
fn the_user_of_the_documentation_may_do_all_that_is_needed() {
    let server = Server::start();
    let docs = include_str!("../../src/docs/fleet.md");
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the line");
    assert_eq!(server.ask(line.replace("pages:", "p:").split(' ')), "OK");
    let url = server.url().replace("unix://", "unix://web:secret@");
    in_worker("of the docs", Backend::url(url), |c, owner| {
        let mut client = server.client();
        sees_change(c, &mut client, "1");
        assert_eq!(c.incr("n", 1).expect("incr"), 1);
        assert_eq!(c.keys().count(), 3);
        kill(owner, Signal::SIGSTOP).expect("it is there");
        becomes_owner(c);
        within("one owner", || owners(&mut client) == 1);
        c.clear().expect("clear");
    });
}

#[test]
fn a_cache_that_is_dropped_has_no_owner() {
    let server = Server::start();
    let c = machine("dropped", Backend::url(server.url()).max_stale(MAX_STALE));
    drop(c);
    within("nobody listens", || owners(&mut server.client()) == 0);
    // The name is free at once.
    let c = machine("dropped", Backend::url(server.url()).max_stale(MAX_STALE));
    drop(c);
    machine("dropped", Backend::url(server.url()).max_stale(MAX_STALE));
}
