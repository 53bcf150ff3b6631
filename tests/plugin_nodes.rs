//! Caches of several servers: replication by UDP and `cache@host:port`, two native servers and two
//! with ucache.

#[path = "support/patience.rs"]
mod patience;
#[path = "support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "support/server.rs"]
mod server;

use patience::within;
use ports::free_address;
use server::{Flavor, Server};

/// Runs `source` in a server that sends its changes to another one, and `question` there once they
/// have arrived.
fn replicated(flavor: Flavor, source: &str, question: &str) -> String {
    let address = free_address();
    let cache = "cache2 = name=c,items=100,blocksize=100000";
    let receiver = Server::start(flavor, 1, &format!("{cache},udp={address},udp_clear=1"));
    let sender = Server::start(flavor, 1, &format!("{cache},nodes={address}"));
    // datagrams may be lost while the receiver starts
    within("a first change arrives", || {
        sender.run(1, "uwsgi.cache_update('first', 'v')");
        receiver.run(1, "uwsgi.cache_get('first')") == "b'v'"
    });
    assert_eq!(sender.run(1, source), "", "{}", sender.log());
    assert_eq!(sender.run(1, "uwsgi.cache_update('last', 'v')"), "True");
    within("the last change arrives", || receiver.run(1, "uwsgi.cache_get('last')") == "b'v'");
    receiver.run(1, question)
}

#[test]
fn nodes_hear_of_every_change() {
    let both = |source: &str, question: &str| {
        [Flavor::Native, Flavor::Ucache].map(|flavor| replicated(flavor, source, question))
    };
    let set = both("r = uwsgi.cache_set('k', 'v', 1000)", "uwsgi.cache_get('k')");
    assert_eq!(set, ["b'v'", "b'v'"]);
    let deleted = both("r = uwsgi.cache_set('k', 'v')\nr = uwsgi.cache_del('k')", "uwsgi.cache_get('k')");
    assert_eq!(deleted, ["b'v'", "None"]);
    let large = both("r = uwsgi.cache_set('k', 'v' * 70000)", "len(uwsgi.cache_get('k') or b'')");
    assert_eq!(large, ["4464", "0"]);
    let counted = both("for n in range(3): uwsgi.cache_inc('n', 5)", "uwsgi.cache_num('n')");
    assert_eq!(counted, ["5", "15"]);
    let cleared = both("r = uwsgi.cache_set('k', 'v')\nr = uwsgi.cache_clear()", "uwsgi.cache_get('k')");
    assert_eq!(cleared, ["b'v'", "None"]);
}

#[test]
fn a_remote_counter_counts() {
    for (flavor, sum) in [(Flavor::Native, "5"), (Flavor::Ucache, "15")] {
        let address = free_address();
        let options =
            format!("plugin = cache\nsocket = {address}\nmap-socket = 1:1\ncache2 = name=c,items=100");
        let there = Server::start(flavor, 1, &options);
        let here = Server::start(flavor, 1, "cache2 = name=own,items=100");
        let name = format!("c@{address}");
        assert_eq!(here.run(1, &format!("uwsgi.cache_set('k', 'v', 0, '{name}')")), "True");
        assert_eq!(
            here.run(1, &format!("uwsgi.cache_get('k', '{name}'), uwsgi.cache_exists('k', '{name}')")),
            "(b'v', True)"
        );
        let counted = here.run(1, &format!("[uwsgi.cache_inc('n', 5, 0, '{name}') for _ in range(3)]"));
        assert_eq!(counted, "[True, True, True]");
        assert_eq!(
            there.run(1, "uwsgi.cache_num('n'), uwsgi.cache_get('k')"),
            format!("({sum}, b'v')"),
            "{flavor:?}"
        );
        assert_eq!(
            here.run(1, &format!("uwsgi.cache_del('k', '{name}'), uwsgi.cache_clear('{name}')")),
            "(True, True)"
        );
        assert_eq!(there.run(1, "uwsgi.cache_keys()"), "[]");
    }
}
