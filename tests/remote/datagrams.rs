//! The UDP port during a server's life: deploys, deaths and children, and the accepted senders of
//! clears.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::UdpSocket,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    app::{App, BOTH, Flavor},
    c,
    patience::within,
    ports::free_address,
};

/// A cache with a UDP port.
fn definition(udp: &str) -> String {
    format!("name=c,items=100,udp={udp}")
}

/// Sends the port a new value of a key.
fn tell(udp: &str, key: &str) {
    let len = u8::try_from(key.len()).unwrap();
    let packet = [&[111, len + 8, 0, 10, len, 0][..], key.as_bytes(), b"\x01\0v\x01\x000"].concat();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&packet, udp).unwrap();
}

/// Waits until datagrams to the port reach this server.
fn hears(app: &App, udp: &str, key: &str) {
    within(format!("{key} arrives"), || {
        tell(udp, key);
        app.eval(&format!("uwsgi.cache_get('{key}')")) == "b'v'"
    });
}

fn pid_of(app: &App, expression: &str) -> Pid {
    Pid::from_raw(app.eval(&format!("__import__('os').{expression}")).parse().unwrap())
}

/// Kills a process that belongs to no `Server` at the end of the test.
struct Ends(Pid, Signal);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = kill(self.0, self.1);
    }
}

/// Two servers on one address: both start, and the last one gets the datagrams.
#[test]
fn servers_may_overlap_on_an_address() {
    for flavor in BOTH {
        let udp = free_address();
        let first = App::start(flavor, &[&definition(&udp)], &[]);
        hears(&first, &udp, "one");
        let second = App::start(flavor, &[&definition(&udp)], &[]);
        hears(&second, &udp, "two");
        assert_eq!(first.eval("uwsgi.cache_get('two')"), "None", "{flavor:?}");
        drop(second);
        hears(&first, &udp, "three");
    }
}

/// `echo f` to the master's fifo: a copy of the master starts, and stays when the old one exits.
#[test]
fn a_master_that_is_forked_anew_takes_the_port_over() {
    for flavor in BOTH {
        let (udp, dir) = (free_address(), tempfile::tempdir().unwrap());
        let fifo = dir.path().join("fifo");
        let app = App::start(flavor, &[&definition(&udp)], &["--master-fifo", fifo.to_str().unwrap()]);
        hears(&app, &udp, "before");
        // Not by a datagram: another one with the same key may still be on its way.
        assert_eq!(app.eval("uwsgi.cache_update('own', 'v')"), "True");
        let old = pid_of(&app, "getppid()");
        OpenOptions::new().write(true).open(&fifo).unwrap().write_all(b"f").unwrap();
        let started = |n| app.server.log().matches("spawned uWSGI worker 1").count() >= n;
        within("the new master has a worker", || started(2));
        let log = app.server.log();
        let (_, new) = log.split_once("new master copy spawned with pid ").expect("uWSGI says its pid");
        let new = Pid::from_raw(new.split_whitespace().next().unwrap().parse().unwrap());
        let _ends = Ends(new, Signal::SIGINT);
        kill(old, Signal::SIGINT).unwrap();
        within("the new master serves alone", || {
            app.ask("__import__('os').getppid()").is_ok_and(|pid| pid == new.to_string())
        });
        assert_eq!(app.eval("uwsgi.cache_get('own')"), "None", "{flavor:?}: a cache of its own");
        hears(&app, &udp, "after");
    }
}

/// The descriptors of a process that are UDP sockets of this address.
fn has_port(pid: Pid, udp: &str) -> bool {
    let port: u16 = udp.rsplit_once(':').unwrap().1.parse().unwrap();
    let table = fs::read_to_string(format!("/proc/{pid}/net/udp")).unwrap();
    let mine = |line: &&str| {
        line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
    };
    let inodes: Vec<_> =
        table.lines().filter(mine).filter_map(|line| line.split_whitespace().nth(9)).collect();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|to| inodes.iter().any(|inode| to.to_str() == Some(&format!("socket:[{inode}]"))))
}

