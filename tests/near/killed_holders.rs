//! The holder of a lease is killed at each of its system calls, and at instructions between them:
//! what the server and the region hold changes at different ones. Another process gets the value.
//!
//! `UCACHE_KILLS=1000` sets the number of instructions.

use std::time::Duration;

use ucache::Cache;

use crate::{
    backend::Server,
    copies::{machine, patient},
    engine_proc::{alone, say},
    engine_step::{Stepped, pin},
};

/// How long a process waits for a value: far longer than the lease of a holder on another machine,
/// and shorter than that of one on its own.
const PATIENCE: Duration = Duration::from_secs(60);
/// A lease that does not end before the test does.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(200);

/// Two machines and their server.
struct Fleet {
    server: Server,
    machines: [Cache; 2],
    /// Number of the next key.
    next: u32,
}

impl Fleet {
    fn start() -> Self {
        let server = Server::start();
        let machines = [1, 2].map(|n| machine(&format!("killed holder {n}"), patient(server.url())));
        let fleet = Self { server, machines, next: 0 };
        // The server knows the scripts.
        fleet.machines[0].get_or_set_with("warm", |_| "v").expect("a value");
        fleet
    }

    /// A worker of the first machine that is about to compute the value of a new key, under a lease
    /// of this length.
    fn holder(&mut self, lease: Duration) -> (Stepped, String) {
        self.next += 1;
        let (key, c) =
            (format!("k{}", self.next), self.machines[0].clone().with_fill_limits(lease, PATIENCE));
        let prepare = || assert!(c.contains("warm"), "it has a connection");
        let holder = Stepped::new(prepare, || {
            c.get_or_set_with(&key, |_| "by the holder").expect("a value");
        });
        (holder, key)
    }

    /// Another process of machine `at` gets the value of a key whose holder is dead: nobody waits for
    /// the end of a lease that is of the own machine. Returns whether it computed.
    fn succeed(&self, at: usize, key: &str, what: &str) -> bool {
        let c = self.machines[at].clone().with_fill_limits(LONG, PATIENCE);
        let mut has_computed = false;
        let got = c.get_or_set_with(key, |_| {
            has_computed = true;
            "by another"
        });
        let expected = if has_computed { "by another" } else { "by the holder" };
        assert_eq!(got.expect(what), expected.as_bytes(), "{what}");
        // Who had waited in vain would have stored nothing.
        assert_eq!(self.server.ask(["GET", &format!("p:{key}")]), expected, "{what}");
        for c in &self.machines {
            assert_eq!(c.get_str(key).expect(what).as_deref(), Some(expected), "{what}");
        }
        has_computed
    }
}

/// Kills a holder where `reach` leaves it, once for a successor on each machine.
fn kill(fleet: &mut Fleet, what: &str, reach: impl Fn(&mut Stepped)) -> usize {
    let mut computed = 0;
    for (at, lease) in [(0, LONG), (1, SHORT)] {
        let (mut holder, key) = fleet.holder(lease);
        reach(&mut holder);
        holder.kill();
        computed += usize::from(fleet.succeed(at, &key, &format!("{what}, machine {at}")));
    }
    computed
}

#[test]
fn a_holder_that_is_killed_anywhere_is_replaced() {
    let _alone = alone();
    pin();
    let mut fleet = Fleet::start();
    let (mut whole, key) = fleet.holder(LONG);
    let mut calls = 0_u64;
    while whole.next_system_call() {
        calls += 1;
    }
    whole.kill();
    assert!(!fleet.succeed(0, &key, "nobody was killed"));
    let mut computed = 0;
    for call in 0..=calls {
        computed += kill(&mut fleet, &format!("at system call {call} of {calls}"), |holder| {
            // It may be done with fewer.
            (0..call).all(|_| holder.next_system_call());
        });
    }
    let (mut whole, _) = fleet.holder(LONG);
    while whole.step() {}
    let steps = whole.steps;
    whole.kill();
    let kills =
        std::env::var("UCACHE_KILLS").map_or(24, |text| text.parse::<u64>().expect("UCACHE_KILLS: a number"));
    for n in 0..kills {
        let target = steps * n / kills + fastrand::u64(0..=steps / kills);
        computed += kill(&mut fleet, &format!("after {target} of {steps} instructions"), |holder| {
            while holder.steps < target && holder.step() {}
        });
    }
    let all = 2 * (usize::try_from(calls + 1 + kills).expect("few"));
    say(&format!("{calls} system calls, {steps} instructions: {computed} of {all} values by another"));
    // Some had stored their value, most had not.
    assert!(computed > all / 3 && computed < all, "{computed} of {all}");
}
