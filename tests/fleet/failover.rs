//! Machines whose server is found by sentinels, under load, while the primary is stopped or killed
//! again and again.
//!
//! A failover of Sentinel may lose what the primary has said to be stored. Here it loses nothing:
//! writes wait until the replica has them all. So what the machines read shows whether they follow.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::{
    engine_proc::{say, seed},
    load::{history, judged},
    machine::{Blow, Machine, Plan},
    options::{Copies, Options},
    patience::within,
    record::Record,
    sentinel::{Service, is_replica},
    staleness::Deed,
    worker::Habits,
};

const WORKERS: usize = 2;

/// Told of changes, told and with old copies while the server is down, and without copies.
fn options(service: &Service) -> [Options; 3] {
    let told = |stale| Copies::Told { max_stale: Duration::from_millis(300), stale };
    [told(None), told(Some(Duration::from_secs(1))), Copies::None].map(|copies| Options {
        url: service.url(),
        timeout: Duration::from_millis(300),
        copies,
        numbered: false,
    })
}

/// Reads and writes of a machine that were answered.
pub(crate) fn answered(record: &Record, machine: u32) -> (usize, usize) {
    let mut events = Vec::new();
    for slot in 0..WORKERS {
        record.events(machine as usize * WORKERS + slot, machine, &mut events);
    }
    let reads = events.iter().filter(|event| matches!(event.deed, Deed::Read { .. })).count();
    (reads, events.len() - reads)
}

#[test]
fn nothing_older_than_the_bound_is_read_over_failovers() {
    let mut rng = Rng::with_seed(seed());
    let mut service = Service::start();
    let all = options(&service);
    let record = Record::new(all.len() * WORKERS, 100_000);
    let habits =
        Habits { keys: 8, reads: 80, pause: Duration::from_millis(2), clears: true, seed: rng.u64(..) };
    let machines: Vec<_> = (0..)
        .zip(all)
        .map(|(number, options)| {
            let first_slot = number as usize * WORKERS;
            let plan = Plan { number, first_slot, workers: WORKERS, options, habits, address: None };
            Machine::start(&plan, &record)
        })
        .collect();
    machines.iter().for_each(Machine::await_workers);
    let in_use = |record: &Record| {
        for number in 0..3 {
            let before = answered(record, number);
            within("answers to a machine", || {
                let now = answered(record, number);
                now.0 > before.0 + 200 && now.1 > before.1 + 20
            });
        }
    };
    let (mut primary, start) = (0, Instant::now());
    for kills in [true, false] {
        in_use(&record);
        let (old, new) = (primary, 1 - primary);
        service.drain(old, new);
        if kills {
            service.servers[old].0.down();
        } else {
            service.servers[old].0.freeze(true);
        }
        if rng.bool() {
            // A machine without its owner, or with another one, when the new primary is found.
            let owner = machines[0].owner().unwrap_or(0);
            machines[0].strike(Blow::Kill, owner);
        }
        service.wait_for_primary(new);
        in_use(&record);
        let port = service.servers[new].1.to_string();
        if kills {
            service.servers[old].0.up();
            service.servers[old].0.ask(["REPLICAOF", "127.0.0.1", &port]);
        } else {
            // It goes on as a primary, which it is no more, until a sentinel tells it.
            service.servers[old].0.freeze(false);
            service.servers[old].0.ask(["CLIENT", "UNPAUSE"]);
        }
        in_use(&record);
        within("the old primary is a replica", || is_replica(&service.servers[old].0));
        service.wait_for_sentinels();
        primary = new;
    }
    let (events, bounds) = history(machines, &record, None);
    let verdict = judged(&events, &bounds);
    say(&format!("2 failovers in {:?}: {verdict:?}", start.elapsed()));
    assert!(verdict.reads > 1000 && verdict.writes > 200, "{verdict:?}");
}
