//! Processes: a child of a fork has connections of its own.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};
use ucache::{
    Expires,
    engine::Math,
    near::{Backend, Calculation, Old},
};

use crate::{backend::Server, backend_with, patience::within};

/// Runs this in a child and returns whether it was true.
fn in_child(f: impl FnOnce() -> bool) -> nix::unistd::Pid {
    // SAFETY: the child makes calls that lock nothing which another thread may have held, and ends
    // by `_exit`.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let code = i32::from(!catch_unwind(AssertUnwindSafe(f)).unwrap_or(false));
            // SAFETY: `_exit` has no preconditions.
            unsafe { nix::libc::_exit(code) }
        }
    }
}

fn clients(server: &Server) -> usize {
    server.ask(["CLIENT", "LIST"]).matches("name=ucache").count()
}

/// Until the server has noticed what was closed.
fn wait_for_clients(server: &Server, count: usize) {
    within(format!("{count} connections"), || clients(server) == count);
}

fn count(b: &Backend) -> bool {
    let c =
        Calculation { op: Math::Inc, operand: 1, expires: Expires::Never, old: Old::Stays, only_new: false };
    (0..100).all(|_| b.math(b"n", &c).is_ok())
}

#[test]
fn a_child_uses_no_connection_of_its_parent() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[("backend_timeout", "20s")], 0);
    b.put(b"k", b"v", Expires::Never, Old::Goes).expect("put");
    assert_eq!(clients(&server), 1);
    let children: Vec<_> = (0..4).map(|_| in_child(|| count(&b))).collect();
    assert!(count(&b), "the parent goes on meanwhile");
    for child in children {
        assert_eq!(waitpid(child, None).expect("its status"), WaitStatus::Exited(child, 0));
    }
    let value = b.get(b"n").expect("get").expect("a value");
    assert_eq!(b.number_of(&value), Some(500));
    assert_eq!(b.figures().connects, 1, "the parent's connection is as it was");
    // What the children had is closed at the server.
    wait_for_clients(&server, 1);
}

/// Sockets among this process's descriptors.
fn sockets() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").expect("/proc").filter_map(|entry| {
        // The directory's own descriptor is gone by now.
        std::fs::read_link(entry.ok()?.path()).ok()
    });
    links.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// A master as uWSGI's: it forks workers, some of which are killed, and replaces them. Each one
/// does something, and has a connection of its own then and none of the master's; `others`:
/// sockets of the process that have nothing to do with it.
fn master(workers: usize, others: usize, live: impl Fn(usize) -> bool) {
    let mut running = VecDeque::new();
    for n in 0..workers {
        running.push_back((n, in_child(|| live(n) && sockets() == others + 1)));
        if running.len() == 4 {
            let (n, child) = running.pop_front().expect("some");
            if n % 3 == 0 {
                // It may have ended.
                let _ = kill(child, Signal::SIGKILL);
            }
            match waitpid(child, None).expect("its status") {
                WaitStatus::Exited(_, 0) => {}
                WaitStatus::Signaled(..) if n % 3 == 0 => {}
                other => panic!("worker {n}: {other:?}"),
            }
        }
    }
    for (_, child) in running {
        waitpid(child, None).expect("its status");
    }
}

/// `UCACHE_RECYCLED=10000` sets how many.
fn recycled() -> usize {
    std::env::var("UCACHE_RECYCLED").map_or(2000, |text| text.parse().expect("a number"))
}

#[test]
fn recycled_workers_leave_nothing_behind() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[("backend_timeout", "20s")], 0);
    let master = in_child(|| {
        let others = sockets();
        b.put(b"k", b"v", Expires::Never, Old::Goes).expect("put");
        master(recycled(), others, |n| {
            let read = b.get(b"k").is_ok_and(|value| value.is_some());
            read && b.put(b"w", &n.to_le_bytes(), Expires::Never, Old::Goes).is_ok()
        });
        assert_eq!(sockets(), others + 1, "the master has its own connection");
        assert_eq!(b.get(b"k").expect("get").as_deref(), Some(&b"v"[..]));
        wait_for_clients(&server, 1);
        true
    });
    assert_eq!(waitpid(master, None).expect("its status"), WaitStatus::Exited(master, 0));
    wait_for_clients(&server, 0);
}

/// The master's thread keeps the copies of all workers up to date, and forks do not disturb it.
#[test]
fn workers_of_a_master_that_owns() {
    let server = Server::start();
    let master = in_child(|| {
        let others = sockets();
        let backend = ucache::Backend::url(server.url()).timeout(Duration::from_secs(20));
        let c = ucache::Cache::builder("owned").items(100).backend(backend).build().expect("a cache");
        c.set("k", "v").expect("set");
        let stats = || c.near_stats().expect("copies");
        within("an owner", || c.get("k").expect("get").is_some() && stats().beat_age_ms.is_some());
        let before = stats();
        master(recycled(), others, |n| {
            let read = c.get("k").is_ok_and(|value| value.is_some());
            read && c.set("w", n.to_le_bytes()).is_ok()
        });
        let after = stats();
        assert_eq!((after.owner_pid, after.terms), (std::process::id(), before.terms), "{after:?}");
        assert!(after.hits > before.hits, "{after:?}");
        assert_eq!(sockets(), others + 2, "the master's own connection, and the owner's");
        wait_for_clients(&server, 2);
        true
    });
    assert_eq!(waitpid(master, None).expect("its status"), WaitStatus::Exited(master, 0));
    wait_for_clients(&server, 0);
}

#[test]
fn a_worker_that_is_killed_in_a_call_harms_nobody() {
    let server = Server::start();
    let b = backend_with(&server.url(), &[], 0);
    for n in 0..50 {
        let child = in_child(|| {
            loop {
                let _ = b.put(b"k", b"whole value", Expires::Never, Old::Goes);
            }
        });
        std::thread::sleep(Duration::from_millis(n % 7));
        kill(child, Signal::SIGKILL).expect("it is there");
        waitpid(child, None).expect("its status");
        let value = b.get(b"k").expect("the server is well");
        assert!(value.is_none_or(|value| value == b"whole value"));
    }
}
