//! The route action `ucache:`: a response cache in a real uWSGI.

#[path = "../support/patience.rs"]
mod patience;
#[path = "../support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/server.rs"]
mod server;
mod site;

mod basics;
mod beside;
mod cases;
mod cheaper;
mod errors;
mod frameworks;
mod hostile;
mod keys;
mod kills;
mod leaving;
mod loops;
mod memory;
mod mules;
mod programs;
mod purges;
mod routes;
mod seen;
mod stale;
mod variants;
mod waits;
