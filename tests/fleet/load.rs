//! Random load on several machines while their processes, links and server are struck; what they did
//! is judged as a history.
//!
//! `UCACHE_FLEET_MINUTES=60` sets the duration, `UCACHE_SEED` repeats the random choices of a run.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::{
    backend::{Client, Server, programs},
    engine_proc::{say, seed},
    machine::{Blow, Machine, Plan},
    options::Options,
    ports::free_port,
    proxy::{Address, Kind, Link, Proxy, Way},
    record::{Done, Record},
    staleness::{EVERY_KEY, Event, NOBODY, Value, Verdict, judge},
    worker::{Habits, foreign_value, key_name},
};

/// How long one fleet is under load.
const EPISODE: Duration = Duration::from_secs(10);
/// The most operations of one worker in an episode.
const MOST: usize = 100_000;

/// What is undone later.
enum Undo {
    Continue { machine: usize, worker: usize },
    Open { machine: usize },
    Thaw,
}

/// Counts of a run.
#[derive(Debug, Default)]
struct Sum {
    fleets: u64,
    verdict: Verdict,
    kills: u64,
    stops: u64,
    freezes: u64,
    links: u64,
    flushes: u64,
    restarts: u64,
    foreign: u64,
}

/// Machines, the proxies through which they see the server, and a client that is no machine.
struct Fleet {
    server: Server,
    proxies: Vec<Proxy>,
    machines: Vec<Machine>,
    record: Record,
    /// The slot of what no machine did.
    foreign: usize,
    keys: u32,
    /// Keys carry a number.
    numbered: bool,
    /// The longest time between two strikes, milliseconds.
    calm: u64,
    /// The most writes of the other client between two strikes.
    busy: u32,
    /// Workers are killed, one after the other, and nothing else is done.
    storm: bool,
    undo: Vec<(Instant, Undo)>,
    frozen: bool,
}

impl Fleet {
    fn start(rng: &mut Rng, storm: bool) -> Self {
        let program = rng.choice(programs()).expect("some");
        let port = free_port();
        let server = Server::with(&program, port, &[]);
        let count = rng.usize(2..=4);
        let workers: Vec<_> = (0..count).map(|_| rng.usize(2..=3)).collect();
        let foreign = workers.iter().sum();
        let record = Record::new(foreign + 1, MOST);
        let habits = Habits {
            keys: *rng.choice(&[3, 10, 60]).expect("some"),
            reads: *rng.choice(&[60, 90, 99]).expect("some"),
            pause: Duration::from_micros(rng.u64(300..3000)),
            clears: true,
            seed: rng.u64(..),
        };
        let numbered = rng.u8(0..3) == 0;
        let proxies: Vec<_> = (0..count)
            .map(|_| {
                let (unix, tcp) = (Address::Unix(server.socket()), Address::local(port));
                if rng.bool() { Proxy::start(unix) } else { Proxy::at(Address::local(free_port()), tcp) }
            })
            .collect();
        let mut first_slot = 0;
        let mut machines = Vec::new();
        for (number, (&workers, proxy)) in (0..).zip(workers.iter().zip(&proxies)) {
            let options = Options::random(proxy.url(), numbered, rng);
            let plan = Plan { number, first_slot, workers, options, habits, address: None };
            first_slot += workers;
            machines.push(Machine::start(&plan, &record));
        }
        machines.iter().for_each(Machine::await_workers);
        // Where little is written, what is lost is seen for longer.
        let (keys, busy) = (habits.keys, rng.u32(0..10));
        let calm = if storm { 3 } else { rng.u64(40..400) };
        Self {
            server,
            proxies,
            machines,
            record,
            foreign,
            keys,
            numbered,
            calm,
            busy,
            storm,
            undo: Vec::new(),
            frozen: false,
        }
    }

    fn later(&mut self, time: Duration, undo: Undo) {
        self.undo.push((Instant::now() + time, undo));
    }

