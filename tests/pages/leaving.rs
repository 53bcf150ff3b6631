//! Clients that go away: while their page is computed, while they wait for another one's, in the
//! middle of a body, before a refresh. Nothing is stored in part, nobody is held up, and the lease
//! ends: `lock` is longer than any answer here may take.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

use super::{patience::within, server::Build, site::Site};

const ROUTE: &str = "cache2 = name=large,items=100,blocksize=8m\n\
                     route = ^/ ucache:name=large,ttl=60,lock=300,max_size=4m";
/// Bytes of a body: more than sockets take.
const BODY: usize = 3_000_000;

/// A client that has sent its request.
fn asking(site: &Site, worker: usize, path: &str) -> UnixStream {
    let mut client = site.connect(worker).expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.write_all(request.as_bytes()).expect("a request");
    client
}

/// Bodies of the same length: in one piece, in many, with and without a length. `gate` is where the
/// application waits: `gate` before the answer, `gate2` in its middle.
fn bodies(gate: &str) -> Value {
    let parts = vec!["y".repeat(BODY / 300); 300];
    let mut all = json!({"/many": {"parts": parts}, "/length": {"parts": parts, "length": true}});
    if gate == "gate" {
        all["/one"] = json!({"size": BODY});
    }
    for body in all.as_object_mut().expect("an object").values_mut() {
        body[gate] = json!("go");
    }
    all
}

/// The first client goes, and its page is whole or not there: whoever waits gets a whole one.
fn the_first_one_goes(site: &Site, other: usize, gate: &str) {
    let script = bodies(gate);
    site.script(&script);
    for path in script.as_object().expect("an object").keys() {
        site.forget_runs();
        let mut client = asking(site, 1, path);
        site.await_runs(1);
        let waiting = site.later(other, path, "");
        if gate == "gate2" {
            // It has a part of the body.
            client.read_exact(&mut [0; 1000]).expect("a part");
        }
        sleep(Duration::from_millis(200));
        drop(client);
        site.open("go");
        let second = waiting.join().expect("a thread").expect("an answer");
        assert_eq!((second.status, second.body.len()), (200, BODY), "{path} {}\n{}", second.head, site.log());
        let third = site.ask(other, "GET", path, "");
        assert_eq!((third.cache(), third.body == second.body), ("HIT", true), "{path}");
        // Both, or one for both; none for nobody.
        assert!(site.runs() <= 2, "{path} {}", site.runs());
        site.close("go");
    }
}

#[test]
fn the_client_of_who_computes() {
    for &build in Build::all() {
        let site = Site::start_on(build, 2, ROUTE);
        the_first_one_goes(&site, 2, "gate");
        the_first_one_goes(&Site::start_on(build, 2, ROUTE), 2, "gate2");
    }
    for options in ["threads = 4\nenable-threads = true", GEVENT] {
        let site = Site::start_on(Build::Installed, 1, &format!("{options}\n{ROUTE}"));
        the_first_one_goes(&site, 1, "gate");
    }
}

/// Debian's plugin, for the Python of the system.
const GEVENT: &str = "plugin = gevent_python3\ngevent = 20\ngevent-monkey-patch = true";

#[test]
fn a_waiting_client_frees_its_worker() {
    for &build in Build::all() {
        let site = Site::start_on(build, 2, &format!("log-format = log %(uri) %(ucache)\n{ROUTE}"));
        site.script(&json!({"/slow": {"gate": "go"}}));
        let first = site.later(1, "/slow", "");
        site.await_runs(1);
        let waiting = asking(&site, 2, "/slow");
        // The worker has taken the request, which waits.
        let busy = || {
            let stats: Value = serde_json::from_str(&site.server.stats()).expect("JSON");
            stats["workers"].as_array().expect("workers").iter().all(|worker| worker["status"] == "busy")
        };
        within("both workers are busy", busy);
        drop(waiting);
        // While the page is still computed.
        assert_eq!(site.ask(2, "GET", "/quick", "").cache(), "MISS");
        assert_eq!(site.runs(), 2);
        within("the log says so", || site.log().lines().any(|line| line == "log /slow LEFT"));
        site.open("go");
        let first = first.join().expect("a thread").expect("an answer");
        let second = site.ask(2, "GET", "/slow", "");
        assert_eq!((first.cache(), second.cache(), first.body == second.body), ("MISS", "HIT", true));
    }
}

