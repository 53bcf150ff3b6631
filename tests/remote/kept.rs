//! Connections kept by the plugin inside a real uWSGI: they occupy no worker, survive restarts of
//! workers, and their benefit.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    c,
    commands::array,
    hygiene::alone,
    native::Server,
    patience::{PATIENCE, within},
    plugin::{self, start},
    pool::counted,
    ports::free_address,
};

/// The statistics of worker `number`, from 0.
fn worker(stats: &str, number: usize, what: &str) -> i64 {
    plugin::stats(stats)["workers"][number][what].as_i64().unwrap()
}

/// Tells other threads to stop, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One worker, twenty kept connections: native's way of keeping one would need twenty workers.
#[test]
fn kept_connections_occupy_no_worker() {
    alone("kept::kept_connections_occupy_no_worker", String::new, |_| {
        for threads in ["1", "2"] {
            let stats = free_address();
            let host = start(&["name=c,items=1000"], &["--threads", threads, "--stats", &stats]);
            for server in [host.tcp.clone(), host.unix.clone()] {
                let there = &format!("c@{server}");
                assert!(c::clear(there));
                let all = std::sync::Barrier::new(14);
                thread::scope(|s| {
                    for _ in 0..14 {
                        s.spawn(|| {
                            for _ in 0..50 {
                                assert!(c::inc(b"n", 1, there));
                                all.wait();
                            }
                        });
                    }
                });
                assert_eq!(c::number(b"n", there), Some(700));
            }
            // A worker answered the first request of each of the 28 connections.
            let requests = worker(&stats, 0, "requests");
            assert!((2..200).contains(&requests), "{requests} of 1404 requests reached a worker");
            // A client without ucache is served as usual, while the connections are kept.
            let get = array(&[b"cmd", b"get", b"key", b"n", b"cache", b"c"]);
            assert!(crate::server::ask(&host.tcp, 17, &get, b"").ends_with(&700_i64.to_ne_bytes()));
        }
    });
}

/// Where a kept connection cannot work, none is offered: async loops and protocols that keep theirs
/// already.
#[test]
fn async_loops_and_other_protocols_keep_none() {
    alone("kept::async_loops_and_other_protocols_keep_none", String::new, |_| {
        let persistent = free_address();
        let gevent = ["--plugin", "python3,gevent_python3", "--gevent", "4"];
        let hosts = [&gevent[..], &["--puwsgi-socket", &persistent]]
            .map(|options| start(&["name=c,items=100"], options));
        for server in [hosts[0].tcp.clone(), persistent] {
            let (address, count) = counted(server);
            let there = format!("c@{address}");
            for _ in 0..10 {
                assert!(c::inc(b"n", 1, &there));
            }
            assert_eq!(count.load(Ordering::SeqCst), 10);
        }
        for host in &hosts {
            assert_eq!(c::number(b"n", &host.cache("c")), Some(10));
        }
    });
}