    fn undo(&mut self, all: bool) {
        let now = Instant::now();
        let due = |undo: &mut (Instant, Undo)| all || undo.0 <= now;
        for (_, undo) in self.undo.extract_if(.., due) {
            match undo {
                Undo::Continue { machine, worker } => self.machines[machine].strike(Blow::Continue, worker),
                Undo::Open { machine } => {
                    self.proxies[machine].set_all(Link::Open);
                    self.proxies[machine].refuse(false);
                }
                Undo::Thaw => {
                    self.server.freeze(false);
                    self.frozen = false;
                }
            }
        }
    }

    /// Writes of a client that has no ucache.
    fn write_as_another_client(&self, rng: &mut Rng, sum: &mut Sum) {
        let mut client = self.server.client();
        for _ in 0..rng.u32(0..=self.busy) {
            let key = rng.u32(0..self.keys);
            if self.numbered {
                self.write_under_number(&mut client, key, rng.u8(0..4) > 0);
            } else if rng.u8(0..4) > 0 {
                set_as_another_client(&mut client, &self.record, self.foreign, key);
            } else {
                let name = format!("c:{}", key_name(key));
                self.make_absent(key, || _ = client.ask(["DEL", &name]));
            }
            sum.foreign += 1;
        }
    }

    /// Writes a key, or deletes it, under the number in force. Without one there is no key to write.
    fn write_under_number(&self, client: &mut Client, key: u32, sets: bool) {
        const WRITE: &str = "local g = redis.call('GET', 'c:#gen')
if not g then return 0 end
local k = 'c:' .. g .. ':' .. ARGV[1]
if ARGV[2] == '' then redis.call('DEL', k) else redis.call('SET', k, ARGV[2]) end
return 1";
        let name = key_name(key);
        let (value, bytes) =
            if sets { foreign_value(&self.record, self.foreign) } else { (Value::Absent, Vec::new()) };
        self.record.note(self.foreign, key, Done::Perhaps(value, 0), || {
            let words = [b"EVAL", WRITE.as_bytes(), b"0", name.as_bytes(), &bytes];
            if client.ask(words) == "1" { Done::Wrote(value, 0) } else { Done::Nothing }
        });
    }

    fn make_absent(&self, key: u32, f: impl FnOnce()) {
        self.record.note(self.foreign, key, Done::Perhaps(Value::Absent, 0), || {
            f();
            Done::Wrote(Value::Absent, 0)
        });
    }

    /// Something bad, for a moment.
    fn strike(&mut self, rng: &mut Rng, sum: &mut Sum) {
        let machine = rng.usize(0..self.machines.len());
        let any = rng.usize(0..self.machines[machine].plan.workers);
        let worker = if rng.bool() { any } else { self.machines[machine].owner().unwrap_or(any) };
        let moment = Duration::from_millis(rng.u64(5..700));
        match if self.storm { 0 } else { rng.u8(0..20) } {
            0..6 => self.machines[machine].strike(Blow::Kill, worker),
            6..9 => {
                sum.stops += 1;
                self.machines[machine].strike(Blow::Stop, worker);
                self.later(moment * 3, Undo::Continue { machine, worker });
            }
            9..11 if !self.frozen => {
                sum.freezes += 1;
                self.server.freeze(true);
                self.frozen = true;
                self.later(moment, Undo::Thaw);
            }
            11..16 => {
                sum.links += 1;
                self.harm_link(rng, machine);
                self.later(moment * 2, Undo::Open { machine });
            }
            16..18 if !self.frozen => {
                sum.flushes += 1;
                let words = if rng.bool() { "FLUSHALL" } else { "FLUSHDB" };
                let mut client = self.server.client();
                self.make_absent(EVERY_KEY, || assert_eq!(client.ask([words]), "OK"));
            }
            18 if !self.frozen => {
                sum.restarts += 1;
                let server = &mut self.server;
                self.record.note(self.foreign, EVERY_KEY, Done::Perhaps(Value::Absent, 0), || {
                    server.down();
                    sleep(moment / 2);
                    server.up();
                    Done::Wrote(Value::Absent, 0)
                });
            }
            19 if !self.frozen => _ = self.server.ask(["CLIENT", "KILL", "TYPE", "normal"]),
            _ => {}
        }
    }

