//! `make bench`: ucache against uWSGI's own cache and against what a user would pick instead, in
//! one run. `ucache-bench FOLDER [quick] [keep] [rounds=N] PART...`; the figures go to FOLDER, the
//! parts are uwsgi, peers, memory, workers and near, and documents, which only writes what README and
//! documentation say from benches/results.

#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

mod contenders;
#[path = "../../../tests/support/engine_proc.rs"]
mod engine_proc;
#[path = "../../support/floor.rs"]
mod floor;
#[path = "../../support/histories.rs"]
mod histories;
mod host;
mod load;
mod matrix;
mod memory;
mod near;
mod near_clients;
#[path = "../../../tests/support/patience.rs"]
mod patience;
mod peers;
mod plot;
#[path = "../../../tests/support/ports.rs"]
mod ports;
#[path = "../../support/processor.rs"]
mod processor;
#[path = "../../support/quiet.rs"]
mod quiet;
mod report;
#[path = "../../support/results.rs"]
mod results;
mod row;
mod scripts;
mod server;
#[path = "../../support/simulation.rs"]
mod simulation;
mod stores;
#[path = "../../support/mod.rs"]
mod support;
mod uwsgi;
mod wire;
mod workers;

use std::path::PathBuf;

use report::Keeping;

/// How long and how often.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) quick: bool,
    /// Rounds of every comparison; the sides take turns at going first, so an even number is fair.
    pub(crate) rounds: usize,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("a folder for the figures"));
    let rest: Vec<_> = arguments.collect();
    let has = |option: &str| rest.iter().any(|word| word == option);
    let rounds = rest.iter().find_map(|word| word.strip_prefix("rounds="));
    let rounds = rounds.map_or(if has("quick") { 1 } else { 6 }, |n| n.parse().expect("rounds=N"));
    let effort = Effort { quick: has("quick"), rounds };
    let keeping = Keeping { folder: &folder, quick: effort.quick, anyway: has("keep") };
    let is_part =
        |word: &&String| !["quick", "keep"].contains(&word.as_str()) && !word.starts_with("rounds=");
    for part in rest.iter().filter(is_part) {
        let report = match part.as_str() {
            "uwsgi" => uwsgi::run(effort),
            "peers" => peers::run(effort),
            "memory" => memory::run(effort),
            "workers" => workers::run(effort),
            "near" => near::run(effort),
            "documents" => {
                report::documents();
                continue;
            }
            other => panic!("no part {other}: uwsgi, peers, memory, workers, near, documents"),
        };
        report.finish(keeping);
    }
}
