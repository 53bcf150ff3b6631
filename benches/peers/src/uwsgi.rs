//! Inside a real uWSGI: its own cache against ucache, the same plugin calling the same functions.
//! Who goes first changes from round to round.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread::available_parallelism,
};

use crate::{
    Effort,
    host::{Figure, Figures, Flavor, Rig, turns},
    ports::free_port,
    report::{FLOOR, Report},
    row::{Goal, Row, Unit},
    server::PATIENCE,
};

/// Caches of the phases: the limits are tight, so that native's memory is as small as it can be.
pub(crate) const CACHES: &str = "cache2 = name=bench,items=150000,blocksize=256,keysize=64,hashsize=131072\n\
    cache2 = name=random,items=150000,blocksize=256,keysize=64,hashsize=131072\n\
    cache2 = name=fresh,items=1000001,blocksize=128,keysize=16,hashsize=1048576\n\
    cache2 = name=sessions,items=1000001,blocksize=128,keysize=16,hashsize=1048576\n\
    cache2 = name=lru,items=20001,blocksize=128,keysize=16,purge_lru=1,ignore_full=1\n\
    cache2 = name=mixed,items=150000,blocksize=2048,keysize=64,hashsize=131072\n\
    cache2 = name=full,items=100001,blocksize=128,keysize=16,ignore_full=1\n\
    cache2 = name=hits,items=20001,blocksize=128,keysize=16,purge_lru=1,ignore_full=1\n\
    cache2 = name=expiring,items=300000,blocksize=256,keysize=64,hashsize=262144\n\
    cache2 = name=v4k,items=2001,blocksize=4096,keysize=64\n\
    cache2 = name=v64k,items=301,blocksize=65536,keysize=64\n\
    cache2 = name=v1m,items=21,blocksize=1048576,keysize=64\n";
const STALLED: &str = "cache2 = name=bench,items=2000,blocksize=1048576,keysize=64\n";
const MILLION: &str = "cache2 = name=bench,items=1000000,blocksize=256,keysize=64\n";
const PYTHON: &str =
    "plugin = python3\nneed-app = true\ncache2 = name=bench,items=30000,blocksize=256,keysize=64\n";

/// The targets of the design, by phase and workers.
fn goal(phase: &str, workers: usize) -> Goal {
    match (workers, phase) {
        (1, "get hit") => Goal::Times(2.2),
        (2, "get hit" | "exists" | "del + set") => Goal::Times(4.0),
        (2, "get miss") => Goal::Times(8.0),
        (2, "update") => Goal::Times(3.5),
        (2, "mixed 95/5") => Goal::Times(25.0),
        (2, "hot counter") => Goal::Times(2.5),
        (1, "clear empty 1M cache") => Goal::Times(20.0),
        _ => Goal::None,
    }
}

/// Samples of both sides by name, in the order of their first appearance.
#[derive(Default)]
struct Both {
    names: Vec<String>,
    samples: BTreeMap<String, [Vec<f64>; 2]>,
}

impl Both {
    fn add(&mut self, name: String, flavor: Flavor, sample: f64) {
        if !self.samples.contains_key(&name) {
            self.names.push(name.clone());
        }
        self.samples.entry(name).or_default()[usize::from(flavor == Flavor::Native)].push(sample);
    }

    fn rows(&self, report: &mut Report, unit: Unit, goal: impl Fn(&str) -> Goal) {
        for name in &self.names {
            let [ours, theirs] = self.samples[name].clone();
            report.add(Row::new(name.clone(), "native", unit, ours, theirs).with(goal(name)));
        }
    }
}

/// What the names of the bare loop's phases begin with.
const BARE: &str = "floor: ";

/// Names of the phases as the plugin ran them.
fn phases(source: &str) -> Vec<&str> {
    let table = source.split("phases[] = {").nth(1).expect("the table of phases");
    table.lines().filter_map(|line| line.trim().strip_prefix("{ \"")?.split('"').next()).collect()
}

/// Millions of operations a second of all workers together, by phase.
pub(crate) fn phase_rates(
    rig: &Rig,
    flavor: Flavor,
    workers: usize,
    caches: &str,
    effort: Effort,
) -> Vec<(String, f64)> {
    let lines = format!("processes = {workers}\n{caches}");
    let milliseconds = if effort.quick { 50 } else { 200 };
    let figures = rig.run(flavor, "speed", &lines, &[("BENCH_MS", milliseconds.to_string())]);
    // A lone worker's processor time: what other programs take does not count.
    let nanos = |f: &Figure| if workers == 1 { f.cpu } else { f.wall };
    let rate = |phase: &str| {
        let of = &figures[phase];
        assert_eq!(of.len(), workers, "{phase}: every worker tells");
        of.iter().map(|f| f.operations / nanos(f) * 1e3).sum()
    };
    let phases = phases(include_str!("bench_plugin.c"));
    phases.into_iter().map(|phase| (phase.to_owned(), rate(phase))).collect()
}

/// Every phase with this many workers.
fn speed(rig: &Rig, workers: usize, effort: Effort, report: &mut Report) {
    let mut both = Both::default();
    for round in 0..effort.rounds {
        for flavor in turns(round) {
            for (phase, rate) in phase_rates(rig, flavor, workers, CACHES, effort) {
                both.add(phase, flavor, rate);
            }
        }
    }
    let plural = if workers == 1 { "worker" } else { "workers" };
    let row = |phase, peer, [ours, theirs]: [Vec<f64>; 2]| {
        Row::new(format!("{workers} {plural}: {phase}"), peer, Unit::Rate, ours, theirs)
    };
    for phase in both.names.iter().filter(|phase| !phase.starts_with(BARE)) {
        let [ours, native] = both.samples[phase].clone();
        let goal = goal(phase, workers);
        report.add(row(phase, "native", [ours.clone(), native.clone()]).with(goal));
        // The bare loop ran in both servers: each side is compared with the one that its own server
        // timed.
        if let Some([beside_ours, beside_native]) = both.samples.get(&format!("{BARE}{phase}")).cloned() {
            report.add(row(phase, "floor", [ours, beside_ours]));
            report.add(row(phase, "native", [beside_native, native]).with(goal).of_the_floor());
        }
    }
}