/// A worker forked after the port was opened, and its child, which outlives a reload.
#[test]
fn a_child_that_is_left_behind_keeps_no_port() {
    for flavor in BOTH {
        let udp = free_address();
        let app = App::start(flavor, &[&definition(&udp)], &[]);
        hears(&app, &udp, "first");
        let (master, worker) = (pid_of(&app, "getppid()"), pid_of(&app, "getpid()"));
        kill(worker, Signal::SIGKILL).unwrap();
        let again = || app.server.log().matches("uWSGI worker 1 (").count() >= 2;
        within("it is started anew", again);
        let worker = pid_of(&app, "getpid()");
        // The child has the request's connection, too.
        let source = "(lambda os, fd: os.fork() or (os.close(fd), time.sleep(100), os._exit(0)))\
                      (__import__('os'), uwsgi.connection_fd())";
        let child = Ends(Pid::from_raw(app.eval(source).parse().unwrap()), Signal::SIGKILL);
        assert!(has_port(master, &udp), "{flavor:?}");
        for pid in [worker, child.0] {
            assert_eq!(has_port(pid, &udp), flavor == Flavor::Native, "{flavor:?}: {pid}");
        }
        kill(master, Signal::SIGHUP).unwrap();
        within("the reloaded server answers", || {
            app.ask("__import__('os').getpid()").is_ok_and(|pid| pid != worker.to_string())
        });
        hears(&app, &udp, "after");
        kill(child.0, None).expect("the child has outlived the reload");
    }
}

/// A clear names no key. Native does not support it; here it is accepted from nodes, or as the
/// definition says.
#[test]
fn d58_a_clear_is_taken_from_nodes_only() {
    const CLEAR: [u8; 8] = [111, 4, 0, 12, 0, 0, 0, 0];
    let kept = |flavor, more: &str, from: &str| {
        let udp = free_address();
        let app = App::start(flavor, &[&format!("{}{more}", definition(&udp))], &[]);
        hears(&app, &udp, "k");
        let socket = UdpSocket::bind((from, 0)).unwrap();
        // Several, since one may be lost. A later datagram shows that they were processed.
        (0..3).for_each(|_| assert_eq!(socket.send_to(&CLEAR, &udp).unwrap(), CLEAR.len()));
        hears(&app, &udp, "last");
        let kept = app.eval("uwsgi.cache_get('k')") == "b'v'";
        let lines = app.server.log().matches("a clear is accepted from the addresses in nodes= only").count();
        assert_eq!(lines, usize::from(kept && flavor == Flavor::Ucache), "{}", app.server.log());
        kept
    };
    for flavor in BOTH {
        assert!(kept(flavor, "", "127.0.0.1"), "{flavor:?}");
        assert!(kept(flavor, ",nodes=127.0.0.2:9", "127.0.0.1"), "{flavor:?}: not this node's");
        // The port of a sender is irrelevant.
        let node = kept(flavor, ",nodes=127.0.0.2:9;127.0.0.1:9", "127.0.0.1");
        let anybody = kept(flavor, ",udp_clear=1", "127.0.0.3");
        assert_eq!([node, anybody], [flavor == Flavor::Native; 2], "{flavor:?}");
    }
}

/// In a program without uWSGI.
#[test]
fn clears_of_strangers_are_refused() {
    let (udp, clear) = (free_address(), [111, 4, 0, 12, 0, 0, 0, 0]);
    c::serve_udp(c::create(&format!("name=strangers,items=100,udp={udp},nodes=127.0.0.5:9")));
    let arrives = |key: &str| {
        within(key, || {
            tell(&udp, key);
            c::exists(key.as_bytes(), "strangers")
        });
    };
    let send = |from: &str| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        (0..3).for_each(|_| assert_eq!(socket.send_to(&clear, &udp).unwrap(), clear.len()));
    };
    arrives("k");
    send("127.0.0.6");
    arrives("later");
    assert!(c::exists(b"k", "strangers"));
    send("127.0.0.5");
    within("a node's clear arrives", || !c::exists(b"k", "strangers"));
}

/// In a program without uWSGI.
#[test]
fn a_port_that_another_process_has_is_shared() {
    let udp = free_address();
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    other.set_reuse_address(true).unwrap();
    other.bind(&udp.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    c::serve_udp(c::create(&format!("name=shared,items=100,udp={udp}")));
    within("a change arrives here", || {
        tell(&udp, "k");
        thread::sleep(Duration::from_millis(20));
        c::exists(b"k", "shared")
    });
}
