//! Workers of a real uWSGI are killed under load. With the plugin the others continue, and no value
//! is torn, foreign or lost; uWSGI's own cache, under the same load, is the control: it hangs for
//! good after some deaths.
//!
//! `UCACHE_UWSGI_KILLS=1000` sets the number of kills.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    engine_proc::{alone, say},
    patience::{poll, within},
    server::{Build, Flavor, Server},
};

const WORKERS: usize = 6;
/// Workers are killed one by one or several at once; after this many kills all must have made
/// progress.
const STRIKES: u64 = 5;
/// A worker that does nothing for this long hangs.
const HANG: Duration = Duration::from_secs(20);
/// Workers killed in `make test`.
const DEATHS: u64 = 100;
/// Deaths per server: a server of these tests ends after some minutes.
const ONE_SERVER: u64 = 2000;
/// Longest that the control is watched.
const CONTROL: Duration = Duration::from_secs(45);

#[derive(Debug, Default)]
struct Figures {
    bursts: [AtomicU64; WORKERS],
    ops: AtomicU64,
    torn: AtomicU64,
    foreign: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
}

/// One burst in a worker; `None` = it died, or does not answer.
fn burst(server: &Server, worker: usize) -> Option<[u64; 4]> {
    let mut stream = UnixStream::connect(server.dir().join(format!("w{}", worker + 1))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let source = format!("import storm\nstorm.burst(uwsgi, {worker}, {WORKERS}, 20, 200)");
    let head = format!("POST / HTTP/1.0\r\nHost: test\r\nContent-Length: {}\r\n\r\n{source}", source.len());
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let words: Vec<u64> =
        text.lines().last()?.trim_matches('\'').split(' ').filter_map(|w| w.parse().ok()).collect();
    words.try_into().ok()
}

fn load(server: &Server, worker: usize, figures: &Figures) {
    while !figures.over.load(SeqCst) {
        let Some([ops, torn, foreign, lost]) = burst(server, worker) else { continue };
        figures.bursts[worker].fetch_add(1, SeqCst);
        for (to, n) in
            [(&figures.ops, ops), (&figures.torn, torn), (&figures.foreign, foreign), (&figures.lost, lost)]
        {
            to.fetch_add(n, SeqCst);
        }
    }
}

fn children(of: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Whether every worker makes progress within [`HANG`].
fn all_move(figures: &Figures) -> bool {
    let count = |worker: usize| figures.bursts[worker].load(SeqCst);
    let before: [u64; WORKERS] = std::array::from_fn(count);
    let move_on = || (0..WORKERS).all(|worker| count(worker) != before[worker]).then_some(());
    poll(HANG, move_on).is_some()
}

/// The master looks for dead workers once a second, and at each event: a request for its statistics
/// is one.
fn poke(server: &Server) {
    let Ok(mut stream) = UnixStream::connect(server.dir().join("stats")) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let mut some = [0; 64];
    let _ = stream.read(&mut some);
}

/// Kills workers until the given number have died or the others hang. Deaths are counted by the
/// processes that replace the dead.
fn storm(server: &Server, figures: &Figures, kills: u64, limit: Duration) -> (u64, bool) {
    let (start, mut deaths, mut strikes, mut rng) = (Instant::now(), 0, 0, fastrand::Rng::new());
    while deaths < kills && start.elapsed() < limit {
        if strikes % STRIKES == 0 && !all_move(figures) {
            return (deaths, true);
        }
        strikes += 1;
        thread::sleep(Duration::from_millis(rng.u64(0..40)));
        let workers = children(server.master());
        let several = rng.u8(0..3) == 0;
        let one = rng.usize(0..workers.len().max(1));
        let chosen = |n: usize, rng: &mut fastrand::Rng| n == one || (several && rng.bool());
        let victims: Vec<Pid> =
            workers.iter().enumerate().filter(|&(n, _)| chosen(n, &mut rng)).map(|(_, &pid)| pid).collect();
        let killed: Vec<Pid> =
            victims.into_iter().filter(|&pid| kill(pid, Signal::SIGKILL).is_ok()).collect();
        let gone = Instant::now();
        while children(server.master()).iter().any(|pid| killed.contains(pid)) && gone.elapsed() < HANG {
            poke(server);
        }
        deaths += killed.len() as u64;
    }
    (deaths, !all_move(figures))
}

fn figures_of(flavor: Flavor, kills: u64, limit: Duration) -> (u64, bool, Figures) {
    let options = "cache2 = name=c,items=500,blocksize=32768\nlisten = 64\nforkbomb-delay = 0\n";
    let server = Server::start(flavor, WORKERS, options);
    let (figures, start) = (Figures::default(), Instant::now());
    let (deaths, hung) = thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (server, figures) = (&server, &figures);
            scope.spawn(move || load(server, worker, figures));
        }
        let end = storm(&server, &figures, kills, limit);
        figures.over.store(true, SeqCst);
        end
    });
    if hung {
        // A process that waits for a dead one's lock ignores milder signals.
        let master = server.master();
        for pid in std::iter::once(master).chain(children(master)) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    let count = |n: &AtomicU64| n.load(SeqCst);
    say(&format!(
        "{flavor:?} under uWSGI: {deaths} deaths in {:.0} s, {} operations, torn {}, foreign {}, lost {}, hung for good: {hung}",
        start.elapsed().as_secs_f64(),
        count(&figures.ops),
        count(&figures.torn),
        count(&figures.foreign),
        count(&figures.lost)
    ));
    (deaths, hung, figures)
}