fn stalls(rig: &Rig, effort: Effort, report: &mut Report) {
    let milliseconds = if effort.quick { 100 } else { 300 };
    let mut both = Both::default();
    for round in 0..effort.rounds {
        for flavor in turns(round) {
            let lines = format!("processes = 5\n{STALLED}");
            let figures = rig.run(flavor, "stall", &lines, &[("BENCH_MS", milliseconds.to_string())]);
            for part in ["p50", "p99", "p99.9", "worst"] {
                let name = format!("write beside 4 readers of 1 MB: {part}");
                both.add(name, flavor, figures[&format!("stall {part}")][0].wall);
            }
        }
    }
    both.rows(
        report,
        Unit::Millis,
        |name| if name.ends_with("worst") { Goal::Most(5e6) } else { Goal::None },
    );
}

fn starts(rig: &Rig, effort: Effort, report: &mut Report) {
    let mut both = Both::default();
    let wall = |figures: &Figures| figures["start"][0].wall;
    for round in 0..effort.rounds {
        for flavor in turns(round) {
            let figures = rig.run(flavor, "start", &format!("processes = 1\n{MILLION}"), &[]);
            both.add("start-up with a cache of 1M items".to_owned(), flavor, wall(&figures));
        }
    }
    both.rows(report, Unit::Millis, |_| Goal::None);
}

/// The body of an answer.
fn ask(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Requests a second, and how many they were, by wrk.
fn wrk(port: u16, seconds: u32) -> (f64, f64) {
    let output = Command::new("wrk")
        .args(["-t1", "-c4", &format!("-d{seconds}s"), &format!("http://127.0.0.1:{port}/get")])
        .output()
        .expect("wrk runs (`.ci/deps bench`)");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("Non-2xx"), "{said}");
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    // "  81234 requests in 3.00s, 10.54MB read"
    let count = said.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    rate.zip(count).unwrap_or_else(|| panic!("wrk said: {said}"))
}

/// How often the two servers take turns in a round: a shared machine's speed changes within seconds.
const SLICES: usize = 4;

fn python(rig: &Rig, effort: Effort, report: &mut Report) {
    let (mut loops, mut requests, mut times) = (Both::default(), Both::default(), Both::default());
    for round in 0..effort.rounds {
        // Both at once: the one that is not asked takes no processor time.
        let servers = turns(round).map(|flavor| {
            let port = free_port();
            let app = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app.py");
            let lines = format!("processes = 2\n{PYTHON}http-socket = 127.0.0.1:{port}\nwsgi-file = {app}");
            let mut server = rig.serve(flavor, &lines);
            server.until("an answer", |_| ask(port, "/fill").as_deref() == Some("done"));
            (flavor, port, server)
        });
        for (flavor, port, _) in &servers {
            let nanos = ask(*port, "/loop").and_then(|text| text.parse().ok()).expect("a figure of the loop");
            loops.add("Python: uwsgi.cache_get in a loop".to_owned(), *flavor, nanos);
        }
        for slice in 0..SLICES {
            for at in [slice % 2, 1 - slice % 2] {
                let (flavor, port, server) = &servers[at];
                let name = "Python: WSGI request with one cache_get, 2 workers, wrk";
                let before = server.processor_time();
                let (rate, count) = wrk(*port, if effort.quick { 1 } else { 2 });
                let time = (server.processor_time() - before) as f64 / count;
                requests.add(name.to_owned(), *flavor, rate / 1e6);
                times.add(format!("{name}: processor time of the server"), *flavor, time);
            }
        }
    }
    loops.rows(report, Unit::Nanos, |_| Goal::None);
    requests.rows(report, Unit::Rate, |_| Goal::None);
    times.rows(report, Unit::Nanos, |_| Goal::None);
}

pub(crate) fn run(effort: Effort) -> Report {
    let rig = Rig::new();
    let mut report = Report::new("uwsgi", true, effort.rounds);
    let cores = available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    let mut counts = vec![1, 2, cores];
    counts.sort_unstable();
    counts.dedup();
    for workers in counts {
        speed(&rig, workers, effort, &mut report);
    }
    stalls(&rig, effort, &mut report);
    starts(&rig, effort, &mut report);
    python(&rig, effort, &mut report);
    report.note(
        "100,000 keys of 16 bytes, values of 100, zipf 0.99, through `uwsgi_cache_magic_*`; rates are those of all \
         workers together. \"loop alone\" is the time of the measurement itself, which is in every other row of both \
         sides. One worker is timed in processor time, several by the \
         clock: on a machine with other work, which keeps workers from running at the same time, the rows of several \
         workers say little about contention.",
    );
    report.note(
        "The rate of WSGI requests is mostly what wrk and uWSGI themselves do, and differs from run to run; the server's \
         processor time for a request (master and workers, in the kernel, too) says what a request costs.",
    );
    report.note(format!("{FLOOR} Here it is in C, behind a call, with the `malloc` and `free` of a get."));
    report.note(
        "Beside readers of large values: five workers, the writer pauses for 200 us after each write. The measurement \
         ends after a few seconds; a worst time of about that length means that the writer was kept out until then.",
    );
    report
}
