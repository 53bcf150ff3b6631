//! Workers that are killed while they compute, under load.

use std::{
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    server::Build,
    site::{Site, exchange},
};

/// How long a request may wait for another one's page, seconds.
const LOCK: u64 = 5;
const CLIENTS: usize = 6;

/// What the clients of a server saw.
#[derive(Debug, Default)]
struct Seen {
    kills: usize,
    /// Whole answers.
    whole: usize,
    /// Whole answers from another request's computation.
    coalesced: usize,
    /// Clients without an answer, or with the beginning of one.
    broken: usize,
    /// The longest time until an answer, or an end.
    longest: Duration,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.whole += other.whole;
        self.coalesced += other.coalesced;
        self.broken += other.broken;
        self.longest = self.longest.max(other.longest);
    }
}

/// Each answer is a whole page, or the beginning of the one whose worker was killed, and no request
/// waits longer than `lock`. `UCACHE_PAGE_KILLS` sets how many kills, 25 by default.
#[test]
fn killed_workers_leave_whole_pages() {
    let kills: usize = std::env::var("UCACHE_PAGE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    let mut all = Seen::default();
    while all.kills < kills {
        // A server of the tests has an end of its own.
        all.add(&storm((kills - all.kills).min(1000)));
        eprintln!("{all:?}");
    }
    assert!(all.whole > 0 && all.coalesced > 0, "{all:?}");
    // A worker has one client: a kill costs at most that one its answer.
    assert!(all.broken <= all.kills, "{all:?}");
    // Beside the wait, a request computes, and a busy machine lets it wait for a processor.
    assert!(all.longest < Duration::from_secs(LOCK + 20), "{all:?}");
}

/// One server, whose workers share a socket: a client waits for a page, not for the start of a
/// certain worker.
fn storm(kills: usize) -> Seen {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("all");
    // The master starts a worker again at once, however many die.
    let route = format!(
        "forkbomb-delay = 0\nhttp-socket = {}\nroute = ^/ ucache:name=pages,ttl=1,lock={LOCK}",
        socket.display()
    );
    let site = Site::start_on(Build::Installed, 4, &route);
    let body = "0123456789".repeat(5000);
    site.script(&json!({"/k": {"body": body, "sleep": 0.02, "mark": true}}));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn({
                    let (socket, stop, body) = (&socket, &stop, &body);
                    move || load(socket, stop, body, client)
                })
            })
            .collect();
        let (began, mut all) = (Instant::now(), Seen::default());
        while all.kills < kills && began.elapsed() < Duration::from_secs(150) {
            sleep(Duration::from_millis(5));
            all.kills += usize::from(kill_who_computes(&site));
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| all.add(&client.join().expect("a client")));
        all
    })
}

/// Asks until it is stopped.
fn load(socket: &Path, stop: &AtomicBool, body: &str, client: usize) -> Seen {
    let (mut seen, mut query) = (Seen::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        // Three clients share a page.
        let request = format!("GET /k?{}-{} HTTP/1.1\r\nHost: localhost\r\n\r\n", client / 3, query / 5);
        let answer = UnixStream::connect(socket).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            exchange(&mut stream, request.as_bytes())
        });
        seen.longest = seen.longest.max(began.elapsed());
        query += 1;
        match answer {
            Ok(answer) if answer.text() == body => {
                seen.whole += 1;
                seen.coalesced += usize::from(answer.cache() == "COALESCED");
            }
            // A killed worker's client has no answer, or the beginning of one.
            Ok(answer) => {
                assert!(body.starts_with(&answer.text()) && answer.cache() == "MISS", "{}", answer.head);
                seen.broken += 1;
            }
            Err(_) => seen.broken += 1,
        }
    }
    seen
}

/// Kills the worker that computes at the moment, if one does.
fn kill_who_computes(site: &Site) -> bool {
    let Some(pid) = site.marked().and_then(|pid| pid.parse::<i32>().ok()) else { return false };
    // The mark may be old, and the number another process's by now, or that of one that is dead.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse().ok()));
    let pid = nix::unistd::Pid::from_raw(pid);
    state.is_some_and(|state| state != "Z")
        && parent == Some(site.server.master().as_raw())
        && nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok()
}