fn kills(default: u64) -> u64 {
    std::env::var("UCACHE_UWSGI_KILLS").map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("UCACHE_UWSGI_KILLS={text} is not a number"))
    })
}

#[test]
fn killed_workers_of_uwsgi_stop_nobody() {
    let _alone = alone();
    let mut left = kills(DEATHS);
    while left > 0 {
        let (deaths, hung, figures) =
            figures_of(Flavor::Ucache, left.min(ONE_SERVER), Duration::from_secs(3600));
        assert!(!hung, "after {deaths} deaths nobody goes on");
        let bad = [&figures.torn, &figures.foreign, &figures.lost].map(|n| n.load(SeqCst));
        assert_eq!(bad, [0, 0, 0], "torn, foreign, lost");
        left = left.saturating_sub(deaths);
    }
}

/// A worker dies in exclusive mode: the next write succeeds, and the log reports it.
#[test]
fn a_death_is_repaired_and_logged() {
    let _alone = alone();
    let server = Server::start(Flavor::Ucache, 2, "cache2 = name=c,items=500\n");
    let library = Build::Installed.plugins().join("libucache.so");
    let library = library.display();
    let die = format!(
        "import ctypes\nlib = ctypes.CDLL('{library}')\nlib.uwsgi_cache_by_name.restype = ctypes.c_void_p\n\
         lib.ucache_wlock.argtypes = [ctypes.c_void_p]\nlib.ucache_wlock(lib.uwsgi_cache_by_name(b'c'))\n\
         os.kill(os.getpid(), 9)"
    );
    assert_eq!(server.run(1, &die), "(no answer)");
    assert_eq!(server.run(2, "uwsgi.cache_update('key', b'value')"), "True");
    within("a line in the log", || {
        server
            .log()
            .contains("cache \"c\": repaired after the death of a process; in all 1 locks of the dead")
    });
}

/// The control, without which the test above would prove nothing.
#[test]
fn killed_workers_stop_native_uwsgi() {
    let _alone = alone();
    let (deaths, hung, figures) = figures_of(Flavor::Native, 80, CONTROL);
    let bad: u64 = [&figures.torn, &figures.foreign, &figures.lost].iter().map(|n| n.load(SeqCst)).sum();
    // About one death in eight hits a lock: if eighty miss it, the load is wrong.
    assert!(hung || bad > 0 || deaths < 80, "{deaths} deaths did nothing to uWSGI's own cache");
}
