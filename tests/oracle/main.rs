//! The differential oracle: one script runs on uWSGI's own cache and on ucache, inside two real
//! uWSGIs, and every answer is compared.
//!
//! A seed generates the script, operation by operation, with two models: one of native, one of
//! ucache. A difference has a number (`src/docs/compat.md`), and both of its answers are predicted
//! exactly; diverged keys are deleted on both sides before long. So a rule permits one pair of
//! answers, not any. The script has its own time; now and then both servers are killed and
//! restarted.
//!
//! `UCACHE_ORACLE_OPS` (operations of each version, default 2,000,000), `UCACHE_ORACLE_BACKED_OPS`
//! (with a backend, default 150,000) and `UCACHE_SEED` choose another run.
#![cfg(feature = "uwsgi")]

mod answers;
#[path = "../support/backend.rs"]
mod backend;
mod blocks;
mod compare;
mod config;
mod host;
mod model;
mod native;
mod op;
mod pair;
#[path = "../support/patience.rs"]
mod patience;
mod script;
mod ucache;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use backend::Server;
use compare::Tally;
use config::Place;
use host::{Host, Version};
use model::Side;
use script::Script;

const CHUNK: usize = 20_000;
/// A long run reports its progress after this many operations.
const PROGRESS: u64 = 5_000_000;

/// The numbers of all differences in the models. A million operations show each of them.
const RULES: [u32; 21] = [1, 2, 3, 4, 5, 6, 7, 8, 31, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Runs the script on both and prints the table of differences. `backend`: options of ucache's
/// caches, whose values are at `place`.
fn run(version: &Version, ops: u64, place: Place, backend: &str) -> Tally {
    let seed = number("UCACHE_SEED", 1);
    eprintln!("{}: UCACHE_SEED={seed} UCACHE_ORACLE_OPS={ops}", version.program.display());
    let mut native = Host::start(Side::Native, version, "");
    let mut ucache = Host::start(Side::Ucache, version, backend);
    let (mut script, mut tally) = (Script::new(seed, place), Tally::default());
    let (mut steps, mut restart) = script.chunk(CHUNK);
    let mut shown = 0;
    while tally.steps < ops {
        native.send(steps.iter().map(|step| step.native_op));
        ucache.send(steps.iter().map(|step| step.op));
        // While they run it, the next chunk is generated.
        let next = script.chunk(CHUNK);
        let (n, u) = (native.answers(steps.len()), ucache.answers(steps.len()));
        for ((step, n), u) in steps.into_iter().zip(&n).zip(&u) {
            if let Err(report) = tally.compare(step, n, u) {
                panic!("UCACHE_SEED={seed}: {report}{}", ucache.complaints());
            }
        }
        if tally.steps / PROGRESS > shown {
            shown = tally.steps / PROGRESS;
            eprintln!("so far {}", tally.table());
        }
        if restart {
            native.restart();
            ucache.restart();
        }
        (steps, restart) = next;
    }
    eprintln!("{}: {}", version.program.display(), tally.table());
    tally
}

/// [`run`] without a backend.
fn run_locally(version: &Version) {
    let ops = number("UCACHE_ORACLE_OPS", 2_000_000);
    let tally = run(version, ops, Place::Region, "");
    if ops >= 1_000_000 {
        let idle: Vec<_> = RULES.iter().filter(|rule| !tally.rules.contains_key(rule)).collect();
        assert!(idle.is_empty(), "differences that did not show: {idle:?}");
    }
}

fn installed() -> Version {
    let program = std::env::var_os("UWSGI_BIN").map_or_else(|| PathBuf::from("uwsgi"), PathBuf::from);
    let here = std::env::current_exe().expect("a test has a file");
    let library = here.with_file_name("libucache.so");
    assert!(library.is_file(), "{} is missing: `cargo test --all-features` builds it", library.display());
    Version { program, library }
}

#[test]
fn installed_answers_differ_only_by_rule() {
    run_locally(&installed());
}

/// The values of ucache's caches are at a server. Time stands still, because the server's does not
/// follow the script's.
#[test]
fn answers_of_a_backend_differ_only_by_rule() {
    for (place, near) in [(Place::Server, 0), (Place::Near, 1)] {
        let server = Server::start();
        let ops = number("UCACHE_ORACLE_BACKED_OPS", 150_000);
        let backend = format!(",backend={},backend_timeout=20s,near={near}", server.url());
        let tally = run(&installed(), ops, place, &backend);
        assert!(tally.rules.contains_key(&62), "the limits of a local cache were met");
    }
}

/// uWSGI 2.0.31 from PyPI, with a plugin from the current sources.
#[test]
fn pypi_answers_differ_only_by_rule() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join(".build/uwsgi-2.0.31");
    let version = Version { program: dir.join("uwsgi"), library: dir.join("plugin/ucache_plugin.so") };
    assert!(version.program.is_file(), "no {}: `make deps` builds it", version.program.display());
    let built = Command::new(".ci/uwsgi-pypi").arg("plugin").current_dir(root).output();
    let built = built.expect(".ci/uwsgi-pypi runs");
    assert!(built.status.success(), ".ci/uwsgi-pypi: {}", String::from_utf8_lossy(&built.stderr));
    run_locally(&version);
}
