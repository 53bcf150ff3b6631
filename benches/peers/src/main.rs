//! `make bench`: ucache against uWSGI's own cache and against what a user would pick instead, in one run.
//! `ucache-bench FOLDER [quick] PART...`; the figures go to FOLDER, the parts are uwsgi, peers and memory.

#[path = "../../../tests/support/engine_proc.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod engine_proc;
mod host;
mod load;
mod memory;
mod peers;
mod plot;
mod report;
mod server;
mod stores;
#[path = "../../support/mod.rs"]
#[allow(dead_code, reason = "shared with the other benches")]
mod support;
mod uwsgi;
mod wire;

use std::path::PathBuf;

/// How long and how often.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) quick: bool,
    /// Rounds of every comparison; the sides take turns.
    pub(crate) rounds: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("a folder for the figures"));
    let rest: Vec<_> = arguments.collect();
    let quick = rest.iter().any(|word| word == "quick");
    let effort = Effort { quick, rounds: if quick { 1 } else { 5 } };
    for part in rest.iter().filter(|word| *word != "quick") {
        let report = match part.as_str() {
            "uwsgi" => uwsgi::run(effort),
            "peers" => peers::run(effort),
            "memory" => memory::run(effort),
            other => panic!("no part {other}: uwsgi, peers, memory"),
        };
        report.finish(&folder, quick);
    }
}