/// A client that only ends its own side has not gone: it reads.
#[test]
fn a_waiting_client_that_only_ends_its_side_gets_its_answer() {
    let site = Site::start(ROUTE);
    site.script(&json!({"/slow": {"gate": "go"}}));
    let first = site.later(1, "/slow", "");
    site.await_runs(1);
    let mut waiting = asking(&site, 2, "/slow");
    waiting.shutdown(std::net::Shutdown::Write).expect("an end");
    sleep(Duration::from_millis(300));
    site.open("go");
    let second = super::site::read(&mut waiting).expect("an answer");
    assert_eq!(second.cache(), "COALESCED");
    assert_eq!(first.join().expect("a thread").expect("an answer").body, second.body);
}

fn resident(site: &Site) -> (u64, u64) {
    let stats: Value = serde_json::from_str(&site.server.stats()).expect("JSON");
    let pid = stats["workers"][0]["pid"].as_u64().expect("a pid");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the worker's status");
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a figure");
    let kilobytes = anonymous.split_whitespace().next().and_then(|number| number.parse().ok());
    (pid, kilobytes.unwrap_or(0))
}

/// From the cache, sent by the worker or by an offload thread, which frees what it has.
#[test]
fn in_the_middle_of_a_page_that_is_stored() {
    for options in ["", "offload-threads = 2", "threads = 4\nenable-threads = true"] {
        let site = Site::start_on(Build::Installed, 1, &format!("{options}\n{ROUTE}"));
        site.script(&json!({"/one": {"size": BODY}}));
        let whole = site.get("/one").body;
        let leave = || {
            let mut client = asking(&site, 1, "/one");
            client.read_exact(&mut [0; 1000]).expect("a part");
        };
        (0..20).for_each(|_| leave());
        assert_eq!(site.get("/one").body.len(), BODY);
        let (worker, before) = resident(&site);
        (0..60).for_each(|_| leave());
        let after = site.get("/one");
        assert_eq!((after.cache(), after.body == whole, site.runs()), ("HIT", true, 1), "{options}");
        // Of the 180 MB that were sent nothing is kept, and the worker is the same.
        within("its memory is free", || {
            let (same, now) = resident(&site);
            assert_eq!(same, worker, "{options}");
            now < before + 60_000
        });
    }
}

/// The request that refreshes answers first: its client need not be there.
#[test]
fn before_a_refresh() {
    for &build in Build::all() {
        let site = Site::start_on(
            build,
            2,
            "cache2 = name=large,items=100,blocksize=8m\n\
             route = ^/ ucache:name=large,ttl=1,stale=600,lock=300,max_size=4m",
        );
        for (path, size) in [("/small", 100), ("/large", BODY)] {
            site.script(&json!({path: {"size": size}}));
            let old = site.get(path);
            site.script(&json!({path: {"size": size, "gate": "go"}}));
            sleep(Duration::from_millis(1100));
            site.forget_runs();
            drop(asking(&site, 1, path));
            site.await_runs(1);
            // Nobody is held up meanwhile.
            let stale = site.ask(2, "GET", path, "");
            assert_eq!((stale.cache(), stale.body == old.body), ("STALE", true), "{path}");
            site.open("go");
            within("the page is new", || {
                let answer = site.ask(2, "GET", path, "");
                assert_eq!(answer.body.len(), size, "{path} {}", answer.head);
                answer.body != old.body
            });
            site.close("go");
        }
    }
}