/// Workers are replaced while clients count: nothing is counted twice, and reads never notice.
#[test]
fn restarts_of_workers_count_nothing_twice_and_lose_no_read() {
    alone("kept::restarts_of_workers_count_nothing_twice_and_lose_no_read", String::new, |_| {
        let stats = free_address();
        let host = start(&["name=c,items=100"], &["--workers", "2", "--stats", &stats]);
        let there = &host.cache("c");
        assert!(c::update(b"k", b"value", there) && c::inc(b"n", 0, there));
        let (done, failed, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|s| {
            let _stop = Stop(&stop);
            for _ in 0..3 {
                s.spawn(|| {
                    let _stop = Stop(&stop);
                    while !stop.load(Ordering::SeqCst) {
                        assert_eq!(c::value(b"k", there).as_deref(), Some(&b"value"[..]));
                        assert!(c::exists(b"k", there) && c::update(b"u", b"v", there));
                        let count = if c::inc(b"n", 1, there) { &done } else { &failed };
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            for round in 0..6 {
                let pid = || worker(&stats, round % 2, "pid");
                let (before, calls) = (pid(), done.load(Ordering::SeqCst));
                let stopped = || stop.load(Ordering::SeqCst);
                within("the clients go on", || done.load(Ordering::SeqCst) > calls + 200 || stopped());
                // Before that, a signal runs the handler that the worker has from its master, which
                // ends the other workers.
                within("the worker accepts", || worker(&stats, round % 2, "accepting") == 1);
                // SAFETY: accepts any number; it is a child of the server's, whose master waits for
                // it.
                unsafe { libc::kill(libc::pid_t::try_from(before).unwrap(), libc::SIGHUP) };
                within("the worker is replaced", || !matches!(pid(), 0) && pid() != before);
            }
        });
        let (done, failed) = (done.into_inner(), failed.into_inner());
        let counted = usize::try_from(c::number(b"n", there).unwrap()).unwrap();
        // A call that failed may have been counted, once.
        assert!((done..=done + failed).contains(&counted), "{done} done, {failed} failed, {counted} counted");
        eprintln!("{done} done, {failed} failed, {counted} counted");
        assert!(failed <= 8, "{failed} of {done}: only the calls in flight may fail");
    });
}

/// A remote get over its own connection, as native's client makes it.
fn get_alone(mut stream: impl Read + Write, packet: &[u8]) {
    stream.write_all(packet).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&[b'v'; 100]), "{answer:?}");
}

/// Microseconds per call: median and 99th percentile.
fn measure(rounds: usize, mut call: impl FnMut()) -> (f64, f64) {
    let one = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..rounds).map(|_| one(&mut call)).collect();
    times.sort_unstable();
    (times[rounds / 2].as_secs_f64() * 1e6, times[rounds * 99 / 100].as_secs_f64() * 1e6)
}

/// The duration of a remote get of 100 bytes, with and without kept connections and to a native
/// server. Only prints; results of a loaded machine prove nothing. `UCACHE_REMOTE_LATENCY=20000`
/// for meaningful ones.
#[test]
fn latency_of_a_remote_get() {
    alone("kept::latency_of_a_remote_get", String::new, |_| {
        let rounds = std::env::var("UCACHE_REMOTE_LATENCY").map_or(200, |n| n.parse().unwrap());
        let options = ["--disable-logging"];
        let native = Server::start(&["name=c,items=100"], &options);
        let ours = start(&["name=c,items=100"], &options);
        let payload = array(&[b"cmd", b"get", b"key", b"k", b"cache", b"c"]);
        let packet = [&[111, u8::try_from(payload.len()).unwrap(), 0, 17], &payload[..]].concat();
        for (name, server) in [("native", &native), ("ucache", &ours)] {
            assert!(c::update(b"k", &[b'v'; 100], &server.cache("c")));
            let tcp = measure(rounds, || {
                let stream = TcpStream::connect(&server.tcp).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                get_alone(stream, &packet);
            });
            let unix = measure(rounds, || get_alone(UnixStream::connect(&server.unix).unwrap(), &packet));
            for (way, at, alone) in [("tcp", &server.tcp, tcp), ("unix", &server.unix, unix)] {
                let there = format!("c@{at}");
                let client =
                    measure(rounds, || assert_eq!(c::value(b"k", &there).as_deref(), Some(&[b'v'; 100][..])));
                eprintln!(
                    "{name} {way}: a connection each {:.1} us (p99 {:.1}), ucache's client {:.1} us (p99 {:.1})",
                    alone.0, alone.1, client.0, client.1
                );
            }
        }
    });
}

/// Greenlets of one process take different connections, and wait for their answers at the same
/// time.
#[test]
fn under_gevent_connections_are_kept_by_the_client() {
    alone("kept::under_gevent_connections_are_kept_by_the_client", String::new, |_| {
        let there = start(&["name=c,items=100"], &[]);
        let (address, count) = counted(there.tcp.clone());
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app.py");
        let text = format!(
            "import uwsgi\ndef application(e, start):\n    start('200 OK', [])\n    \
             return [str(all(uwsgi.cache_inc('n', 1, 0, 'c@{address}') for _ in range(20))).encode()]\n"
        );
        std::fs::write(&app, text).unwrap();
        let http = free_address();
        let options =
            ["--plugin", "python3,gevent_python3", "--gevent", "10", "--http-socket", &http, "--wsgi-file"];
        let host = start(&["name=x,items=10"], &[&options[..], &[app.to_str().unwrap()]].concat());
        let one = || {
            let mut stream = TcpStream::connect(&http).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        thread::scope(|s| {
            for thread in (0..4).map(|_| s.spawn(one)).collect::<Vec<_>>() {
                let answer = thread.join().unwrap();
                assert!(answer.ends_with("True"), "{answer}\n{}", host.log());
            }
        });
        assert_eq!(c::number(b"n", &there.cache("c")), Some(80));
        let connections = count.load(Ordering::SeqCst);
        // One more was created by this check.
        assert!(connections <= 5, "{connections}");
    });
}
