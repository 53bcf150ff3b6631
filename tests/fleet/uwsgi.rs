//! Real uWSGIs as machines: what their Python workers read is judged, too.
#![cfg(feature = "uwsgi")]

use std::{
    fs,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use fastrand::Rng;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    backend,
    cluster::Cluster,
    engine_proc::{now, say, seed},
    load::judged,
    patience::within,
    server::{Flavor, Server},
    staleness::{Deed, EVERY_KEY, Event, NEVER, NOBODY, Value},
};

const MAX_STALE: Duration = Duration::from_millis(300);
/// The last worker of each machine does nothing, and is killed.
const WORKERS: usize = 3;

/// What a worker does: its operations are a list of key, number written or read, whether written,
/// beginning and end. A miss says nothing, because the server may be down.
const LOAD: &str = "
from random import random, randrange
from time import monotonic_ns as now
done, number, start = [], FIRST, now()
while GOES_ON:
    key, began = randrange(6), now()
    if random() < 0.9:
        value = uwsgi.cache_get(f'k{key}')
        if value is not None:
            done.append([key, int(value), 0, began, now()])
    elif random() < 0.8:
        number += 1
        stored = uwsgi.cache_update(f'k{key}', str(number))
        done.append([key, number, 1, began, now() if stored else 0])
    else:
        deleted = uwsgi.cache_del(f'k{key}')
        done.append([key, 0, 1, began, now() if deleted else 0])
    time.sleep(random() / 500)
done
";

fn event(machine: u32, told: &[u64; 5]) -> Event {
    let &[key, number, wrote, began, ended] = told;
    let value = if number == 0 { Value::Absent } else { Value::Of(number) };
    let deed = if wrote == 1 { Deed::Write { value, ttl: None } } else { Deed::Read { value } };
    let key = u32::try_from(key).expect("few keys");
    Event { machine, key, deed, began, ended: if ended == 0 { NEVER } else { ended } }
}

/// A worker's operations, while `goes_on`.
fn load(machine: &Server, number: u32, worker: usize, goes_on: &str) -> Vec<Event> {
    let first = (u64::from(number) * 10 + worker as u64) * 1_000_000;
    let source = LOAD.replace("FIRST", &first.to_string()).replace("GOES_ON", goes_on);
    let told = machine.run(worker, &source);
    let told: Vec<[u64; 5]> = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
    told.iter().map(|told| event(number, told)).collect()
}

/// What all workers but the idle ones do, beside what `meanwhile` does.
fn under_load(machines: &[Server], goes_on: &str, meanwhile: impl FnOnce() -> Vec<Event>) -> Vec<Event> {
    scope(|threads| {
        let mut running = Vec::new();
        for (number, machine) in (0..).zip(machines) {
            for worker in 1..WORKERS {
                running.push(threads.spawn(move || load(machine, number, worker, goes_on)));
            }
        }
        let mut events = meanwhile();
        events.extend(running.into_iter().flat_map(|one| one.join().expect("the worker answers")));
        events
    })
}