    fn harm_link(&self, rng: &mut Rng, machine: usize) {
        let proxy = &self.proxies[machine];
        let kind = if rng.bool() { Kind::Data } else { Kind::Tracking };
        let way = if rng.bool() { Way::ToServer } else { Way::ToClient };
        match rng.u8(0..6) {
            0 => proxy.cut(kind),
            1 => {
                proxy.refuse(true);
                proxy.cut(Kind::Data);
                proxy.cut(Kind::Tracking);
            }
            2 => proxy.set_all(Link::Lost),
            3 => proxy.set(kind, way, Link::Slow(Duration::from_millis(rng.u64(1..400)))),
            4 => proxy.set(kind, way, Link::Stalled),
            _ => proxy.set(kind, way, Link::Lost),
        }
    }

    fn end(mut self, sum: &mut Sum) {
        self.undo(true);
        sum.kills += self.machines.iter().map(Machine::kills).sum::<u64>();
        let (events, bounds) = history(self.machines, &self.record, Some(self.foreign));
        let verdict = judged(&events, &bounds);
        sum.fleets += 1;
        sum.verdict.writes += verdict.writes;
        sum.verdict.reads += verdict.reads;
        sum.verdict.stale += verdict.stale;
        sum.verdict.oldest = sum.verdict.oldest.max(verdict.oldest);
    }
}

/// A write of a client that has no ucache, in a slot of its own.
pub(crate) fn set_as_another_client(client: &mut Client, record: &Record, slot: usize, key: u32) {
    let name = format!("c:{}", key_name(key));
    let (value, bytes) = foreign_value(record, slot);
    record.note(slot, key, Done::Perhaps(value, 0), || {
        assert_eq!(client.ask([b"SET", name.as_bytes(), &bytes]), "OK");
        Done::Wrote(value, 0)
    });
}

/// Ends the machines; returns what they did, and their bounds.
pub(crate) fn history(
    machines: Vec<Machine>,
    record: &Record,
    foreign: Option<usize>,
) -> (Vec<Event>, Vec<u64>) {
    let (mut events, mut bounds) = (Vec::new(), Vec::new());
    for machine in machines {
        let Plan { number, first_slot, workers, .. } = machine.plan;
        bounds.push(machine.plan.options.bound());
        assert_eq!(machine.end(), 0, "processes of machine {number} failed");
        for slot in first_slot..first_slot + workers {
            record.events(slot, number, &mut events);
        }
    }
    if let Some(slot) = foreign {
        record.events(slot, NOBODY, &mut events);
    }
    (events, bounds)
}

/// What a history shows, without a fault.
pub(crate) fn judged(events: &[Event], bounds: &[u64]) -> Verdict {
    let verdict = judge(events, bounds);
    let shown = verdict.faults.len().min(10);
    assert!(
        verdict.faults.is_empty(),
        "{} faults\n{}",
        verdict.faults.len(),
        verdict.faults[..shown].join("\n")
    );
    verdict
}

fn duration() -> Duration {
    let minutes = std::env::var("UCACHE_FLEET_MINUTES")
        .map_or(1.0, |text| text.parse().expect("UCACHE_FLEET_MINUTES: a number"));
    Duration::from_secs_f64(minutes * 60.0)
}

#[test]
fn nothing_older_than_the_bound_is_read() {
    let (mut rng, mut sum, start) = (Rng::with_seed(seed()), Sum::default(), Instant::now());
    while start.elapsed() < duration() {
        let mut fleet = Fleet::start(&mut rng, sum.fleets % 4 == 1);
        let begun = Instant::now();
        while begun.elapsed() < EPISODE {
            sleep(Duration::from_millis(rng.u64(0..fleet.calm)));
            fleet.undo(false);
            fleet.strike(&mut rng, &mut sum);
            if !fleet.frozen {
                fleet.write_as_another_client(&mut rng, &mut sum);
            }
        }
        fleet.end(&mut sum);
    }
    say(&format!("{sum:?}"));
    assert!(sum.verdict.reads > 1000 && sum.verdict.writes > 500 && sum.kills > 5, "{sum:?}");
}
