//! `cheaper`: workers that are started and ended as they are needed.

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    patience::within,
    server::Build,
    site::{Answer, Site, exchange},
};

/// A site of one worker, or up to four; and its directory with a socket for all of them.
struct Pool {
    site: Site,
    dir: tempfile::TempDir,
}

impl Pool {
    fn start(build: Build) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path().display();
        let options = format!(
            "processes = 4\ncheaper = 1\ncheaper-initial = 1\ncheaper-algo = manual\nmaster-fifo = {at}/fifo\n\
             http-socket = {at}/all\ncache2 = name=many,items=100000,blocksize=4096\n\
             route = ^/ ucache:name=many,ttl=600,lock=300"
        );
        Self { site: Site::start_on(build, 1, &options), dir }
    }

    /// More workers (`+`) or fewer (`-`).
    fn ask_for(&self, change: &str) {
        let fifo = fs::OpenOptions::new().write(true).open(self.dir.path().join("fifo"));
        fifo.expect("the master's fifo").write_all(change.as_bytes()).expect("the master reads");
    }

    /// Number of workers that are so.
    fn workers(&self, is: impl Fn(&Value) -> bool) -> usize {
        let stats: Value = serde_json::from_str(&self.site.server.stats()).expect("JSON");
        stats["workers"].as_array().expect("workers").iter().filter(|worker| is(worker)).count()
    }

    fn await_workers(&self, count: usize) {
        let runs = |worker: &Value| worker["status"] != "cheap" && worker["pid"] != 0;
        within("the master starts and ends workers", || self.workers(runs) == count);
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("all")
    }

    fn get(&self, path: &str) -> Answer {
        get(&self.socket(), path).unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.site.log()))
    }

    fn later(&self, path: &'static str) -> JoinHandle<Answer> {
        let socket = self.socket();
        thread::spawn(move || get(&socket, path).expect("an answer"))
    }
}

fn get(socket: &Path, path: &str) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    exchange(&mut stream, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

#[test]
fn workers_that_come_and_go_share_pages() {
    for &build in Build::all() {
        let pool = Pool::start(build);
        let page = pool.get("/a").body;
        // One worker computes; those that are started meanwhile wait.
        pool.site.script(&json!({"/slow": {"gate": "go"}}));
        pool.site.forget_runs();
        let first = pool.later("/slow");
        pool.site.await_runs(1);
        pool.ask_for("+++");
        pool.await_workers(4);
        let others = [pool.later("/slow"), pool.later("/slow"), pool.later("/slow")];
        within("all workers are busy", || pool.workers(|worker| worker["status"] == "busy") == 4);
        thread::sleep(Duration::from_millis(300));
        // One is asked to end while all are busy.
        pool.ask_for("-");
        pool.site.open("go");
        let first = first.join().expect("a thread");
        assert_eq!(first.cache(), "MISS", "{build:?}");
        for other in others {
            let other = other.join().expect("a thread");
            assert_eq!((other.cache(), &other.body), ("COALESCED", &first.body), "{build:?}");
        }
        assert_eq!(pool.site.runs(), 1);
        pool.await_workers(3);
        pool.ask_for("--");
        pool.await_workers(1);
        for (path, body) in [("/a", &page), ("/slow", &first.body)] {
            let hit = pool.get(path);
            assert_eq!((hit.cache(), &hit.body), ("HIT", body), "{build:?}");
        }
    }
}

/// Each page is computed once, although workers end all the time: none ends in the middle of one.
#[test]
fn pages_under_load_are_computed_once() {
    let pool = Pool::start(Build::Installed);
    pool.site.forget_runs();
    let (stop, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..6 {
            scope.spawn({
                let (socket, stop, most) = (pool.socket(), &stop, &most);
                move || {
                    let mut page = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let path = format!("/page/{page}");
                        let answer = get(&socket, &path).unwrap_or_else(|e| panic!("{client} {path}: {e}"));
                        assert!(answer.status == 200 && answer.text().starts_with(&format!("GET {path} ")));
                        most.fetch_max(page, Ordering::Relaxed);
                        page += 1;
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        for _ in 0..4 {
            pool.ask_for("+++");
            pool.await_workers(4);
            pool.ask_for("---");
            pool.await_workers(1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let pages = most.load(Ordering::Relaxed) + 1;
    assert!(pages > 100, "{pages}");
    assert_eq!(pool.site.runs(), pages);
}
