//! The differential oracle: one script runs on uWSGI's own cache and on ucache, inside two real uWSGIs, and every answer is
//! compared.
//!
//! A seed makes the script, operation by operation, with two models: native with its habits, ucache without. A difference
//! has a number (`src/docs/compat.md`) and both sides of it are foreseen to the bit; what has been brought apart is deleted
//! on both sides before long. So a rule allows one pair of answers, not any.
//!
//! `UCACHE_ORACLE_OPS` (operations of each version, default 700,000) and `UCACHE_SEED` choose another run.
#![cfg(feature = "uwsgi")]

mod blocks;
mod compare;
mod config;
mod host;
mod model;
mod native;
mod op;
mod pair;
mod script;
mod ucache;

use std::path::{Path, PathBuf};

use compare::Tally;
use host::{Host, Version};
use model::Side;
use script::Script;

const CHUNK: usize = 20_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Runs the script on both; returns the table.
fn run(version: &Version) -> String {
    let (ops, seed) = (number("UCACHE_ORACLE_OPS", 700_000), number("UCACHE_SEED", 1));
    let mut native = Host::start(Side::Native, version);
    let mut ucache = Host::start(Side::Ucache, version);
    let (mut script, mut tally) = (Script::new(seed), Tally::default());
    let mut steps = script.chunk(CHUNK);
    while tally.steps < ops {
        native.send(steps.iter().map(|step| step.native_op));
        ucache.send(steps.iter().map(|step| step.op));
        // While they run it, the next one is made.
        let next = script.chunk(CHUNK);
        let (n, u) = (native.answers(steps.len()), ucache.answers(steps.len()));
        for ((step, n), u) in steps.into_iter().zip(&n).zip(&u) {
            if let Err(report) = tally.compare(step, n, u) {
                panic!("UCACHE_SEED={seed}: {report}{}", ucache.complaints());
            }
        }
        steps = next;
    }
    let table = tally.table();
    println!("{}, seed {seed}: {table}", version.program.display());
    table
}

#[test]
fn debian() {
    let program = std::env::var_os("UWSGI_BIN").map_or_else(|| PathBuf::from("uwsgi"), PathBuf::from);
    let here = std::env::current_exe().expect("a test has a file");
    let library = here.with_file_name("libucache.so");
    assert!(library.is_file(), "{} is missing: `cargo test --all-features` builds it", library.display());
    run(&Version { program, library });
}

/// uWSGI 2.0.31 from PyPI; `.ci/uwsgi-pypi` (`make deps`) builds it.
#[test]
fn pypi() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(".build/uwsgi-2.0.31");
    let version = Version { program: dir.join("uwsgi"), library: dir.join("plugin/ucache_plugin.so") };
    assert!(version.program.is_file(), "no {}: `make deps` builds it", version.program.display());
    run(&version);
}
