//! Several machines with caches in front of one server: random load under kills, stops and cut
//! links, judged as histories.

#[path = "../support/backend.rs"]
mod backend;
#[path = "../support/cluster.rs"]
mod cluster;
mod clusters;
#[path = "../support/engine_proc.rs"]
mod engine_proc;
mod failover;
mod judge;
mod late;
mod linear;
mod load;
mod machine;
mod network;
mod options;
#[path = "../support/patience.rs"]
mod patience;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/proxy.rs"]
mod proxy;
mod record;
#[path = "../support/sentinel.rs"]
mod sentinel;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/server.rs"]
mod server;
#[path = "../support/staleness.rs"]
mod staleness;
mod uwsgi;
mod worker;
