//! `make bench`: ucache against uWSGI's own cache and against what a user would pick instead, in one run.
//! `ucache-bench FOLDER [quick] [rounds=N] PART...`; the figures go to FOLDER, the parts are uwsgi, peers and memory, and
//! readme, which only writes the README's tables from the documentation's.

#![allow(clippy::disallowed_macros, reason = "a bench prints its figures")]

#[path = "../../../tests/support/engine_proc.rs"]
mod engine_proc;
#[path = "../../support/floor.rs"]
mod floor;
mod host;
mod load;
mod memory;
mod peers;
mod plot;
#[path = "../../../tests/support/ports.rs"]
mod ports;
mod report;
mod scripts;
mod server;
mod stores;
#[path = "../../support/mod.rs"]
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
    let rounds = rest.iter().find_map(|word| word.strip_prefix("rounds="));
    let rounds = rounds.map_or(if quick { 1 } else { 5 }, |n| n.parse().expect("rounds=N"));
    let effort = Effort { quick, rounds };
    for part in rest.iter().filter(|word| *word != "quick" && !word.starts_with("rounds=")) {
        let report = match part.as_str() {
            "uwsgi" => uwsgi::run(effort),
            "peers" => peers::run(effort),
            "memory" => memory::run(effort),
            "readme" => {
                report::readme();
                continue;
            }
            other => panic!("no part {other}: uwsgi, peers, memory, readme"),
        };
        report.finish(&folder, quick);
    }
}
