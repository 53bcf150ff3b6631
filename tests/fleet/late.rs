//! Messages that come late: nothing is read that is older than the bound, and the judge refutes other
//! bounds than the machines'.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    backend::Server,
    load::{history, judged, set_as_another_client},
    machine::{Machine, Plan},
    options::{Copies, Options},
    proxy::{Address, Kind, Link, Proxy, Way},
    record::Record,
    staleness::{Event, judge},
    worker::Habits,
};

const WORKERS: usize = 2;
const KEYS: u32 = 40;

/// Two machines that hear of changes late: each value is superseded after 200 ms. `link`:
/// what the server says goes over such a one at this time.
fn late_messages(max_stale: Duration, link: impl Fn(Duration) -> Link) -> (Vec<Event>, Vec<u64>) {
    let server = Server::start();
    let record = Record::new(2 * WORKERS + 1, 50_000);
    let foreign = 2 * WORKERS;
    let habits = Habits { keys: KEYS, reads: 100, pause: Duration::from_micros(500), clears: true, seed: 17 };
    let proxies = [(); 2].map(|()| Proxy::start(Address::Unix(server.socket())));
    let machines: Vec<_> = (0..2)
        .map(|number| {
            let options = Options {
                url: proxies[number].url(),
                timeout: Duration::from_secs(20),
                copies: Copies::Told { max_stale, stale: None },
                numbered: false,
            };
            let (first_slot, address) = (number * WORKERS, None);
            let number = u32::try_from(number).expect("small");
            Machine::start(&Plan { number, first_slot, workers: WORKERS, options, habits, address }, &record)
        })
        .collect();
    machines.iter().for_each(Machine::await_workers);
    let mut client = server.client();
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed() < Duration::from_secs(4) {
        let now = link(start.elapsed());
        proxies.iter().for_each(|proxy| proxy.set(Kind::Tracking, Way::ToClient, now));
        set_as_another_client(&mut client, &record, foreign, n % KEYS);
        n += 1;
        sleep(Duration::from_millis(5));
    }
    proxies.iter().for_each(|proxy| proxy.set_all(Link::Open));
    history(machines, &record, Some(foreign))
}

#[test]
fn a_wrong_bound_is_refuted() {
    // Nothing is heard for longer than the bound, then everything at once.
    let link = |time: Duration| if time.as_millis() % 1000 < 800 { Link::Stalled } else { Link::Open };
    let (events, bounds) = late_messages(Duration::from_millis(600), link);
    let verdict = judged(&events, &bounds);
    assert!(verdict.oldest > 300_000_000, "messages were late: {verdict:?}");
    let faults = judge(&events, &[300_000_000, 300_000_000]).faults;
    assert!(faults.iter().any(|fault| fault.contains("superseded")), "half the bound");
    // As if all writes were of one machine: it would read its own writes late.
    let one: Vec<_> = events.iter().map(|event| Event { machine: 0, ..*event }).collect();
    let faults = judge(&one, &bounds).faults;
    assert!(faults.iter().any(|fault| fault.contains("own machine")), "one machine");
}

/// An answer of the server proves nothing about the moment when it is read.
#[test]
fn slow_messages_make_nothing_older() {
    let slow = Link::Slow(Duration::from_millis(150));
    let (events, bounds) = late_messages(Duration::from_millis(100), |_| slow);
    let verdict = judged(&events, &bounds);
    assert!(verdict.reads > 1000, "{verdict:?}");
}
