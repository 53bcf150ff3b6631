//! Machines in network namespaces, whose packets are dropped: no end of a connection learns that the
//! other one is gone.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::sched::{CloneFlags, unshare};

use crate::{
    backend::Server,
    engine_proc::{say, seed},
    load::{history, judged},
    machine::{Blow, Machine, Plan, ROOT},
    options::{Copies, Options},
    patience::within,
    record::Record,
    staleness::Deed,
    worker::Habits,
};

const PORT: u16 = 6379;
const MACHINES: u32 = 2;
const WORKERS: usize = 3;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; run .ci/deps all"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The host's end of the cable to a machine, which has `eth0` as its own.
fn cable(machine: u32) -> String {
    format!("m{machine}")
}

fn host(machine: u32) -> String {
    format!("10.77.{machine}.1")
}

/// The calling thread's network namespace, a hub between machines.
struct Hub;

impl Hub {
    /// A new one; the namespace ends with the thread and the processes that it forks.
    fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect(ROOT);
        run("ip", &["link", "set", "lo", "up"]);
        run(
            "nft",
            &["add table inet cut; \
               add set inet cut cables { type ifname; }; \
               add chain inet cut in { type filter hook input priority 0; }; \
               add chain inet cut out { type filter hook output priority 0; }; \
               add rule inet cut in iifname @cables drop; \
               add rule inet cut out oifname @cables drop"],
        );
        Self
    }

    fn connect(&self, machine: &Machine) {
        let (number, pid) = (machine.plan.number, machine.pid().to_string());
        let cable = cable(number);
        run("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run("ip", &["addr", "add", &format!("{}/30", host(number)), "dev", &cable]);
        run("ip", &["link", "set", &cable, "up"]);
        machine.connected();
    }

    /// Drops all packets from and to a machine, or no longer.
    fn drop_packets(&self, machine: u32, on: bool) {
        let what = if on { "add" } else { "delete" };
        run("nft", &[what, "element", "inet", "cut", "cables", &format!("{{ {} }}", cable(machine))]);
    }
}

/// Two machines while the packets of one or the other are dropped for a moment.
fn half_open(rng: &mut Rng) {
    let hub = Hub::enter();
    let server =
        Server::with(Path::new("redis-server"), PORT, &["--bind", "0.0.0.0", "--protected-mode", "no"]);
    let record = Record::new(MACHINES as usize * WORKERS, 50_000);
    let habits =
        Habits { keys: 8, reads: 80, pause: Duration::from_millis(1), clears: true, seed: rng.u64(..) };
    let machines: Vec<_> = (0..MACHINES)
        .map(|number| {
            let options = Options {
                url: format!("redis://{}:{PORT}", host(number)),
                timeout: Duration::from_millis(150),
                copies: Copies::Told { max_stale: Duration::from_millis(400), stale: None },
                numbered: false,
            };
            let plan = Plan {
                number,
                first_slot: number as usize * WORKERS,
                workers: WORKERS,
                options,
                habits,
                address: Some(format!("10.77.{number}.2/30")),
            };
            let machine = Machine::start(&plan, &record);
            hub.connect(&machine);
            machine.await_workers();
            machine
        })
        .collect();
    let mut cuts = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        let cut = rng.u32(0..MACHINES);
        hub.drop_packets(cut, true);
        sleep(Duration::from_millis(rng.u64(50..1500)));
        if rng.bool() {
            // Its connections stay open at the server: the machine cannot tell that it closed them.
            machines[cut as usize].strike(Blow::Kill, rng.usize(0..WORKERS));
        }
        hub.drop_packets(cut, false);
        sleep(Duration::from_millis(rng.u64(50..700)));
        cuts += 1;
    }
    for number in 0..MACHINES {
        let before = answered(&record, number);
        within("reads of a connected machine", || answered(&record, number) > before + 500);
    }
    let (events, bounds) = history(machines, &record, None);
    let verdict = judged(&events, &bounds);
    say(&format!("{cuts} cuts: {verdict:?}"));
    assert!(verdict.reads > 1000 && verdict.writes > 200, "{verdict:?}");
    drop(server);
}

/// Reads of a machine that got an answer.
fn answered(record: &Record, machine: u32) -> usize {
    let mut events = Vec::new();
    for slot in 0..WORKERS {
        record.events(machine as usize * WORKERS + slot, machine, &mut events);
    }
    events.iter().filter(|event| matches!(event.deed, Deed::Read { .. })).count()
}

#[test]
fn dropped_packets_make_nothing_older() {
    let mut rng = Rng::with_seed(seed());
    // The namespace is the thread's.
    scope(|threads| threads.spawn(|| half_open(&mut rng)).join().expect("no panic"));
}
