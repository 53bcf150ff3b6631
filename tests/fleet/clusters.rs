//! Machines whose values are in a cluster, under load, while slots move and primaries are stopped or
//! killed.
//!
//! A failover of a cluster may lose what a primary has said to be stored. Here it loses nothing:
//! writes wait until the replica has them all. So what the machines read shows whether they follow.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::{
    backend,
    cluster::Cluster,
    engine_proc::{say, seed},
    failover::answered,
    load::{history, judged, set_as_another_client},
    machine::{Blow, Machine, Plan},
    options::{Copies, Options},
    patience::within,
    record::Record,
    worker::{Habits, key_name},
};

const WORKERS: usize = 2;
const KEYS: u32 = 12;

/// Told of changes, told and with old copies while a node is down, and without copies.
fn options(cluster: &Cluster) -> [Options; 3] {
    let told = |stale| Copies::Told { max_stale: Duration::from_millis(300), stale };
    [told(None), told(Some(Duration::from_secs(1))), Copies::None].map(|copies| Options {
        url: cluster.url(),
        timeout: Duration::from_millis(300),
        numbered: false,
        copies,
    })
}

/// Machines under load, and what they did.
struct Load {
    machines: Vec<Machine>,
    record: Record,
    /// The slot of what no machine did.
    foreign: usize,
}

impl Load {
    fn start(cluster: &Cluster, rng: &mut Rng) -> Self {
        let all = options(cluster);
        let foreign = all.len() * WORKERS;
        let record = Record::new(foreign + 1, 100_000);
        // A clear goes over the nodes one by one, and does not see a key that moves meanwhile.
        let habits = Habits {
            keys: KEYS,
            reads: 80,
            pause: Duration::from_millis(2),
            clears: false,
            seed: rng.u64(..),
        };
        let machines: Vec<_> = (0..)
            .zip(all)
            .map(|(number, options)| {
                let first_slot = number as usize * WORKERS;
                let plan = Plan { number, first_slot, workers: WORKERS, options, habits, address: None };
                Machine::start(&plan, &record)
            })
            .collect();
        machines.iter().for_each(Machine::await_workers);
        Self { machines, record, foreign }
    }

    /// Waits until each machine has got so many answers.
    fn in_use(&self) {
        for machine in &self.machines {
            let number = machine.plan.number;
            let before = answered(&self.record, number);
            within("answers to a machine", || {
                let now = answered(&self.record, number);
                now.0 > before.0 + 100 && now.1 > before.1 + 10
            });
        }
    }

    fn end(self, what: &str) {
        let (events, bounds) = history(self.machines, &self.record, Some(self.foreign));
        let verdict = judged(&events, &bounds);
        say(&format!("{what}: {verdict:?}"));
        assert!(verdict.reads > 1000 && verdict.writes > 200, "{verdict:?}");
    }
}

/// One with three primaries and one without slots; the programs take turns.
fn any(rng: &mut Rng) -> std::path::PathBuf {
    rng.choice(backend::programs()).expect("some")
}

#[test]
fn nothing_older_than_the_bound_is_read_while_slots_move() {
    let mut rng = Rng::with_seed(seed());
    let program = any(&mut rng);
    let mut cluster = Cluster::of_primaries(&program);
    let load = Load::start(&cluster, &mut rng);
    load.in_use();
    let start = Instant::now();
    for round in 0..40 {
        if round == 10 {
            // One that no machine has heard of.
            cluster.add(&program);
        }
        let key = rng.u32(0..KEYS);
        let slot = cluster.slot(&format!("c:{}", key_name(key)));
        let from = cluster.owner(slot);
        let to = (from + rng.usize(1..cluster.nodes.len())) % cluster.nodes.len();
        cluster.move_slot(slot, from, to);
        // What its new node stores must be heard.
        let mut client = cluster.nodes[to].server.client();
        set_as_another_client(&mut client, &load.record, load.foreign, key);
        if rng.u8(0..4) == 0 {
            let machine = rng.usize(0..2);
            let owner = load.machines[machine].owner().unwrap_or(0);
            load.machines[machine].strike(Blow::Kill, owner);
        }
        load.in_use();
    }
    load.end(&format!("{}: 40 slots moved in {:?}", program.display(), start.elapsed()));
}

#[test]
fn nothing_older_than_the_bound_is_read_over_failovers_of_a_cluster() {
    let mut rng = Rng::with_seed(seed());
    let program = any(&mut rng);
    let mut cluster = Cluster::with_replicas(&program);
    let load = Load::start(&cluster, &mut rng);
    let start = Instant::now();
    for kills in [true, false, true] {
        load.in_use();
        let slot = cluster.slot(&format!("c:{}", key_name(rng.u32(0..KEYS))));
        let old = cluster.owner(slot);
        let new = cluster.replica_of(old);
        cluster.drain(old, new);
        if kills {
            cluster.nodes[old].server.down();
        } else {
            cluster.nodes[old].server.freeze(true);
        }
        if rng.bool() {
            let owner = load.machines[0].owner().unwrap_or(0);
            load.machines[0].strike(Blow::Kill, owner);
        }
        cluster.wait_for_primary(new);
        load.in_use();
        if kills {
            cluster.nodes[old].server.up();
        } else {
            // It goes on as a primary, which it is no more, until it hears of the other.
            cluster.nodes[old].server.freeze(false);
            let _ = cluster.nodes[old].server.try_ask(["CLIENT", "UNPAUSE"]);
        }
        cluster.wait_for_replica(old);
    }
    load.in_use();
    load.end(&format!("{}: 3 failovers in {:?}", program.display(), start.elapsed()));
}