/// Kills the idle workers, stops the masters, which keep the copies up to date, and the server;
/// flushes and restarts it.
fn trouble(machines: &[Server], server: &mut backend::Server) -> Vec<Event> {
    let mut events = Vec::new();
    let mut emptied = |f: &mut dyn FnMut()| {
        let began = now();
        f();
        let deed = Deed::Write { value: Value::Absent, ttl: None };
        events.push(Event { machine: NOBODY, key: EVERY_KEY, deed, began, ended: now() });
    };
    let start = Instant::now();
    for n in 0.. {
        if start.elapsed() > Duration::from_secs(4) {
            break;
        }
        sleep(Duration::from_millis(150));
        match n % 6 {
            1 | 3 => {
                let machine = &machines[n / 2 % 2];
                machine.signal(Signal::SIGSTOP);
                sleep(Duration::from_millis(400));
                machine.signal(Signal::SIGCONT);
            }
            2 => {
                server.freeze(true);
                sleep(Duration::from_millis(400));
                server.freeze(false);
            }
            4 => emptied(&mut || assert_eq!(server.ask(["FLUSHALL"]), "OK")),
            5 => emptied(&mut || {
                server.down();
                server.up();
            }),
            _ => {
                // It answers again when uWSGI has replaced it.
                if let Ok(pid) = machines[n / 6 % 2].run(WORKERS, "os.getpid()").parse() {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }
    events
}

#[test]
fn workers_of_real_uwsgis_read_nothing_older_than_the_bound() {
    let mut server = backend::Server::start();
    let cache = format!(
        "cache2 = name=c,items=100,backend={},backend_timeout=200ms,max_stale={}ms",
        server.url(),
        MAX_STALE.as_millis()
    );
    let machines = [(); 2].map(|()| Server::start(Flavor::Ucache, WORKERS, &cache));
    let mut events =
        under_load(&machines, "now() < start + 5_000_000_000", || trouble(&machines, &mut server));
    events.sort_unstable_by_key(|event| event.began);
    let bound = u64::try_from(MAX_STALE.as_nanos()).expect("short");
    let verdict = judged(&events, &[bound, bound]);
    say(&format!("{verdict:?}"));
    assert!(verdict.reads > 500 && verdict.writes > 100, "{verdict:?}");
}

/// Keys that nobody else uses, one at each node that has slots.
fn probes(cluster: &Cluster) -> Vec<String> {
    let nodes: Vec<_> = (0..cluster.nodes.len()).collect();
    let mut found = vec![None; nodes.len()];
    for n in 0..200 {
        let key = format!("probe{n}");
        found[cluster.owner(cluster.slot(&format!("c:{key}")))].get_or_insert(key);
    }
    found.into_iter().flatten().collect()
}

/// Waits until each machine writes and reads at all nodes, and is told of what the others write.
fn all_in_use(machines: &[Server], probes: &[String]) {
    for (n, machine) in machines.iter().enumerate() {
        for key in probes {
            let value = format!("{key} by {n} at {}", now());
            let write = format!("uwsgi.cache_update('{key}', '{value}')");
            within("a write", || machine.run(WORKERS, &write) == "True");
            for other in machines {
                let read = format!("uwsgi.cache_get('{key}')");
                within("the change", || other.run(WORKERS, &read) == format!("b'{value}'"));
            }
        }
    }
}

/// A failover loses what a primary has said to be stored: writes wait until its replica has them.
#[test]
fn workers_of_real_uwsgis_read_nothing_older_than_the_bound_over_failovers_of_a_cluster() {
    let mut rng = Rng::with_seed(seed());
    let program = rng.choice(backend::programs()).expect("some");
    let mut cluster = Cluster::with_replicas(&program);
    let dir = tempfile::tempdir().expect("a directory");
    let stop = dir.path().join("stop");
    let options = format!(
        "enable-metrics = true\n\
         cache2 = name=c,items=100,backend={},backend_timeout=300ms,max_stale={}ms",
        cluster.url(),
        MAX_STALE.as_millis()
    );
    let machines = [(); 2].map(|()| Server::start(Flavor::Ucache, WORKERS, &options));
    let probes = probes(&cluster);
    assert_eq!(probes.len(), 3, "one at each primary: {probes:?}");
    // Never longer than an answer may take.
    let goes_on = format!("not os.path.exists('{}') and now() < start + 50_000_000_000", stop.display());
    let mut events = under_load(&machines, &goes_on, || {
        for key in [rng.u32(0..6), rng.u32(0..6)] {
            all_in_use(&machines, &probes);
            let old = cluster.owner(cluster.slot(&format!("c:k{key}")));
            let new = cluster.replica_of(old);
            cluster.drain(old, new);
            cluster.nodes[old].server.down();
            if rng.bool() {
                // The owner of the copies is not there when the replica takes over.
                machines[0].signal(Signal::SIGSTOP);
            }
            cluster.wait_for_primary(new);
            machines[0].signal(Signal::SIGCONT);
            all_in_use(&machines, &probes);
            cluster.nodes[old].server.up();
            cluster.wait_for_replica(old);
        }
        fs::write(&stop, "").expect("written");
        Vec::new()
    });
    for machine in &machines {
        let metric = |name: &str| machine.run(1, &format!("uwsgi.metric_get('cache.c.{name}')"));
        assert!(metric("near_hits") != "0" && metric("near_invalidated") != "0", "{}", machine.log());
    }
    events.sort_unstable_by_key(|event| event.began);
    let bound = u64::try_from(MAX_STALE.as_nanos()).expect("short");
    let verdict = judged(&events, &[bound, bound]);
    let unanswered = events.iter().filter(|event| event.ended == NEVER).count();
    say(&format!("{}: {unanswered} writes failed, {verdict:?}", program.display()));
    assert!(verdict.reads > 500 && verdict.writes > 100 && unanswered > 0, "{verdict:?}");
}
